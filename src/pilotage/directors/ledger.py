"""What a director writes: each write under the fence of its lease, so that one who was overtaken changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from pilotage.configuration.schema import Resource as Settings
from pilotage.directors.backoff import CANCELLED, NEVER_SUBMITTED
from pilotage.directors.recovery import verdict
from pilotage.resources.base import Status
from pilotage.storage import Storage, jsontext, leases, pilots
from pilotage.storage import resources as holders
from pilotage.storage.usage import Charges
from pilotage.wms import pilots as life

LEAVING = "the directors are ending"


class Fenced(Exception):
    """Another director has taken over this resource."""


def kept(settings: Settings) -> str:
    """Settings of a resource as they are kept while it is served (JSON): all that its pilots are found again by."""
    data = settings.model_dump(mode="json", exclude={"pilot"}, exclude_unset=True)
    for queue in data["queues"].values():
        queue.pop("pilot", None)
    return jsontext.dump(data) or ""


def restored(text: str) -> Settings:
    """The settings that `kept` gave. Raises ValueError where this version does not understand them."""
    return Settings.model_validate_json(text)


class Ledger:
    """The records of one resource's pilots, in the hand of one director."""

    def __init__(self, storage: Storage, resource: str, holder: str, half_life: float) -> None:
        """`half_life` is fair share's: what a lost pilot's jobs were charged for and did not get is given back."""
        self.storage = storage
        self.half_life = half_life
        self.resource = resource
        self.holder = holder
        self.fence: int | None = None
        self._ends = 0.0
        self._remembered: str | None = None

    async def hold(self, least: float, term: float) -> tuple[bool, bool]:
        """Takes or renews the lease unless it lasts `least` seconds more: (whether we have it, whether it is new)."""
        now = self.storage.now()
        if self.fence is not None and self._ends - now > least:
            return True, False
        before = self.fence
        self.fence = await self.storage.write(holders.acquire, self.resource, self.holder, now, term)
        self._ends = now + term
        if self.fence != before:
            self._remembered = None
        return self.fence is not None, self.fence != before

    async def release(self) -> None:
        """Gives the lease back."""
        if self.fence is not None:
            await self.storage.write(holders.release, self.resource, self.fence)
            self.fence = None

    async def remember(self, settings: Settings) -> None:
        """Keeps what the resource is configured to be, before anything is sent there."""
        text = kept(settings)
        if text != self._remembered:
            await self._keep(text)

    async def forget(self) -> None:
        """Nothing of ours is there any more, and it is not served any longer."""
        await self._keep(None)
        await self.release()

    async def _keep(self, settings: str | None) -> None:
        def write(conn: Connection, now: float) -> None:
            self._check(conn, now)
            holders.remember(conn, self.resource, settings)

        await self.storage.write(write, self.storage.now())
        self._remembered = settings

    def _check(self, conn: Connection, now: float) -> None:
        if self.fence is None or not holders.check(conn, self.resource, self.fence, now):
            raise Fenced("another director has taken over")

    async def settle(self, noted: Mapping[str, str], never: Sequence[str]) -> None:
        """Notes references {stamp: reference} that a crash left out, and aborts what was never submitted."""

        def write(conn: Connection, now: float) -> None:
            self._check(conn, now)
            pilots.submitted(conn, noted, now, who=self.holder)
            for stamp in never:
                pilots.end(conn, stamp, life.ABORTED, now, reason=NEVER_SUBMITTED, who=self.holder)

        if noted or never:
            await self.storage.write(write, self.storage.now())

    async def plan(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Records pilots before they are submitted."""

        def write(conn: Connection, now: float) -> None:
            self._check(conn, now)
            pilots.plan(conn, records, now, who=self.holder)

        await self.storage.write(write, self.storage.now())

    async def note(self, started: Mapping[str, str], refused: Mapping[str, str]) -> None:
        """What came of a submission: {stamp: reference} and {stamp: why not}. True whoever holds the lease now."""

        def write(conn: Connection, now: float) -> None:
            pilots.submitted(conn, started, now, who=self.holder)
            for stamp, text in refused.items():
                reason = f"not accepted by the resource: {text}"
                pilots.end(conn, stamp, life.ABORTED, now, reason=reason, who=self.holder)

        await self.storage.write(write, self.storage.now())

    async def close(self, stamp: str, status: Status, over_since: float, lost_seconds: float, words: str) -> None:
        """Ends a pilot's record as `recovery.verdict` says, once more looked at: it may have been heard meanwhile.

        Its jobs are free for others at once.
        """

        def write(conn: Connection, now: float) -> None:
            self._check(conn, now)
            row = pilots.get(conn, stamp)
            found = None if row is None or row["ended"] else verdict(row, status, over_since, now, lost_seconds)
            if found is None:
                return
            reason = found.reason + (f" (its last words: {words})" if words else "")
            pilots.end(conn, stamp, found.state, now, exit_code=found.exit_code, reason=reason, who=self.holder)
            charges = Charges(now, self.half_life)
            leases.lose(conn, [stamp], now, reason, charges=charges)
            charges.save(conn)

        await self.storage.write(write, self.storage.now())

    async def leave(self, running: Sequence[str], idle: Sequence[str]) -> None:
        """Orders running pilots to drain, and ends the records of those that have not registered."""

        def write(conn: Connection, now: float) -> None:
            pilots.order(conn, running, "drain", now, who=self.holder, why=LEAVING)
            for stamp in idle:
                row = pilots.get(conn, stamp)
                if row is not None and row["registered"] is None:
                    pilots.end(conn, stamp, life.ABORTED, now, reason=f"{CANCELLED}: {LEAVING}", who=self.holder)

        await self.storage.write(write, self.storage.now())
