"""What pilots call: registration, synchronisation, files. The messages are `pilotage_node.protocol`'s."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from pilotage.service import wire
from pilotage.service.access import caller_of
from pilotage.service.bodies import checked, chunks, json_answer, read
from pilotage.service.context import Service, request_id_of, service_of
from pilotage.service.errors import forbidden
from pilotage.service.files import Digest, checked_length, receive, safe_path, send
from pilotage.service.openapi import BYTES, binary, body
from pilotage.service.settings import MIB
from pilotage.storage import events, jobs, pilots
from pilotage.storage.errors import Ended, Refused, Unknown
from pilotage.storage.objects import file_key, output_key
from pilotage_node import protocol

router = APIRouter(tags=["pilots' side"])


@router.post(protocol.REGISTER, summary="A pilot's first contact", openapi_extra=body("Register"))
async def register(request: Request) -> Response:
    """Exchanges the one-time secret of a stamp for a pilot token.

    The same (stamp, secret, nonce) gives the same answer again; another nonce is a second start: 409 `stamp_used`.
    """
    service = service_of(request)
    wire.check_version(request)
    service.require_capacity()
    message = await checked(wire.register, await read(request, 4 * MIB))
    stamp = message["stamp"]
    try:
        pilot = await service.engine.register(message, request_id_of(request))
    except Refused as error:
        await _note(service, request, stamp, error)
        raise
    log_size = pilot["log_size"]
    if message["log"] and not log_size:  # later the pilot sends with it what we may not know the place of
        log_size = await service.logs.keep(stamp, {"offset": 0, "text": message["log"]})
    now = service.storage.now()
    settings = service.engine.settings
    return json_answer(
        {
            "stamp": stamp,
            "token": await _token(service, stamp, pilot["vo"], now),
            "token_seconds": service.settings.token_seconds,
            "sync_seconds": settings.sync_seconds,
            "lease_seconds": settings.lease_seconds,
            "time": now,
            "log_offset": log_size,
            "sequence": pilot["sequence"],
        }
    )


async def _note(service: Service, request: Request, stamp: str, error: Refused) -> None:
    """A refused registration is an event of the pilot that it named: it may be a theft. The secret is not told."""
    now = service.storage.now()
    if not service.refusals.spend(now) or await service.storage.read(pilots.get, stamp) is None:
        return
    who = request.client.host if request.client else ""
    row = (now, "pilot", stamp, "registration refused", who, error.code, request_id_of(request), None)
    await service.storage.write(events.append, [row])


async def _token(service: Service, stamp: str, vo: str, now: float) -> str:
    if not service.pilot_tokens.warmed:
        await asyncio.to_thread(service.pilot_tokens.warm)
    return service.pilot_tokens.issue(stamp, vo, now)


@router.post(protocol.SYNC, summary="Synchronise", openapi_extra=body("Sync"))
async def sync(request: Request) -> Response:
    """Tells the pilot's whole state and gets the service's: leases, acknowledgements, orders, when to come again."""
    service = service_of(request)
    wire.check_version(request)
    service.require_capacity()
    claims = caller_of(request).claims
    assert claims is not None
    message = await checked(wire.sync, await read(request, service.settings.max_sync_mib * MIB))
    kept = await service.logs.keep(claims.stamp, message["log"]) if message["log"] else None
    answer: dict[str, Any] = await service.engine.sync(
        claims.stamp, message, request_id_of(request), again_seconds=service.again_seconds()
    )
    if kept is not None:
        answer["log_offset"] = kept
    now = service.storage.now()
    old = claims.old(now)
    answer["token"] = service.pilot_tokens.issue(claims.stamp, claims.vo, now) if old else None
    answer["token_seconds"] = service.settings.token_seconds if old else max(0.0, claims.expires - now)
    service.metrics.syncs += 1
    if any(report.get("state") == "Returned" for report in message["reports"]):
        service.on_demand()
    return json_answer(answer)


@router.get(protocol.FILES + "{sha256}", summary="An input file of the job", response_class=Response, responses=BYTES)
async def download_input(request: Request, sha256: Digest) -> Response:
    """The content of one of the inputs of the job that the token is for, and of no other."""
    service, caller = service_of(request), caller_of(request)
    job = await service.storage.read(jobs.get, caller.job)
    if job is None or sha256 not in {item["sha256"] for item in job["spec"].get("inputs", ())}:
        raise forbidden(f"The job {caller.job} has no input with the digest {sha256}.")
    return await send(service.storage.objects, file_key(job["vo"], sha256), sha256)


@router.put(protocol.FILES + "{sha256}", summary="An output file of the job", openapi_extra=binary())
async def upload_output(request: Request, sha256: Digest) -> Response:
    """Stores a file that the job left; it becomes the job's when the job's report names it."""
    caller = caller_of(request)
    assert caller.vo is not None
    return await receive(request, service_of(request), caller.vo, sha256)


@router.put(protocol.OUTPUT + "{name:path}", summary="An output of the pilot itself", openapi_extra=binary())
async def upload_pilot_output(request: Request, name: str) -> Response:
    """Stores the pilot's log, its record, or what else a command uploads; a repeated upload replaces the former."""
    service, stamp = service_of(request), caller_of(request).owner
    named, limit = safe_path(name), service.settings.max_file_mib * MIB
    service.require_capacity()
    checked_length(request, limit)
    pilot = await service.storage.read(pilots.get, stamp)
    if pilot is None:
        raise Unknown("There is no such pilot.")
    if pilot["state"] in ("Done", "Failed"):
        raise Ended("This pilot has ended; it can upload nothing more.")
    size, digest = await service.storage.objects.put_stream(output_key(stamp, named), chunks(request), limit=limit)
    return json_answer({"name": named, "size": size, "sha256": digest}, 201)
