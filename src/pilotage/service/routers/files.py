"""Input files: content-addressed within a VO, uploaded once."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from pilotage.service import bodies
from pilotage.service.access import Vo, caller_of, hide
from pilotage.service.bodies import json_answer
from pilotage.service.context import service_of
from pilotage.service.files import Digest, receive
from pilotage.service.models import MissingRequest
from pilotage.service.openapi import binary, body, example
from pilotage.service.settings import MIB
from pilotage.storage import files

router = APIRouter(tags=["files"])


@router.head("/files/{sha256}", summary="Whether a file is there")
async def check_file(request: Request, sha256: Digest, vo: Vo = None) -> Response:
    """200 with its Content-Length, or 404."""
    service, caller = service_of(request), caller_of(request)
    found = await service.storage.read(files.sizes, caller.acts_for(vo, service.configuration.vos), [sha256])
    if sha256 not in found:
        raise hide(f"file {sha256}", caller)
    return Response(headers={"Content-Length": str(found[sha256])}, media_type="application/octet-stream")


@router.put(
    "/files/{sha256}",
    summary="Upload a file",
    openapi_extra=binary(),
    responses=example({"sha256": "ab" * 32, "size": 1234}, 201),
)
async def upload_file(request: Request, sha256: Digest, vo: Vo = None) -> Response:
    """Stores the body if its SHA-256 is the one in the path, else 422 `digest_mismatch`.

    201 when it is new, 200 when it was there before.
    """
    service = service_of(request)
    return await receive(request, service, caller_of(request).acts_for(vo, service.configuration.vos), sha256)


@router.post(
    "/files/missing",
    summary="Which files are not there",
    openapi_extra=body("MissingRequest"),
    responses=example({"missing": ["ab" * 32]}),
)
async def missing_files(request: Request, vo: Vo = None) -> Response:
    """Of the digests asked for, those that must be uploaded before a job may name them, in their order."""
    service = service_of(request)
    target = caller_of(request).acts_for(vo, service.configuration.vos)
    wanted = bodies.parse(MissingRequest, await bodies.read(request, 8 * MIB)).sha256
    found = await service.storage.read(files.has, target, wanted)
    return json_answer({"missing": [digest for digest in dict.fromkeys(wanted) if digest not in found]})
