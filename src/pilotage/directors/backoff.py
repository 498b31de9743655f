"""When a queue rests: pilots that found no work, or failed, make the next ones come later. Pure.

Decided anew from the last ended pilots each time, so it survives restarts and is the same for every director.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pilotage_node import exitcodes

NEVER_SUBMITTED = "never submitted: its director ended before"
CANCELLED = "cancelled"
"""Reasons (their beginnings) that say nothing about the queue."""

GOOD, EMPTY, FAILED, NEUTRAL = "good", "empty", "failed", "neutral"


@dataclass(frozen=True, slots=True)
class Rest:
    """How many pilots may be sent now: None for no limit; `until` and `why` tell people."""

    most: int | None = None
    until: float = 0.0
    why: str = ""


def outcome(pilot: Mapping[str, Any]) -> str:
    """What an ended pilot (its record) says about its queue."""
    if pilot["jobs"]:
        return GOOD
    if pilot["reason"].startswith((NEVER_SUBMITTED, CANCELLED)) or pilot["ordered"]:
        return NEUTRAL
    if pilot["registered"] and pilot["exit_code"] in (exitcodes.OK, exitcodes.NO_WORK):
        return EMPTY
    if pilot["exit_code"] in (exitcodes.DRAINED, exitcodes.KILLED):
        return NEUTRAL
    return FAILED


def rest(
    ended: Iterable[Mapping[str, Any]],
    alive: Iterable[Mapping[str, Any]],
    now: float,
    *,
    empty_seconds: float,
    failed_seconds: float,
    longest: float,
) -> Rest:
    """Whether one (queue, VO) rests.

    :param ended: records of its ended pilots, the last ended first
    :param alive: records of its pilots that have not ended
    :param empty_seconds: rest after the second empty pilot in a row, doubled by each further one
    :param failed_seconds: rest after a failed one, doubled by each further one

    A pilot without work after a good one is no reason: another was quicker. After a rest one pilot goes as a probe.
    """
    alive = list(alive)
    if any(pilot["jobs"] for pilot in alive):
        return Rest()
    streak = []
    for pilot in ended:
        kind = outcome(pilot)
        if kind == GOOD:
            break
        if kind != NEUTRAL:
            streak.append((kind, pilot["ended"] or 0.0))
    if not streak or (len(streak) == 1 and streak[0][0] == EMPTY):
        return Rest()
    kind, last = streak[0]
    if kind == EMPTY:
        seconds, why = empty_seconds * 2.0 ** min(len(streak) - 2, 30), f"{len(streak)} pilots in a row got no job"
    else:
        seconds, why = failed_seconds * 2.0 ** min(len(streak) - 1, 30), f"{len(streak)} pilots in a row failed"
    until = last + min(seconds, longest)
    if now < until:
        return Rest(0, until, why)
    return Rest(0 if alive else 1, until, why)
