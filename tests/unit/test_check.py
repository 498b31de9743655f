"""Whether all pilots of a configuration compose: everything is found, and what is alike is tried once."""

from __future__ import annotations

import pytest

from pilotage.configuration import ConfigurationError, check, loads, pilots

SITES = """\
vos: {phys: {}, bio: {}}
sites:
  NORTH:
    resources:
      ce1: {type: local, flavour: LOCAL, queues: {long: {}, short: {}}}
      ce2:
        type: local
        flavour: LOCAL
        queues: {q: {pilot: {vos: {phys: %s}}}}
  SOUTH:
    resources:
      ce3:
        type: local
        flavour: LOCAL
        queues: {q: {pilot: {vos: {phys: %s}}}}
"""


def problems(one: str, other: str = "{}") -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        check(loads(SITES % (one, other), "site.yaml"))
    return [str(problem) for problem in caught.value.problems]


def test_the_same_mistake_in_two_places_is_told_twice() -> None:
    wrong = "{options: {RunJobAgent: {idle_secs: 1}}}"
    text = "unknown option of RunJobAgent 'idle_secs'; did you mean 'idle_seconds'?"
    assert problems(wrong, wrong) == [f"site.yaml:{line}:67: {text}" for line in (9, 15)]


@pytest.mark.parametrize(
    "part, sentence",
    [
        ("{commands: {append: [Absent]}}", "unknown command 'Absent'"),
        ("{options: {Absent: {x: 1}}}", "unknown command 'Absent'"),
        ("{options: {RunJobAgent: {idle_seconds: soon}}}", "must be a number, not 'soon'"),
        ("{options: {RunJobAgent: {idle_seconds: 1e999}}}", "must be a number, not inf"),
        ("{commands: []}", "no layer gives the pilot of flavour 'LOCAL' any commands"),
        ("{commands: {prepend: [RunJobAgent]}}", "would be in the list twice"),
    ],
)
def test_what_one_queue_says_for_one_vo_is_tried(part: str, sentence: str) -> None:
    """... although the pilots of all others, which are tried before, compose."""
    (found,) = problems("{tags: [near]}", part)
    assert found.startswith("site.yaml:15:") and sentence in found


def test_pilots_that_are_alike_are_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def compose(profile, toolboxes):
        made.append((profile["vo"], profile["queue"]))
        return "# digest: sha256:"

    monkeypatch.setattr(pilots, "compose", compose)
    check(loads(SITES % ("{tags: [near], log_mib: 3}", "{options: {RunJobAgent: {idle_seconds: 9}}}")))
    assert made == [("phys", "long"), ("bio", "long"), ("phys", "q")]


def test_a_final_value_that_is_misspelt_guards_nothing_and_is_refused() -> None:
    text = (
        "pilot:\n  final: [options.RunJobAgnt, options.RunJobAgent.idle, options.RunJobAgent.idle_seconds, options]\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        check(loads(text, "site.yaml"))
    assert [str(problem) for problem in caught.value.problems] == [
        "site.yaml:2:11: unknown command 'RunJobAgnt'; did you mean 'RunJobAgent'?",
        "site.yaml:2:31: unknown option of RunJobAgent 'idle'; did you mean 'hide'?",
    ]
    check(loads("pilot: {final: [options.InstallDIRAC.version]}"))  # of a toolbox that need not be there
