"""The planner and the back-off: pure functions."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotage.directors.backoff import CANCELLED, NEVER_SUBMITTED, rest
from pilotage.directors.plan import Demand, Pilot, Policy, Submission, Supply, plan
from pilotage.wms.requirements import canonical
from pilotage_node import exitcodes

NOW = 1000.0


def demand(number=1, waiting=1, vo="demo", priority=0, since=0.0, owner="", **spec):
    return Demand(number, vo, waiting, canonical(spec), priority, since, owner)


def supply(queue="q", vo="demo", resource="r", site="S", **more):
    return Supply(site, resource, queue, vo, **more)


def pilot(state="Submitted", queue="q", vo="demo", resource="r", cores=1, room=None):
    return Pilot(vo, "S", resource, queue, state, cores, room)


def sent(demands, supplies, pilots=(), slots=None, **policy):
    return plan(demands, supplies, pilots, Policy({"r": slots}, **policy), NOW)


def test_one_pilot_a_job_by_cores():
    assert sent([demand(waiting=5)], [supply(cores=2)]) == [Submission("r", "q", "demo", 3)]
    assert sent([], [supply()]) == []
    assert sent([demand(waiting=0)], [supply()]) == []


def test_what_is_on_its_way_counts():
    on_way = [pilot("Planned", cores=2), pilot("Submitted", cores=2), pilot("Running", cores=2)]
    assert sent([demand(waiting=6)], [supply(cores=2)], on_way) == []
    assert sent([demand(waiting=7)], [supply(cores=2)], on_way) == [Submission("r", "q", "demo", 1)]


def test_pilots_of_other_resources_count_though_they_are_not_planned_for():
    others = [supply(resource="other")]
    assert sent([demand(waiting=2)], [supply(), *others], [pilot(resource="other")]) == [
        Submission("r", "q", "demo", 1)
    ]
    assert sent([demand(waiting=1)], [supply()], [pilot(resource="no longer configured")]) == []


def test_idle_room_of_running_pilots_counts_while_the_jobs_are_young():
    idle = [pilot("Running", cores=4, room=3)]
    assert sent([demand(waiting=3, since=NOW - 1)], [supply(cores=4)], idle) == []
    assert sent([demand(waiting=3, since=NOW - 31)], [supply(cores=4)], idle) == [Submission("r", "q", "demo", 1)]
    assert sent([demand(waiting=1, since=NOW)], [supply()], [pilot("Running", room=0)]) == [
        Submission("r", "q", "demo", 1)
    ]


@pytest.mark.parametrize(
    "spec, more, fits",
    [
        ({"cores": 4}, {"cores": 2}, False),
        ({"memory_mib": 4000}, {"memory_mib": 2000}, False),
        ({"memory_mib": 4000}, {"memory_mib": None}, True),
        ({"gpus": 1}, {}, False),
        ({"gpus": 1}, {"gpus": 1}, True),
        ({"wall_seconds": 3600}, {"seconds": 3540.0}, False),
        ({"wall_seconds": 3600}, {"seconds": 3600.0}, True),
        ({"tags": ["big"]}, {}, False),
        ({"tags": ["big"]}, {"tags": frozenset({"big", "fast"})}, True),
        ({"platform": "x86_64-el9"}, {"platform": "aarch64-el9"}, False),
        ({"platform": "x86_64-el9"}, {}, True),
        ({"sites": ["T"]}, {}, False),
        ({"sites": ["S", "T"]}, {}, True),
        ({"banned_sites": ["S"]}, {}, False),
        ({"isolation": "required"}, {}, True),
    ],
)
def test_only_pilots_that_can_run_the_jobs_are_sent(spec, more, fits):
    assert bool(sent([demand(**spec)], [supply(**more)])) == fits
    assert sent([demand(vo="other", **spec)], [supply(**more)]) == []


def test_memory_limits_how_many_jobs_a_pilot_takes():
    assert sent([demand(waiting=4, memory_mib=3000)], [supply(cores=8, memory_mib=6000)]) == [
        Submission("r", "q", "demo", 2)
    ]


def test_caps():
    many = [demand(waiting=1000)]
    assert sent(many, [supply()], slots=0) == []
    assert sent(many, [supply()], slots=7) == [Submission("r", "q", "demo", 7)]
    assert sent(many, [supply()], max_per_cycle=5) == [Submission("r", "q", "demo", 5)]
    assert sent(many, [supply(max_pilots=3)], [pilot("Running", room=0)]) == [Submission("r", "q", "demo", 2)]
    assert sent(many, [supply(max_waiting=3)], [pilot("Running", room=0), pilot()]) == [Submission("r", "q", "demo", 2)]
    assert sent(many, [supply()], rests={("r", "q", "demo"): 1}) == [Submission("r", "q", "demo", 1)]
    assert sent(many, [supply()], rests={("r", "q", "demo"): 0}) == []
    assert plan(many, [supply()], [], Policy({}), NOW) == []


def test_queues_are_filled_evenly():
    found = sent([demand(waiting=6)], [supply("a"), supply("b"), supply("c", max_waiting=1)])
    assert sum(s.count for s in found) == 6
    assert {s.queue: s.count for s in found}["c"] == 1
    assert abs(found[0].count - found[1].count) <= 1


def test_scarce_slots_go_by_share_and_priority_outranks_nobody_else():
    entrances = [supply(vo="a"), supply(vo="b")]
    jobs = [demand(1, 9, "a"), demand(2, 9, "b")]
    shares = {"a": 1.0, "b": 3.0}
    assert sent(jobs, entrances, slots=4, shares=shares) == [Submission("r", "q", "a", 1), Submission("r", "q", "b", 3)]
    urgent = [*jobs, demand(3, 3, "a", priority=5)]
    assert sent(urgent, entrances, slots=4, shares=shares) == sent(jobs, entrances, slots=4, shares=shares)
    busy = [pilot("Running", vo="b", room=0) for _ in range(9)]
    assert sent(jobs, entrances, busy, slots=3, shares=shares) == [Submission("r", "q", "a", 3)]


def test_scarce_slots_go_in_turns_to_owners_and_by_priority_within_one():
    queues = [supply("slow", tags=frozenset(["slow"])), supply("fast", tags=frozenset(["fast"]))]
    two = [demand(1, 9, owner="ann", tags=["slow"]), demand(2, 9, owner="bob", priority=9, tags=["fast"])]
    assert sent(two, queues, slots=1) == [Submission("r", "slow", "demo", 1)], "the older begins"
    assert [s.count for s in sent(two, queues, slots=4)] == [2, 2]
    mine = [demand(1, 9, owner="ann", tags=["slow"]), demand(2, 9, owner="ann", priority=1, tags=["fast"])]
    assert sent(mine, queues, slots=4) == [Submission("r", "fast", "demo", 4)]


cores = st.integers(1, 8)
vos = st.sampled_from(["a", "b"])
queues = st.sampled_from(["p", "q"])
demands = st.lists(
    st.builds(
        lambda vo, waiting, c, priority, since: (vo, waiting, c, priority, since),
        vos,
        st.integers(0, 30),
        cores,
        st.integers(0, 2),
        st.sampled_from([0.0, NOW]),
    ),
    max_size=5,
).map(lambda rows: [demand(n, w, vo, p, s, cores=c) for n, (vo, w, c, p, s) in enumerate(rows)])
caps = st.one_of(st.none(), st.integers(0, 20))
supplies = st.lists(
    st.builds(
        lambda q, vo, c, mp, mw: supply(q, vo, cores=c, max_pilots=mp, max_waiting=mw), queues, vos, cores, caps, caps
    ),
    unique_by=lambda s: s.key,
    max_size=4,
)
pilots = st.lists(
    st.builds(
        lambda state, q, vo, c, room: pilot(state, q, vo, cores=c, room=min(room, c) if state == "Running" else None),
        st.sampled_from(["Planned", "Submitted", "Running"]),
        queues,
        vos,
        cores,
        st.integers(0, 8),
    ),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(
    demands,
    supplies,
    pilots,
    caps,
    st.integers(1, 30),
    st.dictionaries(st.tuples(st.just("r"), queues, vos), st.integers(0, 3)),
)
def test_never_over_a_cap_and_never_more_than_the_demand(demands, supplies, pilots, slots, cycle, rests):
    policy = Policy({"r": slots}, max_per_cycle=cycle, rests=rests)
    found = plan(demands, supplies, pilots, policy, NOW)
    by_key = {s.key: s for s in supplies}
    total = sum(s.count for s in found)
    assert all(s.count > 0 for s in found)
    assert total <= cycle
    assert slots is None or total <= slots
    for submission in found:
        key = (submission.resource, submission.queue, submission.vo)
        assert submission.count <= rests.get(key, total)
        entrance = by_key[key]
        here = sum(s.count for s in found if s.queue == submission.queue)
        there = [p for p in pilots if p.queue == submission.queue]
        if entrance.max_pilots is not None:
            assert submission.count <= max(0, entrance.max_pilots - len(there))
        if entrance.max_waiting is not None:
            assert submission.count <= max(0, entrance.max_waiting - sum(p.state != "Running" for p in there))
        assert here >= submission.count
    for vo in ("a", "b"):
        assert sum(s.count for s in found if s.vo == vo) <= sum(d.waiting for d in demands if d.vo == vo)
    shuffled = [random.Random(1).sample(x, len(x)) for x in (demands, supplies, pilots)]
    assert plan(*shuffled, policy, NOW) == found


@settings(max_examples=150, deadline=None)
@given(demands, supplies, pilots, st.integers(1, 30))
def test_what_was_planned_is_not_planned_again(demands, supplies, pilots, cycle):
    """Planning again and again while nothing starts comes to rest, with at most one pilot a waiting job."""
    policy = Policy({"r": None}, max_per_cycle=cycle)
    by_key = {s.key: s for s in supplies}
    known, total = list(pilots), 0
    for _ in range(200):
        found = plan(demands, supplies, known, policy, NOW)
        if not found:
            break
        total += sum(s.count for s in found)
        for s in found:
            known += [pilot("Planned", s.queue, s.vo, cores=by_key[s.resource, s.queue, s.vo].cores)] * s.count
    assert found == []
    assert total <= sum(d.waiting for d in demands)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 200), cores, st.integers(0, 50))
def test_one_kind_of_jobs_and_pilots_is_planned_exactly(waiting, size, on_way):
    found = sent([demand(waiting=waiting)], [supply(cores=size)], [pilot(cores=size)] * on_way, max_per_cycle=10**6)
    assert sum(s.count for s in found) == max(0, -(-waiting // size) - on_way)


def ended(jobs=0, reason="", exit_code=0, registered=1.0, at=NOW, ordered=None):
    return {
        "jobs": jobs,
        "reason": reason,
        "exit_code": exit_code,
        "registered": registered,
        "ended": at,
        "ordered": ordered,
    }


def resting(rows, now=NOW, alive=()):
    return rest(rows, alive, now, empty_seconds=10.0, failed_seconds=15.0, longest=900.0)


def test_back_off():
    empty, good = ended(exit_code=exitcodes.NO_WORK), ended(jobs=3)
    failed = ended(exit_code=exitcodes.DISK)
    lost = ended(exit_code=None, registered=None, reason="never registered")
    assert resting([]).most is None
    assert resting([empty, good, empty, empty]).most is None
    assert (resting([empty, empty]).most, resting([empty, empty]).until) == (0, NOW + 10)
    assert resting([empty] * 4).until == NOW + 40
    assert resting([failed]).until == resting([lost]).until == NOW + 15
    assert resting([failed] * 50).until == NOW + 900
    assert resting([failed, good]).until == NOW + 15
    assert "2 pilots in a row failed" in resting([failed, failed]).why


def test_back_off_ends_with_one_probe():
    failed = ended(exit_code=exitcodes.DISK)
    assert resting([failed], NOW + 16).most == 1
    assert resting([failed], NOW + 16, [{"jobs": 0}]).most == 0
    assert resting([failed] * 5, NOW, [{"jobs": 1}, {"jobs": 0}]).most is None


def test_what_says_nothing_of_the_queue_is_no_reason_to_rest():
    rows = [
        ended(reason=NEVER_SUBMITTED, registered=None, exit_code=None),
        ended(reason=CANCELLED + " by its director", exit_code=None),
        ended(exit_code=exitcodes.DRAINED),
        ended(exit_code=exitcodes.NO_WORK, ordered="drain"),
    ]
    assert resting(rows).most is None
