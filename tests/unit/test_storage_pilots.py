"""Storage: pilots. The same tests run on PostgreSQL (tests/real)."""

from __future__ import annotations

from typing import Any

import pytest
from storage_parts import SECRET, TERM, Clock, record, running_pilot

from pilotage.storage import Storage, events, pilots
from pilotage.storage.errors import Conflict, Ended, Expired, StampUsed, Unknown

pytest_plugins = ["storage_fixtures"]


async def test_the_life_of_a_pilot(storage: Storage, clock: Clock) -> None:
    await storage.write(pilots.plan, [record("p1", clock.time), record("p2", clock.time, vo="other")], clock.time)
    with pytest.raises(Conflict):
        await storage.write(pilots.plan, [record("p3", clock.time), record("p1", clock.time)], clock.time)
    assert await storage.read(pilots.get, "p3") is None, "all or none"
    await storage.write(pilots.submitted, {"p1": "42"}, clock.time)
    await storage.write(pilots.submitted, {"p1": "43"}, clock.time)
    pilot = await storage.read(pilots.get, "p1")
    assert pilot is not None and (pilot["state"], pilot["reference"]) == ("Submitted", "42")
    assert "secret_hash" not in pilot and "nonce" not in pilot
    node = {"cores": 4, "hostname": "n\0"}
    pilot = await storage.write(pilots.register, "p1", SECRET, "n1", clock.time, term=TERM, node=node, digest="d1")
    assert (pilot["state"], pilot["node"], pilot["digest"]) == ("Running", node, "d1")
    await storage.write(pilots.submitted, {"p1": "42"}, clock.time)
    assert await storage.read(pilots.counts) == {"Running": 1, "Planned": 1}
    assert await storage.write(pilots.end, "p1", "Done", clock.time, exit_code=0, usage={"cpu": 1})
    assert not await storage.write(pilots.end, "p1", "Failed", clock.time), "the first word stands"
    assert [pilot["stamp"] for pilot in await storage.read(pilots.active, "box")] == ["p2"]
    whats = [event["what"] for event in await storage.read(events.of, "pilot", "p1")]
    assert whats == ["Planned", "Submitted", "Running", "Done"]


async def test_a_pilot_may_register_before_its_director_has_its_reference(storage: Storage, clock: Clock) -> None:
    await storage.write(pilots.plan, [record("p1", clock.time)], clock.time)
    await storage.write(pilots.register, "p1", SECRET, "n1", clock.time, term=TERM)
    await storage.write(pilots.submitted, {"p1": "42"}, clock.time)
    pilot = await storage.read(pilots.get, "p1")
    assert pilot is not None and (pilot["state"], pilot["reference"]) == ("Running", "42")


async def test_a_secret_is_good_once(storage: Storage, clock: Clock) -> None:
    await storage.write(pilots.plan, [record("p1", clock.time), record("old", clock.time - 7200)], clock.time)

    async def register(stamp: str, secret: str = SECRET, nonce: str = "n1") -> dict[str, Any]:
        return await storage.write(pilots.register, stamp, secret, nonce, clock.time, term=TERM)

    for stamp, secret in (("p1", "guess"), ("nobody", SECRET)):
        with pytest.raises(Unknown):
            await register(stamp, secret)
    with pytest.raises(Expired):
        await register("old")
    first = await register("p1")
    assert (await register("p1"))["registered"] == first["registered"], "the same nonce: the same pilot"
    with pytest.raises(StampUsed):
        await register("p1", nonce="n2")
    clock.time += 7200
    await register("p1")  # the secret has expired: that counts for the first use only
    await storage.write(pilots.end, "p1", "Done", clock.time, exit_code=0)
    with pytest.raises(Ended):
        await register("p1")
    with pytest.raises(StampUsed):
        await register("p1", nonce="n2")


