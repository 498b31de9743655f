"""What pilots report of jobs: recorded once, or refused."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, update

from pilotage.storage import events, jsontext, leases
from pilotage.storage.tables import jobs
from pilotage.storage.usage import Charges
from pilotage.wms.jobs import ENDED, RUNNING, next_state
from pilotage.wms.leases import LOST, RETURNED, ended_as

Row = dict[str, Any]

_running = update(jobs).where(jobs.c.id == bindparam("b_id")).values(state=RUNNING, started=bindparam("b_now"))
_ended = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"))
    .values(
        {
            name: bindparam("b_" + name)
            for name in (
                "state",
                "started",
                "ended",
                "reason",
                "message",
                "exit_code",
                "signal",
                "wall_seconds",
                "isolation",
                "result",
            )
        }
    )
)

MESSAGE = 1000
"""Most characters of a message that are kept."""


def apply(
    conn: Connection,
    pilot: str,
    reports: Sequence[Mapping[str, Any]],
    live: dict[str, Row],
    now: float,
    *,
    charges: Charges | None = None,
    request_id: str = "",
) -> list[str]:
    """Applies job reports (protocol: REPORT, kind job): each is recorded once or refused. Gives the ids of
    all of them.

    ``live``: the pilot's live leases {id: lease}, as `leases.held` gives them, locked; those that end are taken out.
    """
    log: list[events.Event] = []
    running: list[Row] = []
    results: list[Row] = []
    closed: list[tuple[str, str]] = []
    unfinished: list[tuple[Row, str, str]] = []
    late: list[Mapping[str, Any]] = []
    for item in reports:
        lease = live.get(item["lease"])
        if lease is None:
            late.append(item)
            continue
        state, reason = item["state"], jsontext.plain(item.get("reason")) or ""
        if state == RUNNING:
            if next_state(lease["state"], RUNNING) is not None:
                lease["state"], lease["started"] = RUNNING, now
                running.append({"b_id": lease["job"], "b_now": now})
                log.append((now, "job", str(lease["job"]), RUNNING, pilot, "", request_id, None))
            continue
        outcome = ended_as(state, reason)
        if outcome in (LOST, RETURNED):
            unfinished.append((lease, outcome, reason))
        elif outcome in ENDED:
            results.append(_result(item, lease, now))
            closed.append((lease["id"], outcome))
            log.append((now, "job", str(lease["job"]), outcome, pilot, reason, request_id, None))
            if charges is not None:
                used = _used(item, lease, now)
                charges.settle(lease["vo"], lease["owner"], lease["charge"], lease["leased"], used)
        else:
            log.append(
                (now, "pilot", pilot, "refused", pilot, f"a report of an unknown state {state!r:.50}", request_id, None)
            )
            continue
        del live[item["lease"]]
    if running:
        conn.execute(_running, running)
    if results:
        conn.execute(_ended, results)
        leases.end(conn, closed, now)
    leases.finish(conn, unfinished, now, charges=charges, who=pilot, request_id=request_id)
    log += _late(conn, pilot, late, now, request_id)
    events.append(conn, log)
    return [item["id"] for item in reports]


def _used(item: Mapping[str, Any], lease: Row, now: float) -> float:
    """Core-seconds to charge: what the pilot says, within what our clock can confirm."""
    return float(min(max(0.0, item.get("wall_seconds") or 0.0), max(0.0, now - lease["leased"])) * lease["cores"])


def _result(item: Mapping[str, Any], lease: Row, now: float) -> Row:
    """The columns of an ended job. Pilots tell durations, the service's clock tells times."""
    wall = item.get("wall_seconds")
    started = lease["started"]
    if started is None and wall is not None:
        started = max(now - wall, lease["leased"])
    message = item.get("message")
    return {
        "b_id": lease["job"],
        "b_state": item["state"],
        "b_started": started,
        "b_ended": now,
        "b_reason": jsontext.plain(item.get("reason")) or "",
        "b_message": jsontext.plain(message[:MESSAGE]) if message else None,
        "b_exit_code": item.get("exit_code"),
        "b_signal": item.get("signal"),
        "b_wall_seconds": wall,
        "b_isolation": jsontext.plain(item.get("isolation")),
        "b_result": jsontext.dump(
            {name: item.get(name) for name in ("usage", "outputs", "stdout", "stderr") if item.get(name)}
        ),
    }


def _late(
    conn: Connection, pilot: str, late: Sequence[Mapping[str, Any]], now: float, request_id: str
) -> list[events.Event]:
    """Reports of leases that are not live: a repeated one is silently fine, one of a lost lease is refused, and said
    so."""
    if not late:
        return []
    known = leases.outcomes(conn, sorted({item["lease"] for item in late}))
    log: list[events.Event] = []
    for item in late:
        owner, job, outcome = known.get(item["lease"], (None, None, None))
        if owner == pilot and outcome != LOST:
            continue
        if owner == pilot:
            why = f"{item['state']} reported after the lease was lost"
            log.append(
                (now, "job", str(job), "refused", pilot, why, request_id, jsontext.dump({"lease": item["lease"]}))
            )
        else:
            why = "a report of a lease that is not this pilot's"
            data = jsontext.dump({"lease": str(item["lease"])[:64]})
            log.append((now, "pilot", pilot, "refused", pilot, why, request_id, data))
    return log
