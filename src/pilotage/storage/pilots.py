"""Pilots: planned, submitted, registered, beating, ended. One row each, from before they are submitted."""

import hmac
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from pilotage.storage import events, jsontext
from pilotage.storage.errors import Conflict, Ended, Expired, StampUsed, Unknown
from pilotage.storage.sql import insert_or
from pilotage.storage.tables import ACTIVE, KEPT, pilot_commands, pilots
from pilotage.storage.tokens import digest as digest_of
from pilotage.wms.pilots import ABORTED, LOST, NEVER_STARTED, PLANNED, RUNNING, SUBMITTED, next_state

Row = dict[str, Any]

PRIVATE = ("secret_hash", "nonce")
SHOWN = [c for c in pilots.c if c.name not in PRIVATE]
RECORD = ("stamp", "vo", "site", "resource", "queue", "flavour", "digest", "revision", "secret_hash", "secret_expires")
"""What a director or a bundle's maker says of a pilot; see `plan`."""

BY_RESOURCE = (pilots.c.resource, pilots.c.created)
"""The order of the index of active pilots: asked for so that SQLite reads that, never the whole history."""

_insert = insert(pilots)
_one = select(*SHOWN).where(pilots.c.stamp == bindparam("b_stamp"))
_locked = select(pilots).where(pilots.c.stamp == bindparam("b_stamp")).with_for_update()
_submitted = (
    update(pilots)
    .where(pilots.c.stamp == bindparam("b_stamp"), pilots.c.reference.is_(None))
    .values(reference=bindparam("b_reference"), submitted=bindparam("b_now"))
)
_renewed = update(pilots).where(pilots.c.stamp == bindparam("b_stamp")).values(expires=bindparam("b_expires"))
_commands = (
    select(pilot_commands)
    .where(pilot_commands.c.pilot == bindparam("b_stamp"))
    .order_by(pilot_commands.c.index, pilot_commands.c.time)
)


def new_stamp() -> str:
    """The identity of a new pilot."""
    return secrets.token_hex(16)


def made(
    profile: Mapping[str, Any], digest: str, secret_expires: float, stamp: str | None = None
) -> tuple[Row, dict[str, str]]:
    """A new pilot of a profile, with a stamp of its own (`stamp` where it was chosen before): the record for `plan`,
    and the credentials {"stamp", "secret"} that the pilot brings along; the secret is in no record."""
    stamp, secret = stamp or new_stamp(), secrets.token_urlsafe(32)
    names = {name: profile[name] for name in ("vo", "site", "resource", "queue", "flavour", "revision")}
    secrecy = {"secret_hash": digest_of(secret), "secret_expires": secret_expires}
    return {"stamp": stamp, **names, "digest": digest, **secrecy}, {"stamp": stamp, "secret": secret}


def plan(
    conn: Connection, records: Sequence[Mapping[str, Any]], now: float, *, who: str = "", request_id: str = ""
) -> None:
    """Records pilots before they are submitted (state Planned), in one go.

    Each record: ``stamp``, ``secret_hash`` (`tokens.digest` of the one-time secret), ``secret_expires`` (unix seconds),
    ``vo``, ``site``, ``resource``, ``queue``, ``flavour``; and, where known, ``digest`` of the script, ``revision`` of
    the configuration. Raises Conflict when a stamp is there already.
    """
    if not records:
        return
    fresh = {"state": PLANNED, "reason": "", "sequence": 0, "created": now, "log_size": 0, "jobs": 0, "done": 0}
    try:
        conn.execute(_insert, [{**{name: record.get(name) for name in RECORD}, **fresh} for record in records])
    except IntegrityError as error:
        raise Conflict(f"a pilot cannot be recorded: {error.orig}") from None
    events.append(conn, [(now, "pilot", record["stamp"], PLANNED, who, "", request_id, None) for record in records])


