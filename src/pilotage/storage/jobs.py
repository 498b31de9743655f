"""Jobs and task queues."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, insert, select, text, update

from pilotage.storage import events, jsontext
from pilotage.storage.errors import Conflict
from pilotage.storage.sql import insert_or, numbers
from pilotage.storage.tables import batches, jobs, queues
from pilotage.wms.jobs import ENDED, KILLED, WAITING
from pilotage.wms.requirements import canonical, key, queue_hash

Row = dict[str, Any]

SHORT = [c for c in jobs.c if c.name not in ("queue", "retries", "lease", "spec")]
"""What a listing shows; ``result`` is opened for the usage in it."""

_insert = insert(jobs)
_batch = select(batches).where(
    batches.c.vo == bindparam("b_vo"), batches.c.owner == bindparam("b_owner"), batches.c.id == bindparam("b_id")
)
_queue = select(queues.c.id).where(queues.c.hash == bindparam("b_hash"))
_queue_used = update(queues).where(queues.c.id == bindparam("b_id")).values(used=bindparam("b_used"))
_killed = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"))
    .values(
        state=KILLED, ended=bindparam("b_now"), reason="killed", message=bindparam("b_why"), kill=bindparam("b_why")
    )
)
_ordered = update(jobs).where(jobs.c.id == bindparam("b_id")).values(kill=bindparam("b_why"))
_delete_jobs = delete(jobs).where(jobs.c.id == bindparam("b_id"))


def submit(
    conn: Connection, vo: str, owner: str, specs: Sequence[Mapping[str, Any]], now: float, request_id: str = ""
) -> list[int]:
    """Records jobs as Waiting and gives their ids, in order; 10,000 in one call are fine.

    The specs are as the contract says (JobSpec as plain dicts, checked by the caller). All jobs of one call are a
    batch, named by ``request_id``. The same request id of the same owner again gives the same ids (a lost answer may be
    asked for again); with other jobs it raises Conflict. An empty request id makes no batch.
    """
    texts = [jsontext.dump(spec) for spec in specs]
    digest = hashlib.sha256("\n".join(map(str, texts)).encode()).hexdigest() if request_id else ""
    if request_id:
        before = conn.execute(_batch, {"b_vo": vo, "b_owner": owner, "b_id": request_id}).first()
        if before is not None:
            if before.digest != digest:
                raise Conflict("this request id was used for other jobs before")
            return list(range(before.first, before.first + before.jobs))
    if not specs:
        return []
    first = numbers(conn, "job", len(specs))
    seen: dict[tuple[Any, ...], int] = {}
    rows, log = [], []
    for number, (spec, spec_text) in enumerate(zip(specs, texts, strict=True), first):
        alike = key(spec)
        queue = seen.get(alike)
        if queue is None:
            queue = seen[alike] = _queue_of(conn, vo, owner, spec, now)
        rows.append(
            {
                "id": number,
                "vo": vo,
                "owner": owner,
                "batch": request_id,
                "name": spec.get("name"),
                "state": WAITING,
                "queue": queue,
                "priority": spec.get("priority") or 0,
                "attempt": 0,
                "retries": spec.get("retries", 2),
                "submitted": now,
                "spec": spec_text,
            }
        )
        log.append((now, "job", str(number), WAITING, owner, "", request_id, None))
    conn.execute(_insert, rows)
    events.append(conn, log)
    if request_id:
        row = {
            "vo": vo,
            "owner": owner,
            "id": request_id,
            "digest": digest,
            "first": first,
            "jobs": len(rows),
            "submitted": now,
        }
        conn.execute(insert(batches), row)
    return list(range(first, first + len(rows)))


def _queue_of(conn: Connection, vo: str, owner: str, spec: Mapping[str, Any], now: float) -> int:
    """The task queue of such jobs, made when it is the first."""
    priority = spec.get("priority") or 0
    requirements = canonical(spec)
    name = queue_hash(vo, owner, priority, requirements)
    number: int | None = conn.execute(_queue, {"b_hash": name}).scalar()
    if number is None or not conn.execute(_queue_used, {"b_id": number, "b_used": now}).rowcount:
        row = {
            "id": numbers(conn, "queue", 1),
            "hash": name,
            "vo": vo,
            "owner": owner,
            "priority": priority,
            "requirements": jsontext.dump(requirements),
            "used": now,
        }
        conn.execute(insert_or(conn, queues, ["hash"]), row)  # two writers may make it at once: one of them wins
        number = conn.execute(_queue, {"b_hash": name}).scalar_one()
    return number


def get(conn: Connection, job: int) -> Row | None:
    """The job as a dict, or None: all that `search` gives, and ``spec``, ``stdout``, ``stderr`` (as reported inline)
    and ``outputs`` [{name, sha256, size}].
    """
    row = conn.execute(select(*SHORT, jobs.c.spec).where(jobs.c.id == job)).mappings().first()
    if row is None:
        return None
    result = jsontext.load(row["result"]) or {}
    return {
        **_short(row),
        "spec": jsontext.load(row["spec"]),
        "stdout": result.get("stdout"),
        "stderr": result.get("stderr"),
        "outputs": result.get("outputs") or [],
    }


def _short(row: Any) -> Row:
    job = {name: value for name, value in row.items() if name not in ("result", "spec")}
    job["usage"] = (jsontext.load(row["result"]) or {}).get("usage")
    return job


def search(
    conn: Connection,
    *,
    vo: str | None = None,
    owner: str | None = None,
    states: Iterable[str] | None = None,
    ids: Iterable[int] | None = None,
    batch: str | None = None,
    after: int | None = None,
    limit: int = 100,
) -> list[Row]:
    """Jobs, newest first; ``after`` is the last id of the page before.

    Keys: id, vo, owner, batch, name, state, priority, attempt, pilot (stamp), submitted, started, ended (unix s or
    None), reason, message, exit_code, signal, wall_seconds, usage (dict), isolation, kill (reason of a kill order or
    None).
    """
    query = _where(select(*SHORT), vo, owner, batch, ids)
    if states is not None:
        query = query.where(jobs.c.state.in_(list(states)))
    if after is not None:
        query = query.where(jobs.c.id < after)
    return [_short(row) for row in conn.execute(query.order_by(jobs.c.id.desc()).limit(limit)).mappings()]


def counts(
    conn: Connection,
    vo: str | None = None,
    *,
    owner: str | None = None,
    batch: str | None = None,
    ids: Iterable[int] | None = None,
) -> dict[str, int]:
    """How many jobs are in each state (states without jobs are left out)."""
    query = _where(select(jobs.c.state, func.count()), vo, owner, batch, ids)
    return {row[0]: row[1] for row in conn.execute(query.group_by(jobs.c.state))}


def _where(
    query: Select[Any], vo: str | None, owner: str | None, batch: str | None, ids: Iterable[int] | None
) -> Select[Any]:
    for column, value in ((jobs.c.vo, vo), (jobs.c.owner, owner), (jobs.c.batch, batch)):
        if value is not None:
            query = query.where(column == value)
    return query if ids is None else query.where(jobs.c.id.in_(list(ids)))


def kill(
    conn: Connection, ids: Iterable[int], who: str, why: str, now: float, request_id: str = ""
) -> dict[str, list[int]]:
    """Kills jobs: {"killed": Waiting ones, at once, "ordered": their pilots are told, "ended": had ended, "unknown": no
    such}."""
    wanted = sorted(set(ids))
    states: dict[int, str] = {}
    for start in range(0, len(wanted), 500):  # in one order everywhere, and within what a statement can hold
        part = wanted[start : start + 500]
        query = select(jobs.c.id, jobs.c.state).where(jobs.c.id.in_(part)).order_by(jobs.c.id).with_for_update()
        states.update({row.id: row.state for row in conn.execute(query)})
    waiting = [number for number in wanted if states.get(number) == WAITING]
    ended = [number for number in wanted if states.get(number) in ENDED]
    unknown = [number for number in wanted if number not in states]
    ordered = [number for number in states if states[number] != WAITING and states[number] not in ENDED]
    if waiting:
        conn.execute(_killed, [{"b_id": number, "b_now": now, "b_why": why} for number in waiting])
    if ordered:
        conn.execute(_ordered, [{"b_id": number, "b_why": why} for number in ordered])
    log = [(now, "job", str(number), KILLED, who, why, request_id, None) for number in waiting]
    log += [(now, "job", str(number), "kill ordered", who, why, request_id, None) for number in ordered]
    events.append(conn, log)
    return {"killed": waiting, "ordered": ordered, "ended": ended, "unknown": unknown}


# Walks the partial index from queue to queue: the cost is that of the queues with waiting jobs, whatever else is there.
_WAITING_QUEUES = """
WITH RECURSIVE walk(queue) AS (
    SELECT min(queue) FROM jobs WHERE state = 'Waiting'
    UNION ALL
    SELECT (SELECT min(queue) FROM jobs WHERE state = 'Waiting' AND queue > walk.queue)
    FROM walk WHERE walk.queue IS NOT NULL
)
SELECT queues.id, queues.vo, queues.owner, queues.priority, queues.requirements,
    (SELECT count(*) FROM
        (SELECT 1 FROM jobs WHERE state = 'Waiting' AND queue = walk.queue LIMIT :most) AS counted) AS waiting
