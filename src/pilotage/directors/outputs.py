"""What ended pilots left at their resource: fetched once, told in one line each, and then forgotten there."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from pilotage.resources.base import Resource, ResourceError, State, Status
from pilotage.storage import Storage, pilots
from pilotage.storage.objects import output_key
from pilotage.wms import pilots as life

log = logging.getLogger("pilotage.directors")

STUBBORN_SECONDS = 300.0
"""A process that goes on for so long after its pilot's last report is cancelled."""
LOST_ALIVE_SECONDS = 3600.0
"""The same for a pilot that is thought lost: it may come back."""
FETCHES = 3
"""How often the outputs of a pilot are asked for before it is left without."""
FETCHED = 100
"""Ended pilots that one cycle looks after."""

Row = dict[str, Any]
T = TypeVar("T")


class Call(Protocol):
    """Waits for a call of a resource, for a limited time."""

    async def __call__(self, answer: Awaitable[T], /) -> T: ...


class Outputs:
    """The ended pilots of one resource whose outputs are still to be fetched."""

    def __init__(self, storage: Storage, name: str, after: Callable[[str], None]) -> None:
        self.storage = storage
        self.name = name
        self.ended: set[str] = set()
        self._after = after
        self._fetches: dict[str, int] = {}
        self._looked: dict[str, int] = {}

    async def collect(self, resource: Resource, call: Call) -> None:
        """One look at (a part of) them; those that are over are fetched, then the resource forgets them."""
        if not self.ended:
            return
        # In turn: those that do not leave must not keep others from being looked after.
        stamps = sorted(self.ended, key=lambda stamp: (self._looked.get(stamp, 0), stamp))[:FETCHED]
        self._looked = {stamp: count for stamp, count in self._looked.items() if stamp in self.ended}
        self._looked.update({stamp: self._looked.get(stamp, 0) + 1 for stamp in stamps})
        rows = await self.storage.read(pilots.search, stamps=stamps, limit=len(stamps))
        self.ended -= set(stamps) - {row["stamp"] for row in rows if row["ended"] is not None}
        rows = [row for row in rows if row["ended"] is not None]
        if not rows:
            return
        statuses = await call(resource.status([row["reference"] for row in rows]))
        for row in rows:
            if is_over(statuses[row["reference"]]):
                await self._fetch(resource, call, row)
            else:
                patience = LOST_ALIVE_SECONDS if row["reason"] == life.LOST else STUBBORN_SECONDS
                if self.storage.now() - row["ended"] > patience or row["registered"] is None:
                    await call(resource.cancel([row["reference"]]))

    async def _fetch(self, resource: Resource, call: Call, row: Row) -> None:
        storage, stamp, reference = self.storage, row["stamp"], row["reference"]
        tries = self._fetches[stamp] = self._fetches.get(stamp, 0) + 1
        try:
            outputs = await call(resource.output(reference))
        except (ResourceError, TimeoutError) as error:
            if tries < FETCHES:
                log.warning("Resource %s: the outputs of %s cannot be fetched: %s", self.name, stamp, error)
                return
            outputs = {}
        for name, data in outputs.items():
            key = output_key(stamp, name)
            # What the pilot uploaded itself is whole; the resource's copy may be cut.
            if name in ("stdout", "stderr") or not await storage.objects.exists(key):
                await storage.objects.put(key, data)
        self._after("stored")
        await storage.write(pilots.outputs_fetched, stamp, storage.now())
        self._fetches.pop(stamp, None)
        self.ended.discard(stamp)
        self._after("marked")
        log.info("Resource %s: the pilot %s has left: %s", self.name, stamp, _ending(row))
        await call(resource.clean([reference]))
        self._after("cleaned")


def is_over(status: Status) -> bool:
    """Whether the resource has nothing more to run of this pilot."""
    return status.state in (State.ENDED, State.GONE)


def last_words(output: Mapping[str, bytes]) -> str:
    """The last line that a pilot wrote on stderr, else on stdout; at most 200 characters."""
    for name in ("stderr", "stdout"):
        lines = output.get(name, b"").decode("utf-8", "replace").strip().splitlines()
        if lines:
            return "".join(c for c in lines[-1].strip()[:200] if c.isprintable())
    return ""


def short(stamps: Iterable[str], most: int = 10) -> str:
    """Stamps as people read them in a log, the first `most` of them."""
    found = sorted(stamps)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def _ending(row: Row) -> str:
    """How a pilot ended, in a few words."""
    code = "" if row["exit_code"] is None else f", exit code {row['exit_code']}"
    reason = f" ({row['reason']})" if row["reason"] else ""
    return f"{row['state']}{code}{reason}, {row['done']} of {row['jobs']} jobs done"
