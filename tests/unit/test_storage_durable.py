"""SQLite in a file: kill -9 loses nothing that was answered, a full disk only what did not fit, many share a commit."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError
from storage_parts import Clock, spec

from pilotage.storage import Storage, events, jobs, leases

pytest_plugins = ["storage_fixtures"]

WRITER = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from storage_parts import reported, result, spec
from pilotage.storage import Storage, jobs, leases

async def one(storage, number):
    (job,) = await storage.write(jobs.submit, "demo", f"o{number}", [spec()], storage.now(), "")
    (queue,) = [q for q in await storage.read(jobs.task_queues) if q["owner"] == f"o{number}"]
    (grant,) = await storage.write(leases.claim, queue["id"], 1, f"p{number}", storage.now(), 100.0)
    await storage.write(reported, f"p{number}", [result(1, grant["lease"], exit_code=0)], storage.now())
    print(job, flush=True)

async def forever(storage, number):
    while True:
        await one(storage, number)

async def main():
    storage = Storage(sys.argv[1])
    await storage.start()
    await asyncio.gather(*(forever(storage, number) for number in range(8)))

asyncio.run(main())
"""


async def test_what_was_answered_survives_kill_9(url: str) -> None:
    here = str(Path(__file__).parent)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url, here], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        told = [int(writer.stdout.readline()) for _ in range(300)]
    finally:
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate()[0]
    told += [int(line) for line in rest.splitlines()[:-1]]  # the last one may be half a line
    storage = Storage(url)
    await storage.start()
    try:
        done = {job["id"] for job in await storage.read(jobs.search, states=["Done"], limit=100_000)}
        assert set(told) <= done
        for job in told:
            trail = [event["what"] for event in await storage.read(events.of, "job", str(job))]
            assert trail == ["Waiting", "Matched", "Done"]
        assert await storage.read(_integrity) == "ok"
        live = {lease["job"] for n in range(8) for lease in await storage.read(leases.held, f"p{n}")}
        matched = {job["id"] for job in await storage.read(jobs.search, states=["Matched"])}
        assert live == matched, "a lease and its job are of one transaction"
    finally:
        await storage.close()


def _integrity(conn: Connection) -> str:
    return str(conn.exec_driver_sql("PRAGMA integrity_check").scalar())


async def test_a_full_disk(storage: Storage) -> None:
    """What does not fit fails, with what shares its commit at worst; before and afterwards all is well."""
    before = await storage.write(jobs.submit, "demo", "ann", [spec()], storage.now(), "")
    pages = await storage.write(_pages, None)
    await storage.write(_pages, pages + 5)
    large = [spec(environment={"X": "x" * 4000})] * 100
    small = [spec()]
    writes = [
        storage.write(jobs.submit, "demo", "ann", some, storage.now(), "") for some in (small, large, small, large)
    ]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert any(isinstance(answer, OperationalError) for answer in answers)
    kept = {job for answer in answers if isinstance(answer, list) for job in answer}
    await storage.write(_pages, 2**30)
    found = {job["id"] for job in await storage.read(jobs.search, limit=1000)}
    assert found == kept | set(before), "what was promised is there, and nothing else"
    assert len(await storage.write(jobs.submit, "demo", "ann", large, storage.now(), "")) == 100
    assert await storage.read(_integrity) == "ok"


def _pages(conn: Connection, most: int | None) -> int:
    if most is not None:
        conn.exec_driver_sql(f"PRAGMA max_page_count={most}")
    return int(conn.exec_driver_sql("PRAGMA page_count").scalar() or 0)


async def test_many_writes_share_a_commit(storage: Storage) -> None:
    started = storage.statistics
    await asyncio.gather(
        *(storage.write(jobs.submit, "demo", "ann", [spec()], storage.now(), f"r{number}") for number in range(200))
    )
    ended = storage.statistics
    assert ended["writes"] - started["writes"] == 200
    assert ended["commits"] - started["commits"] <= 100


async def test_a_second_process_may_write_now_and_then(storage: Storage, url: str, clock: Clock) -> None:
    """As ``pilotage token create`` does beside a running service."""
    other = Storage(url, clock=clock)
    await other.start()
    try:
        both = [storage, other] * 20
        ids = await asyncio.gather(*(some.write(jobs.submit, "demo", "ann", [spec()], some.now(), "") for some in both))
    finally:
        await other.close()
    assert sorted(job for (job,) in ids) == list(range(1, 41))
    assert await storage.read(jobs.counts) == {"Waiting": 40}


async def test_what_was_asked_for_before_closing_is_done(url: str) -> None:
    storage = Storage(url)
    await storage.start()
    asked = [
        asyncio.ensure_future(storage.write(jobs.submit, "demo", "ann", [spec()], storage.now(), "")) for _ in range(20)
    ]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(storage.close())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):  # and not for ever in a queue that nobody reads any more
        await storage.write(jobs.submit, "demo", "ann", [spec()], 0.0, "")
    await closing
    assert len({job for (job,) in await asyncio.gather(*asked)}) == 20
    assert not list(Path(url.removeprefix("sqlite:///")).parent.glob("*-wal")), "a closed database is one file"


def _refuses(conn: Connection, secret: str) -> None:
    conn.execute(text("INSERT INTO nowhere VALUES (:secret)"), {"secret": secret})


async def test_values_stay_out_of_errors_and_the_file_is_ours_alone(storage: Storage, url: str) -> None:
    with pytest.raises(OperationalError) as error:
        await storage.write(_refuses, "hunter2")
    assert "nowhere" in str(error.value) and "hunter2" not in str(error.value)
    file = Path(url.removeprefix("sqlite:///"))
    assert {path.stat().st_mode & 0o777 for path in file.parent.glob(file.name + "*")} == {0o600}
