"""Storage: revisions of the configuration, and canaries. The same tests run on PostgreSQL (tests/real)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError
from storage_parts import Clock, record

from pilotage.storage import Storage, configurations, events, pilots
from pilotage.storage.errors import Conflict, Missing
from pilotage.storage.tables import LIVE_CONFIGURATION
from pilotage.storage.tables import configurations as table

pytest_plugins = ["storage_fixtures"]

HALF = {"share": 0.5, "resource": None, "vo": None}


async def apply(storage: Storage, base: int, text: str = "vos: {}\n", digest: str = "d", **values: Any) -> int:
    plain: dict[str, Any] = {"who": "anna", "why": "because", **values}
    return await storage.write(configurations.apply, {"a.yaml": text}, digest, base, storage.now(), **plain)


async def states(storage: Storage) -> dict[int, str]:
    return {row["number"]: row["state"] for row in await storage.read(configurations.listing)}


async def kept(storage: Storage, number: int) -> dict[str, Any]:
    row = await storage.read(configurations.get, number)
    assert row is not None
    return row


async def sent(storage: Storage, digest: str, n: int, state: str, name: str = "", **values: Any) -> None:
    """``n`` pilots of a configuration that are in this state by now."""
    now = storage.now()
    stamps = [f"{digest}-{name or state}-{index}" for index in range(n)]
    await storage.write(pilots.plan, [record(stamp, now, revision=digest, **values) for stamp in stamps], now)
    for stamp in stamps:
        if state in ("Running", "Done"):
            await storage.write(pilots.register, stamp, "one-time", "nonce", now, term=1e6)
        if state in ("Done", "Failed", "Aborted"):
            await storage.write(pilots.end, stamp, state, now)


async def test_asking_for_the_heads_reads_no_history(storage: Storage) -> None:
    """It is asked every few seconds, and each revision may be megabytes."""
    if storage.url.get_backend_name() != "sqlite":
        return  # PostgreSQL keeps long values elsewhere, and plans by what is in the table
    query = select(*configurations.BRIEF).where(LIVE_CONFIGURATION)
    text = str(query.compile(dialect=sqlite.dialect()))
    plan = await storage.read(lambda conn: conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all())
    assert "USING INDEX configurations_live" in str(plan), plan
    assert list(table.c)[-1].name == "files"


async def test_nothing_was_ever_applied(storage: Storage) -> None:
    assert await storage.read(configurations.heads) == (0, None)
    assert await storage.read(configurations.current) is None
    assert await storage.read(configurations.canary) is None
    assert await storage.read(configurations.listing) == []


async def test_revisions_follow_one_another(storage: Storage, clock: Clock) -> None:
    assert await apply(storage, 0, "first: ä\n", "one", why="a start", request_id="r1") == 1
    clock.time += 10
    assert await apply(storage, 1, "second\n", "two", who="vera@physics", vo="physics") == 2
    assert await storage.read(configurations.heads) == (2, None)
    assert await storage.read(configurations.current) == {
        "number": 2,
        "files": {"a.yaml": "second\n"},
        "digest": "two",
        "parent": 1,
        "author": "vera@physics",
        "vo": "physics",
        "time": clock.time,
        "reason": "because",
        "state": "current",
        "canary": None,
    }
    assert (await kept(storage, 1))["files"] == {"a.yaml": "first: ä\n"}
    assert await states(storage) == {2: "current", 1: "past"}
    assert "files" not in (await storage.read(configurations.listing))[0]
    (event,) = await storage.read(events.of, "configuration", "1")
    assert (event["what"], event["who"], event["why"], event["request_id"]) == ("applied", "anna", "a start", "r1")


async def test_pages_of_revisions(storage: Storage) -> None:
    for base in range(5):
        await apply(storage, base)
    first = await storage.read(configurations.listing, limit=2)
    assert [row["number"] for row in first] == [5, 4]
    assert [row["number"] for row in await storage.read(configurations.listing, before=4)] == [3, 2, 1]


async def test_an_edit_of_another_base_is_refused_and_says_whose_change_was_missed(storage: Storage) -> None:
    await apply(storage, 0)
    await apply(storage, 1, who="vera@physics", why="more memory")
    with pytest.raises(Conflict) as late:
        await apply(storage, 1)
    assert str(late.value) == (
        'revision 2 (by vera@physics, 2023-11-14 22:13:20 UTC: "more memory") is current, and yours is made from '
        "revision 1: see what changed with `pilotage config diff 1 2`, then apply with --base 2"
    )
    with pytest.raises(Conflict, match=r"not made from it: see it with `pilotage config show 2`.*--base 2"):
        await apply(storage, 0)
    with pytest.raises(Conflict, match=r"there is no revision 9: see it with `pilotage config show 2`.*--base 2"):
        await apply(storage, 9)
    assert await states(storage) == {2: "current", 1: "past"}, "nothing changed"
    assert await apply(storage, 2) == 3, "and no number is lost"


async def test_a_base_where_there_is_none(storage: Storage) -> None:
    with pytest.raises(Conflict, match=r"no revision is current.*--base 0"):
        await apply(storage, 7)


async def test_of_edits_at_the_same_time_one_wins(storage: Storage) -> None:
    for base in (0, 1):  # with and without one to compare with
        answers = await asyncio.gather(*(apply(storage, base, who=f"p{n}") for n in range(8)), return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["Conflict"] * 7 + ["int"]
    assert await states(storage) == {2: "current", 1: "past"}


async def test_the_database_itself_holds_one_current_at_most(storage: Storage) -> None:
    await apply(storage, 0)
    row = {name: value for name, value in (await kept(storage, 1)).items() if name not in ("number", "files")}
    with pytest.raises(IntegrityError):
        await storage.write(lambda conn: conn.execute(insert(table), {**row, "number": 9, "files": "{}"}))


async def test_a_canary_is_promoted(storage: Storage, clock: Clock) -> None:
    await apply(storage, 0, digest="old")
    assert await apply(storage, 1, digest="new", canary={**HALF, "vo": "demo"}) == 2
    assert await storage.read(configurations.heads) == (1, 2)
    found = await storage.read(configurations.canary)
    assert found is not None and found["canary"] == {"share": 0.5, "resource": None, "vo": "demo"}
    with pytest.raises(Conflict, match=r"revision 2 .* is tried as a canary: promote or withdraw it first"):
        await apply(storage, 1)
    with pytest.raises(Conflict, match=r"the canary is revision 2 .*, not revision 1"):
        await storage.write(configurations.promote, 1, clock.time, who="anna")
    clock.time += 60
    row = await storage.write(configurations.promote, 2, clock.time, who="vera", why="good", request_id="r")
    assert (row["number"], row["state"], row["files"]) == (2, "current", {"a.yaml": "vos: {}\n"})
    assert row["canary"] == {**HALF, "vo": "demo", "ended": clock.time, "by": "vera", "why": "good"}
    assert await storage.read(configurations.heads) == (2, None)
    assert await states(storage) == {2: "current", 1: "past"}
    whats = [(event["what"], event["who"]) for event in await storage.read(events.of, "configuration", "2")]
    assert whats == [("applied as canary", "anna"), ("promoted", "vera")]
    assert await apply(storage, 2) == 3


async def test_a_canary_is_withdrawn(storage: Storage, clock: Clock) -> None:
    await apply(storage, 0, canary=HALF)  # even where nothing was ever applied
    row = await storage.write(configurations.retire, None, clock.time, who="vera", why="no good")
    assert (row["number"], row["state"]) == (1, "withdrawn")
    assert await storage.read(configurations.heads) == (0, None)
    for end in (configurations.promote, configurations.retire):
        with pytest.raises(Missing, match="no revision is tried as a canary"):
            await storage.write(end, None, clock.time, who="vera")
    assert await apply(storage, 0) == 2, "its number stays taken"


async def test_outcomes_are_of_the_canarys_time_and_scope(storage: Storage, clock: Clock) -> None:
    await sent(storage, "old", 9, "Failed", "before")
    clock.time += 10
    await apply(storage, 0, digest="old")
    await apply(storage, 1, digest="new", canary={"share": 0.5, "resource": "box", "vo": "demo"})
    for digest, state, n in (("old", "Done", 4), ("old", "Running", 2), ("new", "Failed", 3), ("new", "Planned", 1)):
        await sent(storage, digest, n, state)
    await sent(storage, "old", 1, "Failed", "elsewhere", resource="other")
    await sent(storage, "new", 1, "Failed", "others", vo="other")
    await sent(storage, "old", 1, "Planned", "hand")
    await storage.write(pilots.submitted, {"old-hand-0": "hand:anna"}, clock.time)
    found = await storage.read(configurations.outcomes, await kept(storage, 2))
    assert found == {"canary": {"Failed": 3, "Planned": 1}, "current": {"Done": 4, "Running": 2}}
    assert configurations.tallied(found["current"]) == (6, 0)
    assert configurations.tallied(found["canary"]) == (0, 3)
    assert configurations.waiting(found["canary"]) == 1


async def test_a_canary_that_fails_is_withdrawn_by_the_service(storage: Storage, clock: Clock) -> None:
    assert await storage.write(configurations.judge, clock.time) is None
    await apply(storage, 0, digest="old")
    await apply(storage, 1, digest="new", canary=HALF)
    await sent(storage, "old", 20, "Running")
    await sent(storage, "new", 4, "Failed")
    assert await storage.write(configurations.judge, clock.time) is None, "too few to tell"
    await sent(storage, "new", 2, "Aborted")
    clock.time += 1
    row = await storage.write(configurations.judge, clock.time)
    assert row is not None and (row["number"], row["state"]) == (2, "withdrawn")
    assert await storage.read(configurations.heads) == (1, None)
    *_, event = await storage.read(events.of, "configuration", "2")
    assert (event["what"], event["who"]) == ("withdrawn", "service")
    assert event["why"].startswith("6 of 6 pilots failed, against 0 of 20 of the current configuration (p = ")
    assert event["data"] == {"canary": {"Failed": 4, "Aborted": 2}, "current": {"Running": 20}}
    assert row["canary"]["why"] == event["why"]
    clock.time += 1
    await sent(storage, "old", 3, "Failed", "after")
    found = await storage.read(configurations.outcomes, row)
    assert found["current"] == {"Running": 20}, "what came after it is not counted"


async def test_a_canary_as_good_as_the_other_stays(storage: Storage, clock: Clock) -> None:
    await apply(storage, 0, digest="old")
    await apply(storage, 1, digest="new", canary=HALF)
    for digest in ("old", "new"):
        await sent(storage, digest, 10, "Failed")
        await sent(storage, digest, 10, "Done")
    assert await storage.write(configurations.judge, clock.time) is None
    assert await storage.read(configurations.heads) == (1, 2)