def submitted(conn: Connection, references: Mapping[str, str], now: float, *, who: str = "") -> None:
    """Notes what the resource calls each pilot: {stamp: reference}. A Planned one becomes Submitted; repeating is
    fine."""
    if not references:
        return
    conn.execute(
        _submitted,
        [{"b_stamp": stamp, "b_reference": reference, "b_now": now} for stamp, reference in sorted(references.items())],
    )
    planned = select(pilots.c.stamp).where(pilots.c.stamp.in_(list(references)), pilots.c.state == PLANNED)
    fresh = list(conn.execute(planned.order_by(pilots.c.stamp).with_for_update()).scalars())
    if fresh:
        conn.execute(update(pilots).where(pilots.c.stamp.in_(fresh)).values(state=SUBMITTED))
        log = [
            (now, "pilot", stamp, SUBMITTED, who, "", "", jsontext.dump({"reference": references[stamp]}))
            for stamp in fresh
        ]
        events.append(conn, log)


def register(
    conn: Connection,
    stamp: str,
    secret: str,
    nonce: str,
    now: float,
    *,
    term: float,
    node: Mapping[str, Any] | None = None,
    digest: str | None = None,
    request_id: str = "",
) -> Row:
    """A pilot's first contact: checks the one-time secret and binds the nonce; the pilot becomes Running.

    The same (stamp, secret, nonce) again gives the same pilot. Raises Unknown, Expired (first use only), StampUsed,
    Ended. ``term``: seconds of silence after which the pilot is lost. Gives the pilot's row as `get` does.
    """
    row = conn.execute(_locked, {"b_stamp": stamp}).mappings().first()
    if row is None or not hmac.compare_digest(row["secret_hash"], digest_of(secret)):
        raise Unknown("no pilot with this stamp and secret is expected")
    if row["nonce"] is not None and not hmac.compare_digest(row["nonce"].encode(), nonce.encode()):
        raise StampUsed("this stamp has been used by another start of the pilot")
    if next_state(row["state"], RUNNING, row["reason"]) is None and row["state"] != RUNNING:
        raise Ended(f"this pilot has ended: {row['state']} {row['reason']}".rstrip())
    if row["nonce"] is None and row["secret_expires"] <= now:
        raise Expired("the one-time secret of this pilot has expired")
    values: Row = {"seen": now, "expires": now + term}
    if row["nonce"] is None:
        values |= {"nonce": nonce, "registered": now, "node": jsontext.dump(dict(node or {}))}
        values["digest"] = digest or row["digest"]
    if row["state"] != RUNNING:
        values |= _back(conn, row, now, request_id)
    conn.execute(update(pilots).where(pilots.c.stamp == stamp).values(values))
    return get(conn, stamp) or {}


def _back(conn: Connection, row: Any, now: float, request_id: str) -> Row:
    """The columns of a pilot that is Running from now on, for the first time or after it was thought lost."""
    why = "heard again after it was lost" if row["state"] == ABORTED else ""
    events.append(conn, [(now, "pilot", row["stamp"], RUNNING, row["stamp"], why, request_id, None)])
    return {"state": RUNNING, "reason": "", "ended": None}


def heard(conn: Connection, row: Any, now: float, values: Row, request_id: str = "") -> None:
    """Keeps what a synchronisation says of a pilot: columns by name. A lost one is Running again."""
    if row["state"] == ABORTED:
        values = values | _back(conn, row, now, request_id)
    conn.execute(update(pilots).where(pilots.c.stamp == row["stamp"]).values(values))


def get(conn: Connection, stamp: str) -> Row | None:
    """The pilot as a dict, or None.

    Keys: stamp, vo, site, resource, queue, flavour, digest, revision, state, reason, reference, sequence, created,
    submitted, registered, seen, expires, ended, secret_expires (unix seconds or None), exit_code, phase, node (dict),
    usage (dict), log_size (bytes of log stored), jobs (leases that it ever got), done (results that it gave), ordered
    (None, "drain", "kill"), order_why, outputs_at (None or when the director fetched its outputs), logs_purged (None or
    when its log and outputs were deleted).
    """
    row = conn.execute(_one, {"b_stamp": stamp}).mappings().first()
    return None if row is None else _plain(row)


def locked(conn: Connection, stamp: str) -> Row | None:
    """The pilot with its private columns, undecoded; no other transaction changes it before the commit."""
    row = conn.execute(_locked, {"b_stamp": stamp}).mappings().first()
    return None if row is None else dict(row)


