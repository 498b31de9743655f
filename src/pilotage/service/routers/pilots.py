"""Pilots, as people see them and order them about."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response

from pilotage.service import bodies
from pilotage.service.access import Caller, caller_of, hide
from pilotage.service.bodies import json_answer
from pilotage.service.context import Service, request_id_of, service_of
from pilotage.service.errors import ApiError, check_states
from pilotage.service.files import HOSTILE, safe_path, send
from pilotage.service.models import BundleRequest, OrderRequest
from pilotage.service.openapi import BYTES, body, example
from pilotage.storage import events, pilots
from pilotage.storage.objects import output_key
from pilotage.wms.pilots import STATES

router = APIRouter(tags=["pilots"])

PAGE = 1 << 20
LOOK = 0.5
"""Seconds between two looks for new log while somebody waits for it."""

Stamp = Annotated[str, Path(max_length=200)]


@router.get("/pilots", summary="List pilots", responses=example({"pilots": [{"stamp": "9f2c...", "state": "Running"}]}))
async def list_pilots(
    request: Request,
    vo: Annotated[str | None, Query(max_length=100)] = None,
    state: Annotated[list[str] | None, Query(description=f"of {', '.join(STATES)}; may be repeated")] = None,
    resource: str | None = None,
    after: Annotated[str | None, Query(max_length=200, description="the last stamp of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Pilots of your VO, newest first; `next` is the `after` of the next page, null on the last."""
    service, scope = service_of(request), caller_of(request).scope(vo)
    check_states(state, STATES)
    found = await service.storage.read(
        pilots.search, vo=scope, resource=resource, states=state, after=after, limit=limit
    )
    return json_answer({"pilots": found, "next": found[-1]["stamp"] if len(found) == limit else None})


@router.get("/pilots/{stamp}", summary="Show a pilot")
async def show_pilot(request: Request, stamp: Stamp) -> Response:
    """Everything about one pilot: node, commands run, usage, jobs done, events."""
    service = service_of(request)
    pilot = await _visible(service, caller_of(request), stamp)
    pilot["commands"] = await service.storage.read(pilots.commands, stamp)
    pilot["events"] = await service.storage.read(events.of, "pilot", stamp)
    return json_answer(pilot)


async def _visible(service: Service, caller: Caller, stamp: str) -> dict[str, Any]:
    pilot: dict[str, Any] | None = await service.storage.read(pilots.get, stamp)
    if pilot is None or not caller.sees(pilot["vo"]):
        raise hide(f"pilot {stamp}", caller)
    return pilot


@router.get("/pilots/{stamp}/log", summary="Read a pilot's log", response_class=Response)
async def read_pilot_log(
    request: Request,
    stamp: Stamp,
    offset: Annotated[int, Query(ge=0, lt=2**53, description="from this byte on")] = 0,
    wait: Annotated[float, Query(ge=0, le=60, description="how long to wait for more, when there is none [s]")] = 0.0,
) -> Response:
    """Text from `offset`, at most about 1 MiB.

    The header `Pilotage-Log-Offset` says where to go on, `Pilotage-Log-End` is "true" once all was read.
    """
    service, caller = service_of(request), caller_of(request)
    pilot = await _visible(service, caller, stamp)
    loop = asyncio.get_running_loop()
    until = loop.time() + wait
    while pilot["log_size"] <= offset and pilot["ended"] is None and loop.time() < until:
        await asyncio.sleep(min(LOOK, wait))
        pilot = await _visible(service, caller, stamp)
    data = b""
    if pilot["log_size"] > offset:
        data = await service.storage.objects.log(stamp, offset, min(PAGE, pilot["log_size"] - offset))
        data = data[: pilot["log_size"] - offset]
    if pilot["ended"] is None or offset + len(data) < pilot["log_size"]:
        data = whole_characters(data)
    end = pilot["ended"] is not None and offset + len(data) >= pilot["log_size"]
    headers = {
        **HOSTILE,
        "Content-Type": "text/plain; charset=utf-8",
        "Pilotage-Log-Offset": str(offset + len(data)),
        "Pilotage-Log-End": "true" if end else "false",
    }
    return Response(data, headers=headers)


