"""Revisions of the configuration: who changed what, when and why. One is current, one more may be tried as a canary."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, or_, select, update

from pilotage.storage import events, jsontext
from pilotage.storage.errors import Conflict, Missing
from pilotage.storage.sql import numbers
from pilotage.storage.tables import LIVE_CONFIGURATION, configurations, pilots
from pilotage.wms.canary import Outcomes, withdraw
from pilotage.wms.pilots import ABORTED, DONE, FAILED, PLANNED, RUNNING, SUBMITTED

Row = dict[str, Any]

CURRENT = "current"
PAST = "past"
CANARY = "canary"  # tried by a share of the new pilots
WITHDRAWN = "withdrawn"  # a canary that did not become current

BRIEF = [c for c in configurations.c if c.name != "files"]

# What a person starts by hand says nothing of the resource's pilots, whichever configuration it is from.
_SENT = or_(pilots.c.reference.is_(None), pilots.c.reference.not_like("hand:%"))


def heads(conn: Connection) -> tuple[int, int | None]:
    """The numbers of the current revision (0: none was ever applied) and of the canary (None: there is none)."""
    found = {row["state"]: row["number"] for row in _live(conn)}
    return found.get(CURRENT, 0), found.get(CANARY)


def get(conn: Connection, number: int) -> Row | None:
    """A revision with its files, or None.

    Keys: number (1, 2, ...), files ({relative name: text}), digest (`Configuration.revision`: what its pilots carry),
    parent (the revision that it was made from), author, vo (whose own parts it changed; None: the operator's), time
    (unix seconds), reason, state (current, past, canary, withdrawn), canary (None or {"share", "resource", "vo"} and,
    once it is over, {"ended", "by", "why"}).
    """
    row = conn.execute(select(configurations).where(configurations.c.number == number)).mappings().first()
    return None if row is None else {**_plain(row), "files": jsontext.load(row["files"])}


def current(conn: Connection) -> Row | None:
    """The current revision, as `get`; None where the embedded defaults are all there is."""
    return get(conn, heads(conn)[0])


def canary(conn: Connection) -> Row | None:
    """The revision that is tried as a canary, as `get`, or None."""
    number = heads(conn)[1]
    return None if number is None else get(conn, number)


def listing(conn: Connection, *, before: int | None = None, limit: int = 100) -> list[Row]:
    """Revisions without their files, newest first; ``before`` is the number of the last one of the page before."""
    query = select(*BRIEF).order_by(configurations.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(configurations.c.number < before)
    return [_plain(row) for row in conn.execute(query).mappings()]


def apply(
    conn: Connection,
    files: Mapping[str, str],
    digest: str,
    base: int,
    now: float,
    *,
    who: str,
    why: str,
    vo: str | None = None,
    canary: Mapping[str, Any] | None = None,
    what: str = "applied",
    request_id: str = "",
) -> int:
    """Records a revision, which the caller has validated, as the current one or as a canary; gives its number.

    :param digest: `Configuration.revision`, by which its pilots are known
    :param base: the current revision when the change was made, 0 for none (compare-and-set)
    :param vo: the VO whose own parts alone were changed; None for the operator's changes
    :param canary: {"share": 0..1, "resource": name or None, "vo": name or None} of the pilots that are to try it
    :param what: the word for the event

    Raises Conflict as `expect` does.
    """
    number = numbers(conn, "configuration", 1)  # and who else wants one waits for our commit
    expect(conn, base)
    if canary is None:
        _move(conn, base, PAST)
    row = {
        "number": number,
        "files": jsontext.dump(dict(files)),
        "digest": digest,
        "parent": base,
        "author": who,
        "vo": vo,
        "time": now,
        "reason": why,
        "state": CURRENT if canary is None else CANARY,
        "canary": jsontext.dump(None if canary is None else dict(canary)),
    }
    conn.execute(insert(configurations), row)
    data = {"base": base, "digest": digest, "vo": vo, "canary": None if canary is None else dict(canary)}
    _event(conn, number, what if canary is None else f"{what} as canary", now, who, why, request_id, data)
    return number


def expect(conn: Connection, base: int) -> None:
    """Raises Conflict, with who changed what, unless ``base`` is current (0: none is) and no canary is tried."""
    live = {row["state"]: row for row in _live(conn)}
    if (live[CURRENT]["number"] if CURRENT in live else 0) != base:
        raise Conflict(_changed(live.get(CURRENT), base))
    if CANARY in live:
        raise Conflict(f"{_described(live[CANARY])} is tried as a canary: promote or withdraw it first")


def promote(conn: Connection, number: int | None, now: float, *, who: str, why: str = "", request_id: str = "") -> Row:
    """The canary becomes current; gives its row as `get`. Raises Missing, Conflict: see `_canary`."""
    row = _canary(conn, number)
    _move(conn, row["parent"], PAST)
    _end(conn, row, CURRENT, "promoted", now, who, why, request_id)
    return get(conn, row["number"]) or {}


def retire(conn: Connection, number: int | None, now: float, *, who: str, why: str = "", request_id: str = "") -> Row:
    """The canary is withdrawn; gives its row as `get`. Raises Missing, Conflict: see `_canary`."""
    row = _canary(conn, number)
    _end(conn, row, WITHDRAWN, "withdrawn", now, who, why, request_id)
    return get(conn, row["number"]) or {}


def judge(conn: Connection, now: float) -> Row | None:
    """Withdraws the canary when its pilots fail markedly more often (`wms.canary`): gives its row, else None.

    To be called every few seconds while there is one; the caller then sends no more such pilots.
    """
    try:
        row = _canary(conn, None)
    except Missing:
        return None
    found = outcomes(conn, row)
    why = withdraw(tallied(found["canary"]), tallied(found["current"]))
    return None if why is None else retire(conn, row["number"], now, who="service", why=why)


def outcomes(conn: Connection, row: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Both sides of a canary: {"canary": {state: pilots}, "current": {state: pilots}}.

    Counted are the pilots that were made since it began, in its scope; those made by hand are nobody's measure.
    """
    scope = row["canary"] or {}
    where: list[ColumnElement[bool]] = [pilots.c.created >= row["time"], _SENT]
    if scope.get("resource") is not None:
        where.append(pilots.c.resource == scope["resource"])
    if scope.get("vo") is not None:
        where.append(pilots.c.vo == scope["vo"])
    if scope.get("ended") is not None:
        where.append(pilots.c.created <= scope["ended"])
    query = select(pilots.c.revision, pilots.c.state, func.count()).where(*where)
    found: dict[str, dict[str, int]] = {"canary": {}, "current": {}}
    for revision, state, n in conn.execute(query.group_by(pilots.c.revision, pilots.c.state)):
        side = found["canary" if revision == row["digest"] else "current"]
        side[state] = side.get(state, 0) + n
    return found


def tallied(states: Mapping[str, int]) -> Outcomes:
    """Pilots by state as outcomes; those that have not started are left out."""
    return Outcomes(
        good=states.get(DONE, 0) + states.get(RUNNING, 0), failed=states.get(FAILED, 0) + states.get(ABORTED, 0)
    )


def waiting(states: Mapping[str, int]) -> int:
    """Pilots that have not started yet."""
    return states.get(PLANNED, 0) + states.get(SUBMITTED, 0)


def _live(conn: Connection) -> list[Row]:
    """The current one and the canary, as far as they are there, without files."""
    query = select(*BRIEF).where(LIVE_CONFIGURATION)
    return [_plain(row) for row in conn.execute(query).mappings()]


def _canary(conn: Connection, number: int | None) -> Row:
    """The canary, which nobody else changes before the commit. Raises Missing where there is none, Conflict where it is
    another than ``number`` (None: whichever)."""
    query = select(*BRIEF).where(LIVE_CONFIGURATION, configurations.c.state == CANARY).with_for_update()
    found = conn.execute(query).mappings().first()
    if found is None:
        raise Missing("no revision is tried as a canary now")
    row = _plain(found)
    if number is not None and number != row["number"]:
        raise Conflict(f"the canary is {_described(row)}, not revision {number}")
    return row


def _move(conn: Connection, number: int, state: str) -> None:
    conn.execute(update(configurations).where(configurations.c.number == number).values(state=state))


def _end(conn: Connection, row: Row, state: str, what: str, now: float, who: str, why: str, request_id: str) -> None:
    """The canary's trial is over. Its outcomes are kept with the event: pilots' own records go in time."""
    data = outcomes(conn, row)
    over = {**row["canary"], "ended": now, "by": who, "why": why}
    mine = update(configurations).where(configurations.c.number == row["number"])
    conn.execute(mine.values(state=state, canary=jsontext.dump(over)))
    _event(conn, row["number"], what, now, who, why, request_id, data)


def _event(
    conn: Connection, number: int, what: str, now: float, who: str, why: str, request_id: str, data: Mapping[str, Any]
) -> None:
    events.append(conn, [(now, "configuration", str(number), what, who, why, request_id, jsontext.dump(dict(data)))])


def _changed(row: Row | None, base: int) -> str:
    """Why a compare-and-set lost, and what to do."""
    if row is None:
        return f"no revision is current, and yours is made from revision {base}: apply it with --base 0"
    number = row["number"]
    if base > number:
        seen = f"there is no revision {base}: see it with `pilotage config show {number}`"
    elif base:
        seen = f"yours is made from revision {base}: see what changed with `pilotage config diff {base} {number}`"
    else:
        seen = f"yours is not made from it: see it with `pilotage config show {number}`"
    return f"{_described(row)} is current, and {seen}, then apply with --base {number}"


def _described(row: Mapping[str, Any]) -> str:
    at = datetime.fromtimestamp(row["time"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f'revision {row["number"]} (by {row["author"]}, {at}: "{row["reason"]}")'


def _plain(row: Any) -> Row:
    return {**row, "canary": jsontext.load(row["canary"])}
