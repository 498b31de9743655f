"""Leases: the right of one pilot to run one job once."""

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, insert, select, update

from pilotage.storage import events, jsontext
from pilotage.storage.tables import LIVE, WAITING, jobs, leases
from pilotage.storage.usage import Charges
from pilotage.wms.jobs import MATCHED
from pilotage.wms.jobs import WAITING as WAITS
from pilotage.wms.leases import LOST, aftermath, attempts

Row = dict[str, Any]

_claimable = (
    select(jobs.c.id, jobs.c.vo, jobs.c.owner, jobs.c.attempt, jobs.c.spec)
    .where(jobs.c.queue == bindparam("b_queue"), WAITING)
    .order_by(jobs.c.id)
    .limit(bindparam("b_n"))
    .with_for_update(skip_locked=True)
)
_matched = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"))
    .values(state=MATCHED, attempt=bindparam("b_attempt"), pilot=bindparam("b_pilot"), lease=bindparam("b_lease"))
)
_insert = insert(leases)
_with_job = select(
    leases, jobs.c.vo, jobs.c.owner, jobs.c.state, jobs.c.retries, jobs.c.kill, jobs.c.submitted, jobs.c.started
).join_from(leases, jobs, leases.c.job == jobs.c.id)
_one = _with_job.where(leases.c.id == bindparam("b_id"))
_held = _with_job.where(leases.c.pilot == bindparam("b_pilot"), LIVE).order_by(leases.c.id)
_held_locked = _held.with_for_update()
_specs = select(jobs.c.id, jobs.c.spec)
_renew = update(leases).where(leases.c.id == bindparam("b_id"), LIVE).values(expires=bindparam("b_expires"))
_end = (
    update(leases)
    .where(leases.c.id == bindparam("b_id"))
    .values(ended=bindparam("b_now"), outcome=bindparam("b_outcome"))
)
_after = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"))
    .values({name: bindparam("b_" + name) for name in ("state", "reason", "attempt", "pilot", "started", "ended")})
)
_oldest = (
    select(leases.c.id, leases.c.leased, leases.c.ended).where(~LIVE).order_by(leases.c.id).limit(bindparam("b_limit"))
)
_delete = delete(leases).where(leases.c.id == bindparam("b_id"))

BY_PILOT = (leases.c.pilot, leases.c.expires)
"""The order of the index of live leases: asked for so that SQLite reads that, never the whole history."""

GRANTED = (
    "command",
    "environment",
    "inputs",
    "outputs",
    "stdout_mib",
    "cores",
    "memory_mib",
    "disk_mib",
    "gpus",
    "wall_seconds",
    "cpu_seconds",
    "isolation",
)
"""What of a job description travels to the pilot (protocol: GRANT)."""


def new_ids(n: int, now: float) -> list[str]:
    """Lease ids: milliseconds, then 48 random bits. In the order of time, so that old ones lie together on the disk."""
    prefix, random = f"{int(now * 1000):011x}", secrets.token_hex(6 * n)
    return sorted(prefix + random[i : i + 12] for i in range(0, 12 * n, 12))


def claim(
    conn: Connection,
    queue: int,
    n: int,
    pilot: str,
    now: float,
    term: float,
    request_id: str = "",
    *,
    charges: Charges | None = None,
) -> list[Row]:
    """Leases at most ``n`` jobs of a task queue to a pilot, oldest first: [{lease, job, attempt, vo, owner, spec (what
    travels)}].

    What others are just claiming is skipped, never waited for. ``charges`` gets what fair share counts for them.
    """
    found = conn.execute(_claimable, {"b_queue": queue, "b_n": n}).all() if n > 0 else []
    if not found:
        return []
    grants, updates, rows, log = [], [], [], []
    for lease, (job, vo, owner, attempt, text) in zip(new_ids(len(found), now), found, strict=True):
        spec = granted_spec(text)
        cores = spec.get("cores") or 1
        charge = float(cores * (spec.get("wall_seconds") or 3600))
        attempt += 1
        grants.append({"lease": lease, "job": job, "attempt": attempt, "vo": vo, "owner": owner, "spec": spec})
        updates.append({"b_id": job, "b_attempt": attempt, "b_pilot": pilot, "b_lease": lease})
        rows.append(
            {
                "id": lease,
                "job": job,
                "pilot": pilot,
                "attempt": attempt,
                "cores": cores,
                "charge": charge,
                "leased": now,
                "expires": now + term,
            }
        )
        log.append((now, "job", str(job), MATCHED, pilot, "", request_id, None))
        if charges is not None:
            charges.add(vo, owner, charge)
    conn.execute(_matched, updates)
    conn.execute(_insert, rows)
    events.append(conn, log)
    return grants


def granted_spec(text: str) -> Row:
    """The part of a stored job description that travels to the pilot."""
    spec = jsontext.load(text)
    return {name: spec[name] for name in GRANTED if name in spec}


def specs(conn: Connection, numbers: Iterable[int]) -> dict[int, Row]:
    """What travels of these jobs: {job: spec}."""
    query = _specs.where(jobs.c.id.in_(list(numbers)))
    return {job: granted_spec(text) for job, text in conn.execute(query)}


