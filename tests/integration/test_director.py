"""The directors, with a real database and real processes; crashes by kill -9 at each step of a cycle."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import director_parts
import pytest
from director_parts import House, Stand

from pilotage.directors.backoff import NEVER_SUBMITTED
from pilotage.directors.recovery import reconcile, verdict
from pilotage.directors.run import AlreadyServed
from pilotage.resources.base import ResourceError, State, Status
from pilotage.storage import pilots
from pilotage_node import exitcodes, meanings

ENDED = ("Done", "Failed", "Aborted")


@pytest.fixture(autouse=True)
def _stand(monkeypatch):
    monkeypatch.setattr("pilotage.resources.make", None)
    director_parts.use_stand()


@pytest.fixture
async def house(tmp_path):
    house = await House(tmp_path / "data").open()
    yield house
    await finish(house)


async def finish(house: House, *names: str) -> None:
    """Ends everything that a test has started, on the configured resources and these."""
    await house.stop()
    for name in {name for _, name, _ in house.configuration.resources()} | set(names):
        stand = Stand(house.data / "local" / name, None, kill_seconds=0.2)
        for place in stand.directory.iterdir() if stand.directory.exists() else []:
            if place.is_dir():
                (place / "end").write_text("0\n")

        async def over(stand=stand):
            statuses = await stand.status(list(await stand.find()))
            await stand.cancel(list(statuses))
            return all(status.state in (State.ENDED, State.GONE) for status in statuses.values())

        await until(over)
    await house.close()


async def until(condition, seconds: float = 60.0):
    """Polls until the condition's value is true, and gives it."""
    end = time.monotonic() + seconds
    while True:
        value = await condition()
        if value:
            return value
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


def rows_in(house: House, *states: str, count: int = 1):
    async def look():
        rows = await house.storage.read(pilots.search, states=states or None, limit=1000)
        return rows if len(rows) >= count else None

    return until(look)


async def until_started(house: House, count: int) -> None:
    async def look():
        return house.starts() >= count

    await until(look)


def end(house: House, row, code: int) -> None:
    place = house.place(row["stamp"], row["resource"])
    (place / "end.new").write_text(f"{code}\n")
    (place / "end.new").rename(place / "end")


async def test_pilots_go_where_jobs_wait_and_no_more(house):
    await house.start()
    await asyncio.sleep(0.3)
    assert house.starts() == 0
    await house.submit(2)
    rows = await rows_in(house, "Submitted", count=2)
    assert {row["reference"] for row in rows} == {row["stamp"] for row in rows}
    assert all((row["site"], row["queue"], row["flavour"], row["vo"]) == ("HERE", "q", "LOCAL", "demo") for row in rows)
    await house.submit(10)
    await rows_in(house, "Submitted", count=3)
    await until_started(house, 3)
    await asyncio.sleep(0.5)
    assert len(await rows_in(house)) == 3
    assert house.starts() == 3
    assert house.directors.describe()[0]["error"] == ""


async def test_a_wake_is_enough(tmp_path):
    text = director_parts.CONFIGURATION.replace("interval_seconds: 0.1", "interval_seconds: 3600")
    house = await House(tmp_path / "data", text).open()
    try:
        await house.start()
        await asyncio.sleep(0.3)
        await house.submit(1)
        await rows_in(house, "Submitted")
    finally:
        await finish(house)


async def test_pilots_keep_running_when_the_director_stops_and_are_found_again(house):
    await house.submit(2)
    await house.start()
    before = await rows_in(house, "Submitted", count=2)
    await until_started(house, 2)
    await house.stop()
    await asyncio.sleep(0.2)
    await house.start()
    await asyncio.sleep(0.5)
    after = await rows_in(house)
    assert {row["stamp"] for row in after} == {row["stamp"] for row in before}
    assert {row["state"] for row in after} == {"Submitted"}
    assert house.starts() == 2


