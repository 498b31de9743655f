"""One synchronisation of a pilot, as one transaction: what it says is recorded, what it may have is decided."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection

from pilotage.engines.settings import Settings
from pilotage.storage import events, jobs, jsontext, leases, pilots, results, usage
from pilotage.storage.errors import Ended, Stale, Unknown
from pilotage.storage.usage import Charges
from pilotage.wms.jobs import ENDED
from pilotage.wms.matching import match
from pilotage.wms.pilots import ABORTED, DONE, FAILED, LOST, RUNNING, end_state
from pilotage.wms.requirements import canonical
from pilotage.wms.shares import Loads
from pilotage_node.protocol import AHEAD

Row = dict[str, Any]

MOST = 1000
"""Most new leases in one answer: a larger node asks again."""


def exchange(
    conn: Connection,
    stamp: str,
    request: Mapping[str, Any],
    now: float,
    settings: Settings,
    token: Callable[[str], str],
    request_id: str = "",
) -> Row:
    """The answer to a synchronisation (protocol), but for the pilot's token. ``token`` makes the token of a lease.

    Doing it twice is harmless: reports are recorded once, and what was granted and not heard of is granted again.
    Raises Unknown, Ended, Stale; then nothing was changed.
    """
    pilot = pilots.locked(conn, stamp)
    farewell = _admit(pilot, request, now, settings)
    assert pilot is not None
    reports = request.get("reports") or []
    of_jobs = [item for item in reports if item["kind"] == "job"]
    pilots.command_results(conn, stamp, [item for item in reports if item["kind"] == "command"], now)
    live = {} if farewell else {lease["id"]: lease for lease in leases.held(conn, stamp, lock=True)}
    charges = Charges(now, settings.half_life)
    before = set(live)
    results.apply(conn, stamp, of_jobs, live, now, charges=charges, request_id=request_id)
    ended = (before - live.keys()) & {item["lease"] for item in of_jobs if item["state"] in ENDED}

    last = next((item for item in reports if item["kind"] == "pilot"), None)
    grants: list[Row] = []
    if last is None and not farewell:
        _renew(conn, live, request, now, settings)
        grants = _again(conn, live, request)
        if not pilot["ordered"]:
            grants += _new(conn, pilot, request, grants, now, settings, charges, request_id)
    if not farewell:
        _record(
            conn, pilot, request, now, settings, jobs_got=sum(1 for grant in grants if "new" in grant), done=len(ended)
        )
    if last is not None and not farewell:
        _end(conn, stamp, last, now, charges, request_id)
        live.clear()
    charges.save(conn)
    fresh = [grant for grant in grants if "new" in grant]
    return {
        "hold": [*live, *(grant["lease"] for grant in fresh)],
        "granted": [
            {name: grant[name] for name in ("lease", "job", "attempt", "spec")} | {"token": token(grant["lease"])}
            for grant in grants
        ],
        "acknowledged": [item["id"] for item in reports],
        "log_offset": pilot["log_size"],
        "orders": [] if farewell else _orders(pilot, live),
        "again_seconds": settings.busy_seconds if fresh else settings.sync_seconds,
    }


def _admit(pilot: Row | None, request: Mapping[str, Any], now: float, settings: Settings) -> bool:
    """Whether the pilot may speak; True when it has ended and only says farewell (its last words, or the end of its
    log)."""
    if pilot is None or pilot["registered"] is None:
        raise Unknown("no such pilot has registered")
    if request["sequence"] < pilot["sequence"]:
        raise Stale(f"request {request['sequence']} is older than request {pilot['sequence']}, which was answered")
    if pilot["state"] == RUNNING or (pilot["state"] == ABORTED and pilot["reason"] == LOST):
        return False
    by_itself = pilot["state"] in (DONE, FAILED) and pilot["exit_code"] is not None
    if by_itself and now < pilot["ended"] + settings.lease_seconds:
        return True
    raise Ended(f"this pilot has ended: {pilot['state']} {pilot['reason']}".rstrip())


def _renew(
    conn: Connection, live: Mapping[str, Row], request: Mapping[str, Any], now: float, settings: Settings
) -> None:
    """Leases that the pilot holds live on. They get a term and a margin, and are written again once the margin is used
    up."""
    term = settings.lease_seconds
    used = [number for number in request.get("held") or [] if number in live and live[number]["expires"] < now + term]
    leases.extend(conn, used, now + term + settings.margin)


def _again(conn: Connection, live: Mapping[str, Row], request: Mapping[str, Any]) -> list[Row]:
    """Grants for the leases that the pilot does not know of: their answer was lost, or crossed its request."""
    held = set(request.get("held") or [])
    unheard = [lease for number, lease in live.items() if number not in held]
    if not unheard:
        return []
    specs = leases.specs(conn, [lease["job"] for lease in unheard])
    return [
        {"lease": lease["id"], "job": lease["job"], "attempt": lease["attempt"], "spec": specs[lease["job"]]}
        for lease in unheard
    ]


def _new(
    conn: Connection,
    pilot: Row,
    request: Mapping[str, Any],
    granted: list[Row],
    now: float,
    settings: Settings,
    charges: Charges,
    request_id: str,
) -> list[Row]:
    """New grants: the matcher chooses task queues, storage takes their oldest jobs."""
    want = request.get("want")
    if not want:
        return []
    most = min(int(want.get("cores") or 0) + min(int(want.get("ahead") or 0), AHEAD), MOST)
    if most <= 0:
        return []
    queues = jobs.task_queues(conn, pilot["vo"], most)
    if not queues:
        return []
    several = len({queue["owner"] for queue in queues}) > 1
    loads = Loads(usage.read(conn, now, settings.half_life) if several else {}, settings.shares)
    known = [canonical(grant["spec"]) for grant in granted]
    grants: list[Row] = []
    for queue, wanted in match(queues, want, pilot, loads, known):
        term = settings.lease_seconds + settings.margin
        n = min(wanted, most - len(grants))
        for grant in leases.claim(conn, queue, n, pilot["stamp"], now, term, request_id, charges=charges):
            grants.append({**grant, "new": True})
    return grants


def _record(
    conn: Connection, pilot: Row, request: Mapping[str, Any], now: float, settings: Settings, jobs_got: int, done: int
) -> None:
    """What the pilot said of itself, and that it was heard."""
    beat = request.get("beat") or {}
    values: Row = {
        "sequence": request["sequence"],
        "seen": now,
        "expires": now + settings.lease_seconds + settings.margin,
        "jobs": pilot["jobs"] + jobs_got,
        "done": pilot["done"] + done,
    }
    if beat.get("phase"):
        values["phase"] = jsontext.plain(str(beat["phase"])[:100])
    if beat.get("usage"):
        values["usage"] = jsontext.dump(beat["usage"])
    pilots.heard(conn, pilot, now, values)


def _end(conn: Connection, stamp: str, last: Mapping[str, Any], now: float, charges: Charges, request_id: str) -> None:
    """The pilot's last report. What it still holds it may have started: lost, not returned."""
    code = last.get("exit_code")
    reason = jsontext.plain(str(last.get("reason") or "")[:200]) or ""
    pilots.end(
        conn,
        stamp,
        end_state(code),
        now,
        exit_code=code,
        reason=reason,
        usage=last.get("usage"),
        who=stamp,
        request_id=request_id,
    )
    lost = leases.lose(
        conn, [stamp], now, "its pilot ended without a word of it", charges=charges, request_id=request_id
    )
    if lost:
        data = jsontext.dump({"leases": [lease["id"] for lease in lost][:64]})
        events.append(conn, [(now, "pilot", stamp, "left leases", stamp, "", request_id, data)])


def _orders(pilot: Row, live: Mapping[str, Row]) -> list[Row]:
    """What the pilot is to do: repeated until it is done."""
    orders: list[Row] = [{"order": pilot["ordered"]}] if pilot["ordered"] else []
    for number, lease in live.items():
        if lease["kill"] is not None:
            orders.append({"order": "kill", "lease": number, "reason": lease["kill"]})
    return orders
