"""The SiteDirector: serves one resource, in a task of its own, so that a slow resource delays no other.

A cycle: hold the lease; after a start or a doubt, compare records and resource; poll; close what is lost; fetch
outputs; plan; record; submit; note. A pilot is recorded before it is submitted, and what a crash may leave in between
is decided by `recovery`: none is lost, none doubled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pilotage.configuration import Configuration, ConfigurationError
from pilotage.configuration.schema import Resource as Settings
from pilotage.directors.ledger import Fenced, Ledger
from pilotage.directors.plan import Policy, Supply, plan
from pilotage.directors.recovery import by_hand, reconcile, verdict
from pilotage.directors.supply import Waiting, make, pilot_of, rests_of
from pilotage.engines.builtin import BuiltinEngine
from pilotage.resources.base import Bundle, Resource, ResourceError, State, Status
from pilotage.storage import Storage, pilots
from pilotage.storage.objects import output_key
from pilotage.wms import pilots as life

log = logging.getLogger("pilotage.directors")

GATHER_SECONDS = 0.05
"""After a wake: more of them may follow at once."""
BUSY_SECONDS = 1.0
"""Between two cycles while jobs wait: a slot may become free at any time."""
LONGEST_PAUSE = 60.0
"""Between two cycles of a resource that fails."""
STUBBORN_SECONDS = 300.0
"""A process that goes on for so long after its pilot's last report is cancelled."""
LOST_ALIVE_SECONDS = 3600.0
"""The same for a pilot that is thought lost: it may come back."""
FETCHES = 3
"""How often the outputs of a pilot are asked for before it is left without."""
FETCHED = 100
"""Ended pilots that one cycle looks after."""
RECENT = 60
"""Ended pilots by which the back-off goes."""

Row = dict[str, Any]
T = TypeVar("T")


@dataclass(slots=True)
class Shared:
    """What the directors of one process have in common.

    :ivar holder: who we are, in the leases of resources
    :ivar after: called with the name of each step that is done; tests crash there
    """

    storage: Storage
    engine: BuiltinEngine
    configuration: Configuration
    supply: list[Supply]
    urls: Sequence[str]
    trust: Sequence[str]
    holder: str
    after: Callable[[str], None] = lambda step: None
    planning: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: Waiting = field(default_factory=Waiting)


