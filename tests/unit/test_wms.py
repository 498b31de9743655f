"""The pure rules: life cycles, requirements, fair share, retries."""

from __future__ import annotations

import doctest
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.wms import jobs, leases, matching, pilots, requirements, shares
from pilotage_node import exitcodes, meanings


@pytest.mark.parametrize("module", [jobs, leases, pilots, requirements, shares, matching], ids=lambda m: m.__name__)
def test_examples_in_the_docstrings(module: object) -> None:
    names = {"canonical": requirements.canonical}
    assert doctest.testmod(module, extraglobs=names).failed == 0  # type: ignore[arg-type]


def test_a_job_that_ended_stays_ended() -> None:
    for state in jobs.ENDED:
        assert all(jobs.next_state(state, wanted) is None for wanted in jobs.STATES)


def test_each_state_of_a_job_can_be_reached_and_left_unless_it_is_an_end() -> None:
    reached = {jobs.WAITING}
    for _ in jobs.STATES:
        reached |= {after for state in reached for after in jobs.TRANSITIONS[state]}
    assert reached == set(jobs.STATES)
    assert all(jobs.TRANSITIONS[state] for state in jobs.STATES if state not in jobs.ENDED)


def test_only_a_lost_pilot_comes_back() -> None:
    assert pilots.next_state("Aborted", "Running", pilots.LOST) == "Running"
    assert pilots.next_state("Aborted", "Running", "cancelled") is None
    assert pilots.next_state("Done", "Running") is None
    assert pilots.next_state("Planned", "Running") == "Running", "it may start before its director knows of it"


def test_a_pilot_without_work_or_sent_home_has_not_failed() -> None:
    done = {code for code in meanings.TABLE if pilots.end_state(code) == pilots.DONE}
    assert done == {exitcodes.OK, exitcodes.NO_WORK, exitcodes.DRAINED, exitcodes.OUT_OF_TIME}
    assert pilots.end_state(None) == pilots.end_state(9) == pilots.FAILED, "a code outside the table is no success"


@given(attempt=st.integers(1, 100), retries=st.integers(0, 100))
def test_a_lost_job_starts_at_most_once_more_than_its_retries(attempt: int, retries: int) -> None:
    state, reason = leases.aftermath(leases.LOST, attempt, retries, None)
    assert (state, reason) == (("Waiting", "") if attempt <= retries else ("Failed", "lost"))


@given(attempt=st.integers(1, 100), retries=st.integers(0, 100))
def test_a_returned_job_waits_again_and_uses_no_retry(attempt: int, retries: int) -> None:
    assert leases.aftermath(leases.RETURNED, attempt, retries, None) == ("Waiting", "")
    assert leases.attempts(leases.RETURNED, attempt) == attempt - 1


@pytest.mark.parametrize("outcome", [leases.LOST, leases.RETURNED])
def test_a_job_with_a_kill_order_never_waits_again(outcome: str) -> None:
    assert leases.aftermath(outcome, 1, 5, "wrong input") == ("Killed", "killed")


def test_a_job_cut_short_by_a_leaving_pilot_was_lost_not_failed() -> None:
    assert leases.ended_as("Failed", "drained") == leases.LOST
    assert leases.ended_as("Failed", "exit") == "Failed"
    assert leases.ended_as("Killed", "killed") == "Killed"


def test_requirements_do_not_depend_on_how_they_are_written() -> None:
    one = requirements.canonical({"tags": ["b", "a"], "sites": [], "cores": 1, "command": ["x"]})
    two = requirements.canonical({"tags": ["a", "b", "a"], "memory_mib": None, "platform": ""})
    assert one == two
    assert requirements.queue_hash("v", "o", 0, one) == requirements.queue_hash("v", "o", 0, two)
    assert requirements.canonical({"isolation": "required"})["isolated"]
    assert not requirements.canonical({"isolation": "preferred"})["isolated"]


@given(st.lists(st.sampled_from(["gpu", "himem", "ssd", "a"]), max_size=6), st.randoms())
def test_the_hash_does_not_depend_on_order(tags: list[str], rnd: random.Random) -> None:
    shuffled = list(tags)
    rnd.shuffle(shuffled)
    hashes = {requirements.queue_hash("v", "o", 0, requirements.canonical({"tags": some})) for some in (tags, shuffled)}
    assert len(hashes) == 1


def test_the_hash_tells_vo_owner_priority_and_every_requirement_apart() -> None:
    plain = requirements.canonical({})
    others = [
        {"cores": 2},
        {"memory_mib": 1},
        {"disk_mib": 1},
        {"gpus": 1},
        {"wall_seconds": 1},
        {"tags": ["t"]},
        {"platform": "p"},
        {"sites": ["s"]},
        {"banned_sites": ["s"]},
        {"isolation": "required"},
    ]
    hashes = [requirements.queue_hash("v", "o", 0, requirements.canonical(other)) for other in others]
    hashes += [requirements.queue_hash(vo, owner, n, plain) for vo, owner, n in
               [("v", "o", 0), ("w", "o", 0), ("v", "p", 0), ("v", "o", 1)]]  # fmt: skip
    assert len(set(hashes)) == len(others) + 4
    keys = {requirements.key(other) for other in others}
    assert len(keys) == len(others)


@given(value=st.floats(0, 1e12), first=st.floats(0, 1e7), second=st.floats(0, 1e7), life=st.floats(1, 1e7))
def test_use_fades_in_two_steps_as_in_one(value: float, first: float, second: float, life: float) -> None:
    twice = shares.decayed(shares.decayed(value, first, life), second, life)
    assert twice == pytest.approx(shares.decayed(value, first + second, life), rel=1e-6, abs=1e-9)


def test_shares_of_vos_and_owners() -> None:
    table = {"a": 3, "b": {"share": 2, "owners": {"ann": 5}}}
    assert shares.share_of(table, "a") == 3
    assert shares.share_of(table, "a", "ann") == 1
    assert shares.share_of(table, "b") == 2
    assert shares.share_of(table, "b", "ann") == 5
    assert shares.share_of(table, "b", "bob") == 1
    assert shares.share_of(table, "c") == 1


def test_who_used_less_of_a_share_comes_first() -> None:
    loads = shares.Loads({("v", "ann"): 100.0, ("v", "bob"): 150.0}, {"v": {"share": 1, "owners": {"bob": 2}}})
    assert loads.rank("v", "bob") < loads.rank("v", "ann")
    loads.charge("v", "bob", 100.0)
    assert loads.rank("v", "ann") < loads.rank("v", "bob")
    assert loads.rank("w", "new") < loads.rank("v", "ann"), "a VO that used nothing comes before all"
