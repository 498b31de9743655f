"""The engine when things go wrong: silence, downtime, clocks, lost answers. The same tests run on PostgreSQL."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from storage_parts import Clock, FakePilot, counts, pilot_of, spec

from pilotage.engines.builtin import BuiltinEngine, Settings
from pilotage.storage import Storage, events, files, jobs, leases, pilots, usage
from pilotage.storage.clock import Clock as ServiceClock
from pilotage.storage.errors import Ended
from pilotage.storage.objects import Objects, file_key, log_key, output_key

pytest_plugins = ["storage_fixtures"]


@pytest.fixture
async def engine(storage: Storage) -> BuiltinEngine:
    made = BuiltinEngine(storage, b"k" * 32, Settings(purge_seconds=1e9))
    made._purged = storage.now()  # these tests have no object store
    await made.start()
    return made


async def test_a_silent_pilot_loses_its_jobs_and_may_come_back(engine: BuiltinEngine, clock: Clock) -> None:
    ids = await engine.submit("demo", "ann", [spec(retries=1), spec(retries=0)])
    pilot = await pilot_of(engine)
    await pilot.sync()
    kept, gone = pilot.held
    clock.time += engine.settings.lease_seconds + engine.settings.margin - 1
    assert await engine.housekeeping() == {"pilots_lost": 0, "leases_lost": 0}
    clock.time += 2
    assert await engine.housekeeping() == {"pilots_lost": 1, "leases_lost": 2}
    assert await counts(engine) == {"Waiting": 1, "Failed": 1}
    row = await engine.storage.read(pilots.get, "p1")
    assert row is not None and (row["state"], row["reason"]) == ("Aborted", "lost")

    pilot.end(kept)
    pilot.want = None
    answer = await pilot.sync()
    assert answer["hold"] == [] and not pilot.held, "what it still runs of the lost ones it ends"
    assert not pilot.reports, "acknowledged, so that it does not come again"
    assert await counts(engine) == {"Waiting": 1, "Failed": 1}, "and refused"
    assert (await engine.storage.read(events.of, "job", str(ids[0])))[-1]["what"] == "refused"
    row = await engine.storage.read(pilots.get, "p1")
    assert row is not None and (row["state"], row["reason"], row["ended"]) == ("Running", "", None)
    pilot.want = FakePilot(engine, "p1").want
    (grant,) = (await pilot.sync())["granted"]
    assert (grant["job"], grant["attempt"]) == (ids[0], 2)
    assert grant["lease"] not in (kept, gone)


async def test_a_lease_that_its_pilot_never_speaks_of_expires(engine: BuiltinEngine, clock: Clock) -> None:
    """A pilot that beats on, whose agent is gone, does not keep a job for ever."""
    await engine.submit("demo", "ann", [spec()])
    pilot = await pilot_of(engine)
    await pilot.sync(lost=True)
    pilot.want = None
    for _ in range(20):
        clock.time += 10
        await pilot.sync(lost=True)
        await engine.housekeeping()
    assert await counts(engine) == {"Waiting": 1}


async def test_a_beating_pilot_keeps_its_leases(engine: BuiltinEngine, clock: Clock) -> None:
    await engine.submit("demo", "ann", [spec(retries=0)])
    pilot = await pilot_of(engine)
    await pilot.sync()
    for _ in range(100):
        clock.time += engine.settings.lease_seconds - 1
        await engine.housekeeping()
        await pilot.sync()
    assert len(pilot.held) == 1
    assert await counts(engine) == {"Matched": 1}


@pytest.mark.parametrize("down", [1.0, 240.0, 7 * 86400.0, -3 * 86400.0])
async def test_leases_do_not_count_while_the_service_is_down(engine: BuiltinEngine, clock: Clock, down: float) -> None:
    """However long it was, and wherever the wall clock was set meanwhile."""
    await engine.submit("demo", "ann", [spec(retries=0)])
    pilot = await pilot_of(engine)
    await pilot.sync()
    clock.time += 100
    await engine.beat()
    clock.time += down
    later = BuiltinEngine(engine.storage, b"k" * 32, engine.settings)
    later._purged = clock.time
    await later.start()
    assert await later.housekeeping() == {"pilots_lost": 0, "leases_lost": 0}
    clock.time += engine.settings.lease_seconds - 1
    assert await later.housekeeping() == {"pilots_lost": 0, "leases_lost": 0}, "a whole term to come back in"
    pilot.end(next(iter(pilot.held)))
    await pilot.sync()
    assert await counts(engine) == {"Done": 1}


async def test_after_a_downtime_the_silent_are_still_lost(engine: BuiltinEngine, clock: Clock) -> None:
    await engine.submit("demo", "ann", [spec(retries=0)])
    await (await pilot_of(engine)).sync()
    await engine.beat()
    clock.time += 1e6
    await engine.start()
    clock.time += engine.settings.lease_seconds + engine.settings.margin + 1
    assert await engine.housekeeping() == {"pilots_lost": 1, "leases_lost": 1}


def test_the_service_clock_does_not_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServiceClock()
    before = clock()
    monkeypatch.setattr("time.time", lambda: before + 1e9)
    assert 0 <= clock() - before < 1e6


async def test_the_token_of_a_pilot_that_was_away_too_long(engine: BuiltinEngine, clock: Clock) -> None:
    """It registers again with its nonce, and goes on with what it holds."""
    await engine.submit("demo", "ann", [spec()])
    pilot = await pilot_of(engine)
    await pilot.sync()
    clock.time += 100
    row = await pilot.register()
    assert row["state"] == "Running" and row["sequence"] == 1
    answer = await pilot.sync()
    assert answer["hold"] == list(pilot.held)


@pytest.mark.parametrize("seed", range(4))
async def test_storm(engine: BuiltinEngine, clock: Clock, seed: int) -> None:
    """Answers are lost, requests repeated, pilots die or fall silent, jobs are killed, the service restarts.

    In the end each job has ended once, for a reason; no lease was started twice; none ran again against `retries`.
    """
    rnd = random.Random(seed)
    n = 120
    specs = [
        spec(retries=rnd.choice([0, 1, 50]), cores=rnd.choice([1, 1, 2]), priority=rnd.choice([0, 1])) for _ in range(n)
    ]
    ids = await engine.submit("demo", "ann", specs)
    names = iter(range(1000))
    crew: list[FakePilot] = []
    started: Counter[int] = Counter()

    async def step(pilot: FakePilot) -> None:
        lost, repeat = rnd.random() < 0.2, pilot.sequence > 0 and rnd.random() < 0.1
        before = len(pilot.started)
        await pilot.sync(lost=lost, repeat=repeat)
        for lease in pilot.started[before:]:
            started[pilot.held[lease]["job"]] += 1
        for lease in list(pilot.held):
            fate = rnd.random()
            if fate < 0.3:
                pilot.end(lease, *rnd.choice([("Done", "exit"), ("Failed", "exit"), ("Killed", "killed")]))
            elif fate < 0.4:
                pilot.report(lease=lease, state="Running")

    for turn in range(400):
        now = await counts(engine)
        if not now.keys() - {"Done", "Failed", "Killed"}:
            break
        while len(crew) < 4:
            crew.append(await pilot_of(engine, f"p{next(names)}", cores=rnd.choice([1, 4]), ahead=rnd.choice([0, 5])))
        awake = [pilot for pilot in crew if rnd.random() < 0.8]
        await asyncio.gather(*(step(pilot) for pilot in awake))
        for pilot in list(crew):
            fate = rnd.random()
            if fate < 0.01:
                crew.remove(pilot)  # killed: never heard of again
            elif fate < 0.02:
                pilot.report("pilot", exit_code=0, reason="leaves", usage={})
                await pilot.sync()
                crew.remove(pilot)
        if rnd.random() < 0.1:
            await engine.kill(rnd.sample(ids, 1), "ann", "second thoughts")
        if turn % 50 == 49:
            await engine.beat()
            clock.time += rnd.choice([1e4, -1e4])
            await engine.start()
        clock.time += rnd.choice([1.0, 10.0, 60.0])
        await engine.housekeeping()
    else:
        pytest.fail(f"not done: {await counts(engine)}")

    for job, whole in zip(ids, specs, strict=True):
        row = await engine.storage.read(jobs.get, job)
        assert row is not None and row["reason"], job
        trail = [event["what"] for event in await engine.storage.read(events.of, "job", str(job))]
        assert sum(trail.count(state) for state in ("Done", "Failed", "Killed")) == 1, trail
        assert started[job] <= 1 + whole["retries"]
        assert trail.count("Matched") <= 1 + whole["retries"]
    for number in range(next(names)):
        await engine.storage.write(leases.lose, [f"p{number}"], clock.time, "the end")
    assert sum((await counts(engine)).values()) == n


async def test_what_is_too_old_goes_with_its_objects(url: str, clock: Clock, tmp_path: Path) -> None:
    storage = Storage(url, Objects(str(tmp_path / "objects")), clock=clock)
    await storage.start()
    try:
        settings = Settings(keep_jobs=100, keep_pilots=100, keep_events=100, keep_files=100, purge_seconds=0)
        engine = BuiltinEngine(storage, b"k" * 32, settings)
        await engine.start()
        old, young, needed = "0" * 64, "1" * 64, "2" * 64
        for sha256 in (old, young):
            await storage.objects.put(file_key("demo", sha256), b"data")
            await storage.write(files.record, "demo", sha256, 4, clock.time)
        await engine.submit("demo", "ann", [spec()])
        pilot = await pilot_of(engine)
        await pilot.sync()
        pilot.end(next(iter(pilot.held)))
        pilot.report("pilot", exit_code=0, reason="", usage={})
        await pilot.sync()
        for key in (log_key("p1", 0), output_key("p1", "pilot.log")):
            await storage.objects.put(key, b"text")
        clock.time += 90
        await storage.objects.put(file_key("demo", needed), b"data")
        await storage.write(files.record, "demo", needed, 4, clock.time)
        (late,) = await engine.submit("demo", "ann", [spec(inputs=[{"name": "a", "sha256": needed, "size": 4}])])
        await storage.write(files.touch, "demo", [young], clock.time)
        clock.time += 11
        gone = await engine.housekeeping()
        assert {name: gone[name] for name in ("jobs", "leases", "pilots", "files")} == dict.fromkeys(
            ("jobs", "leases", "pilots", "files"), 1
        )
        assert gone["events"] == 7
        left = [key for prefix in ("files", "logs", "pilots") for key, _ in await storage.objects.names(prefix)]
        assert left == [file_key("demo", young), file_key("demo", needed)]
        assert [job["id"] for job in await storage.read(jobs.search)] == [late]
        clock.time += 1000
        await engine.housekeeping()
        assert await storage.objects.exists(file_key("demo", needed)), "a job that waits still needs it"
    finally:
        await storage.close()


async def test_logs_go_before_their_pilots(url: str, clock: Clock, tmp_path: Path) -> None:
    storage = Storage(url, Objects(str(tmp_path / "objects")), clock=clock)
    await storage.start()
    try:
        engine = BuiltinEngine(storage, b"k" * 32, Settings(keep_pilots=1000, keep_logs=100, purge_seconds=0))
        await engine.start()
        keys = {}
        for stamp in ("p1", "p2", "p10"):
            pilot = await pilot_of(engine, stamp)
            keys[stamp] = [log_key(stamp, 0), output_key(stamp, "pilot.log"), output_key(stamp, "std/out")]
            for key in keys[stamp]:
                await storage.objects.put(key, b"text")
            await storage.write(pilots.log_extended, stamp, 0, 4)
            if stamp != "p2":
                pilot.report("pilot", exit_code=0, reason="", usage={})
                await pilot.sync()
            clock.time += 50 if stamp == "p2" else 0
        clock.time += 51
        assert (await engine.housekeeping())["logs"] == 1
        gone, kept = [await storage.read(pilots.get, stamp) for stamp in ("p1", "p10")]
        assert gone is not None and kept is not None
        assert (gone["state"], gone["logs_purged"], gone["log_size"]) == ("Done", clock.time, 0), "its record stays"
        assert (kept["logs_purged"], kept["log_size"]) == (None, 4)
        left = {key for prefix in ("logs", "pilots") for key, _ in await storage.objects.names(prefix)}
        assert left == {*keys["p2"], *keys["p10"]}, "neither a running pilot's nor a younger one's"
        assert (await engine.housekeeping())["logs"] == 0
    finally:
        await storage.close()


async def test_an_aborted_pilot_does_not_come_back(engine: BuiltinEngine, clock: Clock) -> None:
    pilot = await pilot_of(engine)
    await engine.storage.write(pilots.end, "p1", "Aborted", clock.time, reason="gone from the resource")
    with pytest.raises(Ended):
        await pilot.sync()
    with pytest.raises(Ended):
        await pilot.register()


async def test_a_mad_pilot(engine: BuiltinEngine, clock: Clock) -> None:
    """Numbers beyond all measure are kept or bounded: they neither stop a pilot's reports nor ruin an owner's share."""
    await engine.submit("demo", "ann", [spec()] * 1500)
    pilot = await pilot_of(engine, cores=2**53, ahead=64)
    assert len((await pilot.sync())["granted"]) == 1000
    pilot.want = None
    first, second = list(pilot.held)[:2]
    clock.time += 10
    pilot.end(first, exit_code=2**53, signal=-(2**53), wall_seconds=1e308)
    pilot.end(second, wall_seconds=-1e308, stdout="\0\ud800", message="\0\ud800", usage={"cpu_user": float("nan")})
    pilot.report(
        "command", name="\0", index=2**53, outcome="failed", code=2**53, message="\0", seconds=1e308, tail=["\0"]
    )
    await pilot.sync()
    assert not pilot.reports
    used = await engine.storage.read(usage.read, clock.time, engine.settings.half_life)
    assert 998 * 3600 * 0.9 < used["demo", "ann"] < 998 * 3600 + 11
    pilot.report("pilot", exit_code=2**53, reason="\0\ud800", usage={"x": "\0"})
    await pilot.sync()
    assert await counts(engine) == {"Done": 2, "Waiting": 1498}
