"""The matcher: properties that hold for all task queues and nodes, and examples of each rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.wms.matching import MEASURES, acceptable, match
from pilotage.wms.requirements import canonical
from pilotage.wms.shares import Loads

SITES = ["A", "B", "C"]
TAGS = ["gpu", "himem", "ssd"]
PLATFORMS = ["x86_64-el9", "aarch64-el9"]
HOME = {"vo": "demo", "site": "A"}


def few(names: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), unique=True, max_size=2)


specs = st.fixed_dictionaries(
    {
        "cores": st.integers(1, 8),
        "memory_mib": st.none() | st.integers(1, 8000),
        "disk_mib": st.none() | st.integers(1, 8000),
        "gpus": st.integers(0, 2),
        "wall_seconds": st.integers(1, 7200),
        "tags": few(TAGS),
        "platform": st.none() | st.sampled_from(PLATFORMS),
        "sites": few(SITES),
        "banned_sites": few(SITES),
        "isolation": st.sampled_from(["required", "preferred", "none"]),
    }
)


@st.composite
def queue_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Task queues of a few VOs and owners."""
    return [
        {
            "id": number,
            "vo": draw(st.sampled_from(["demo", "demo", "other"])),
            "owner": draw(st.sampled_from(["ann", "bob", "cat"])),
            "priority": draw(st.integers(-2, 2)),
            "waiting": draw(st.integers(1, 100)),
            "requirements": canonical(draw(specs)),
        }
        for number in range(1, draw(st.integers(0, 8)) + 1)
    ]


@st.composite
def wants(draw: st.DrawFn) -> dict[str, Any]:
    """What a pilot asks for: some of a node is free."""
    total = {
        "cores": draw(st.integers(0, 16)),
        "memory_mib": draw(st.none() | st.integers(0, 16000)),
        "disk_mib": draw(st.none() | st.integers(0, 16000)),
        "gpus": draw(st.none() | st.integers(0, 4)),
    }
    free = {name: None if n is None else draw(st.integers(0, n)) for name, n in total.items()}
    return {
        **free,
        "total": total,
        "seconds_left": draw(st.none() | st.floats(0, 8000)),
        "ahead": draw(st.integers(0, 64)),
        "tags": draw(few(TAGS)),
        "platform": draw(st.sampled_from(PLATFORMS)),
        "isolation": draw(st.lists(st.sampled_from(["bwrap", "unshare", "none"]), unique=True, max_size=2)),
    }


usages = st.dictionaries(
    st.tuples(st.sampled_from(["demo", "other"]), st.sampled_from(["ann", "bob", "cat"])), st.floats(0, 1e9)
)


def fits_in(jobs: Iterable[dict[str, Any]], room: dict[str, Any]) -> bool:
    """Whether all these jobs fit side by side."""
    jobs = list(jobs)
    return all(sum(job[name] or 0 for job in jobs) <= (room[name] or 0) for name in MEASURES)


@settings(max_examples=150, deadline=None)
@given(queue_lists(), wants(), usages)
def test_a_pilot_gets_only_what_fits(queues: list[dict[str, Any]], want: dict[str, Any], usage: Any) -> None:
    chosen = match(queues, want, HOME, Loads(usage, {}))
    by_id = {queue["id"]: queue for queue in queues}
    assert len({number for number, _ in chosen}) == len(chosen)
    for number, n in chosen:
        queue = by_id[number]
        need = queue["requirements"]
        assert 0 < n <= queue["waiting"]
        assert queue["vo"] == "demo"
        assert not need["sites"] or "A" in need["sites"]
        assert "A" not in need["banned_sites"]
        assert set(need["tags"]) <= set(want["tags"])
        assert need["platform"] in (None, want["platform"])
        assert want["seconds_left"] is None or need["wall_seconds"] <= want["seconds_left"]
        assert not need["isolated"] or set(want["isolation"]) - {"none"}
        assert fits_in([need], want["total"])