def get(conn: Connection, lease: str) -> Row | None:
    """One lease: {id, job, pilot, attempt, leased, expires, ended, outcome, vo, owner, state (of the job), ...}.

    Live while ``ended`` is None: a job token is good for as long. ``vo`` is whose files the job may read.
    """
    row = conn.execute(_one, {"b_id": lease}).mappings().first()
    return None if row is None else dict(row)


def held(conn: Connection, pilot: str, *, lock: bool = False) -> list[Row]:
    """The live leases of a pilot, as `get` gives them. ``lock``: nobody else changes them, or their jobs, until the
    commit."""
    query = _held_locked if lock else _held
    return [dict(row) for row in conn.execute(query, {"b_pilot": pilot}).mappings()]


def extend(conn: Connection, ids: Sequence[str], expires: float) -> None:
    """Sets when live leases expire."""
    if ids:
        conn.execute(_renew, [{"b_id": lease, "b_expires": expires} for lease in ids])


def expire(conn: Connection, now: float, limit: int = 500, *, charges: Charges | None = None) -> list[Row]:
    """Ends leases whose time is over as lost: their jobs wait again, or are Failed ("lost"); gives the leases."""
    return _lose(
        conn,
        _with_job.where(LIVE, leases.c.expires < now).limit(limit),
        now,
        "lease expired",
        charges,
    )


def lose(
    conn: Connection,
    pilots: Sequence[str],
    now: float,
    why: str,
    *,
    charges: Charges | None = None,
    request_id: str = "",
) -> list[Row]:
    """Ends all live leases of pilots that are gone, as lost."""
    if not pilots:
        return []
    return _lose(conn, _with_job.where(LIVE, leases.c.pilot.in_(list(pilots))), now, why, charges, request_id)


def _lose(
    conn: Connection, query: Select[Any], now: float, why: str, charges: Charges | None, request_id: str = ""
) -> list[Row]:
    gone = [dict(row) for row in conn.execute(query.order_by(*BY_PILOT).with_for_update()).mappings()]
    finish(conn, [(lease, LOST, why) for lease in gone], now, charges=charges, who="service", request_id=request_id)
    return gone


def finish(
    conn: Connection,
    ended: Sequence[tuple[Row, str, str]],
    now: float,
    *,
    charges: Charges | None,
    who: str,
    request_id: str = "",
) -> None:
    """Ends leases without a result: [(lease as `held` gives it, Lost or Returned, why)], and decides about their
    jobs."""
    if not ended:
        return
    updates, log = [], []
    for lease, outcome, why in ended:
        state, reason = aftermath(outcome, lease["attempt"], lease["retries"], lease["kill"])
        waits = state == WAITS
        updates.append(
            {
                "b_id": lease["job"],
                "b_state": state,
                "b_reason": reason or None,
                "b_attempt": attempts(outcome, lease["attempt"]),
                "b_pilot": None if waits else lease["pilot"],
                "b_started": None if waits else lease["started"],
                "b_ended": None if waits else now,
            }
        )
        log.append(
            (
                now,
                "job",
                str(lease["job"]),
                state,
                who,
                f"{outcome.lower()}: {why}" if why else outcome.lower(),
                request_id,
                None,
            )
        )
        if charges is not None:
            used = 0.0 if outcome != LOST else min((now - lease["leased"]) * lease["cores"], lease["charge"])
            charges.settle(lease["vo"], lease["owner"], lease["charge"], lease["leased"], used)
    conn.execute(_after, updates)
    end(conn, [(lease["id"], outcome) for lease, outcome, _ in ended], now)
    events.append(conn, log)


def end(conn: Connection, ended: Sequence[tuple[str, str]], now: float) -> None:
    """Marks leases as ended: [(id, outcome)]."""
    if ended:
        conn.execute(_end, [{"b_id": lease, "b_outcome": outcome, "b_now": now} for lease, outcome in ended])


def outcomes(conn: Connection, ids: Sequence[str]) -> dict[str, tuple[str, int, str | None]]:
    """{lease id: (pilot, job, outcome or None)} of those that ever were."""
    query = select(leases.c.id, leases.c.pilot, leases.c.job, leases.c.outcome).where(leases.c.id.in_(list(ids)))
    return {lease: (pilot, job, outcome) for lease, pilot, job, outcome in conn.execute(query)}


def resume(conn: Connection, gap: float, now: float, term: float, margin: float) -> int:
    """After a downtime of ``gap`` seconds (negative: the clock was set back): leases go on where they were.

    None has less than a full term left, so that every pilot has the time to come back, and none more than term and
    margin, whatever the clock did meanwhile. Gives how many there are.
    """
    live = conn.execute(select(leases.c.id, leases.c.expires).where(LIVE).order_by(leases.c.id)).all()
    rows = [
        {"b_id": lease, "b_expires": now + min(max(expires + gap - now, term), term + margin)}
        for lease, expires in live
    ]
    if rows:
        conn.execute(_renew, rows)
    return len(rows)


def purge(conn: Connection, before: float, limit: int = 500) -> int:
    """Deletes at most ``limit`` ended leases given before then; gives how many. Ids grow with time: only the oldest are
    read."""
    found = conn.execute(_oldest, {"b_limit": limit})
    gone = [{"b_id": lease} for lease, leased, ended in found if leased < before and ended < before]
    if gone:
        conn.execute(_delete, gone)
    return len(gone)
