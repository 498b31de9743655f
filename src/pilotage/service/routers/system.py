"""Whether the service works, what it holds, what pilots it can send."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from pilotage.service.access import caller_of
from pilotage.service.bodies import json_answer
from pilotage.service.context import service_of
from pilotage.service.errors import ApiError
from pilotage.service.metrics import count
from pilotage.service.openapi import example

log = logging.getLogger("pilotage.service")

router = APIRouter(tags=["system"])

READY_SECONDS = 5.0


@router.get("/healthz", summary="Whether the process lives", responses=example({"status": "ok"}))
async def health(request: Request) -> Response:
    """Answers as long as the process does."""
    return json_answer({"status": "ok"})


@router.get("/readyz", summary="Whether the service can work", responses=example({"status": "ok"}))
async def ready(request: Request) -> Response:
    """200 when database and object store can be written, else 503 that says which cannot."""
    storage = service_of(request).storage
    for what, check in (("database", storage.ready), ("object store", storage.objects.ready)):
        try:
            await asyncio.wait_for(check(), READY_SECONDS)
        except Exception as error:
            # Anybody may ask: hosts, paths and statements are for the log only.
            log.error("The %s cannot be written: %s", what, error)
            text = f"The {what} cannot be written: {type(error).__name__}; the service's log tells more."
            raise ApiError(503, "not_ready", text, {"Retry-After": "5"}) from error
    return json_answer({"status": "ok"})


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Jobs and pilots by state, syncs, requests by route and status."""
    return Response(await service_of(request).metrics.text(), media_type="text/plain; version=0.0.4")


@router.get(
    "/summary",
    summary="How many jobs and pilots are in which state",
    responses=example({"vo": "demo", "jobs": {"Done": 64}, "pilots": {"Running": 1}, "time": 1700000000.0}),
)
async def summary(
    request: Request,
    vo: Annotated[str | None, Query(max_length=100)] = None,
    owner: Annotated[str | None, Query(max_length=100, description="only this owner's jobs")] = None,
    batch: Annotated[str | None, Query(max_length=100, description="only jobs of this request id")] = None,
) -> Response:
    """Counts of your VO (an administrator: of all); exact with `owner` or `batch`, else seconds old at most."""
    service, scope = service_of(request), caller_of(request).scope(vo)
    if owner or batch:
        found = await count(service.storage, scope, owner, batch)
    else:
        found = await service.metrics.counts(scope)
    return json_answer({"vo": scope, **found, "time": service.storage.now()})


@router.get("/flavours", summary="The kinds of pilots", responses=example({"flavours": [{"name": "LOCAL"}]}))
async def list_flavours(request: Request) -> Response:
    """Each flavour with its commands, in order, and their options as a pilot of your VO gets them; where there is no
    such pilot (its toolbox is not there, say), the problem."""
    service, caller = service_of(request), caller_of(request)
    from pilotage.configuration import ConfigurationError

    try:
        found = await asyncio.to_thread(_flavours, service.configuration, caller.vo)
    except ConfigurationError as error:
        raise ApiError(422, "invalid", str(error)) from None
    return json_answer({"flavours": found})


def _flavours(configuration: Any, vo: str | None) -> list[dict[str, Any]]:
    from pilotage.configuration import ConfigurationError, pilots, shelf
    from pilotage.configuration.schema import unknown

    vo = vo or next(iter(configuration.vos), "")
    if vo not in configuration.vos:
        raise ConfigurationError(unknown("VO", vo, configuration.vos))
    boxes = shelf.toolboxes_of(configuration, vo)
    manifest = {name: entry for box in reversed(boxes) for name, entry in box["commands"].items()}
    found: list[dict[str, Any]] = []
    for name in configuration.flavours:
        try:
            profile = pilots.compose_pilot(configuration, vo, flavour=name).profile
        except ConfigurationError as error:
            found.append({"name": name, "commands": [], "limits": {}, "problem": str(error)})
            continue
        commands = [{**command, "summary": manifest[command["name"]]["summary"]} for command in profile["commands"]]
        found.append({"name": name, "commands": commands, "limits": profile["limits"]})
    return found
