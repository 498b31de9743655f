"""The SiteDirector: serves one resource, in a task of its own, so that a slow resource delays no other.

A cycle: hold the lease; after a start or a doubt, compare records and resource; poll; close what is lost; fetch
outputs; plan; record; submit; note. A pilot is recorded before it is submitted, and what a crash may leave in between
is decided by `recovery`: none is lost, none doubled.

A changed configuration is taken over between two cycles. A resource that is no longer configured is served to its end:
nothing more is sent, and the director ends when the last pilot is gone and its outputs are fetched. For that, what the
resource was configured to be is kept in the records while it is served: so it works after a restart, too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from pilotage import resources
from pilotage.configuration import ConfigurationError
from pilotage.configuration.schema import Resource as Settings
from pilotage.directors.backoff import Rest
from pilotage.directors.ledger import Fenced, Ledger
from pilotage.directors.outputs import Outputs, is_over, last_words, short
from pilotage.directors.plan import Key, Policy, plan
from pilotage.directors.recovery import by_hand, reconcile, verdict
from pilotage.directors.shared import Shared
from pilotage.directors.supply import make, pilot_of, rests_of
from pilotage.resources.base import Bundle, Resource, ResourceError, Status
from pilotage.resources.base import State as PilotState
from pilotage.storage import pilots
from pilotage.wms import pilots as life

log = logging.getLogger("pilotage.directors")

GATHER_SECONDS = 0.05
"""After a wake: more of them may follow at once."""
BUSY_SECONDS = 1.0
"""Between two cycles while jobs wait: a slot may become free at any time."""
LONGEST_PAUSE = 60.0
"""Between two cycles of a resource that fails."""
GIVE_UP_SECONDS = 3600.0
"""A resource that is served only to the end and fails for so long is given up once all its records are closed."""
RECENT = 60
"""Ended pilots by which the back-off goes."""

Row = dict[str, Any]
T = TypeVar("T")


class SiteDirector:
    """Sends pilots to one resource and looks after them until their outputs are fetched.

    :ivar leaving: why the resource is served only until its pilots are gone; empty: it is served
    :ivar closed: it has left: nothing of ours is there any more
    """

    def __init__(self, shared: Shared, name: str, settings: Settings, resource: Resource) -> None:
        self.shared = shared
        self.name = name
        self.settings = settings
        self.resource = resource
        self.policy = shared.live.current.directors
        self.draining = False
        self.leaving = ""
        self.closed = False
        self.error = ""
        self.resting: dict[str, str] = {}
        self.ledger = Ledger(shared.storage, name, shared.holder, shared.engine.settings.half_life)
        self.outputs = Outputs(shared.storage, name, shared.after)
        self._next = settings
        self._sure = False
        self._busy = False
        self._known: set[str] = set()
        self._over: dict[str, float] = {}
        self._strangers: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._cycling = asyncio.Lock()

    def wake(self) -> None:
        """There may be something to do: the next cycle begins at once, one for many wakes."""
        self._wake.set()

    def change(self, settings: Settings) -> None:
        """From the next cycle on the resource is served as these say; also where it was being left."""
        self._next, self.leaving = settings, ""
        self._changed.set()
        self.wake()

    def leave(self, why: str) -> None:
        """From the next cycle on nothing more is sent; the director ends when what is there is gone."""
        if not self.leaving:
            log.info("Resource %s: %s; it is served until its pilots are gone", self.name, why)
        self.leaving = why
        self._changed.set()
        self.wake()

    async def run(self) -> None:
        """Cycles until cancelled, or until it has left. What goes wrong is told, and tried again later and later."""
        failures, failing = 0, 0.0
        while True:
            self._wake.clear()
            self._changed.clear()
            try:
                if failures and await self._give_up(time.monotonic() - failing):
                    return
                if await self.cycle() and await self._end():
                    return
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
                failing = failing if failures else time.monotonic()
                await _within(LONGEST_PAUSE, self.policy.interval_seconds * 2.0 ** min(failures, 10), self._changed)
                failures += 1

    def _failed(self, error: Exception) -> None:
        """Tells what is wrong, once as long as it is the same; with a trace where it is an error of ours."""
        timeout = f"the resource did not answer within {self.policy.call_seconds:g} s"
        text = timeout if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        if text != self.error:
            ours = not isinstance(error, ResourceError | ConfigurationError | TimeoutError | Fenced)
            log.error("Resource %s: %s", self.name, text, exc_info=error if ours else None)
        self.error = text

    async def cycle(self) -> bool:
        """One look at everything. False: another process serves this resource."""
        async with self._cycling:
            self._take_over()
            held = await self._hold()
            if held:
                await self._cycle()
            return held

    async def _cycle(self) -> None:
        if not self._sure:
            await self._recover()
        rows = [row for row in await self.shared.storage.read(pilots.active, self.name) if not by_hand(row)]
        known = [row for row in rows if row["reference"] is not None]
        self.outputs.ended |= self._known - {row["stamp"] for row in known}
        self._known = {row["stamp"] for row in known}
        await self._poll(known)
        await self.outputs.collect(self.resource, self._call)
        if not self.draining and not self.leaving:
            await self._send()

    async def _call(self, answer: Awaitable[T]) -> T:
        async with asyncio.timeout(self.policy.call_seconds):
            return await answer

    # The configuration

    def _take_over(self) -> None:
        """What was changed since the last cycle. Within a cycle nothing changes: the lease is held as long as its
        calls may take."""
        self.policy = self.shared.live.current.directors
        if self._next == self.settings:
            return
        resource = resources.adapt(self.resource, self.name, self._next, self.shared.data)
        if resource is not self.resource:
            self.resource, self._sure = resource, False
        self.settings = self._next
        log.info("Resource %s is served as it is configured now", self.name)

    async def _end(self) -> bool:
        """Whether the resource that is left has nothing of ours any more; then it is forgotten."""
        if not self.leaving or await self.left():
            return False
        await self.ledger.forget()
        self.closed = bool(self.leaving)  # else it was wanted again meanwhile
        if self.closed:
            log.info("Resource %s is no longer served: nothing of ours is there any more", self.name)
        return self.closed

    async def _give_up(self, seconds: float) -> bool:
        """Whether a resource that is left and has failed for so long is no longer asked: when no record is open."""
        if not self.leaving or seconds < GIVE_UP_SECONDS:
            return False
        rows = await self.shared.storage.read(pilots.active, self.name)
        if any(not by_hand(row) for row in rows) or not await self._hold():
            return False
        log.warning("Resource %s is given up with what may be left there: %s", self.name, self.error)
        await self.ledger.forget()
        self.closed = bool(self.leaving)
        return self.closed

    # The lease, and what a crash has left

    async def _hold(self) -> bool:
        """Holds the lease for longer than any call of the cycle may take, and keeps what the resource is."""
        call, lease = self.policy.call_seconds, self.policy.lease_seconds
        held, fresh = await self.ledger.hold(call + lease / 2, call + lease)
        if fresh:
            self._sure = False
        if held and not self.leaving:
            await self.ledger.remember(self.settings)
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
        self.outputs.ended.update(findings.unfetched)
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
            if not is_over(status):
                self._over.pop(row["stamp"], None)
                continue
            since = self._over.setdefault(row["stamp"], now)
            if verdict(row, status, since, now, self.policy.lost_seconds):
                await self._close(row, status, since)
        gone = [stamp for stamp, reference in self._strangers.items() if is_over(statuses[reference])]
        if gone:
            await self._call(self.resource.clean([self._strangers.pop(stamp) for stamp in gone]))

    async def _close(self, row: Row, status: Status, since: float) -> None:
        """Ends the record with the true reason, as far as it can be known; its jobs are free for others."""
        output = await self._call(self.resource.output(row["reference"])) if status.state == PilotState.ENDED else {}
        words = last_words(output)
        await self.ledger.close(row["stamp"], status, since, self.policy.lost_seconds, words)
        self.shared.after("closed")

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
        if started:
            queues = Counter(bundle.queue for bundle in bundles if bundle.stamp in started)
            counts = ", ".join(f"{count} to {queue}" for queue, count in sorted(queues.items()))
            log.info("Resource %s: pilots sent: %s: %s", self.name, counts, short(started))
        for text in sorted(set(refused.values())):
            log.error("Resource %s refused pilots: %s", self.name, text)

    async def _plan(self, free: int | None) -> list[Bundle]:
        """Decides, and records what was decided, all under the fence. A pilot that somebody is to start by hand counts
        once it is there: it may never be."""
        shared, storage = self.shared, self.shared.storage
        scene, now = shared.scene, storage.now()
        demand = shared.waiting.update(await shared.engine.demand(), now)
        alive = [row for row in await storage.read(pilots.active) if row["registered"] is not None or not by_hand(row)]
        ended = await storage.read(pilots.search, resource=self.name, states=life.ENDED, limit=RECENT)
        mine = [entrance for entrance in scene.supply if entrance.resource == self.name]
        rests = rests_of(mine, alive, ended, scene.state.current, now)
        self._tell_rests({key: rest for key, rest in rests.items() if now < rest.until}, now)
        if self.settings.slots is not None:
            left = self.settings.slots - sum(row["resource"] == self.name for row in alive)
            free = max(0, left if free is None else min(left, free))
        policy = Policy(
            {self.name: free},
            max_per_cycle=self.policy.max_per_cycle,
            rests={key: rest.most for key, rest in rests.items() if rest.most is not None},
            shares={name: vo.share for name, vo in scene.state.current.vos.items()},
        )
        seen = [pilot_of(row, scene.by_key, now) for row in alive]
        submissions = plan(demand, scene.supply, seen, policy, now)
        if not submissions:
            return []
        records, bundles = await asyncio.to_thread(make, scene.state, submissions, shared.urls, shared.trust, now)
        shared.after("planned")
        await self.ledger.plan(records)
        return bundles

    def _tell_rests(self, rests: Mapping[Key, Rest], now: float) -> None:
        """Keeps for people which queues rest, and logs those that begin to."""
        before, self.resting = self.resting, {f"{queue}/{vo}": rest.why for (_, queue, vo), rest in rests.items()}
        for (_, queue, vo), rest in rests.items():
            if f"{queue}/{vo}" not in before:
                log.info("Resource %s: %s/%s rests for %.0f s: %s", self.name, queue, vo, rest.until - now, rest.why)

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
        return len(active | self._known | self.outputs.ended | set(self._strangers))

    def describe(self) -> dict[str, Any]:
        """For people; see `Directors.describe`."""
        return {
            "resource": self.name,
            "pilots": len(self._known),
            "error": self.error,
            "resting": self.resting,
            "draining": self.draining,
            "leaving": self.leaving,
        }


async def _within(longest: float, seconds: float, event: asyncio.Event) -> None:
    """Waits for so long, or until the event."""
    try:
        async with asyncio.timeout(min(longest, seconds)):
            await event.wait()
    except TimeoutError:
        pass
