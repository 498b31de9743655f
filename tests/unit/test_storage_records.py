"""Storage: the other records, retention, transactions. The same tests run on PostgreSQL (tests/real)."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from storage_parts import Clock, claim, recent, reported, result, spec, submit

from pilotage.storage import Storage, events, files, jobs, leases, resources, tokens

pytest_plugins = ["storage_fixtures"]


async def test_tokens(storage: Storage, clock: Clock) -> None:
    number, token = await storage.write(
        tokens.create, "user", clock.time, vo="demo", owner="ann", roles=["user"], expires=clock.time + 10
    )
    found = await storage.read(tokens.find, tokens.digest(token), clock.time)
    assert found is not None and (found["id"], found["owner"], found["roles"]) == (number, "ann", ["user"])
    assert await storage.read(tokens.find, tokens.digest(token + "x"), clock.time) is None
    assert await storage.read(tokens.find, tokens.digest(token), clock.time + 10) is None
    assert token not in str(await storage.read(tokens.listing))
    assert await storage.write(tokens.revoke, number, clock.time)
    assert not await storage.write(tokens.revoke, number, clock.time)
    assert await storage.read(tokens.find, tokens.digest(token), clock.time) is None


async def test_files(storage: Storage, clock: Clock) -> None:
    await storage.write(files.record, "demo", "a" * 64, 5, clock.time)
    await storage.write(files.record, "demo", "a" * 64, 5, clock.time + 1)
    await storage.write(files.record, "demo", "b" * 64, 6, clock.time)
    many = [f"{n:064}" for n in range(2000)]
    assert await storage.read(files.has, "demo", ["a" * 64, "c" * 64, *many]) == {"a" * 64}
    assert await storage.read(files.sizes, "demo", ["b" * 64]) == {"b" * 64: 6}
    assert await storage.read(files.has, "other", ["a" * 64]) == set(), "a VO does not see another's files"
    await storage.write(files.touch, "demo", ["b" * 64], clock.time + 100)
    assert await storage.write(files.purge, clock.time + 50) == [("demo", "a" * 64)]
    assert await storage.read(files.has, "demo", ["a" * 64, "b" * 64]) == {"b" * 64}


async def test_one_director_serves_a_resource(storage: Storage, clock: Clock) -> None:
    async def acquire(holder: str) -> int | None:
        return await storage.write(resources.acquire, "box", holder, clock.time, 60.0)

    fence = await acquire("one")
    assert fence is not None
    assert await acquire("two") is None
    assert await acquire("one") == fence, "renewed in time"
    clock.time += 61
    second = await acquire("two")
    assert second is not None and second > fence
    assert not await storage.write(resources.check, "box", fence, clock.time)
    assert await storage.write(resources.check, "box", second, clock.time)
    await storage.write(resources.release, "box", fence)  # too late: changes nothing
    assert await acquire("one") is None
    await storage.write(resources.release, "box", second)
    third = await acquire("one")
    assert third is not None and third > second
    fences = await asyncio.gather(
        *(storage.write(resources.acquire, "new", f"d{n}", clock.time, 60.0) for n in range(8))
    )
    assert sum(fence is not None for fence in fences) == 1


async def test_old_records_go_in_bounded_batches(storage: Storage, clock: Clock) -> None:
    ids = await submit(storage, 10)
    grants = await claim(storage, 6)
    done = [result(n, grant["lease"]) for n, grant in enumerate(grants[:4])]
    await storage.write(reported, "p1", done, clock.time)
    assert await storage.write(jobs.purge, clock.time) == []
    assert await storage.write(jobs.purge, clock.time + 1, 3) == ids[:3]
    assert await storage.write(jobs.purge, clock.time + 1, 3) == ids[3:4]
    assert await storage.write(leases.purge, clock.time + 1, 3) == 3
    assert await storage.write(leases.purge, clock.time + 1) == 1
    assert await storage.write(leases.purge, clock.time + 1) == 0, "live ones stay"
    assert await storage.write(events.purge, clock.time, 100) == 0
    assert await storage.write(events.purge, clock.time + 1, 15) == 15
    assert await storage.write(events.purge, clock.time + 1, 15) == 5
    assert await storage.read(recent) == []
    assert await storage.write(jobs.purge_queues, clock.time + 1) == 0, "it has jobs"
    await storage.write(jobs.kill, ids, "ann", "", clock.time)
    for lease in await storage.read(leases.held, "p1"):
        await storage.write(reported, "p1", [result(9, lease["id"])], clock.time)
    await storage.write(jobs.purge, clock.time + 1)
    assert await storage.write(jobs.purge_queues, clock.time + 1) == 1
    assert await submit(storage, 1) == [ids[-1] + 1], "ids are never used again"


def _fails(conn: Connection, now: float) -> None:
    jobs.submit(conn, "demo", "ann", [spec()], now, "")
    raise KeyError("deliberate")


async def test_a_write_that_fails_undoes_itself_and_nothing_else(storage: Storage) -> None:
    writes = []
    for number in range(30):
        writes.append(storage.write(jobs.submit, "demo", "ann", [spec()], storage.now(), f"r{number}"))
        writes.append(storage.write(_fails, storage.now()))
    values = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(value) for value in values] == [list, KeyError] * 30
    assert await storage.read(jobs.counts) == {"Waiting": 30}
    ids = [value[0] for value in values if isinstance(value, list)]
    assert len(set(ids)) == 30


async def test_reading_cannot_write(storage: Storage) -> None:
    with pytest.raises(DBAPIError):
        await storage.read(jobs.submit, "demo", "ann", [spec()], storage.now(), "")
    await storage.ready()
    assert storage.backlog == 0


async def test_many_owners_at_once(storage: Storage) -> None:
    """Counters, task queues and usage are shared rows: whoever meets there, all get through."""

    async def one(number: int) -> None:
        ids = await submit(storage, 5, owner=f"o{number % 3}", request_id=f"r{number}", cores=1 + number % 2)
        await storage.write(jobs.kill, reversed(ids), "admin", "test", storage.now())

    await asyncio.gather(*(one(number) for number in range(20)))
    assert await storage.read(jobs.counts) == {"Killed": 100}