def search(
    conn: Connection,
    *,
    vo: str | None = None,
    resource: str | None = None,
    states: Iterable[str] | None = None,
    stamps: Iterable[str] | None = None,
    after: str | None = None,
    limit: int = 100,
) -> list[Row]:
    """Pilots, newest first; ``after`` is the stamp of the last one of the page before."""
    query = select(*SHOWN)
    if vo is not None:
        query = query.where(pilots.c.vo == vo)
    if resource is not None:
        query = query.where(pilots.c.resource == resource)
    if states is not None:
        query = query.where(pilots.c.state.in_(list(states)))
    if stamps is not None:
        query = query.where(pilots.c.stamp.in_(list(stamps)))
    if after is not None:
        at = select(pilots.c.created).where(pilots.c.stamp == after).scalar_subquery()
        query = query.where((pilots.c.created < at) | ((pilots.c.created == at) & (pilots.c.stamp < after)))
    query = query.order_by(pilots.c.created.desc(), pilots.c.stamp.desc()).limit(limit)
    return [_plain(row) for row in conn.execute(query).mappings()]


def active(conn: Connection, resource: str | None = None) -> list[Row]:
    """All pilots that have not ended (Planned, Submitted, Running), of one resource or of all: by resource, oldest
    first."""
    query = select(*SHOWN).where(ACTIVE).order_by(*BY_RESOURCE)
    if resource is not None:
        query = query.where(pilots.c.resource == resource)
    return [_plain(row) for row in conn.execute(query).mappings()]


def counts(conn: Connection, vo: str | None = None) -> dict[str, int]:
    """How many pilots are in each state."""
    query = select(pilots.c.state, func.count()).group_by(pilots.c.state)
    if vo is not None:
        query = query.where(pilots.c.vo == vo)
    return {row[0]: row[1] for row in conn.execute(query)}


def commands(conn: Connection, stamp: str) -> list[Row]:
    """The results of the pilot's commands, in order: index, name, outcome, code, message, seconds, usage, tail,
    time."""
    return [
        {
            **{name: value for name, value in row.items() if name not in ("pilot", "report")},
            "usage": jsontext.load(row["usage"]),
            "tail": jsontext.load(row["tail"]),
        }
        for row in conn.execute(_commands, {"b_stamp": stamp}).mappings()
    ]


def command_results(conn: Connection, stamp: str, reports: Sequence[Mapping[str, Any]], now: float) -> None:
    """Keeps command reports (protocol: REPORT, kind command); a repeated one changes nothing."""
    rows = [
        {
            "pilot": stamp,
            "report": jsontext.plain(str(item["id"])),
            "index": item.get("index") or 0,
            "name": jsontext.plain(item.get("name")) or "",
            "outcome": item.get("outcome") or "",
            "code": item.get("code"),
            "message": jsontext.plain(item.get("message")),
            "seconds": item.get("seconds"),
            "usage": jsontext.dump(item.get("usage")),
            "tail": jsontext.dump(item.get("tail")),
            "time": now,
        }
        for item in reports
    ]
    if rows:
        conn.execute(insert_or(conn, pilot_commands, ["pilot", "report"]), rows)


def end(
    conn: Connection,
    stamp: str,
    state: str,
    now: float,
    *,
    exit_code: int | None = None,
    reason: str = "",
    usage: Mapping[str, Any] | None = None,
    who: str = "",
    request_id: str = "",
) -> bool:
    """Ends a pilot (state Done, Failed or Aborted). False when it had ended already: the first word stands.

    Its leases are not touched: see `leases.lose`.
    """
    row = conn.execute(_locked, {"b_stamp": stamp}).mappings().first()
    if row is None or next_state(row["state"], state, row["reason"]) is None:
        return False
    values: Row = {"state": state, "reason": reason, "exit_code": exit_code, "ended": now}
    if usage is not None:
        values["usage"] = jsontext.dump(dict(usage))
    conn.execute(update(pilots).where(pilots.c.stamp == stamp).values(values))
    events.append(
        conn, [(now, "pilot", stamp, state, who, reason, request_id, jsontext.dump({"exit_code": exit_code}))]
    )
    return True


