"""What to do about pilots whose record and whose resource tell different stories. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilotage.resources.base import State, Status
from pilotage.wms import pilots as life
from pilotage_node import exitcodes, meanings

HAND = "hand:"
"""A reference that begins so is of a pilot that somebody starts by hand: directors leave it alone."""

REPORT_SECONDS = 3.0
"""How long the last report of a pilot whose process has ended may be under way in the service."""

Row = Mapping[str, Any]


@dataclass(slots=True)
class Findings:
    """What `reconcile` found.

    :ivar noted: {stamp: reference} of pilots that were submitted before their director could note it
    :ivar never: stamps that were recorded and surely never submitted
    :ivar strangers: {stamp: reference} of pilots that nobody knows: to be cancelled, then cleaned
    :ivar unfetched: stamps of ended pilots whose outputs are still there
    :ivar leftovers: {stamp: reference} of pilots that are over and dealt with: to be cleaned
    """

    noted: dict[str, str] = field(default_factory=dict)
    never: list[str] = field(default_factory=list)
    strangers: dict[str, str] = field(default_factory=dict)
    unfetched: list[str] = field(default_factory=list)
    leftovers: dict[str, str] = field(default_factory=dict)


def reconcile(found: Mapping[str, str], records: Iterable[Row]) -> Findings:
    """Compare what the resource has with the records: those that have not ended, and those of all that was found.

    :param found: {stamp: reference}, what `Resource.find` gave, asked before the records were read
    """
    result = Findings()
    known = {record["stamp"]: record for record in records}
    for stamp, record in known.items():
        if record["state"] == life.PLANNED and stamp not in found and not by_hand(record):
            result.never.append(stamp)
    for stamp, reference in found.items():
        if stamp not in known:
            result.strangers[stamp] = reference
        elif known[stamp]["reference"] is None:
            # One that was given up before it registered cannot register any more; all others are ours.
            given_up = known[stamp]["ended"] is not None and known[stamp]["registered"] is None
            (result.strangers if given_up else result.noted)[stamp] = reference
            if known[stamp]["ended"] is not None and not given_up:
                result.unfetched.append(stamp)
        elif known[stamp]["outputs_at"] is not None:
            result.leftovers[stamp] = reference
        elif known[stamp]["ended"] is not None:
            result.unfetched.append(stamp)
    return result


def by_hand(record: Row) -> bool:
    """Whether somebody starts this pilot by hand."""
    return str(record["reference"] or "").startswith(HAND)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a pilot's record is closed."""

    state: str
    exit_code: int | None
    reason: str


def verdict(record: Row, status: Status, over_since: float, now: float, lost_seconds: float) -> Verdict | None:
    """Whether the record of a pilot that is over for its resource must be closed for it, and how; None: not (yet).

    :param over_since: when the director first saw that it is over [unix s]

    A process that has ended says nothing more; its last report may be under way for a moment. A pilot that the resource
    does not know may still be there (resources forget): it is lost once it has been silent for `lost_seconds`.
    """
    if status.state not in (State.ENDED, State.GONE):
        return None
    heard = max(record["seen"] or 0.0, record["submitted"] or record["created"])
    if status.state == State.ENDED and now - over_since < REPORT_SECONDS:
        return None
    if status.state == State.GONE and now - max(heard, over_since) < lost_seconds:
        return None
    code = status.exit_code
    why = status.reason or (meanings.text_of(code) if code is not None else "the resource no longer knows it")
    if record["registered"] is None:
        return Verdict(life.ABORTED, code, f"it never registered: {why}")
    if code is None:
        return Verdict(life.ABORTED, None, f"it ended without its last report: {why}")
    late = "its last report did not arrive"
    return Verdict(life.end_state(code), code, late if code == exitcodes.OK else f"{late}: {why}")
