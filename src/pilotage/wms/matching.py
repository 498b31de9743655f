"""The matcher: chooses, among task queues, those that fit a pilot's node and how many jobs of each. It never sees
jobs."""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pilotage.wms.shares import Loads
from pilotage_node.protocol import AHEAD

MEASURES = ("cores", "memory_mib", "disk_mib", "gpus")
"""What jobs on one node use up side by side."""


class Room:
    """What is free of a node. What is unknown (None) is no room: it cannot hold a job that asks for some of it."""

    __slots__ = ("free",)

    def __init__(self, amounts: Mapping[str, Any]) -> None:
        self.free = [amounts.get(name) or 0 for name in MEASURES]

    def fits(self, requirements: Mapping[str, Any]) -> bool:
        """Whether one more such job has room."""
        return all((requirements[name] or 0) <= free for name, free in zip(MEASURES, self.free, strict=True))

    def take(self, requirements: Mapping[str, Any]) -> None:
        """Uses up the room of one such job."""
        self.free = [free - (requirements[name] or 0) for name, free in zip(MEASURES, self.free, strict=True)]


def acceptable(queue: Mapping[str, Any], want: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    """Whether jobs of the queue may run on this pilot's node at all, whatever is free now.

    ``node``: the pilot's ``vo`` and ``site``, from its record, never from what it says. A job's tags must all be the
    pilot's.
    """
    need = queue["requirements"]
    site = node.get("site")
    left = want.get("seconds_left")
    return (
        queue["vo"] == node.get("vo")
        and (not need["sites"] or site in need["sites"])
        and site not in need["banned_sites"]
        and (need["platform"] is None or need["platform"] == want.get("platform"))
        and (left is None or need["wall_seconds"] <= left)
        and (not need["tags"] or set(need["tags"]) <= set(want.get("tags") or ()))
        and (not need["isolated"] or any(kind != "none" for kind in want.get("isolation") or ()))
    )


def match(
    queues: Iterable[Mapping[str, Any]],
    want: Mapping[str, Any],
    node: Mapping[str, Any],
    loads: Loads,
    granted: Sequence[Mapping[str, Any]] = (),
) -> list[tuple[int, int]]:
    """How many jobs of which queues a pilot gets: [(queue id, n)], in the order of choice.

    First fills what is free, then adds up to ``want["ahead"]`` jobs that would fit the empty node. Fair share comes
    first, between VOs, then between owners; priority counts only among the queues of one owner, then the older queue
    comes first. ``queues``: {id, vo, owner, priority, waiting, requirements};
    ``want``: see the protocol; ``granted``: requirements of jobs that the pilot has been given and does not know of
    yet.

    >>> queue = {"id": 7, "vo": "demo", "owner": "ann", "priority": 0, "waiting": 9, "requirements": canonical({})}
    >>> match([queue], {"cores": 2, "ahead": 1, "total": {"cores": 2}}, {"vo": "demo", "site": "X"}, Loads({}, {}))
    [(7, 3)]
    """
    room, total = Room(want), Room(want.get("total") or want)
    ahead = min(max(int(want.get("ahead") or 0), 0), AHEAD)
    for requirements in granted:
        if room.fits(requirements):
            room.take(requirements)
        else:
            ahead -= 1
    fit = [queue for queue in queues if acceptable(queue, want, node) and total.fits(queue["requirements"])]
    left = {queue["id"]: queue["waiting"] for queue in fit}
    loads = loads.copy()
    chosen: dict[int, int] = {}
    for queue in _order(fit, left, loads, room):
        chosen[queue["id"]] = chosen.get(queue["id"], 0) + 1
    if ahead > 0:
        for queue in _order(fit, left, loads):
            chosen[queue["id"]] = chosen.get(queue["id"], 0) + 1
            ahead -= 1
            if ahead == 0:
                break
    return list(chosen.items())


def _order(
    queues: list[Mapping[str, Any]], left: dict[int, int], loads: Loads, room: Room | None = None
) -> Iterator[Mapping[str, Any]]:
    """One queue at a time, for one job of it: by load, then by priority among the queues of one owner, each choice
    weighing on the next and, with a room, using some of it up. Between owners of equal load the one with the oldest
    queue comes first, whatever its priority.

    A heap whose entries may be out of date: loads only grow and room only shrinks, so an entry is looked at again when
    it comes up, and goes back, or out.
    """
    waiting = [queue for queue in queues if left[queue["id"]]]
    oldest: dict[tuple[str, str], int] = {}
    for queue in waiting:
        who = queue["vo"], queue["owner"]
        oldest[who] = min(oldest.get(who, queue["id"]), queue["id"])
    heap = [
        (loads.rank(*who), oldest[who], -queue["priority"], queue["id"], queue)
        for queue in waiting
        for who in ((queue["vo"], queue["owner"]),)
    ]
    heapq.heapify(heap)
    while heap:
        rank, first, urgency, number, queue = heap[0]
        requirements = queue["requirements"]
        if left[number] <= 0 or (room is not None and not room.fits(requirements)):
            heapq.heappop(heap)
            continue
        now = loads.rank(queue["vo"], queue["owner"])
        if now != rank:
            heapq.heapreplace(heap, (now, first, urgency, number, queue))
            continue
        left[number] -= 1
        if room is not None:
            room.take(requirements)
        loads.charge(queue["vo"], queue["owner"], float(requirements["cores"] * requirements["wall_seconds"]))
        yield queue