@settings(max_examples=150, deadline=None)
@given(queue_lists(), wants(), usages)
def test_the_free_room_is_never_over_filled(queues: list[dict[str, Any]], want: dict[str, Any], usage: Any) -> None:
    by_id = {queue["id"]: queue["requirements"] for queue in queues}
    now = match(queues, {**want, "ahead": 0}, HOME, Loads(usage, {}))
    assert fits_in((by_id[number] for number, n in now for _ in range(n)), want)
    all_of_it = match(queues, want, HOME, Loads(usage, {}))
    assert sum(n for _, n in all_of_it) <= sum(n for _, n in now) + want["ahead"]


@settings(max_examples=150, deadline=None)
@given(queue_lists(), wants(), usages)
def test_nothing_that_fits_is_left_over(queues: list[dict[str, Any]], want: dict[str, Any], usage: Any) -> None:
    chosen = dict(match(queues, {**want, "ahead": 0}, HOME, Loads(usage, {})))
    left = {name: want[name] or 0 for name in MEASURES}
    for queue in queues:
        for name in MEASURES:
            left[name] -= chosen.get(queue["id"], 0) * (queue["requirements"][name] or 0)
    for queue in queues:
        if queue["waiting"] > chosen.get(queue["id"], 0) and acceptable(queue, want, HOME):
            assert not fits_in([queue["requirements"]], left)


@settings(max_examples=100, deadline=None)
@given(queue_lists(), wants(), usages, st.randoms())
def test_the_same_question_has_the_same_answer(
    queues: list[dict[str, Any]], want: dict[str, Any], usage: Any, rnd: Any
) -> None:
    shuffled = list(queues)
    rnd.shuffle(shuffled)
    loads = Loads(usage, {})
    first = match(queues, want, HOME, loads)
    assert match(shuffled, want, HOME, loads) == first, (
        "the order of the queues does not matter, and loads are not changed"
    )


def queue(number: int = 1, waiting: int = 10, owner: str = "ann", priority: int = 0, **spec: Any) -> dict[str, Any]:
    whole = {"id": number, "vo": "demo", "owner": owner, "priority": priority, "waiting": waiting}
    return {**whole, "requirements": canonical(spec)}


def want(cores: int = 4, ahead: int = 0, **values: Any) -> dict[str, Any]:
    total = {"cores": cores, "memory_mib": 8000, "disk_mib": 8000, "gpus": 0}
    more = {"seconds_left": None, "tags": [], "platform": "x86_64-el9", "isolation": []}
    return {**total, "ahead": ahead, "total": total, **more, **values}


NOBODY = Loads({}, {})


def test_the_more_urgent_comes_first_among_ones_own() -> None:
    queues = [queue(1), queue(2, priority=1, waiting=3), queue(3, priority=-1)]
    assert match(queues, want(4), HOME, NOBODY) == [(2, 3), (1, 1)]


def test_priority_outranks_nobody_else() -> None:
    queues = [queue(1, owner="bob"), queue(2, owner="ann", priority=10**6)]
    assert match(queues, want(4), HOME, Loads({("demo", "ann"): 1e6}, {})) == [(1, 4)]
    assert dict(match(queues, want(4), HOME, NOBODY)) == {1: 2, 2: 2}
    assert match(queues, want(1), HOME, NOBODY) == [(1, 1)], "between equals the oldest queue decides"


@settings(max_examples=100, deadline=None)
@given(queue_lists(), wants(), usages)
def test_what_an_owner_gets_does_not_depend_on_priorities(
    queues: list[dict[str, Any]], want: dict[str, Any], usage: Any
) -> None:
    alike = [{**queue, "requirements": canonical({})} for queue in queues]
    owners = {queue["id"]: queue["owner"] for queue in queues}

    def each(some: list[dict[str, Any]]) -> Counter[str]:
        found: Counter[str] = Counter()
        for number, n in match(some, want, HOME, Loads(usage, {})):
            found[owners[number]] += n
        return found

    assert each(alike) == each([{**queue, "priority": 0} for queue in alike])


