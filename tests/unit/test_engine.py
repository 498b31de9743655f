"""The built-in engine: synchronisations as pilots have them. The same tests run on PostgreSQL (tests/real)."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from sqlalchemy import event
from storage_parts import SECRET, Clock, FakePilot, counts, pilot_of, recent, spec

from pilotage.engines.builtin import BuiltinEngine, Settings
from pilotage.storage import Storage, events, jobs, leases, pilots
from pilotage.storage.errors import Ended, Expired, Stale, StampUsed, Unknown

pytest_plugins = ["storage_fixtures"]


@pytest.fixture
async def engine(storage: Storage) -> BuiltinEngine:
    made = BuiltinEngine(storage, b"k" * 32, Settings(half_life=3600.0))
    await made.start()
    return made


async def test_the_life_of_a_job(engine: BuiltinEngine, clock: Clock) -> None:
    (job,) = await engine.submit("demo", "ann", [spec(command=["echo", "hi"])], "req")
    assert [(queue["owner"], queue["waiting"]) for queue in await engine.demand()] == [("ann", 1)]
    pilot = await pilot_of(engine)
    answer = await pilot.sync()
    (grant,) = answer["granted"]
    assert answer["hold"] == [grant["lease"]]
    assert (grant["job"], grant["attempt"], grant["spec"]["command"]) == (job, 1, ["echo", "hi"])
    assert set(grant) == {"lease", "job", "attempt", "token", "spec"}
    assert answer["again_seconds"] < engine.settings.sync_seconds
    clock.time += 1
    pilot.report(lease=grant["lease"], state="Running")
    answer = await pilot.sync()
    assert answer["hold"] == [grant["lease"]] and not answer["granted"]
    assert await counts(engine) == {"Running": 1}
    clock.time += 1
    pilot.end(grant["lease"])
    answer = await pilot.sync()
    assert answer["hold"] == [] and not pilot.reports
    assert answer["again_seconds"] == engine.settings.sync_seconds
    row = await engine.storage.read(jobs.get, job)
    assert row is not None
    assert (row["state"], row["started"], row["ended"]) == ("Done", clock.time - 1, clock.time)
    seen = await engine.storage.read(pilots.get, "p1")
    assert seen is not None
    assert (seen["jobs"], seen["done"], seen["phase"], seen["seen"]) == (1, 1, "RunJobAgent", clock.time)
    trail = [(item["what"], item["who"]) for item in await engine.storage.read(events.of, "job", str(job))]
    assert trail == [("Waiting", "ann"), ("Matched", "p1"), ("Running", "p1"), ("Done", "p1")]


async def test_a_pilot_gets_what_it_has_room_for(engine: BuiltinEngine) -> None:
    await engine.submit("demo", "ann", [spec()] * 20)
    pilot = await pilot_of(engine, cores=2, ahead=3)
    assert len((await pilot.sync())["granted"]) == 5
    assert pilot.want is not None
    pilot.want |= {"cores": 0, "ahead": 0}
    assert (await pilot.sync())["granted"] == []
    pilot.want = None
    assert (await pilot.sync())["granted"] == []
    assert await counts(engine) == {"Waiting": 15, "Matched": 5}


async def test_another_vo_gets_nothing(engine: BuiltinEngine) -> None:
    await engine.submit("other", "eve", [spec()])
    assert (await (await pilot_of(engine)).sync())["granted"] == []


async def test_what_is_granted_and_not_heard_of_is_granted_again(engine: BuiltinEngine) -> None:
    await engine.submit("demo", "ann", [spec()] * 10)
    pilot = await pilot_of(engine, cores=2, ahead=1)
    lost = await pilot.sync(lost=True)
    assert len(lost["granted"]) == 3
    for repeat in (True, False):
        again = await pilot.sync(repeat=repeat, lost=True)
        assert again["granted"] == lost["granted"], "the same leases, and no more: they count against the wish"
    await pilot.sync()
    assert pilot.want is not None
    pilot.want |= {"cores": 0, "ahead": 0}
    assert (await pilot.sync())["granted"] == []
    assert await counts(engine) == {"Waiting": 7, "Matched": 3}


async def test_a_result_whose_answer_was_lost_is_recorded_once(engine: BuiltinEngine) -> None:
    (job,) = await engine.submit("demo", "ann", [spec()])
    pilot = await pilot_of(engine)
    (grant,) = (await pilot.sync())["granted"]
    pilot.end(grant["lease"])
    for repeat in (False, True, True):
        answer = await pilot.sync(lost=True, repeat=repeat)
        assert answer["acknowledged"] == [report["id"] for report in pilot.reports]
        assert answer["hold"] == []
    trail = [item["what"] for item in await engine.storage.read(events.of, "job", str(job))]
    assert trail == ["Waiting", "Matched", "Done"]


async def test_an_older_request_is_refused(engine: BuiltinEngine) -> None:
    pilot = await pilot_of(engine)
    await pilot.sync()
    await pilot.sync()
    pilot.sequence = 0
    with pytest.raises(Stale):
        await pilot.sync()


async def test_who_may_speak(engine: BuiltinEngine, clock: Clock) -> None:
    pilot = await FakePilot(engine, "p1").plan()
    with pytest.raises(Unknown):
        await pilot.sync()
    with pytest.raises(Unknown):
        await pilot.register(secret="guess")
    with pytest.raises(Unknown):
        await FakePilot(engine, "nobody").sync()
    first = await pilot.register()
    assert first["state"] == "Running" and await pilot.register() == first
    with pytest.raises(StampUsed):
        await pilot.register(nonce="second start")
    late = await FakePilot(engine, "late").plan(secret_expires=clock.time)
    with pytest.raises(Expired):
        await late.register()
    await engine.storage.write(pilots.end, "p1", "Aborted", clock.time, reason="cancelled")
    with pytest.raises(Ended):
        await pilot.sync()


async def test_killing_a_job_at_a_pilot(engine: BuiltinEngine) -> None:
    ids = await engine.submit("demo", "ann", [spec()] * 3)
    pilot = await pilot_of(engine)
    await pilot.sync()
    killed = await engine.kill(ids, "ann", "wrong input")
    assert killed == {"killed": [ids[2]], "ordered": ids[:2], "ended": [], "unknown": []}
    for _ in range(2):
        answer = await pilot.sync()
        wanted = [{"order": "kill", "lease": lease, "reason": "wrong input"} for lease in pilot.held]
        assert answer["orders"] == wanted, "repeated until it is done"
    first, second = list(pilot.held)
    pilot.end(first, "Killed", "killed", exit_code=None, signal=9)
    pilot.end(second)  # it ended by itself before the order came: that is the truth
    assert (await pilot.sync())["orders"] == []
    assert await counts(engine) == {"Killed": 2, "Done": 1}


@pytest.mark.parametrize("order", ["drain", "kill"])
async def test_an_ordered_pilot_gets_no_more_jobs(engine: BuiltinEngine, clock: Clock, order: str) -> None:
    await engine.submit("demo", "ann", [spec()] * 5)
    pilot = await pilot_of(engine)
    await pilot.sync()
    await engine.storage.write(pilots.order, ["p1"], order, clock.time, who="admin")
    answer = await pilot.sync()
    assert answer["orders"] == [{"order": order}]
    assert answer["granted"] == [] and len(answer["hold"]) == 2
    for lease in list(pilot.held):
        pilot.end(lease, "Returned", "drained")
    await pilot.sync()
    assert await counts(engine) == {"Waiting": 5}


async def test_the_end_of_a_pilot(engine: BuiltinEngine, clock: Clock) -> None:
    await engine.submit("demo", "ann", [spec(), spec(), spec(retries=0)])
    pilot = await pilot_of(engine, cores=3)
    await pilot.sync()
    first = next(iter(pilot.held))
    pilot.end(first)
    pilot.report("command", name="RunJobAgent", index=2, outcome="done", code=0, message="", seconds=1.0, tail=[])
    pilot.report("pilot", exit_code=0, reason="no work", usage={"wall": 9.0})
    last = await pilot.sync(lost=True)
    assert last["hold"] == last["granted"] == last["orders"] == []
    assert await counts(engine) == {"Done": 1, "Waiting": 1, "Failed": 1}, "what it says nothing of may have run"
    clock.time += 5
    again = await pilot.sync(repeat=True)
    assert again["acknowledged"] == last["acknowledged"], "its last words may be repeated"
    await pilot.sync()  # the end of its log
    row = await engine.storage.read(pilots.get, "p1")
    assert row is not None
    assert (row["state"], row["exit_code"], row["reason"], row["usage"]) == ("Done", 0, "no work", {"wall": 9.0})
    assert [item["name"] for item in await engine.storage.read(pilots.commands, "p1")] == ["RunJobAgent"]
    clock.time += engine.settings.lease_seconds
    with pytest.raises(Ended):
        await pilot.sync()


async def test_a_failed_pilot(engine: BuiltinEngine) -> None:
    pilot = await pilot_of(engine)
    pilot.report("pilot", exit_code=70, reason="no Python", usage={})
    await pilot.sync()
    row = await engine.storage.read(pilots.get, "p1")
    assert row is not None and (row["state"], row["exit_code"]) == ("Failed", 70)


async def test_a_pilot_that_was_drained_is_done(engine: BuiltinEngine) -> None:
    pilot = await pilot_of(engine)
    pilot.report("pilot", exit_code=50, reason="drained", usage={})
    await pilot.sync()
    row = await engine.storage.read(pilots.get, "p1")
    assert row is not None and (row["state"], row["exit_code"], row["reason"]) == ("Done", 50, "drained")


async def test_owners_share_across_pilots_and_time(engine: BuiltinEngine, clock: Clock) -> None:
    """Ann has all her jobs in first, bob comes later: he catches up, then they take turns."""
    await engine.submit("demo", "ann", [spec(wall_seconds=60)] * 40)
    pilot = await pilot_of(engine, cores=4)
    owners: list[str] = []
    for step in range(12):
        if step == 2:
            await engine.submit("demo", "bob", [spec(wall_seconds=60)] * 40)
        await pilot.sync()
        for lease in list(pilot.held):
            job = pilot.held[lease]["job"]
            owners.append("ann" if job <= 40 else "bob")
            pilot.end(lease, wall_seconds=10.0)
        clock.time += 10
    later = Counter(owners[8:])
    assert sum(later.values()) == 40
    assert 20 <= later["bob"] <= 28, "bob catches up with the eight that ann had before, then it is half and half"
    assert Counter(owners[-8:]) == {"ann": 4, "bob": 4}


async def test_back_pressure(engine: BuiltinEngine) -> None:
    pilot = await pilot_of(engine)
    message = {"sequence": 1, "held": [], "reports": [], "want": None, "log": None, "beat": {}}
    answer = await engine.sync(pilot.stamp, message, again_seconds=33.0)
    assert answer["again_seconds"] == 33.0


async def test_the_token_of_a_job_dies_with_its_lease(engine: BuiltinEngine, clock: Clock) -> None:
    (job,) = await engine.submit("demo", "ann", [spec()])
    pilot = await pilot_of(engine)
    (grant,) = (await pilot.sync())["granted"]
    token = grant["token"]
    found = await engine.check_job_token(token)
    assert found is not None and (found["job"], found["vo"], found["pilot"]) == (job, "demo", "p1")
    other = BuiltinEngine(engine.storage, b"x" * 32)
    for forged in (token[:-1] + "0g"[token[-1] == "0"], grant["lease"], grant["lease"] + ".", "", ".", "é.ü", SECRET):
        assert await engine.check_job_token(forged) is None
    assert await other.check_job_token(token) is None, "another service's key"
    clock.time += 181
    assert await engine.check_job_token(token) is None, "the lease is over"
    clock.time -= 181
    pilot.end(grant["lease"])
    await pilot.sync()
    assert await engine.check_job_token(token) is None


async def test_the_number_of_statements_does_not_grow_with_the_jobs(engine: BuiltinEngine) -> None:
    """What a job costs is kept low by few statements for many rows: a bound on round trips, whatever the machine."""
    await engine.submit("demo", "ann", [spec()] * 200)
    pilot = await pilot_of(engine, cores=4, ahead=60)
    writing = engine.storage._writing
    assert writing is not None
    statements: list[str] = []

    @event.listens_for(writing, "before_cursor_execute")
    def count(_conn: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)

    await pilot.sync()
    for lease in list(pilot.held):
        pilot.end(lease)
    statements.clear()
    answer = await pilot.sync()
    assert len(answer["granted"]) == len(answer["acknowledged"]) == 64
    assert len(statements) <= 16, "\n".join(statements)


async def test_ten_thousand_jobs_through_four_pilots(engine: BuiltinEngine) -> None:
    """All done, none twice: from the database's own records."""
    n = 10_000
    ids = await engine.submit("demo", "ann", [spec(name=str(number)) for number in range(n)], "all")

    async def run(stamp: str) -> None:
        pilot = await pilot_of(engine, stamp, cores=4, ahead=60)
        while True:
            answer = await pilot.sync()
            for lease in list(pilot.held):
                pilot.end(lease, wall_seconds=0.01)
            if not answer["granted"] and not pilot.reports and await counts(engine) == {"Done": n}:
                return

    await asyncio.gather(*(run(f"p{number}") for number in range(4)))
    assert await counts(engine) == {"Done": n}
    seen = await engine.storage.read(pilots.search)
    assert sum(pilot["done"] for pilot in seen) == n and all(pilot["done"] for pilot in seen)
    trail: Counter[tuple[str, str]] = Counter()
    after = 0
    while some := await engine.storage.read(recent, kind="job", after=after, limit=20_000):
        after = some[-1]["id"]
        trail.update((item["subject"], item["what"]) for item in some)
    assert trail == Counter({(str(job), what): 1 for job in ids for what in ("Waiting", "Matched", "Done")})
    assert await engine.storage.read(leases.held, "p0") == []
