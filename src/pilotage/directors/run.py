"""All directors of one process: one SiteDirector a resource, each in its own task; they follow the configuration."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pilotage import resources
from pilotage.configuration import ConfigurationError
from pilotage.configuration.live import Live
from pilotage.configuration.schema import Resource as Settings
from pilotage.directors.ledger import restored
from pilotage.directors.shared import Shared
from pilotage.directors.site import SiteDirector
from pilotage.directors.supply import Scene, Scenery
from pilotage.engines.builtin import BuiltinEngine
from pilotage.resources.base import ResourceError
from pilotage.storage import Storage
from pilotage.storage import resources as holders

log = logging.getLogger("pilotage.directors")

LOCK = "directors.lock"
DRAIN_POLL = 0.2
FIRST_SECONDS = 10.0
"""How long the start waits for resources to tell of their nodes: where that is not known, nothing is planned yet."""


class AlreadyServed(Exception):
    """Another process runs the directors of this data directory."""


class Directors:
    """The running directors. Made by `run_directors`.

    Each change of the configuration is taken over by one task, one change after the other: new resources get a
    director, changed ones their settings between two cycles, and those that are gone, or are of another type now, are
    served to their end; only then does what is now of that name begin.
    """

    def __init__(self, shared: Shared, lock: int) -> None:
        self.shared = shared
        self._lock = lock
        self._directors: dict[str, SiteDirector] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, str] = {}
        self._scenery = Scenery()
        self._painting = asyncio.Lock()
        self._changed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    async def start(self, served: Mapping[str, str]) -> None:
        """Begins with what is configured, and with what was served before and is not configured any more.

        :param served: {name: settings} as kept in the records (`Ledger.remember`)
        """
        self._unsubscribe = self.shared.live.subscribe(self._changed.set)
        wanted = resources.directed(self.shared.live.current)
        for name, kept in served.items():
            self._resume(name, kept, wanted.get(name))
        self._adopt(wanted)
        await self._launch(list(self._directors.values()))
        self._following = asyncio.create_task(self._follow(), name="directors follow the configuration")

    def wake(self) -> None:
        """Call it when there may be new demand: all look at once; many calls cost one cycle."""
        for each in self._directors.values():
            each.wake()

    def describe(self) -> list[dict[str, Any]]:
        """For people: {resource, pilots, error, resting: {queue/VO: why}, draining, leaving: why} of each resource.

        `pilots` counts those that have not ended; `leaving` says why it is served only until they are gone.
        """
        found = [each.describe() for each in self._directors.values()]
        idle = {"pilots": 0, "resting": {}, "draining": False, "leaving": ""}
        return found + [{"resource": name, "error": text, **idle} for name, text in self._refused.items()]

    def reach(self, urls: Sequence[str]) -> None:
        """From now on new pilots are told these URLs of the service."""
        self.shared.urls = urls

    async def drain(self, seconds: float = 60.0) -> int:
        """Sends no more pilots, asks all to leave, and waits for them; the service must go on meanwhile.

        Gives how many are still there after `seconds`: they go on by themselves.
        """
        await self._follow_no_more()
        directors = list(self._directors.values())
        answers = await asyncio.gather(*(each.drain() for each in directors), return_exceptions=True)
        for each, answer in zip(directors, answers, strict=True):
            if isinstance(answer, BaseException):
                log.error("Resource %s cannot be drained: %s", each.name, answer)
        left = 0
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            counts = await asyncio.gather(*(each.left() for each in directors), return_exceptions=True)
            left = sum(count if isinstance(count, int) else 1 for count in counts)  # not known is not none
            if not left or loop.time() >= end:
                return left
            self.wake()
            await asyncio.sleep(DRAIN_POLL)

    async def stop(self) -> None:
        """Ends the directors; pilots keep running, and are found again by the next ones."""
        await self._follow_no_more()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for each in self._directors.values():
            try:
                await each.ledger.release()
            except Exception as error:
                log.warning("The lease of %s could not be given back: %s", each.name, error)
        os.close(self._lock)

    # The configuration

    async def _follow(self) -> None:
        """Takes over one change after the other, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                fresh = self._adopt(resources.directed(self.shared.live.current))
                await self._paint()
                await self._launch(fresh)
            except Exception:  # the next change, and those who are served, must go on
                log.exception("A change of the configuration could not be taken over by the directors.")

    async def _follow_no_more(self) -> None:
        self._unsubscribe()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
            self._following = None

    def _resume(self, name: str, kept: str, wanted: Settings | None) -> None:
        """A resource that was served when the last process ended: begins with it where it is gone or of another type
        now."""
        try:
            settings = restored(kept)
            if wanted is None or not resources.same(settings, wanted):
                self._begin(name, settings)
        except (ValueError, ConfigurationError) as error:
            # Its pilots are not lost sight of: those that are alive report to the service, and it closes the others.
            reason = error.text if isinstance(error, ConfigurationError) else "what is kept of it cannot be read"
            log.error("What resource %s was cannot be served to its end: %s", name, reason)

    def _adopt(self, wanted: Mapping[str, Settings]) -> list[SiteDirector]:
        """Tells each director what it is to do now; gives those that are new."""
        self._refused = {}
        for name, director in list(self._directors.items()):
            if director.closed:
                del self._directors[name], self._tasks[name]
                self._scenery.nodes.pop(name, None)
            elif name not in wanted:
                director.leave("it is no longer configured")
            elif not resources.same(director.settings, wanted[name]):
                director.leave(f"it is configured as of type {wanted[name].type} now")
            else:
                director.change(wanted[name])
        fresh = []
        for name, settings in wanted.items():
            if name not in self._directors:
                try:
                    fresh.append(self._begin(name, settings))
                except ConfigurationError as error:
                    self._refused[name] = error.text
                    log.error("Resource %s is not served: %s", name, error)
        return fresh

    def _begin(self, name: str, settings: Settings) -> SiteDirector:
        shared = self.shared
        director = SiteDirector(shared, name, settings, resources.make(name, settings, shared.data))
        self._directors[name] = director
        return director

    async def _launch(self, directors: Sequence[SiteDirector]) -> None:
        """Starts directors: together as soon as all know their nodes, and each of the slow ones when it does."""
        asked = {each.name: asyncio.create_task(self._ask(each)) for each in directors}
        needed = [asked[each.name] for each in directors if not each.leaving]
        if needed:
            await asyncio.wait(needed, timeout=FIRST_SECONDS)
        await self._paint()
        for each in directors:
            task = asyncio.create_task(self._serve(each, asked[each.name]), name=f"director of {each.name}")
            task.add_done_callback(lambda _: self._changed.set())
            self._tasks[each.name] = task

    async def _ask(self, director: SiteDirector) -> None:
        """What the resource knows of its nodes; nothing where it does not answer."""
        node: dict[str, Any] = {}
        try:
            async with asyncio.timeout(self.shared.live.current.directors.call_seconds):
                node = await director.resource.node()
        except Exception as error:
            ours = not isinstance(error, ResourceError | TimeoutError)
            why = str(error) or "no answer"
            log.warning(
                "Resource %s: what its nodes are like is not known: %s",
                director.name,
                why,
                exc_info=error if ours else None,
            )
        self._scenery.nodes[director.name] = node

    async def _serve(self, director: SiteDirector, asked: asyncio.Task[None]) -> None:
        """One director's whole life."""
        late = not asked.done()
        await asked
        if late:
            self._changed.set()  # so that it is planned for from now on
        await director.run()

    async def _paint(self) -> None:
        """A new scene, of the configuration that counts now."""
        async with self._painting:
            self.shared.scene = await asyncio.to_thread(self._scenery.scene, self.shared.live.state)
        self.wake()


async def run_directors(
    storage: Storage,
    engine: BuiltinEngine,
    live: Live,
    data: Path,
    urls: Sequence[str],
    trust: Sequence[str] = (),
    *,
    after: Callable[[str], None] = lambda step: None,
) -> Directors:
    """Starts a director for each configured resource, and follows what the configuration becomes.

    :param data: the directory of this installation; one process at a time serves it
    :param urls: where pilots find the service
    :param trust: trust anchors that pilots pin (PEM)
    :param after: called with the name of each step that a director has done

    Raises AlreadyServed, ConfigurationError (a resource of an unknown type).
    """
    resources.check(live.current)
    lock = _lock(data)
    holder = f"{socket.gethostname()}:{data.resolve()}"
    shared = Shared(storage, engine, live, data, urls, trust, holder, Scene(live.state, []), after)
    directors = Directors(shared, lock)
    try:
        await directors.start(await storage.read(holders.served))
    except BaseException:
        await directors.stop()
        raise
    return directors


def _lock(data: Path) -> int:
    """The lock that makes us the only ones; the kernel frees it however we end."""
    data.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise AlreadyServed(f"another Pilotage runs the directors of {data}") from None
    return descriptor
