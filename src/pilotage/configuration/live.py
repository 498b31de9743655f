"""The configuration that counts now: replaced as a whole while everything runs, with a canary beside it.

One `Live` is shared by service, directors and engine. What it holds is one frozen `State`, exchanged in one step: who
takes `state` once sees one configuration for the whole of a decision, whatever is replaced meanwhile.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from pilotage.configuration.schema import Configuration

log = logging.getLogger("pilotage.configuration")

Callback = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Canary:
    """A configuration that a part of the new pilots gets.

    :ivar share: more than 0, at most 1
    :ivar resource: only pilots of this resource; None: of all
    :ivar vo: only pilots of this VO; None: of all
    :ivar number: of its revision
    """

    configuration: Configuration
    share: float
    resource: str | None = None
    vo: str | None = None
    number: int = 0

    def chooses(self, stamp: str, resource: str, vo: str) -> bool:
        """Whether the pilot is one of those that get it; always the same for one stamp."""
        if self.resource not in (None, resource) or self.vo not in (None, vo) or not self._knows(resource, vo):
            return False
        drawn = int.from_bytes(hashlib.sha256(stamp.encode()).digest()[:8], "big")
        return drawn < self.share * 2.0**64

    def _knows(self, resource: str, vo: str) -> bool:
        """One that leaves a resource out, or does not admit the VO there, says nothing about the pilots there."""
        if self.configuration.site_of(resource) is None or vo not in self.configuration.vos:
            return False
        return vo in self.configuration.vos_of(self.configuration.resource(resource))


@dataclass(frozen=True, slots=True)
class State:
    """What counts at one moment. `number`: of the revision; 0 where the embedded defaults or files count."""

    current: Configuration
    number: int = 0
    canary: Canary | None = None

    def pick(self, stamp: str, resource: str, vo: str) -> Configuration:
        """The configuration of one new pilot: the canary's for its share of the stamps, else the current one."""
        if self.canary is not None and self.canary.chooses(stamp, resource, vo):
            return self.canary.configuration
        return self.current


class Live:
    """The one place where the configuration is exchanged. Change it in the event loop; read it anywhere."""

    def __init__(
        self, configuration: Configuration, number: int = 0, source: str = "", below: Configuration | None = None
    ) -> None:
        """:param source: the file or directory that it is read from; empty: the revisions in the database count
        :param below: what revisions are put over (`up --service FILE`); None: the embedded defaults alone
        """
        self.state = State(configuration, number)
        self.source = source
        self.below = below
        self._callbacks: list[Callback] = []

    @property
    def current(self) -> Configuration:
        """The configuration that counts."""
        return self.state.current

    @property
    def number(self) -> int:
        """Of its revision."""
        return self.state.number

    @property
    def canary(self) -> Canary | None:
        """What a part of the new pilots gets, if anything."""
        return self.state.canary

    def pick(self, stamp: str, resource: str, vo: str) -> Configuration:
        """See `State.pick`."""
        return self.state.pick(stamp, resource, vo)

    def replace(self, configuration: Configuration, number: int = 0) -> None:
        """From now on this one counts; a canary stays (promote: replace, then clear it). It was checked before."""
        if number:
            log.info("Revision %d of the configuration (%s) counts from now on.", number, configuration.revision)
        self._become(replace(self.state, current=configuration, number=number))

    def set_canary(
        self,
        configuration: Configuration,
        share: float,
        resource: str | None = None,
        vo: str | None = None,
        number: int = 0,
    ) -> None:
        """From now on this share of the new pilots of the resource or VO (None: of all) gets this configuration."""
        if not 0 < share <= 1:
            raise ValueError("a canary's share is more than 0 and at most 1")
        log.info("Revision %d of the configuration is tried with %g %% of the new pilots.", number, share * 100)
        self._become(replace(self.state, canary=Canary(configuration, share, resource, vo, number)))

    def clear_canary(self) -> None:
        """All new pilots get the current configuration again."""
        if self.canary is not None:
            log.info("Revision %d of the configuration is no longer tried.", self.canary.number)
            self._become(replace(self.state, canary=None))

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """`callback()` after each change, at once and in turn: it must not block. Gives what ends it."""
        self._callbacks.append(callback)

        def end() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return end

    def _become(self, state: State) -> None:
        self.state = state
        for callback in list(self._callbacks):
            try:
                callback()
            except Exception:  # who is told must not keep the others from hearing it
                log.exception("Somebody failed at a change of the configuration.")
