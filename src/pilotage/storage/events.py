"""The append-only record of what happened: each change of state of jobs and pilots, orders, refusals."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select

from pilotage.storage import jsontext
from pilotage.storage.tables import events

Event = tuple[float, str, str, str, str, str, str, str | None]
"""(time [unix s], kind "job" | "pilot" | "token" | ..., subject, what, who, why, request id, data as JSON text or
None)."""

FIELDS = ("time", "kind", "subject", "what", "who", "why", "request_id", "data")

_append = insert(events)
_oldest = select(events.c.id, events.c.time).order_by(events.c.id).limit(bindparam("b_limit"))
_purge = delete(events).where(events.c.id <= bindparam("b_last"))


def append(conn: Connection, rows: Sequence[Event]) -> None:
    """Adds events, in one statement."""
    if rows:
        conn.execute(_append, [dict(zip(FIELDS, row, strict=True)) for row in rows])


def of(conn: Connection, kind: str, subject: str, limit: int = 1000) -> list[dict[str, Any]]:
    """The events of one subject, oldest first: {id, time, kind, subject, what, who, why, request_id, data}."""
    query = select(events).where(events.c.subject == subject, events.c.kind == kind).order_by(events.c.id).limit(limit)
    return [_plain(row) for row in conn.execute(query).mappings()]


def purge(conn: Connection, before: float, limit: int = 500) -> int:
    """Deletes at most ``limit`` events older than that; gives how many. Ids grow with time, so only the oldest are
    looked at."""
    last, n = None, 0
    for number, time in conn.execute(_oldest, {"b_limit": limit}):
        if time >= before:
            break
        last, n = number, n + 1
    if last is not None:
        conn.execute(_purge, {"b_last": last})
    return n


def _plain(row: Any) -> dict[str, Any]:
    return {**row, "data": jsontext.load(row["data"])}
