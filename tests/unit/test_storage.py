"""Storage: jobs, leases and results. The same tests run on PostgreSQL (tests/real)."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from storage_parts import TERM, Clock, claim, reported, result, running_pilot, spec, submit, whats

from pilotage.storage import Storage, events, jobs, leases
from pilotage.storage.errors import Conflict

pytest_plugins = ["storage_fixtures"]


async def test_jobs_are_what_was_submitted(storage: Storage) -> None:
    ids = await storage.write(
        jobs.submit, "demo", "ann", [spec(name="é\N{SNOWMAN}"), spec(cores=2, priority=3)], storage.now(), "req"
    )
    one, two = [await storage.read(jobs.get, number) for number in ids]
    assert one is not None and two is not None
    assert (one["state"], one["name"], one["batch"], one["attempt"]) == ("Waiting", "é\N{SNOWMAN}", "req", 0)
    assert two["spec"] == spec(cores=2, priority=3)
    assert two["priority"] == 3
    assert await storage.read(jobs.get, 999) is None
    assert await storage.read(jobs.counts) == {"Waiting": 2}
    assert await whats(storage, ids[0]) == ["Waiting"]


async def test_ten_thousand_jobs_in_one_call(storage: Storage) -> None:
    specs = [spec(name=str(n), cores=1 + n % 3) for n in range(10_000)]
    ids = await storage.write(jobs.submit, "demo", "ann", specs, storage.now(), "big")
    assert ids == list(range(ids[0], ids[0] + 10_000))
    assert await storage.read(jobs.counts, batch="big") == {"Waiting": 10_000}
    queues = await storage.read(jobs.task_queues)
    assert sorted(queue["waiting"] for queue in queues) == [3333, 3333, 3334]
    assert [queue["waiting"] for queue in await storage.read(jobs.task_queues, most=10)] == [10, 10, 10]


async def test_a_submission_asked_for_again_gives_the_same_jobs(storage: Storage) -> None:
    first = await submit(storage, 3, request_id="once")
    assert await submit(storage, 3, request_id="once") == first
    assert await storage.read(jobs.counts) == {"Waiting": 3}
    with pytest.raises(Conflict):
        await submit(storage, 4, request_id="once")
    other = await submit(storage, 1, owner="bob", request_id="once")
    assert not set(other) & set(first), "another owner's request ids are their own"
    assert await storage.write(jobs.submit, "demo", "ann", [], storage.now(), "none") == []


async def test_task_queues_are_told_apart_by_owner_need_and_priority(storage: Storage) -> None:
    await submit(storage, 2)
    await submit(storage, 1, name="other name", command=["x"])
    await submit(storage, 1, owner="bob")
    await submit(storage, 1, gpus=1)
    await submit(storage, 1, priority=7)
    queues = await storage.read(jobs.task_queues)
    found = Counter((q["owner"], q["requirements"]["gpus"], q["priority"], q["waiting"]) for q in queues)
    assert found == Counter([("ann", 0, 0, 3), ("bob", 0, 0, 1), ("ann", 1, 0, 1), ("ann", 0, 7, 1)])
    assert await storage.read(jobs.task_queues, "other") == []


async def test_searching_for_jobs(storage: Storage) -> None:
    ids = await submit(storage, 5, request_id="b1")
    theirs = await submit(storage, 1, owner="bob")
    assert [job["id"] for job in await storage.read(jobs.search, limit=2)] == [theirs[0], ids[4]]
    page = await storage.read(jobs.search, owner="ann", after=ids[4], limit=2)
    assert [job["id"] for job in page] == [ids[3], ids[2]]
    assert len(await storage.read(jobs.search, batch="b1")) == 5
    assert len(await storage.read(jobs.search, ids=[ids[0], 12345])) == 1
    assert await storage.read(jobs.search, states=["Done"]) == []
    assert await storage.read(jobs.search, vo="other") == []


async def test_killing(storage: Storage) -> None:
    await running_pilot(storage, "p1")
    ids = await submit(storage, 3)
    grants = await claim(storage, 2)
    await storage.write(reported, "p1", [result(1, grants[0]["lease"])], storage.now())
    killed = await storage.write(jobs.kill, [*ids, 999], "ann", "wrong input", storage.now())
    assert killed == {"killed": [ids[2]], "ordered": [ids[1]], "ended": [ids[0]], "unknown": [999]}
    job = await storage.read(jobs.get, ids[2])
    assert job is not None
    assert (job["state"], job["reason"], job["message"]) == ("Killed", "killed", "wrong input")
    assert await whats(storage, ids[1]) == ["Waiting", "Matched", "kill ordered"]
    held = await storage.read(leases.held, "p1")
    assert [(lease["job"], lease["kill"]) for lease in held] == [(ids[1], "wrong input")]


async def test_a_job_is_leased_to_one_pilot_only(storage: Storage) -> None:
    await submit(storage, 60)
    queue = (await storage.read(jobs.task_queues))[0]["id"]

    async def pilot(number: int) -> list[int]:
        got: list[int] = []  # on PostgreSQL one skips what another is just claiming: it asks again
        while grants := await storage.write(leases.claim, queue, 7, f"p{number}", storage.now(), TERM):
            got += [grant["job"] for grant in grants]
        return got

    claimed = [job for got in await asyncio.gather(*(pilot(number) for number in range(12))) for job in got]
    claimed += [grant["job"] for grant in await storage.write(leases.claim, queue, 60, "last", storage.now(), TERM)]
    assert len(claimed) == len(set(claimed)) == 60
    assert await storage.read(jobs.counts) == {"Matched": 60}
    assert await storage.read(jobs.task_queues) == []


async def test_the_oldest_jobs_go_first(storage: Storage) -> None:
    ids = await submit(storage, 5)
    grants = await claim(storage, 3)
    assert [grant["job"] for grant in grants] == ids[:3]
    assert grants[0]["attempt"] == 1
    assert grants[0]["spec"]["command"] == ["/bin/true"]
    assert "retries" not in grants[0]["spec"], "only what the pilot needs travels"
    assert len({grant["lease"] for grant in grants}) == 3


async def test_a_result_is_recorded_once(storage: Storage, clock: Clock) -> None:
    await running_pilot(storage, "p1")
    (job,) = await submit(storage)
    (grant,) = await claim(storage, 1)
    clock.time += 10
    usage = {"cpu_user": 1.5, "cpu_system": 0.5, "max_rss_mib": 7, "read_mib": 0, "write_mib": 1}
    report = result(
        1,
        grant["lease"],
        exit_code=0,
        wall_seconds=4.0,
        usage=usage,
        stdout="hello\0\ud800",
        outputs=[{"name": "a", "sha256": "0" * 64, "size": 1}],
        message="fine\0",
        isolation="bwrap",
    )
    assert await storage.write(reported, "p1", [report], storage.now()) == ["r1"]
    row = await storage.read(jobs.get, job)
    assert row is not None
    assert (row["state"], row["exit_code"], row["usage"], row["isolation"]) == ("Done", 0, usage, "bwrap")
    assert (row["started"], row["ended"]) == (clock.time - 4.0, clock.time)
    assert row["stdout"] == "hello\0\ud800", "whatever a payload prints is kept"
    assert row["message"] == "fine\N{REPLACEMENT CHARACTER}"
    clock.time += 10
    again = {**report, "id": "r2", "state": "Failed", "exit_code": 1}
    assert await storage.write(reported, "p1", [again, report], storage.now()) == ["r2", "r1"]
    assert await storage.read(jobs.get, job) == row
    assert await whats(storage, job) == ["Waiting", "Matched", "Done"]


async def test_the_same_result_twice_in_one_request(storage: Storage) -> None:
    (job,) = await submit(storage)
    (grant,) = await claim(storage, 1)
    reports = [result(1, grant["lease"], "Running"), result(2, grant["lease"], "Running"), result(3, grant["lease"])]
    reports += [result(4, grant["lease"]), result(5, grant["lease"], "Running")]
    assert await storage.write(reported, "p1", reports, storage.now()) == ["r1", "r2", "r3", "r4", "r5"]
    assert await whats(storage, job) == ["Waiting", "Matched", "Running", "Done"]


async def test_a_report_of_another_pilots_lease_changes_nothing(storage: Storage) -> None:
    (job,) = await submit(storage)
    (grant,) = await claim(storage, 1, "p1")
    reports = [result(1, grant["lease"]), result(2, "no-such-lease")]
    assert await storage.write(reported, "p2", reports, storage.now()) == ["r1", "r2"]
    assert (await storage.read(jobs.counts)) == {"Matched": 1}
    refused = await storage.read(events.of, "pilot", "p2")
    assert [event["what"] for event in refused] == ["refused", "refused"]
    assert await whats(storage, job) == ["Waiting", "Matched"]


async def test_a_returned_job_waits_again(storage: Storage) -> None:
    (job,) = await submit(storage, retries=0)
    for number in range(3):
        (grant,) = await claim(storage, 1)
        assert grant["attempt"] == 1
        await storage.write(reported, "p1", [result(number, grant["lease"], "Returned", "drained")], storage.now())
    assert await storage.read(jobs.counts) == {"Waiting": 1}
    assert (await whats(storage, job)).count("Waiting") == 4


async def test_a_lost_job_waits_again_while_it_has_retries(storage: Storage, clock: Clock) -> None:
    (job,) = await submit(storage, retries=1)
    (first,) = await claim(storage, 1)
    assert await storage.write(leases.expire, clock.time + TERM - 1) == []
    clock.time += TERM + 1
    assert [lease["job"] for lease in await storage.write(leases.expire, clock.time)] == [job]
    (second,) = await claim(storage, 1, "p2")
    assert (second["attempt"], second["job"]) == (2, job)
    await storage.write(reported, "p1", [result(1, first["lease"])], clock.time)
    row = await storage.read(jobs.get, job)
    assert row is not None and (row["state"], row["pilot"]) == ("Matched", "p2"), "a late result is refused"
    assert (await whats(storage, job))[-1] == "refused"
    clock.time += TERM + 1
    await storage.write(leases.expire, clock.time)
    row = await storage.read(jobs.get, job)
    assert row is not None and (row["state"], row["reason"]) == ("Failed", "lost")


async def test_retries_0_forbids_a_second_start(storage: Storage, clock: Clock) -> None:
    await submit(storage, retries=0)
    await claim(storage, 1)
    await storage.write(leases.lose, ["p1"], clock.time, "gone")
    assert await storage.read(jobs.counts) == {"Failed": 1}


async def test_a_job_cut_short_by_its_pilots_end_is_retried(storage: Storage) -> None:
    await submit(storage, retries=1)
    for number, state in ((1, "Waiting"), (2, "Failed")):
        (grant,) = await claim(storage, 1)
        reports = [result(number, grant["lease"], "Failed", "drained")]
        await storage.write(reported, "p1", reports, storage.now())
        assert await storage.read(jobs.counts) == {state: 1}


async def test_a_lost_job_with_a_kill_order_is_killed(storage: Storage, clock: Clock) -> None:
    ids = await submit(storage, 2)
    grants = await claim(storage, 2)
    await storage.write(jobs.kill, ids, "ann", "stop", storage.now())
    await storage.write(reported, "p1", [result(1, grants[0]["lease"], "Returned")], storage.now())
    await storage.write(leases.lose, ["p1"], clock.time, "gone")
    assert await storage.read(jobs.counts) == {"Killed": 2}


async def test_renewing_and_resuming(storage: Storage, clock: Clock) -> None:
    await submit(storage, 2)
    one, two = [grant["lease"] for grant in await claim(storage, 2)]
    await storage.write(leases.extend, [one, "unknown"], clock.time + 100 + TERM)
    expires = {lease["id"]: lease["expires"] - clock.time for lease in await storage.read(leases.held, "p1")}
    assert expires == {one: 100 + TERM, two: TERM}
    for gap in (-1e9, 0.0, 50.0, 1e9):
        at = clock.time + gap + 100
        await storage.write(leases.resume, gap, at, 120.0, 60.0)
        for lease in await storage.read(leases.held, "p1"):
            assert 120.0 <= lease["expires"] - at <= 180.0, "a whole term, whatever the clock did"
            await storage.write(leases.extend, [lease["id"]], clock.time + 100)
