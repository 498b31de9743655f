"""Edits of lists: what they do, what they refuse, and that no item is ever lost or doubled."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.configuration.edits import EditError, apply, edits_of
from pilotage.configuration.parts import Edit

BASE = [(name, ("base", index)) for index, name in enumerate("ABCD")]


def names(edit: dict[str, Any]) -> str:
    return "".join(item for item, _ in apply(BASE, edit, ("edit",)))


@pytest.mark.parametrize(
    "edit, expected",
    [
        ({"remove": ["B", "D"]}, "AC"),
        ({"replace": {"B": "X"}}, "AXCD"),
        ({"replace": {"B": "X", "C": "B"}}, "AXBD"),
        ({"insert": {"before": "A", "do": ["X", "Y"]}}, "XYABCD"),
        ({"insert": {"after": "B", "do": ["X", "Y"]}}, "ABXYCD"),
        ({"insert": [{"after": "A", "do": ["X"]}, {"before": "X", "do": ["Y"]}]}, "AYXBCD"),
        ({"prepend": ["X", "Y"]}, "XYABCD"),
        ({"append": ["X", "Y"]}, "ABCDXY"),
        # the order is remove, replace, insert, prepend, append, however it is written
        (
            {
                "append": ["A"],
                "prepend": ["Y"],
                "insert": {"after": "X", "do": ["Z"]},
                "replace": {"B": "X"},
                "remove": ["A"],
            },
            "YXZCDA",
        ),
        ({"remove": ["A", "B", "C", "D"], "append": ["D"]}, "D"),
    ],
)
def test_what_an_edit_does(edit: dict[str, Any], expected: str) -> None:
    assert names(edit) == expected


@pytest.mark.parametrize(
    "edit, path, sentence",
    [
        ({"remove": ["A", "X"]}, ("edit", "remove", 1), "remove: there is no 'X' in the list"),
        ({"remove": ["A", "A"]}, ("edit", "remove", 1), "remove: there is no 'A' in the list"),
        ({"replace": {"X": "Y"}}, ("edit", "replace", "X"), "replace: there is no 'X'"),
        ({"replace": {"A": "B"}}, ("edit", "replace", "A"), "'B' would be in the list twice"),
        ({"insert": {"before": "X", "do": ["Y"]}}, ("edit", "insert", "before"), "insert before: there is no 'X'"),
        (
            {"insert": [{"after": "A", "do": ["Y"]}, {"after": "A", "do": ["Z", "Y"]}]},
            ("edit", "insert", 1, "do", 1),
            "'Y' would be in the list twice",
        ),
        ({"remove": ["B"], "insert": {"after": "B", "do": ["X"]}}, ("edit", "insert", "after"), "there is no 'B'"),
        ({"prepend": ["X", "X"]}, ("edit", "prepend", 1), "'X' would be in the list twice"),
        ({"append": ["D"]}, ("edit", "append", 0), "'D' would be in the list twice"),
    ],
)
def test_what_an_edit_refuses_and_where(edit: dict[str, Any], path: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(EditError) as caught:
        names(edit)
    assert sentence in str(caught.value)
    assert caught.value.path == path


def test_a_wrong_name_is_told_with_the_nearest() -> None:
    with pytest.raises(EditError, match="did you mean 'RunJobAgent'"):
        apply([("RunJobAgent", ())], {"remove": ["RunJobAgnet"]}, ())
    with pytest.raises(EditError, match=r"\(it has: nothing\)"):
        apply([], {"remove": ["RunJobAgent"]}, ())


def test_what_is_an_edit() -> None:
    assert edits_of(["A"]) is None and edits_of([]) is None
    assert edits_of({"append": ["A"]}) == [((), {"append": ["A"]})]
    assert edits_of([{"append": ["A"]}, {"remove": ["A"]}]) == [((0,), {"append": ["A"]}), ((1,), {"remove": ["A"]})]


items = st.sampled_from("ABCDEFGHIJ")
some = st.lists(items, max_size=3)
inserts = st.fixed_dictionaries({"before": items, "do": st.lists(items, min_size=1, max_size=3)}) | (
    st.fixed_dictionaries({"after": items, "do": st.lists(items, min_size=1, max_size=3)})
)
edits = st.fixed_dictionaries(
    {},
    optional={
        "remove": some,
        "replace": st.dictionaries(items, items, max_size=3),
        "insert": inserts | st.lists(inserts, max_size=3),
        "prepend": some,
        "append": some,
    },
)


@given(st.lists(items, unique=True, max_size=8), edits)
def test_edits_never_lose_or_double(start: list[str], edit: dict[str, Any]) -> None:
    """Each item is there once, whatever is done; what an edit does not name keeps its place among its like."""
    base = [(name, ("base", index)) for index, name in enumerate(start)]
    try:
        found = [item for item, _ in apply(base, edit, ("edit",))]
    except EditError:
        return  # refused whole; what is refused is tested above
    there = set(start) - set(edit.get("remove", ()))
    for old, new in edit.get("replace", {}).items():
        there = there - {old} | {new}
    added = edit.get("insert", [])
    for insert in [added] if isinstance(added, dict) else added:
        there |= set(insert["do"])
    there |= {*edit.get("prepend", ()), *edit.get("append", ())}
    assert sorted(found) == sorted(there)
    brought = {item for _, item in Edit.model_validate(edit).items()} if edit else set()
    untouched = [item for item in start if item in there and item not in brought]
    assert [item for item in found if item in untouched] == untouched


@given(st.lists(items, unique=True, max_size=8), edits)
def test_every_item_knows_who_said_it(start: list[str], edit: dict[str, Any]) -> None:
    data: dict[str, Any] = {"base": start, "edit": edit}
    try:
        found = apply([(name, ("base", index)) for index, name in enumerate(start)], edit, ("edit",))
    except EditError:
        return
    for item, path in found:
        value: Any = data
        for step in path:
            value = value[step]
        assert value == item
