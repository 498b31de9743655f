"""What the directors do at each resource."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from pilotage.service.access import caller_of
from pilotage.service.bodies import json_answer
from pilotage.service.context import service_of
from pilotage.service.openapi import example

router = APIRouter(tags=["system"])


@router.get(
    "/resources",
    summary="How each resource is served",
    responses=example({"resources": [{"resource": "local", "pilots": 1, "resting": {}, "leaving": ""}]}),
)
async def list_resources(request: Request) -> Response:
    """Which queues rest and why, whether it is being left, whether something is wrong with it.

    For an administrator also what exactly, how many pilots have not ended, and what is for other VOs.
    """
    service, caller = service_of(request), caller_of(request)
    found = service.resources()
    if "admin" not in caller.roles:
        found = [_for_vo(each, caller.vo or "") for each in found if _admits(service.configuration, each, caller.vo)]
    return json_answer({"resources": found})


def _admits(configuration: Any, each: dict[str, Any], vo: str | None) -> bool:
    """Whether the resource is configured, and for this VO."""
    name = each["resource"]
    return configuration.site_of(name) is not None and vo in configuration.vos_of(configuration.resource(name))


def _for_vo(each: dict[str, Any], vo: str) -> dict[str, Any]:
    """The same without what is for the operator: the words of a failing resource may tell of its inside."""
    resting = {queue: why for queue, why in each["resting"].items() if queue.endswith(f"/{vo}")}
    error = "something is wrong with it" if each["error"] else ""
    return {**each, "pilots": None, "error": error, "resting": resting}
