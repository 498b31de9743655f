"""For the tests of storage and engines: a clock moved by hand, job descriptions, a pilot that is only messages."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from pilotage.engines.builtin import BuiltinEngine
from pilotage.storage import Storage, events, jobs, leases, pilots, results, tables, tokens

SECRET = "one-time"
TERM = 180.0
NODE = {"cores": 2, "memory_mib": 4000, "disk_mib": 9000, "gpus": 0}


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


def spec(**values: Any) -> dict[str, Any]:
    """A whole job description, as the service makes it."""
    whole = {
        "name": None,
        "command": ["/bin/true"],
        "environment": {},
        "inputs": [],
        "outputs": [],
        "stdout_mib": 16,
        "cores": 1,
        "memory_mib": None,
        "disk_mib": None,
        "gpus": 0,
        "wall_seconds": 3600,
        "cpu_seconds": None,
        "tags": [],
        "platform": None,
        "sites": [],
        "banned_sites": [],
        "priority": 0,
        "retries": 2,
        "isolation": "preferred",
    }
    return {**whole, **values}


def record(stamp: str, now: float, **values: Any) -> dict[str, Any]:
    """What a director records of a pilot before it submits it."""
    plain = {"vo": "demo", "site": "HOME", "resource": "box", "queue": "default", "flavour": "LOCAL"}
    secret = {"secret_hash": tokens.digest(SECRET), "secret_expires": now + 3600.0}
    return {"stamp": stamp, **plain, **secret, **values}


async def running_pilot(storage: Storage, stamp: str, *, term: float = 180.0, **values: Any) -> None:
    """A pilot that has registered."""
    now = storage.now()
    await storage.write(pilots.plan, [record(stamp, now, **values)], now)
    await storage.write(pilots.register, stamp, SECRET, "nonce", now, term=term, node=NODE)


async def submit(storage: Storage, n: int = 1, owner: str = "ann", request_id: str = "", **values: Any) -> list[int]:
    return await storage.write(jobs.submit, "demo", owner, [spec(**values)] * n, storage.now(), request_id)


async def claim(storage: Storage, n: int, pilot: str = "p1") -> list[dict[str, Any]]:
    queue = (await storage.read(jobs.task_queues))[0]["id"]
    return await storage.write(leases.claim, queue, n, pilot, storage.now(), TERM)


def result(number: int, lease: str, state: str = "Done", reason: str = "exit", **values: Any) -> dict[str, Any]:
    return {"id": f"r{number}", "kind": "job", "lease": lease, "state": state, "reason": reason, **values}


def reported(
    conn: Connection, pilot: str, reports: Sequence[Mapping[str, Any]], now: float, request_id: str = ""
) -> list[str]:
    """A synchronisation that is nothing but job reports."""
    live = {lease["id"]: lease for lease in leases.held(conn, pilot, lock=True)}
    return results.apply(conn, pilot, reports, live, now, request_id=request_id)


def recent(conn: Connection, *, kind: str | None = None, after: int = 0, limit: int = 100) -> list[dict[str, Any]]:
    """Events with an id above `after`, oldest first."""
    query = select(tables.events).where(tables.events.c.id > after).order_by(tables.events.c.id).limit(limit)
    if kind is not None:
        query = query.where(tables.events.c.kind == kind)
    return [dict(row) for row in conn.execute(query).mappings()]


async def whats(storage: Storage, job: int) -> list[str]:
    return [event["what"] for event in await storage.read(events.of, "job", str(job))]


class FakePilot:
    """What a pilot says, and what it remembers: no process, no network. Unacknowledged reports are said again."""

    def __init__(self, engine: BuiltinEngine, stamp: str, cores: int = 2, ahead: int = 0, **want: Any) -> None:
        self.engine, self.stamp = engine, stamp
        self.sequence = 0
        self.held: dict[str, dict[str, Any]] = {}
        self.reports: list[dict[str, Any]] = []
        self.numbers = itertools.count(1)
        total = {**NODE, "cores": cores}
        more = {"seconds_left": None, "ahead": ahead, "total": total, "tags": [], "platform": "any", "isolation": []}
        self.want: dict[str, Any] | None = {**total, **more, **want}
        self.started: list[str] = []

    async def plan(self, **values: Any) -> FakePilot:
        """Has it recorded, as a director does."""
        now = self.engine.storage.now()
        await self.engine.storage.write(pilots.plan, [record(self.stamp, now, **values)], now)
        return self

    async def register(self, nonce: str = "nonce", secret: str = SECRET) -> dict[str, Any]:
        """First contact."""
        message = {"stamp": self.stamp, "secret": secret, "nonce": nonce, "node": NODE, "digest": "d" * 64}
        return await self.engine.register(message)

    def report(self, kind: str = "job", **values: Any) -> dict[str, Any]:
        """Puts a report into the outbox."""
        report = {"id": f"r{next(self.numbers)}", "kind": kind, **values}
        self.reports.append(report)
        return report

    def end(self, lease: str, state: str = "Done", reason: str = "exit", **values: Any) -> None:
        """A job of this pilot ended."""
        self.held.pop(lease, None)
        plain = {"exit_code": 0, "signal": None, "message": "", "wall_seconds": 1.0, "stdout": "out", "stderr": ""}
        usage = {"cpu_user": 0.5, "cpu_system": 0.1, "max_rss_mib": 3, "read_mib": 0, "write_mib": 0}
        whole = {**plain, "usage": usage, "outputs": [], "isolation": "none", **values}
        self.report(lease=lease, state=state, reason=reason, **whole)

    async def sync(self, *, lost: bool = False, repeat: bool = False) -> dict[str, Any]:
        """One exchange. ``lost``: the answer never arrives. ``repeat``: with the sequence of the last one."""
        if not repeat:
            self.sequence += 1
        message = {
            "protocol": 1,
            "sequence": self.sequence,
            "held": list(self.held),
            "reports": list(self.reports),
            "want": self.want,
            "log": None,
            "beat": {"phase": "RunJobAgent", "usage": {"cpu_user": 1.0}},
        }
        answer = await self.engine.sync(self.stamp, message, "request")
        if lost:
            return answer
        told = set(answer["acknowledged"])
        self.reports = [report for report in self.reports if report["id"] not in told]
        for lease in [lease for lease in self.held if lease not in answer["hold"]]:
            del self.held[lease]
        for grant in answer["granted"]:
            if grant["lease"] not in self.held:
                self.held[grant["lease"]] = grant
                self.started.append(grant["lease"])
        return answer


async def pilot_of(engine: BuiltinEngine, stamp: str = "p1", **values: object) -> FakePilot:
    """A pilot that was planned and has registered."""
    pilot = await FakePilot(engine, stamp, **values).plan()  # type: ignore[arg-type]
    await pilot.register()
    return pilot


async def counts(engine: BuiltinEngine) -> dict[str, int]:
    """How many jobs are in each state."""
    return await engine.storage.read(jobs.counts)
