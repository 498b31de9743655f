"""Counts for /metrics (Prometheus text format) and /summary: few, cheap, and never older than a few seconds."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilotage.storage import Storage

Counts = dict[str, dict[str, int]]


class Metrics:
    """Counters of this process, and cached counts of the database."""

    def __init__(self, storage: Storage, seconds: float) -> None:
        self._storage = storage
        self._seconds = seconds
        self._counted: dict[str | None, tuple[float, Counts]] = {}
        self._lock = asyncio.Lock()
        self.requests: Counter[tuple[str, int]] = Counter()
        self.syncs = 0

    async def counts(self, vo: str | None = None) -> Counts:
        """{"jobs": {state: n}, "pilots": {state: n}} of a VO or of all, at most `seconds` old."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            at, found = self._counted.get(vo, (-1e9, {}))
            if now - at > self._seconds:
                found = await count(self._storage, vo)
                if len(self._counted) > 1000:
                    self._counted.clear()
                self._counted[vo] = (now, found)
            return found

    async def text(self) -> str:
        """All metrics in the Prometheus text format, version 0.0.4."""
        counts = await self.counts()
        lines: list[str] = []

        def family(name: str, kind: str, text: str, samples: list[tuple[str, float]]) -> None:
            lines.append(f"# HELP {name} {text}")
            lines.append(f"# TYPE {name} {kind}")
            lines.extend(f"{name}{labels} {value}" for labels, value in samples)

        for what in ("jobs", "pilots"):
            states = [(f'{{state="{state}"}}', float(n)) for state, n in sorted(counts[what].items())]
            family(f"pilotage_{what}", "gauge", f"{what.capitalize()} in the database by state.", states)
        family("pilotage_syncs_total", "counter", "Synchronisations of pilots.", [("", self.syncs)])
        for what, n in self._storage.statistics.items():
            family(f"pilotage_{what}_total", "counter", f"{what.capitalize()} of the database.", [("", n)])
        family("pilotage_pending_writes", "gauge", "Writes that wait for the database.", [("", self._storage.backlog)])
        requests = [(f'{{route="{r}",status="{s}"}}', float(n)) for (r, s), n in sorted(self.requests.items())]
        family("pilotage_requests_total", "counter", "Requests by route and HTTP status.", requests)
        return "\n".join(lines) + "\n"


async def count(storage: Storage, vo: str | None, owner: str | None = None, batch: str | None = None) -> Counts:
    """The same, of now; of one owner's or one batch's jobs where named."""
    from pilotage.storage import jobs, pilots

    found = await storage.read(jobs.counts, vo, owner=owner, batch=batch)
    return {"jobs": found, "pilots": await storage.read(pilots.counts, vo)}