def whole_characters(data: bytes) -> bytes:
    """``data`` without the beginning of a UTF-8 character that goes on after its end."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if back < needed and len(data) > back else data
        if byte < 0x80:
            break
    return data


@router.post("/pilots/{stamp}/drain", summary="Drain a pilot", openapi_extra=body("OrderRequest"))
async def drain_pilot(request: Request, stamp: Stamp) -> Response:
    """Tells a pilot to finish what runs, take no more, and leave."""
    return await _order(request, stamp, "drain")


@router.post("/pilots/{stamp}/kill", summary="Kill a pilot", openapi_extra=body("OrderRequest"))
async def kill_pilot(request: Request, stamp: Stamp) -> Response:
    """Tells a pilot to end its jobs and leave at once; the jobs start again elsewhere if they may."""
    return await _order(request, stamp, "kill")


async def _order(request: Request, stamp: str, order: str) -> Response:
    service, caller = service_of(request), caller_of(request)
    service.require_capacity()
    wanted = bodies.parse(OrderRequest, await bodies.read(request, 65536))
    pilot = await _visible(service, caller, stamp)
    if pilot["ended"] is not None:
        raise ApiError(409, "pilot_ended", f"The pilot {stamp} has ended.")
    await service.storage.write(
        pilots.order,
        [stamp],
        order,
        service.storage.now(),
        who=caller.who,
        why=wanted.reason,
        request_id=request_id_of(request),
    )
    return json_answer({"stamp": stamp, "order": order})


@router.get(
    "/pilots/{stamp}/output",
    summary="List what a pilot left",
    responses=example({"outputs": [{"name": "pilot.json", "size": 5120}]}),
)
async def list_pilot_outputs(request: Request, stamp: Stamp) -> Response:
    """What the pilot uploaded, and what the director fetched from the resource."""
    service = service_of(request)
    await _visible(service, caller_of(request), stamp)
    prefix = output_key(stamp, "")
    found = await service.storage.objects.names(prefix)
    return json_answer({"outputs": [{"name": key.removeprefix(prefix), "size": size} for key, size in found]})


@router.get(
    "/pilots/{stamp}/output/{name:path}", summary="Fetch what a pilot left", response_class=Response, responses=BYTES
)
async def download_pilot_output(request: Request, stamp: Stamp, name: str) -> Response:
    """One of the pilot's outputs, as bytes."""
    service = service_of(request)
    await _visible(service, caller_of(request), stamp)
    return await send(service.storage.objects, output_key(stamp, safe_path(name)), name)


@router.post(
    "/pilots/bundle",
    status_code=201,
    summary="Make a pilot to be started by hand",
    openapi_extra=body("BundleRequest"),
    responses=example(
        {"stamp": "9f2c...", "credentials": {"stamp": "9f2c...", "secret": "..."}, "script": "#!/bin/sh"}, 201
    ),
)
async def make_bundle(request: Request) -> Response:
    """Records a pilot; gives its script and its one-time credentials, which lie beside it as `credentials.json`."""
    from pilotage.configuration import pilots as composing
    from pilotage.configuration.document import ConfigurationError

    service, caller = service_of(request), caller_of(request)
    service.require_capacity()
    wanted = bodies.parse(BundleRequest, await bodies.read(request, 65536))
    configuration, settings, storage = service.configuration, service.settings, service.storage
    resource = wanted.resource
    if resource is None and wanted.flavour is None:
        resource = next((name for _, name, _ in configuration.resources()), None)
    try:
        made = await asyncio.to_thread(
            composing.compose_pilot,
            configuration,
            caller.acts_for(wanted.vo, configuration.vos),
            resource,
            wanted.queue,
            settings.urls,
            settings.trust,
            flavour=wanted.flavour,
        )
    except ConfigurationError as error:
        raise ApiError(422, "invalid", str(error)) from None
    now = storage.now()
    record, credentials = pilots.made(made.profile, made.digest, now + wanted.seconds)
    await storage.write(_hand_out, record, now, caller.who, request_id_of(request))
    given = {"stamp": record["stamp"], "credentials": credentials, "script": made.script, "digest": made.digest}
    return json_answer(given, 201)


def _hand_out(conn: Connection, record: dict[str, Any], now: float, who: str, request_id: str) -> None:
    """Records a pilot that no director sends: its reference says so, or one would look for it at the resource."""
    pilots.plan(conn, [record], now, who=who, request_id=request_id)
    pilots.submitted(conn, {record["stamp"]: f"hand:{who}"}, now)
