"""Merging is associative and knows who said what; whatever comes of it composes to the same bytes again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.interpreters import interpreters

from pilotage.configuration import loads, resolve, toolboxes
from pilotage.configuration.edits import EditError
from pilotage.configuration.layers import EMPTY, merge
from pilotage_node.compose import compose

NODE = Path(toolboxes.__file__).parents[3] / "node" / "src"

words = st.sampled_from("ABCDE")
edit = st.fixed_dictionaries(
    {},
    optional={
        "remove": st.lists(words, max_size=2),
        "replace": st.dictionaries(words, words, max_size=1),
        "insert": st.fixed_dictionaries({"after": words, "do": st.lists(words, min_size=1, max_size=2)}),
        "prepend": st.lists(words, max_size=2),
        "append": st.lists(words, max_size=2),
    },
).filter(bool)
listed = st.lists(words, unique=True, max_size=5) | edit | st.lists(edit, min_size=1, max_size=2)
values = st.none() | st.integers(0, 3)
pilot_parts = st.fixed_dictionaries(
    {},
    optional={
        "commands": listed,
        "tags": listed,
        "options": st.dictionaries(words, st.dictionaries(words, values, max_size=2), max_size=2),
        "limits": st.dictionaries(st.sampled_from(["cores", "gpus"]), values),
        "platform": values,
    },
)


def outcome(parts: list[dict[str, Any]]) -> Any:
    try:
        return merge([((number,), part) for number, part in enumerate(parts)]).values
    except EditError:
        return "refused"


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(st.lists(pilot_parts, min_size=3, max_size=5), st.data())
def test_merging_is_associative_edits_and_all(parts: list[dict[str, Any]], data: st.DataObject) -> None:
    """Any neighbours may be put together first: where both ways give a pilot, it is the same one."""
    first = data.draw(st.integers(0, len(parts) - 2))
    last = data.draw(st.integers(first + 2, len(parts)))
    inner = outcome(parts[first:last])
    if inner == "refused":
        return  # a group is refused for itself only when it holds a whole list and an edit that does not fit it
    assert outcome([*parts[:first], inner, *parts[last:]]) == outcome(parts)


@given(st.lists(pilot_parts, min_size=1, max_size=5))
def test_every_value_and_item_has_its_origin(parts: list[dict[str, Any]]) -> None:
    try:
        merged = merge([((number,), part) for number, part in enumerate(parts)])
    except EditError:
        return

    def at(path: tuple[Any, ...], source: Any) -> Any:
        for step in path:
            source = source[step]
        return source

    def leaves(value: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from leaves(inner, (*path, key))
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                yield from leaves(inner, (*path, index))
        else:
            yield path, value

    for path, value in leaves(merged.values, ()):
        assert at(merged.origin(path), parts) == value


@given(st.lists(pilot_parts, min_size=2, max_size=5))
def test_putting_a_layer_on_top_changes_nothing_below(parts: list[dict[str, Any]]) -> None:
    """Stacks are shared between thousands of profiles."""
    stack = EMPTY.over(((0,), parts[0]))
    before = json.dumps([stack.values, list(stack.origins.items()), stack.lists], default=str)
    above = stack
    for part in parts[1:]:
        above = above.over(((1,), part))
    assert json.dumps([stack.values, list(stack.origins.items()), stack.lists], default=str) == before


# --- composing


FLAVOURS = ["LOCAL", "CREAM", "CLOUD", "BOINC", "VAC", "ARC", "SLURM"]
configured = st.fixed_dictionaries(
    {},
    optional={
        "tags": st.lists(st.sampled_from(["x", "y", "z-1"]), unique=True),
        "platform": st.sampled_from(["x86_64-el9", "arm"]),
        "limits": st.dictionaries(st.sampled_from(["cores", "gpus", "memory_mib"]), st.integers(1, 10**6)),
        "options": st.fixed_dictionaries(
            {},
            optional={
                "RunJobAgent": st.fixed_dictionaries({"idle_seconds": st.floats(0, 1e9)}),
                "RunEnvironmentTest": st.fixed_dictionaries(
                    {
                        "systems": st.lists(st.text("aZ \u00e4\u4e2d\U0001f600\"'\\$`\n", max_size=4), max_size=3),
                        "min_disk_mib": st.integers(0, 2**53),
                    }
                ),
            },
        ),
        "commands": st.just({"append": ["RunExtra"]}).map(
            lambda _: {"remove": ["RunJobAgent"], "append": ["RunJobAgent"]}
        ),
    },
)
PROGRAM = """\
import json, sys
from pilotage_node.compose import compose
profiles, boxes = json.load(open(sys.argv[1]))
json.dump([compose(profile, boxes) for profile in profiles], sys.stdout)
"""


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(FLAVOURS), configured), min_size=5, max_size=12))
def test_any_profile_composes_to_the_same_bytes_twice_and_on_two_pythons(
    tmp_path: Path, wanted: list[tuple[str, dict[str, Any]]]
) -> None:
    boxes = [toolboxes.base(), toolboxes.core()]
    profiles = []
    for flavour, part in wanted:
        text = json.dumps({"vos": {"v": {"pilot": part}}}, ensure_ascii=False)
        once, again = (resolve(loads(text), "v", flavour=flavour) for _ in range(2))
        assert compose(once, boxes) == compose(again, boxes)
        profiles.append(once)
    (tmp_path / "input").write_text(json.dumps([profiles, boxes]))
    here = [compose(profile, boxes) for profile in profiles]
    for version, seed in (("3.6", "1"), ("3.13", "2")):
        told = subprocess.run(
            [interpreters()[version], "-c", PROGRAM, str(tmp_path / "input")],
            env={"PYTHONPATH": str(NODE), "PYTHONHASHSEED": seed, "LANG": "C"},
            capture_output=True,
        )
        assert told.returncode == 0, told.stderr.decode()
        assert json.loads(told.stdout) == here, version