async def test_silent_pilots_are_lost_and_unused_stamps_close(storage: Storage, clock: Clock) -> None:
    await running_pilot(storage, "silent", term=TERM)
    await storage.write(pilots.plan, [record("unused", clock.time)], clock.time)
    assert await storage.write(pilots.expire, clock.time + TERM - 1) == []
    assert await storage.write(pilots.expire, clock.time + TERM + 1) == ["silent"]
    clock.time += 3601
    assert await storage.write(pilots.expire, clock.time) == []
    found = {pilot["stamp"]: (pilot["state"], pilot["reason"]) for pilot in await storage.read(pilots.search)}
    assert found == {"silent": ("Aborted", "lost"), "unused": ("Aborted", "never_started")}
    with pytest.raises(Ended):
        await storage.write(pilots.register, "unused", SECRET, "n", clock.time, term=TERM)
    back = await storage.write(pilots.register, "silent", SECRET, "nonce", clock.time, term=TERM)
    assert (back["state"], back["reason"], back["ended"]) == ("Running", "", None)


async def test_orders(storage: Storage, clock: Clock) -> None:
    await running_pilot(storage, "p1")
    await running_pilot(storage, "p2")
    await storage.write(pilots.end, "p2", "Done", clock.time, exit_code=0)

    async def order(what: str) -> list[str]:
        return await storage.write(pilots.order, ["p1", "p2", "p9"], what, clock.time, who="admin", why="maintenance")

    assert await order("drain") == ["p1"]
    assert await order("kill") == ["p1"]
    assert await order("drain") == [], "a drain never weakens a kill"
    pilot = await storage.read(pilots.get, "p1")
    assert pilot is not None and (pilot["ordered"], pilot["order_why"]) == ("kill", "maintenance")


async def test_the_length_of_a_log_is_compared_and_set(storage: Storage) -> None:
    await running_pilot(storage, "p1")
    assert await storage.write(pilots.log_extended, "p1", 0, 100) == 100
    assert await storage.write(pilots.log_extended, "p1", 0, 70) == 100
    assert await storage.write(pilots.log_extended, "p1", 150, 10) == 100
    assert await storage.write(pilots.log_extended, "p1", 100, 5) == 105
    with pytest.raises(Unknown):
        await storage.write(pilots.log_extended, "p9", 0, 5)


async def test_command_results(storage: Storage, clock: Clock) -> None:
    await running_pilot(storage, "p1")
    await running_pilot(storage, "p2")
    reports = [
        {"id": "c2", "kind": "command", "name": "B", "index": 1, "outcome": "failed", "code": 70, "tail": ["x", "y"]},
        {"id": "c1", "kind": "command", "name": "A", "index": 0, "outcome": "done", "code": 0, "usage": {"cpu": 1}},
    ]
    for _ in range(2):
        await storage.write(pilots.command_results, "p1", reports, clock.time)
    found = await storage.read(pilots.commands, "p1")
    assert [(item["name"], item["outcome"], item["tail"]) for item in found] == [
        ("A", "done", None),
        ("B", "failed", ["x", "y"]),
    ]
    await storage.write(pilots.end, "p1", "Done", clock.time, exit_code=0)
    await storage.write(pilots.end, "p2", "Failed", clock.time, exit_code=1)
    assert await storage.read(pilots.counts) == {"Done": 1, "Failed": 1}
    await storage.write(pilots.outputs_fetched, "p1", clock.time)
    assert sorted(await storage.write(pilots.purge, clock.time + 1)) == ["p1", "p2"]
    assert await storage.read(pilots.commands, "p1") == []


async def test_pages_of_pilots(storage: Storage, clock: Clock) -> None:
    for number in range(5):
        clock.time += number % 2  # some are of one moment
        await storage.write(pilots.plan, [record(f"p{number}", clock.time)], clock.time)
    seen: list[str] = []
    while page := await storage.read(pilots.search, after=seen[-1] if seen else None, limit=2):
        seen += [pilot["stamp"] for pilot in page]
    assert seen == ["p4", "p3", "p2", "p1", "p0"]
    assert len(await storage.read(pilots.search, vo="demo", resource="box", states=["Planned"], stamps=["p1"])) == 1
