"""The built-in WMS as an engine: jobs from our own database."""

import hmac
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from pilotage.engines.exchange import exchange
from pilotage.engines.retention import purge
from pilotage.engines.settings import Settings
from pilotage.storage import Storage, events, files, jobs, jsontext, leases, pilots
from pilotage.storage.tables import marks
from pilotage.storage.usage import Charges

Row = dict[str, Any]

ALIVE = "alive"
"""The mark of when the service was last alive."""

MAC = 32
"""Hex digits of a job token's mac."""

__all__ = ["BuiltinEngine", "Settings"]


class BuiltinEngine:
    """Jobs from our own database.

    Start it once (`start`), call `beat` and `housekeeping` every few seconds: they are the loop's body, not the loop.
    """

    def __init__(self, storage: Storage, key: bytes, settings: Settings | None = None) -> None:
        """``key``: 32 random bytes of the service, by which job tokens are made and checked."""
        self.storage = storage
        self.settings = settings or Settings()
        self._key = key
        self._purged: float | None = None

    async def start(self) -> None:
        """Once, before the first request: the time that the service was down does not count for any lease."""
        await self.storage.write(_resume, self.storage.now(), self.settings)

    async def beat(self) -> None:
        """Every few seconds: the service is alive (see `start`)."""
        await self.storage.write(_alive, self.storage.now())

    async def housekeeping(self) -> dict[str, int]:
        """Every few seconds: pilots silent for too long and leases over are lost; now and then a bounded batch of what
        is too old is purged. Gives counts: {"pilots_lost", "leases_lost", "jobs", "pilots", ...}."""
        now = self.storage.now()
        counts = await self.storage.write(_expire, now, self.settings)
        if self._purged is None or now >= self._purged + self.settings.purge_seconds:
            self._purged = now
            counts |= await purge(self.storage, self.settings, now)
        return counts

    async def register(self, request: Mapping[str, Any], request_id: str = "") -> Row:
        """A pilot's registration (protocol; the service has checked its shape): gives the pilot's row, see
        storage.pilots.

        Raises Unknown, Expired, StampUsed, Ended. The service adds the token and the rest of the answer.
        """
        return await self.storage.write(
            pilots.register,
            request["stamp"],
            request["secret"],
            request["nonce"],
            self.storage.now(),
            term=self.settings.lease_seconds + self.settings.margin,
            node=request.get("node"),
            digest=request.get("digest"),
            request_id=request_id,
        )

    async def sync(
        self, stamp: str, request: Mapping[str, Any], request_id: str = "", *, again_seconds: float = 0.0
    ) -> Row:
        """One synchronisation (protocol), in one transaction: the answer but for ``token``, ``token_seconds``.

        ``again_seconds``: come no sooner than that (back-pressure). The log chunk was stored by the caller before, who
        called `pilots.log_extended`; the answer has the log's length. Raises Unknown, Ended, Stale.
        """
        now = self.storage.now()
        answer = await self.storage.write(exchange, stamp, request, now, self.settings, self.job_token, request_id)
        answer["again_seconds"] = max(answer["again_seconds"], again_seconds)
        return answer

    async def demand(self) -> list[Row]:
        """Where jobs wait: [{id, vo, owner, priority, waiting, requirements}], one a task queue."""
        return await self.storage.read(jobs.task_queues)

    async def submit(self, vo: str, owner: str, specs: list[Row], request_id: str = "") -> list[int]:
        """Records jobs (see storage.jobs.submit); their input files are in use from now."""
        return await self.storage.write(_submit, vo, owner, specs, self.storage.now(), request_id)

    async def kill(self, ids: Iterable[int], who: str, why: str, request_id: str = "") -> dict[str, list[int]]:
        """Kills jobs (see storage.jobs.kill)."""
        return await self.storage.write(jobs.kill, list(ids), who, why, self.storage.now(), request_id)

    def job_token(self, lease: str) -> str:
        """The token of a leased job: lease id, a dot, and a mac under the service's key. It dies with its lease."""
        return f"{lease}.{hmac.digest(self._key, lease.encode(), 'sha256').hex()[:MAC]}"

    async def check_job_token(self, token: str) -> Row | None:
        """The live lease (storage.leases.get: job, pilot, vo, ...) that the token is for; None when forged or over."""
        lease, _, _ = token.partition(".")
        if not hmac.compare_digest(self.job_token(lease).encode(), token.encode()):
            return None
        found = await self.storage.read(leases.get, lease)
        return found if found is not None and found["ended"] is None and found["expires"] > self.storage.now() else None


def _submit(conn: Connection, vo: str, owner: str, specs: list[Row], now: float, request_id: str) -> list[int]:
    inputs = {item["sha256"] for spec in specs for item in spec.get("inputs") or ()}
    files.touch(conn, vo, inputs, now)
    return jobs.submit(conn, vo, owner, specs, now, request_id)


def _alive(conn: Connection, now: float) -> None:
    if not conn.execute(update(marks).where(marks.c.name == ALIVE).values(at=now)).rowcount:
        conn.execute(insert(marks), {"name": ALIVE, "at": now})


def _resume(conn: Connection, now: float, settings: Settings) -> None:
    """Leases and pilots' silences go on where they were when the service was last alive."""
    last = conn.execute(select(marks.c.at).where(marks.c.name == ALIVE).with_for_update()).scalar()
    gap = 0.0 if last is None else now - last
    term, margin = settings.lease_seconds, settings.margin
    live = leases.resume(conn, gap, now, term, margin)
    pilots.resume(conn, gap, now, term, margin)
    _alive(conn, now)
    data = jsontext.dump({"gap_seconds": round(gap, 3), "live_leases": live})
    events.append(conn, [(now, "service", "engine", "started", "service", "", "", data)])


def _expire(conn: Connection, now: float, settings: Settings) -> dict[str, int]:
    charges = Charges(now, settings.half_life)
    lost = pilots.expire(conn, now)
    gone = leases.lose(conn, lost, now, "its pilot was silent too long", charges=charges)
    gone += leases.expire(conn, now, charges=charges)
    charges.save(conn)
    return {"pilots_lost": len(lost), "leases_lost": len(gone)}
