"""What seeds fetch: which profile and toolboxes make a pilot, and these themselves. It needs no credentials."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from pilotage.configuration import ConfigurationError
from pilotage.service.context import service_of
from pilotage.service.errors import ApiError, not_found
from pilotage.service.openapi import example
from pilotage.service.seeds import Busy, Seeds, wanted

log = logging.getLogger("pilotage.service")

router = APIRouter(tags=["pilots' side"])

Name = Annotated[str, Path(max_length=100)]
Place = Annotated[str | None, Query(max_length=100)]
FOR_EVER = "public, max-age=31536000, immutable"
"""A blob is what its name says, so it never changes."""


@router.get(
    "/seed/{vo}/{flavour}/manifest",
    summary="What a pilot is made of",
    responses=example({"format": 1, "profile": "9f2c...", "toolboxes": ["41b0..."], "script": "77ae..."}),
)
async def seed_manifest(
    request: Request, vo: Name, flavour: Name, site: Place = None, resource: Place = None, queue: Place = None
) -> Response:
    """SHA-256 of the profile and of each built toolbox, and the digest of the pilot script that they make.

    Only for flavours that the configuration names under `service.published`.
    """
    service = service_of(request)
    configuration, settings = service.configuration, service.settings
    target = wanted(configuration, vo, flavour, site, resource, queue)
    if target is None:
        raise not_found("There is no published pilot of this name.")
    try:
        seeds = _seeds(request)
        data = await asyncio.to_thread(seeds.manifest, configuration, target, settings.urls, settings.trust)
    except Busy:
        raise ApiError(503, "busy", "The service is busy; come again later.", {"Retry-After": "10"}) from None
    except ConfigurationError as error:
        # Anybody may ask: files and lines are for the log only.
        log.error("The published pilot of %s cannot be had: %s", target, error)
        text = "This pilot does not compose; the service's log tells why."
        raise ApiError(503, "not_ready", text, {"Retry-After": "60"}) from None
    return _answer(request, data, hashlib.sha256(data).hexdigest(), "no-cache")


@router.get("/seed/blobs/{sha256}", summary="A profile or a built toolbox", responses=example({"vo": "demo"}))
async def seed_blob(request: Request, sha256: Name) -> Response:
    """Canonical JSON of which this is the SHA-256; only what a manifest named."""
    service = service_of(request)
    known = service.configuration, service.settings.urls, service.settings.trust
    data = await asyncio.to_thread(_seeds(request).blob, sha256, *known)
    if data is None:
        raise not_found("No manifest names this.")
    return _answer(request, data, sha256, FOR_EVER)


def _seeds(request: Request) -> Seeds:
    """Those of this application."""
    state = request.app.state
    if not hasattr(state, "seeds"):
        state.seeds = Seeds()
    seeds: Seeds = state.seeds
    return seeds


def _answer(request: Request, data: bytes, tag: str, caching: str) -> Response:
    """The bytes, or that the asker has them already (RFC 9110, section 13.1.2)."""
    headers = {"ETag": f'"{tag}"', "Cache-Control": caching, "X-Content-Type-Options": "nosniff"}
    known = [word.strip().removeprefix("W/") for word in request.headers.get("if-none-match", "").split(",")]
    if headers["ETag"] in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type="application/json")