class SiteDirector:
    """Sends pilots to one resource and looks after them until their outputs are fetched."""

    def __init__(self, shared: Shared, name: str, settings: Settings, resource: Resource) -> None:
        self.shared = shared
        self.name = name
        self.settings = settings
        self.resource = resource
        self.policy = shared.configuration.directors
        self.draining = False
        self.error = ""
        self.resting: dict[str, str] = {}
        self.ledger = Ledger(shared.storage, name, shared.holder, shared.engine.settings.half_life)
        self._sure = False
        self._busy = False
        self._known: set[str] = set()
        self._ended: set[str] = set()
        self._over: dict[str, float] = {}
        self._strangers: dict[str, str] = {}
        self._fetches: dict[str, int] = {}
        self._looked: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._cycling = asyncio.Lock()

    def wake(self) -> None:
        """There may be something to do: the next cycle begins at once, one for many wakes."""
        self._wake.set()

    async def run(self) -> None:
        """Cycles until cancelled. What goes wrong is told, and tried again later and later."""
        failures = 0
        while True:
            self._wake.clear()
            try:
                await self.cycle()
                failures, self.error = 0, ""
                pause = min(BUSY_SECONDS, self.policy.interval_seconds) if self._busy else self.policy.interval_seconds
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                        await asyncio.sleep(GATHER_SECONDS)
                except TimeoutError:
                    pass
            except Exception as error:  # whatever it is, the other resources and the next cycles must go on
                self._failed(error)
                await asyncio.sleep(min(LONGEST_PAUSE, self.policy.interval_seconds * 2.0 ** min(failures, 10)))
                failures += 1

    def _failed(self, error: Exception) -> None:
        """Tells what is wrong, once as long as it is the same; with a trace where it is an error of ours."""
        timeout = f"the resource did not answer within {self.policy.call_seconds:g} s"
        text = timeout if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        if text != self.error:
            ours = not isinstance(error, ResourceError | ConfigurationError | TimeoutError | Fenced)
            log.error("Resource %s: %s", self.name, text, exc_info=error if ours else None)
        self.error = text

    async def cycle(self) -> None:
        """One look at everything."""
        async with self._cycling:
            await self._cycle()

    async def _cycle(self) -> None:
        if not await self._hold():
            return
        if not self._sure:
            await self._recover()
        rows = [row for row in await self.shared.storage.read(pilots.active, self.name) if not by_hand(row)]
        known = [row for row in rows if row["reference"] is not None]
        self._ended |= self._known - {row["stamp"] for row in known}
        self._known = {row["stamp"] for row in known}
        await self._poll(known)
        await self._collect()
        if not self.draining:
            await self._send()

    async def _call(self, answer: Awaitable[T]) -> T:
        async with asyncio.timeout(self.policy.call_seconds):
            return await answer

    # The lease, and what a crash has left

    async def _hold(self) -> bool:
        """Holds the lease for longer than any call of the cycle may take."""
        call, lease = self.policy.call_seconds, self.policy.lease_seconds
        held, fresh = await self.ledger.hold(call + lease / 2, call + lease)
        if fresh:
            self._sure = False
        self.shared.after("leased")
        return held

    async def _recover(self) -> None:
        """Finds our own pilots on the resource, and settles what is recorded otherwise."""
        storage = self.shared.storage
        found = await self._call(self.resource.find())
        self.shared.after("found")
        rows = await storage.read(pilots.active, self.name)
        stamps = list(set(found) - {row["stamp"] for row in rows})
        for begin in range(0, len(stamps), 500):
            part = stamps[begin : begin + 500]
            rows += await storage.read(pilots.search, stamps=part, limit=len(part))
        findings = reconcile(found, rows)
        await self.ledger.settle(findings.noted, findings.never)
        self._ended.update(findings.unfetched)
        self._strangers = findings.strangers
        if findings.strangers:
            log.warning("Resource %s: %d pilots that nobody knows are cancelled", self.name, len(findings.strangers))
            await self._call(self.resource.cancel(list(findings.strangers.values())))
        if findings.leftovers:
            await self._call(self.resource.clean(list(findings.leftovers.values())))
        self._sure = True
        self.shared.after("recovered")

    # Pilots that are there

    async def _poll(self, rows: Sequence[Row]) -> None:
        """Asks after all pilots at once; closes the records of those that are over and will not report."""
        now = self.shared.storage.now()
        self._over = {row["stamp"]: self._over[row["stamp"]] for row in rows if row["stamp"] in self._over}
        references = [*(row["reference"] for row in rows), *self._strangers.values()]
        if not references:
            return
        statuses = await self._call(self.resource.status(references))
        for row in rows:
            status = statuses[row["reference"]]
            if status.state not in (State.ENDED, State.GONE):
                self._over.pop(row["stamp"], None)
                continue
            since = self._over.setdefault(row["stamp"], now)
            if verdict(row, status, since, now, self.policy.lost_seconds):
                await self._close(row, status, since)
        gone = [stamp for stamp, reference in self._strangers.items() if _is_over(statuses[reference])]
        if gone:
            await self._call(self.resource.clean([self._strangers.pop(stamp) for stamp in gone]))

    async def _close(self, row: Row, status: Status, since: float) -> None:
        """Ends the record with the true reason, as far as it can be known; its jobs are free for others."""
        output = await self._call(self.resource.output(row["reference"])) if status.state == State.ENDED else {}
        words = _last_words(output)
        await self.ledger.close(row["stamp"], status, since, self.policy.lost_seconds, words)
        self.shared.after("closed")

    async def _collect(self) -> None:
        """Fetches, once, what ended pilots left at the resource, then lets the resource forget them."""
        storage = self.shared.storage
        if not self._ended:
            return
        # In turn: those that do not leave must not keep others from being looked after.
        stamps = sorted(self._ended, key=lambda stamp: (self._looked.get(stamp, 0), stamp))[:FETCHED]
        self._looked = {stamp: count for stamp, count in self._looked.items() if stamp in self._ended}
        self._looked.update({stamp: self._looked.get(stamp, 0) + 1 for stamp in stamps})
        rows = await storage.read(pilots.search, stamps=stamps, limit=len(stamps))
        self._ended -= set(stamps) - {row["stamp"] for row in rows if row["ended"] is not None}
        rows = [row for row in rows if row["ended"] is not None]
        if not rows:
            return
        statuses = await self._call(self.resource.status([row["reference"] for row in rows]))
        for row in rows:
            if _is_over(statuses[row["reference"]]):
                await self._fetch(row)
            else:
                patience = LOST_ALIVE_SECONDS if row["reason"] == life.LOST else STUBBORN_SECONDS
                if storage.now() - row["ended"] > patience or row["registered"] is None:
                    await self._call(self.resource.cancel([row["reference"]]))

    async def _fetch(self, row: Row) -> None:
        storage, stamp, reference = self.shared.storage, row["stamp"], row["reference"]
        tries = self._fetches[stamp] = self._fetches.get(stamp, 0) + 1
        try:
            outputs = await self._call(self.resource.output(reference))
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
        self.shared.after("stored")
        await storage.write(pilots.outputs_fetched, stamp, storage.now())
        self._fetches.pop(stamp, None)
        self._ended.discard(stamp)
        self.shared.after("marked")
        await self._call(self.resource.clean([reference]))
        self.shared.after("cleaned")

    # New pilots

    async def _send(self) -> None:
        """Plans, records, submits, notes."""
        shared = self.shared
        self._busy = bool(await shared.engine.demand())
        if not self._busy:
            return
        free = await self._call(self.resource.free_slots())
        if free == 0:
            return
        async with shared.planning:  # what others of this process have just recorded counts
            bundles = await self._plan(free)
        if not bundles:
            return
        shared.after("recorded")
        self._sure = False  # until all is noted
        answers = await self._call(self.resource.submit(bundles))
        shared.after("submitted")
        started = {stamp: answer for stamp, answer in answers.items() if isinstance(answer, str)}
        refused = {stamp: str(answer) for stamp, answer in answers.items() if not isinstance(answer, str)}
        await self.ledger.note(started, refused)
        self._known |= set(started)
        self._sure = set(answers) == {bundle.stamp for bundle in bundles}
        shared.after("noted")
        for text in sorted(set(refused.values())):
            log.error("Resource %s refused pilots: %s", self.name, text)

    async def _plan(self, free: int | None) -> list[Bundle]:
        """Decides, and records what was decided, all under the fence."""
        shared, storage = self.shared, self.shared.storage
        now = storage.now()
        demand = shared.waiting.update(await shared.engine.demand(), now)
        alive = await storage.read(pilots.active)
        ended = await storage.read(pilots.search, resource=self.name, states=life.ENDED, limit=RECENT)
        by_key = {entrance.key: entrance for entrance in shared.supply}
        mine = [entrance for entrance in shared.supply if entrance.resource == self.name]
        rests = rests_of(mine, alive, ended, shared.configuration, now)
        self.resting = {f"{queue}/{vo}": rest.why for (_, queue, vo), rest in rests.items() if now < rest.until}
        if self.settings.slots is not None:
            left = self.settings.slots - sum(row["resource"] == self.name for row in alive)
            free = max(0, left if free is None else min(left, free))
        policy = Policy(
            {self.name: free},
            max_per_cycle=self.policy.max_per_cycle,
            rests={key: rest.most for key, rest in rests.items() if rest.most is not None},
            shares={name: vo.share for name, vo in shared.configuration.vos.items()},
        )
        submissions = plan(demand, shared.supply, [pilot_of(row, by_key, now) for row in alive], policy, now)
        if not submissions:
            return []
        records, bundles = await asyncio.to_thread(
            make, shared.configuration, submissions, shared.urls, shared.trust, now
        )
        shared.after("planned")
        await self.ledger.plan(records)
        return bundles

    # Leaving

    async def drain(self) -> None:
        """Sends no more, cancels what has not started, and asks those that run to leave."""
        self.draining = True
        async with self._cycling:
            await self._leave()

    async def _leave(self) -> None:
        rows = await self.shared.storage.read(pilots.active, self.name)
        rows = [row for row in rows if row["reference"] and not by_hand(row)]
        running = [row for row in rows if row["registered"] is not None]
        idle = [row for row in rows if row["registered"] is None]
        await self.ledger.leave([row["stamp"] for row in running], [row["stamp"] for row in idle])
        await self._call(self.resource.cancel([row["reference"] for row in idle]))
        await self._call(self.resource.drain([row["reference"] for row in running]))

    async def left(self) -> int:
        """Pilots of ours that have not ended, or whose outputs are still to be fetched."""
        rows = await self.shared.storage.read(pilots.active, self.name)
        active = {row["stamp"] for row in rows if row["reference"] and not by_hand(row)}
        return len(active | self._known | self._ended)


def _is_over(status: Status) -> bool:
    return status.state in (State.ENDED, State.GONE)


def _last_words(output: Mapping[str, bytes]) -> str:
    """The last line that a pilot wrote on stderr, else on stdout; at most 200 characters."""
    for name in ("stderr", "stdout"):
        lines = output.get(name, b"").decode("utf-8", "replace").strip().splitlines()
        if lines:
            return "".join(c for c in lines[-1].strip()[:200] if c.isprintable())
    return ""