STEPS = ["leased", "found", "recovered", "planned", "recorded", "written", "forked", "submitted", "noted"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_director_killed_at_any_step_loses_and_doubles_nothing(tmp_path, step):
    """kill -9 of a real director process between each two steps; then a new one takes over on the same directory."""
    house = await House(tmp_path / "data").open()
    await house.submit(2)
    await house.storage.close()
    program = [sys.executable, director_parts.__file__, str(house.data), step]
    done = await asyncio.to_thread(subprocess.run, program, capture_output=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr.decode()
    house = await House(house.data).open()
    try:
        left = await house.storage.read(pilots.search)
        await house.start()
        await rows_in(house, "Submitted", count=2)
        await until_started(house, 2)
        await asyncio.sleep(0.5)
        rows = await rows_in(house)
        submitted = [row for row in rows if row["state"] == "Submitted"]
        assert len(submitted) == 2
        assert house.starts() == 2
        if step in ("submitted", "noted"):
            assert {row["stamp"] for row in submitted} == {row["stamp"] for row in left}
            assert len(rows) == 2
        if step in ("recorded", "written"):
            aborted = {row["stamp"]: row["reason"] for row in rows if row["state"] == "Aborted"}
            assert aborted == {row["stamp"]: NEVER_SUBMITTED for row in left}
        assert all(house.place(row["stamp"]).is_dir() for row in submitted)
    finally:
        await finish(house)


@pytest.mark.parametrize("step", ["closed", "stored", "marked", "cleaned"])
async def test_a_director_killed_while_it_closes_pilots_closes_them_later(tmp_path, step):
    house = await House(tmp_path / "data").open()
    await house.submit(1)
    await house.start()
    [row] = await rows_in(house, "Submitted")
    await house.register(row["stamp"])
    end(house, row, exitcodes.DISK)
    await house.stop()
    await house.storage.close()
    program = [sys.executable, director_parts.__file__, str(house.data), step]
    done = await asyncio.to_thread(subprocess.run, program, capture_output=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr.decode()
    house = await House(house.data).open()
    try:
        await house.start()

        async def settled():
            found = await house.storage.read(pilots.get, row["stamp"])
            return found if found["outputs_at"] and not house.place(row["stamp"]).exists() else None

        found = await until(settled)
        assert (found["state"], found["exit_code"]) == ("Failed", exitcodes.DISK)
        assert await house.storage.objects.get(f"pilots/{row['stamp']}/stdout") == b"out\n"
        assert house.starts() == 1
    finally:
        await finish(house)


async def test_a_pilot_that_never_registers_is_closed_with_the_true_reason(house):
    await house.submit(1)
    await house.start()
    [row] = await rows_in(house, "Submitted")
    end(house, row, exitcodes.UNREACHABLE)
    [closed] = await rows_in(house, "Aborted")
    assert closed["exit_code"] == exitcodes.UNREACHABLE
    assert closed["reason"] == ("it never registered: the service could not be reached (its last words: my last words)")

    async def fetched():
        return (await house.storage.read(pilots.get, row["stamp"]))["outputs_at"]

    await until(fetched)
    assert await house.storage.objects.get(f"pilots/{row['stamp']}/stderr") == b"my last words\n"
    await asyncio.sleep(0.3)
    assert house.starts() == 1, "the queue rests after a failed pilot"
    assert "1 pilots in a row failed" in house.directors.describe()[0]["resting"]["q/demo"]


async def test_a_pilot_that_was_killed_is_closed_and_its_jobs_wait_again(house):
    await house.submit(1)
    await house.start()
    [row] = await rows_in(house, "Submitted")
    await house.register(row["stamp"])
    want = {"cores": 1, "memory_mib": None, "disk_mib": None, "gpus": 0, "seconds_left": None, "ahead": 0}
    want |= {"total": {"cores": 1}, "tags": [], "platform": "x", "isolation": []}
    request = {"protocol": 1, "sequence": 1, "held": [], "reports": [], "want": want, "log": None, "beat": {}}
    answer = await house.engine.sync(row["stamp"], request)
    assert len(answer["granted"]) == 1
    assert await house.engine.demand() == []
    stand = Stand(house.data / "local" / "one", None, kill_seconds=0.0)
    for _ in range(2):
        await stand.cancel([row["stamp"]])
    [closed] = await rows_in(house, "Aborted", "Failed", "Done")  # told to leave first, it may have had the time to
    assert "its last report" in closed["reason"]
    assert (closed["state"] == "Done") == (closed["exit_code"] == exitcodes.DRAINED)

    async def waits_again():
        return [queue["waiting"] for queue in await house.engine.demand()] == [1]

    await until(waits_again)


async def test_an_ended_pilots_outputs_are_fetched_once_and_its_place_is_freed(house):
    await house.submit(1)
    await house.start()
    [row] = await rows_in(house, "Submitted")
    await house.register(row["stamp"])
    await house.storage.objects.put(f"pilots/{row['stamp']}/pilot.log", b"as uploaded")
    (house.place(row["stamp"]) / "pilot.log").write_text("as left")
    await house.storage.write(pilots.end, row["stamp"], "Done", house.storage.now(), exit_code=0)
    end(house, row, 0)

    async def freed():
        return not house.place(row["stamp"]).exists()

    await until(freed)
    found = await house.storage.read(pilots.get, row["stamp"])
    assert found["state"] == "Done" and found["outputs_at"]
    assert await house.storage.objects.get(f"pilots/{row['stamp']}/stdout") == b"out\n"
    assert await house.storage.objects.get(f"pilots/{row['stamp']}/pilot.log") == b"as uploaded"


async def test_a_pilot_that_nobody_knows_is_ended_and_cleaned(house):
    stamp = "f" * 32
    stand = Stand(house.data / "local" / "one", None)
    await stand.submit([director_parts.Bundle(stamp, "q", "", "{}")])

    async def started():
        return (house.place(stamp) / "started").exists()

    await until(started)
    await house.start()

    async def gone():
        return not house.place(stamp).exists()

    await until(gone)


async def test_pilots_started_by_hand_are_left_alone(house):
    record = {"stamp": "a" * 32, "secret_hash": "x", "secret_expires": house.storage.now() + 1000, "vo": "demo"}
    record |= {"site": "HERE", "resource": "one", "queue": "q", "flavour": "LOCAL"}
    await house.storage.write(pilots.plan, [record], house.storage.now())
    await house.storage.write(pilots.submitted, {"a" * 32: "hand:ann"}, house.storage.now())
    await house.start()
    await asyncio.sleep(1.0)
    assert (await house.storage.read(pilots.get, "a" * 32))["state"] == "Submitted"
    assert house.directors.describe()[0]["error"] == ""


async def test_pilots_that_nobody_has_started_yet_hold_no_slot(house):
    """Somebody has made bundles and done nothing with them: the resource serves as if they were not there."""
    record = {"secret_hash": "x", "secret_expires": house.storage.now() + 1000, "vo": "demo"}
    record |= {"site": "HERE", "resource": "one", "queue": "q", "flavour": "LOCAL"}
    stamps = [letter * 32 for letter in "abcd"]
    await house.storage.write(pilots.plan, [{**record, "stamp": stamp} for stamp in stamps], house.storage.now())
    await house.storage.write(pilots.submitted, dict.fromkeys(stamps, "hand:ann"), house.storage.now())
    await house.submit(2)
    await house.start()
    await until_started(house, 2)


async def test_drain_ends_all_and_waits(house):
    await house.submit(2)
    await house.start()
    rows = await rows_in(house, "Submitted", count=2)
    await house.register(rows[0]["stamp"])

    await until_started(house, 2)
    assert await house.directors.drain(30.0) == 0
    found = {row["stamp"]: row for row in await rows_in(house)}
    assert len(found) == 2
    drained, withdrawn = found[rows[0]["stamp"]], found[rows[1]["stamp"]]
    assert (drained["ordered"], drained["exit_code"]) == ("drain", exitcodes.DRAINED)
    assert withdrawn["state"] == "Aborted" and withdrawn["reason"].startswith("cancelled")
    assert all(row["outputs_at"] for row in found.values())
    assert list((house.data / "local" / "one").glob("?" * 32)) == []


async def test_one_slow_resource_does_not_delay_another(tmp_path, monkeypatch):
    class Slow(Stand):
        async def find(self):
            await asyncio.sleep(3600)
            return {}

    def make(name, settings, data):
        kind = Slow if name == "slow" else Stand
        return kind(data / "local" / name, settings.slots, kill_seconds=0.5)

    monkeypatch.setattr("pilotage.resources.make", make)
    text = director_parts.CONFIGURATION.replace("call_seconds: 30", "call_seconds: 0.5")
    text += "      slow: {type: local, flavour: LOCAL, queues: {q: {}}}\n"
    house = await House(tmp_path / "data", text).open()
    try:
        await house.submit(1)
        await house.start()
        await rows_in(house, "Submitted")

        async def told():
            return house.directors.describe()[1]["error"]

        assert await until(told) == "the resource did not answer within 0.5 s"
    finally:
        await finish(house)


async def test_a_submit_without_answer_is_settled_by_looking(tmp_path, monkeypatch):
    """The resource starts the pilots and its answer is lost: they are found, not doubled."""

    class Mute(Stand):
        async def submit(self, bundles):
            await super().submit(bundles)
            raise ResourceError("the connection was lost")

    monkeypatch.setattr("pilotage.resources.make", lambda name, settings, data: Mute(data / "local" / name, 3))
    house = await House(tmp_path / "data").open()
    try:
        await house.submit(2)
        await house.start()
        await rows_in(house, "Submitted", count=2)
        await until_started(house, 2)
        await asyncio.sleep(0.5)
        assert len(await rows_in(house)) == 2
        assert house.starts() == 2
    finally:
        await finish(house)


async def test_what_the_resource_refuses_is_aborted_with_its_words(tmp_path, monkeypatch):
    class Full(Stand):
        async def submit(self, bundles):
            return {bundle.stamp: ResourceError("the queue is closed") for bundle in bundles}

    monkeypatch.setattr("pilotage.resources.make", lambda name, settings, data: Full(data / "local" / name, 3))
    house = await House(tmp_path / "data").open()
    try:
        await house.submit(1)
        await house.start()
        [row] = await rows_in(house, "Aborted")
        assert row["reason"] == "not accepted by the resource: the queue is closed"
        await asyncio.sleep(0.5)
        assert len(await rows_in(house)) == 1, "the queue rests"
    finally:
        await finish(house)


async def test_two_directors_never_serve_one_directory(house):
    await house.start()
    other = await House(house.data).open()
    try:
        with pytest.raises(AlreadyServed):
            await other.start()
    finally:
        await other.storage.close()


async def test_a_resource_held_by_another_is_left_to_it(house):
    from pilotage.storage import resources as holders

    now = house.storage.now()
    fence = await house.storage.write(holders.acquire, "one", "somebody else", now, 1000.0)
    await house.submit(1)
    await house.start()
    await asyncio.sleep(0.5)
    assert house.starts() == 0
    await house.storage.write(holders.release, "one", fence)
    await rows_in(house, "Submitted")


def record(stamp, state, reference=None, ended=None, registered=None, outputs_at=None):
    names = {"stamp": stamp, "state": state, "reference": reference, "ended": ended}
    return names | {"registered": registered, "outputs_at": outputs_at}


def test_reconcile():
    found = {name: f"ref-{name}" for name in ("noted", "raced", "given up", "fast", "done", "unfetched", "stranger")}
    findings = reconcile(
        found,
        [
            record("noted", "Planned"),
            record("raced", "Running", registered=1.0),
            record("never", "Planned"),
            record("hand", "Planned", reference="hand:ann"),
            record("elsewhere", "Submitted", reference="ref-elsewhere"),
            record("given up", "Aborted", ended=2.0),
            record("fast", "Done", ended=2.0, registered=1.0),
            record("done", "Done", reference="ref-done", ended=2.0, registered=1.0, outputs_at=3.0),
            record("unfetched", "Done", reference="ref-unfetched", ended=2.0, registered=1.0),
        ],
    )
    assert set(findings.noted) == {"noted", "raced", "fast"}
    assert findings.never == ["never"]
    assert findings.strangers == {"given up": "ref-given up", "stranger": "ref-stranger"}
    assert set(findings.unfetched) == {"fast", "unfetched"}
    assert findings.leftovers == {"done": "ref-done"}


@pytest.mark.parametrize(
    "registered, status, silent, expected",
    [
        (1.0, Status(State.RUNNING), 99.0, None),
        (1.0, Status(State.WAITING), 99.0, None),
        (1.0, Status(State.ENDED, 0), 1.0, None),
        (1.0, Status(State.ENDED, 0), 5.0, ("Done", 0, "its last report did not arrive")),
        (
            1.0,
            Status(State.ENDED, 30),
            5.0,
            ("Failed", 30, f"its last report did not arrive: {meanings.text_of(30)}"),
        ),
        (1.0, Status(State.ENDED, 50), 5.0, ("Done", 50, f"its last report did not arrive: {meanings.text_of(50)}")),
        (1.0, Status(State.ENDED, None, "killed"), 5.0, ("Aborted", None, "it ended without its last report: killed")),
        (None, Status(State.ENDED, 2), 5.0, ("Aborted", 2, f"it never registered: {meanings.text_of(2)}")),
        (1.0, Status(State.GONE), 20.0, None),
        (1.0, Status(State.GONE), 70.0, ("Aborted", None, "no longer knows it")),
        (
            None,
            Status(State.GONE, None, "never started"),
            70.0,
            ("Aborted", None, "it never registered: never started"),
        ),
    ],
)
def test_verdict(registered, status, silent, expected):
    row = {"registered": registered, "seen": registered and 1000.0, "submitted": 900.0, "created": 900.0}
    found = verdict(row, status, 1000.0, 1000.0 + silent, 60.0)
    if expected is None:
        assert found is None
    else:
        assert (found.state, found.exit_code) == expected[:2]
        assert expected[2] in found.reason