def test_owners_take_turns() -> None:
    queues = [queue(1, owner="ann"), queue(2, owner="bob")]
    assert match(queues, want(4), HOME, NOBODY) == [(1, 2), (2, 2)]


def test_an_owner_with_twice_the_share_gets_twice_as_much() -> None:
    queues = [queue(1, owner="ann", waiting=50), queue(2, owner="bob", waiting=50)]
    chosen = match(queues, want(30), HOME, Loads({}, {"demo": {"owners": {"bob": 2}}}))
    assert dict(chosen) == {1: 10, 2: 20}


def test_who_used_much_waits_until_the_other_has_caught_up() -> None:
    queues = [queue(1, owner="ann"), queue(2, owner="bob", waiting=3)]
    loads = Loads({("demo", "ann"): 2.5 * 3600}, {})
    assert dict(match(queues, want(4), HOME, loads)) == {2: 3, 1: 1}


def test_small_jobs_fill_what_a_large_one_leaves() -> None:
    queues = [queue(1, cores=3, priority=5), queue(2, cores=1)]
    assert match(queues, want(4), HOME, NOBODY) == [(1, 1), (2, 1)]


def test_jobs_ahead_fit_the_empty_node_not_what_is_free() -> None:
    busy = want(4, ahead=5)
    busy["cores"] = 0
    assert match([queue(1, cores=4)], busy, HOME, NOBODY) == [(1, 5)]
    assert match([queue(1, cores=5)], busy, HOME, NOBODY) == []
    assert match([queue(1, waiting=1000)], {**busy, "ahead": 1000}, HOME, NOBODY) == [(1, 64)]


def test_what_was_granted_and_not_heard_of_counts() -> None:
    need = canonical({})
    assert match([queue()], want(4, ahead=3), HOME, NOBODY, [need] * 2) == [(1, 5)]
    assert match([queue()], want(4, ahead=3), HOME, NOBODY, [need] * 6) == [(1, 1)]
    assert match([queue()], want(4, ahead=3), HOME, NOBODY, [need] * 9) == []


@pytest.mark.parametrize(
    ("spec", "values", "fits"),
    [
        ({"tags": ["gpu"]}, {"tags": ["gpu", "ssd"]}, True),
        ({"tags": ["gpu"]}, {"tags": ["ssd"]}, False),
        ({"sites": ["A"]}, {}, True),
        ({"sites": ["B"]}, {}, False),
        ({"banned_sites": ["A"]}, {}, False),
        ({"platform": "aarch64-el9"}, {}, False),
        ({"wall_seconds": 100}, {"seconds_left": 99.0}, False),
        ({"wall_seconds": 100}, {"seconds_left": 100.0}, True),
        ({"wall_seconds": 10**8}, {"seconds_left": None}, True),
        ({"isolation": "required"}, {"isolation": []}, False),
        ({"isolation": "required"}, {"isolation": ["none"]}, False),
        ({"isolation": "required"}, {"isolation": ["bwrap"]}, True),
        ({"isolation": "preferred"}, {"isolation": []}, True),
        ({"gpus": 1}, {}, False),
        ({"memory_mib": 8001}, {}, False),
        ({"memory_mib": 8000}, {}, True),
        ({"memory_mib": 1}, {"memory_mib": None}, False),
    ],
)
def test_each_requirement(spec: dict[str, Any], values: dict[str, Any], fits: bool) -> None:
    assert bool(match([queue(**spec)], want(**values), HOME, NOBODY)) == fits


def test_a_pilot_of_another_vo_gets_nothing() -> None:
    assert match([queue()], want(), {"vo": "other", "site": "A"}, NOBODY) == []


def test_a_thousand_queues_and_a_large_node_are_no_trouble() -> None:
    queues = [queue(n, owner=f"owner{n % 50}", waiting=100, wall_seconds=n) for n in range(1, 1001)]
    chosen = match(queues, want(128, ahead=64), HOME, NOBODY)
    assert sum(n for _, n in chosen) == 192