FROM walk JOIN queues ON queues.id = walk.queue
WHERE :vo = '' OR queues.vo = :vo
"""
_waiting = text(_WAITING_QUEUES)

ALL = 1 << 31
"""More than any task queue has."""

_parsed: dict[str, Row] = {}


def task_queues(conn: Connection, vo: str | None = None, most: int | None = None) -> list[Row]:
    """Task queues with waiting jobs: [{id, vo, owner, priority, waiting, requirements (dict, see wms.requirements)}].

    ``most``: count no further than that in each (the matcher needs no more, and it bounds the cost). The requirements
    are shared with other callers: read only.
    """
    found = conn.execute(_waiting, {"vo": vo or "", "most": ALL if most is None else most})
    names = ("id", "vo", "owner", "priority", "requirements", "waiting")
    rows = [dict(zip(names, row, strict=True)) for row in found]
    for row in rows:
        row["requirements"] = _parse(row["requirements"])
    return rows


def _parse(requirements: str) -> Row:
    """Requirements are few and asked for at each synchronisation: parsed once."""
    parsed = _parsed.get(requirements)
    if parsed is None:
        if len(_parsed) >= 10_000:
            _parsed.clear()
        parsed = _parsed[requirements] = jsontext.load(requirements)
    return parsed


def purge(conn: Connection, before: float, limit: int = 500) -> list[int]:
    """Deletes at most ``limit`` jobs that ended before then, the oldest first; gives their ids.

    Jobs end roughly in the order of their ids: looking at the first ``limit`` ended ones needs no index of its own.
    """
    oldest = select(jobs.c.id, jobs.c.ended).where(jobs.c.state.in_(ENDED)).order_by(jobs.c.id).limit(limit)
    gone = [number for number, ended in conn.execute(oldest) if ended is not None and ended < before]
    if gone:
        conn.execute(_delete_jobs, [{"b_id": number} for number in gone])
    conn.execute(delete(batches).where(batches.c.submitted < before))
    return gone


def purge_queues(conn: Connection, before: float, limit: int = 500) -> int:
    """Deletes task queues that had no new job since then and have no job left; gives how many."""
    idle = select(queues.c.id).where(queues.c.used < before).order_by(queues.c.id).limit(limit)
    candidates = set(conn.execute(idle).scalars())
    if not candidates:
        return 0
    candidates -= set(conn.execute(select(jobs.c.queue).where(jobs.c.queue.in_(candidates)).distinct()).scalars())
    if candidates:
        conn.execute(delete(queues).where(queues.c.id.in_(candidates), queues.c.used < before))
    return len(candidates)
