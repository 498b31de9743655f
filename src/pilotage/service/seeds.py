"""What seeds fetch, kept in memory: manifests, and the blobs that these name. Anybody may ask, so all is bounded."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

from pilotage.configuration import Configuration, ConfigurationError, publish, shelf
from pilotage.configuration.publish import Published
from pilotage.configuration.resolve import Target, target
from pilotage.service.context import Budget

KEPT = 2000
"""Manifests, and blobs, that are kept (some KB each; toolboxes are few)."""
PER_MINUTE = 600
"""Manifests that are made anew; each costs a millisecond or two."""


class Busy(Exception):
    """Too much was asked for that is not known yet."""


def wanted(
    configuration: Configuration, vo: str, flavour: str, site: str | None, resource: str | None, queue: str | None
) -> Target | None:
    """What a seed asks for; None: there is no such thing, or it is not for anybody to see."""
    if flavour not in configuration.service.published:
        return None
    try:
        found = target(configuration, vo, resource, queue, flavour, site)
    except ConfigurationError:
        return None
    if found.resource and configuration.resource(found.resource).flavour != flavour:
        return None
    return found


class Seeds:
    """Manifests and blobs of one service. Its functions compute: call them in a thread."""

    def __init__(self) -> None:
        self._manifests: OrderedDict[Any, Published] = OrderedDict()
        self._blobs: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()
        self._priming = Lock()
        self._budget = Budget(PER_MINUTE)
        self._primed = ""

    def manifest(
        self, configuration: Configuration, target: Target, urls: Sequence[str], trust: Sequence[str]
    ) -> bytes:
        """The manifest's bytes; from now on its blobs are there. Raises ConfigurationError, Busy."""
        toolboxes = shelf.toolboxes_of(configuration, target.vo)
        digests = (toolbox["digest"] for toolbox in toolboxes)
        key = (configuration.revision, target, tuple(urls), tuple(trust), *digests)
        with self._lock:
            made = self._manifests.get(key)
            if made is None and not self._budget.spend(time.monotonic()):
                raise Busy
        if made is None:
            place = {name: getattr(target, name) or None for name in ("resource", "queue", "site", "flavour")}
            made = publish.published(configuration, target.vo, urls=urls, trust=trust, **place)
        with self._lock:
            self._keep(key, made)
        return made.data

    def blob(self, name: str, configuration: Configuration, urls: Sequence[str], trust: Sequence[str]) -> bytes | None:
        """A blob that some manifest named; None where none did.

        Seeds that hold their manifest never ask for it: a service that has just started finds out by itself what the
        manifests name that are for no particular place, once for each revision.
        """
        found = self._known(name)
        if found is None:
            with self._priming:  # who comes meanwhile waits for what is being found
                if self._primed != configuration.revision and self._prime(configuration, urls, trust):
                    self._primed = configuration.revision
            found = self._known(name)
        return found

    def _known(self, name: str) -> bytes | None:
        with self._lock:
            if name in self._blobs:
                self._blobs.move_to_end(name)
            return self._blobs.get(name)

    def _prime(self, configuration: Configuration, urls: Sequence[str], trust: Sequence[str]) -> bool:
        """Finds out what the manifests name that are for no particular place; whether that was done to the end."""
        for vo in configuration.vos:
            for flavour in configuration.service.published:
                try:
                    self.manifest(configuration, Target(vo, flavour), urls, trust)
                except ConfigurationError:
                    continue  # who asks for that one is told
                except Busy:
                    return False
        return True

    def _keep(self, key: Any, made: Published) -> None:
        """Put a manifest and its blobs last, and drop what was not asked for in the longest time."""
        self._manifests[key] = made
        self._manifests.move_to_end(key)
        for name, data in made.blobs.items():
            self._blobs[name] = data
            self._blobs.move_to_end(name)
        for kept in (self._manifests, self._blobs):
            while len(kept) > KEPT:
                kept.popitem(last=False)
