"""Demand x supply -> submissions. Pure: everything comes in as data, the clock included, so a simulator can drive it.

The rule: a pilot is sent for waiting jobs that find room neither in pilots on their way nor in the idle part of those
that run. What is scarce (slots, caps) goes to the VO that has least of its share, then to the owner that was sent
least; priority counts only among the jobs of one owner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilotage.wms.matching import acceptable
from pilotage.wms.pilots import RUNNING

UNLIMITED = 1 << 60
Key = tuple[str, str, str]
"""(resource, queue, VO)."""
Free = tuple[int, int | None, int | None, int]
"""Free cores, memory [MiB], disk [MiB], GPUs of a pilot; None: unknown, and taken to be enough."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Jobs that wait in one task queue; `since` is when they were first seen to wait without a break [unix s]."""

    id: int
    vo: str
    waiting: int
    requirements: Mapping[str, Any]
    priority: int = 0
    since: float = 0.0
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Supply:
    """What one pilot of a VO gets in one queue. None: unknown, and taken to be enough; but unknown GPUs are none."""

    site: str
    resource: str
    queue: str
    vo: str
    cores: int = 1
    memory_mib: int | None = None
    disk_mib: int | None = None
    gpus: int | None = None
    seconds: float | None = None
    tags: frozenset[str] = frozenset()
    platform: str | None = None
    max_pilots: int | None = None
    max_waiting: int | None = None

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.resource, self.queue, self.vo

    @property
    def free(self) -> Free:
        """All of a pilot, free."""
        return self.cores, self.memory_mib, self.disk_mib, self.gpus or 0

    def admits(self, need: Demand) -> bool:
        """Whether such jobs may run there at all, whatever is free: the matcher's rule."""
        want = {
            "seconds_left": self.seconds,
            "platform": self.platform or need.requirements["platform"],
            "tags": self.tags,
            "isolation": ("unknown",),
        }
        queue = {"vo": need.vo, "requirements": need.requirements}
        return acceptable(queue, want, {"vo": self.vo, "site": self.site})


@dataclass(frozen=True, slots=True)
class Pilot:
    """A pilot that has not ended. `room`: its idle cores when it last asked, None while it has not asked yet."""

    vo: str
    site: str
    resource: str
    queue: str
    state: str
    cores: int = 1
    room: int | None = None

    @property
    def key(self) -> Key:
        """The supply that it was sent for."""
        return self.resource, self.queue, self.vo


@dataclass(frozen=True, slots=True)
class Policy:
    """What restrains the planner. A resource that is not in `slots` is not planned for now, only counted.

    :ivar slots: {resource: pilots that it can take now, None where unknown}
    :ivar rests: {(resource, queue, VO): most pilots there now}, for those that back off (see backoff.py)
    :ivar shares: {VO: share}, 1 where not named
    :ivar patience: seconds after which waiting jobs no longer count on idle running pilots: had they fitted there, they
        would have been taken
    """

    slots: Mapping[str, int | None]
    max_per_cycle: int = 20
    rests: Mapping[Key, int] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    patience: float = 30.0


@dataclass(frozen=True, slots=True, order=True)
class Submission:
    """Send `count` pilots of a VO to a queue."""

    resource: str
    queue: str
    vo: str
    count: int