def order(
    conn: Connection,
    stamps: Iterable[str],
    order: str,
    now: float,
    *,
    who: str,
    why: str = "",
    request_id: str = "",
) -> list[str]:
    """Orders pilots to "drain" or "kill"; gives the stamps that will hear it. Drain never weakens a kill.

    A pilot that has not started yet is ordered too and hears it at its first synchronisation.
    """
    query = select(pilots.c.stamp, pilots.c.ordered).where(pilots.c.stamp.in_(list(stamps)), ACTIVE)
    found = conn.execute(query.order_by(pilots.c.stamp).with_for_update()).all()
    heard_by = [stamp for stamp, before in found if before != "kill" or order == "kill"]
    if heard_by:
        conn.execute(update(pilots).where(pilots.c.stamp.in_(heard_by)).values(ordered=order, order_why=why))
        events.append(
            conn, [(now, "pilot", stamp, f"{order} ordered", who, why, request_id, None) for stamp in heard_by]
        )
    return heard_by


def log_extended(conn: Connection, stamp: str, offset: int, size: int) -> int:
    """A chunk of ``size`` bytes was stored at ``offset``: gives the new length of the log.

    Compare-and-set: where ``offset`` is not the length so far, nothing changes and the length so far is given.
    Raises Unknown.
    """
    at = update(pilots).where(pilots.c.stamp == stamp, pilots.c.log_size == offset).values(log_size=offset + size)
    if conn.execute(at).rowcount:
        return offset + size
    length: int | None = conn.execute(select(pilots.c.log_size).where(pilots.c.stamp == stamp)).scalar()
    if length is None:
        raise Unknown("no such pilot")
    return length


def outputs_fetched(conn: Connection, stamp: str, now: float) -> None:
    """Notes that the director has fetched what the resource kept of an ended pilot."""
    conn.execute(update(pilots).where(pilots.c.stamp == stamp).values(outputs_at=now))


def resume(conn: Connection, gap: float, now: float, term: float, margin: float) -> None:
    """After a downtime of ``gap`` seconds: no pilot's silence counts for that long (see `leases.resume`)."""
    rows = conn.execute(select(pilots.c.stamp, pilots.c.expires).where(ACTIVE, pilots.c.expires.is_not(None))).all()
    renewed = [
        {"b_stamp": stamp, "b_expires": now + min(max(expires + gap - now, term), term + margin)}
        for stamp, expires in rows
    ]
    if renewed:
        conn.execute(_renewed, renewed)


def expire(conn: Connection, now: float, limit: int = 500) -> list[str]:
    """Marks as Aborted the Running pilots that were silent for too long ("lost") and those whose secret expired unused
    ("never_started"); gives the stamps of the lost ones, whose leases are to be lost too (`leases.lose`)."""
    silent = (pilots.c.state == RUNNING) & (pilots.c.expires < now)
    unused = pilots.c.nonce.is_(None) & (pilots.c.secret_expires < now)
    query = select(pilots.c.stamp, pilots.c.state).where(ACTIVE, silent | unused).order_by(pilots.c.stamp).limit(limit)
    lost = []
    for stamp, state in conn.execute(query.with_for_update(skip_locked=True)).all():
        reason = LOST if state == RUNNING else NEVER_STARTED
        end(conn, stamp, ABORTED, now, reason=reason, who="service")
        if reason == LOST:
            lost.append(stamp)
    return lost


def old_logs(conn: Connection, before: float, limit: int = 500) -> list[str]:
    """Stamps of pilots that ended before then and whose logs and outputs are still kept, the first ended first."""
    query = select(pilots.c.stamp).where(KEPT, pilots.c.ended < before).order_by(pilots.c.ended).limit(limit)
    return list(conn.execute(query).scalars())


def logs_purged(conn: Connection, stamps: Sequence[str], now: float) -> None:
    """Notes that logs and outputs of these ended pilots were deleted from the object store."""
    if stamps:
        conn.execute(update(pilots).where(pilots.c.stamp.in_(stamps)).values(logs_purged=now, log_size=0))


def purge(conn: Connection, before: float, limit: int = 500) -> list[str]:
    """Deletes pilots that ended before then, with their command results; gives their stamps (for the object store)."""
    # None ended before it was made: so the index of `created` spares a look at the whole history.
    old = (pilots.c.created < before) & (pilots.c.ended < before)
    query = select(pilots.c.stamp).where(old).order_by(pilots.c.created).limit(limit)
    gone = list(conn.execute(query).scalars())
    if gone:
        conn.execute(delete(pilots).where(pilots.c.stamp.in_(gone), pilots.c.ended < before))
    return gone


def _plain(row: Any) -> Row:
    return {**row, "node": jsontext.load(row["node"]), "usage": jsontext.load(row["usage"])}
