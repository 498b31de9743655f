"""All directors of one process: one SiteDirector a resource, each in its own task."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pilotage import resources
from pilotage.configuration import Configuration
from pilotage.directors.site import Shared, SiteDirector
from pilotage.directors.supply import supply_of
from pilotage.engines.builtin import BuiltinEngine
from pilotage.resources.base import ResourceError
from pilotage.storage import Storage

log = logging.getLogger("pilotage.directors")

LOCK = "directors.lock"
DRAIN_POLL = 0.2


class AlreadyServed(Exception):
    """Another process runs the directors of this data directory."""


class Directors:
    """The running directors. Made by `run_directors`."""

    def __init__(self, directors: Sequence[SiteDirector], lock: int) -> None:
        self._directors = directors
        self._lock = lock
        self._tasks = [asyncio.create_task(each.run(), name=f"director of {each.name}") for each in directors]

    def wake(self) -> None:
        """Call it when there may be new demand: all look at once; many calls cost one cycle."""
        for each in self._directors:
            each.wake()

    def describe(self) -> list[dict[str, Any]]:
        """For people: {resource, error, resting: {queue/VO: why}, draining} of each resource."""
        return [
            {"resource": each.name, "error": each.error, "resting": each.resting, "draining": each.draining}
            for each in self._directors
        ]

    async def drain(self, seconds: float = 60.0) -> int:
        """Sends no more pilots, asks all to leave, and waits for them; the service must go on meanwhile.

        Gives how many are still there after `seconds`: they go on by themselves.
        """
        answers = await asyncio.gather(*(each.drain() for each in self._directors), return_exceptions=True)
        for each, answer in zip(self._directors, answers, strict=True):
            if isinstance(answer, BaseException):
                log.error("Resource %s cannot be drained: %s", each.name, answer)
        left = 0
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            counts = await asyncio.gather(*(each.left() for each in self._directors), return_exceptions=True)
            left = sum(count if isinstance(count, int) else 1 for count in counts)  # not known is not none
            if not left or loop.time() >= end:
                return left
            self.wake()
            await asyncio.sleep(DRAIN_POLL)

    async def stop(self) -> None:
        """Ends the directors; pilots keep running, and are found again by the next ones."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in self._directors:
            try:
                await each.ledger.release()
            except Exception as error:
                log.warning("The lease of %s could not be given back: %s", each.name, error)
        os.close(self._lock)


async def run_directors(
    storage: Storage,
    engine: BuiltinEngine,
    configuration: Configuration,
    data: Path,
    urls: Sequence[str],
    trust: Sequence[str] = (),
    *,
    after: Callable[[str], None] = lambda step: None,
) -> Directors:
    """Starts a director for each configured resource.

    :param data: the directory of this installation; one process at a time serves it
    :param urls: where pilots find the service
    :param trust: trust anchors that pilots pin (PEM)
    :param after: called with the name of each step that a director has done

    Raises AlreadyServed, ConfigurationError (a resource of an unknown type).
    """
    made = resources.make_all(configuration, data)
    lock = _lock(data)
    try:
        nodes = {name: await _node(resource) for name, resource in made.items()}
    except BaseException:
        os.close(lock)
        raise
    holder = f"{socket.gethostname()}:{data.resolve()}"
    shared = Shared(storage, engine, configuration, supply_of(configuration, nodes), urls, trust, holder, after)
    return Directors([SiteDirector(shared, name, configuration.resource(name), made[name]) for name in made], lock)


async def _node(resource: resources.Resource) -> dict[str, Any]:
    try:
        return await resource.node()
    except ResourceError as error:
        log.warning("What its nodes are like is not known: %s", error)
        return {}


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