def fits(need: Demand, free: Free) -> int:
    """How many of the jobs have room side by side."""
    return min(have // ask for have, ask in zip(free, _asked(need), strict=True) if ask and have is not None)


def without(free: Free, need: Demand, count: int) -> Free:
    """What is left when so many of the jobs have taken their part."""
    (cores, memory, disk, gpus), ask = free, _asked(need)
    return (
        cores - count * ask[0],
        None if memory is None else memory - count * ask[1],
        None if disk is None else disk - count * ask[2],
        gpus - count * ask[3],
    )


def _asked(need: Demand) -> tuple[int, int, int, int]:
    of = need.requirements
    return of["cores"], of["memory_mib"] or 0, of["disk_mib"] or 0, of["gpus"] or 0


def plan(
    demand: Iterable[Demand], supply: Sequence[Supply], pilots: Iterable[Pilot], policy: Policy, now: float
) -> list[Submission]:
    """What to send now.

    :param supply: all queues, also of resources that are not planned for now: their pilots count
    :param pilots: all that have not ended, of all resources
    """
    alive = list(pilots)
    rooms = Rooms(supply, alive, idle=False)
    fresh = Rooms(supply, alive, idle=True)
    limits = Limits(supply, alive, policy)
    entrances = sorted((s for s in supply if s.resource in policy.slots), key=lambda s: s.key)
    left: list[tuple[Demand, int]] = []
    # The largest jobs first: they leave room for the small ones, the other way round they would not.
    for need in sorted(demand, key=lambda d: (-d.requirements["cores"], -d.priority, d.id)):
        waiting = rooms.place(need, need.waiting)
        if now - need.since < policy.patience:
            waiting = fresh.place(need, waiting)
        if waiting:
            left.append((need, waiting))
    sent: Counter[Key] = Counter()
    cores = Counter(dict.fromkeys(policy.shares, 0))
    turns: Counter[tuple[str, str]] = Counter()
    oldest: dict[tuple[str, str], int] = {}
    for pilot in alive:
        cores[pilot.vo] += pilot.cores
    for need, _ in left:
        who = need.vo, need.owner
        oldest[who] = min(oldest.get(who, need.id), need.id)

    def turn(index: int) -> tuple[float, int, int, int, int, int]:
        need, who = left[index][0], (left[index][0].vo, left[index][0].owner)
        load = cores[need.vo] / policy.shares.get(need.vo, 1.0)
        return load, turns[who], oldest[who], -need.priority, -need.requirements["cores"], need.id

    while left:
        index = min(range(len(left)), key=turn)
        need, waiting = left[index]
        waiting = rooms.place(need, waiting)
        chosen = _choose(entrances, need, limits) if waiting else None
        if chosen is None:
            left.pop(index)
            continue
        sent[chosen.key] += 1
        limits.take(chosen)
        cores[need.vo] += chosen.cores
        turns[need.vo, need.owner] += chosen.cores
        rooms.add(chosen, chosen.free)
        left[index] = (need, rooms.place(need, waiting))
    return sorted(Submission(*key, count) for key, count in sent.items())


def _choose(entrances: Iterable[Supply], need: Demand, limits: Limits) -> Supply | None:
    """Where the next pilot for these jobs goes: where fewest are on their way."""
    fit = (s for s in entrances if s.vo == need.vo and limits.left(s) > 0 and fits(need, s.free) and s.admits(need))
    return min(fit, key=lambda s: (limits.waiting[s.resource, s.queue], s.key), default=None)


class Rooms:
    """What is free in pilots: how many of which kind have how much. Jobs are put where they fit most tightly."""

    def __init__(self, supply: Sequence[Supply], pilots: Iterable[Pilot], idle: bool) -> None:
        """`idle`: the idle part of running pilots; else pilots on their way, until they have first asked for jobs."""
        known = {entrance.key: entrance for entrance in supply}
        self.free: Counter[tuple[Supply, Free]] = Counter()
        for pilot in pilots:
            entrance = known.get(pilot.key) or Supply(pilot.site, *pilot.key)
            asked = pilot.state == RUNNING and pilot.room is not None
            if asked == idle:
                self.add(entrance, ((pilot.room or 0) if asked else pilot.cores, *entrance.free[1:]))

    def add(self, entrance: Supply, free: Free, count: int = 1) -> None:
        """So many more pilots with that much free."""
        if free[0] > 0 and count > 0:
            self.free[entrance, free] += count

    def place(self, need: Demand, waiting: int) -> int:
        """Put jobs into the free room; gives how many are left over."""
        if not waiting or not self.free:
            return waiting
        good = [room for room in self.free if room[0].vo == need.vo and fits(need, room[1]) and room[0].admits(need)]
        for entrance, free in sorted(good, key=lambda room: (room[1][0], room[0].key, repr(room))):
            each, count = fits(need, free), self.free.pop((entrance, free))
            full = min(count, waiting // each)
            self.add(entrance, without(free, need, each), full)
            waiting -= full * each
            if full < count and waiting:
                self.add(entrance, without(free, need, waiting))
                waiting, full = 0, full + 1
            self.add(entrance, free, count - full)
            if not waiting:
                break
        return waiting


class Limits:
    """How many more pilots may be sent where."""

    def __init__(self, supply: Sequence[Supply], pilots: Iterable[Pilot], policy: Policy) -> None:
        self.alive: Counter[tuple[str, str]] = Counter()
        self.waiting: Counter[tuple[str, str]] = Counter()
        self.sent: Counter[Key] = Counter()
        self.cycle: Counter[str] = Counter()
        self.policy = policy
        for pilot in pilots:
            self.alive[pilot.resource, pilot.queue] += 1
            if pilot.state != RUNNING:
                self.waiting[pilot.resource, pilot.queue] += 1

    def left(self, entrance: Supply) -> int:
        """Pilots that may still be sent to a queue for a VO."""
        queue = (entrance.resource, entrance.queue)
        slots = self.policy.slots.get(entrance.resource)
        return min(
            self.policy.max_per_cycle - self.cycle[entrance.resource],
            UNLIMITED if slots is None else slots - self.cycle[entrance.resource],
            UNLIMITED if entrance.max_pilots is None else entrance.max_pilots - self.alive[queue],
            UNLIMITED if entrance.max_waiting is None else entrance.max_waiting - self.waiting[queue],
            self.policy.rests.get(entrance.key, UNLIMITED) - self.sent[entrance.key],
        )

    def take(self, entrance: Supply) -> None:
        """One more is sent there."""
        queue = (entrance.resource, entrance.queue)
        self.alive[queue] += 1
        self.waiting[queue] += 1
        self.sent[entrance.key] += 1
        self.cycle[entrance.resource] += 1
