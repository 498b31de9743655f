"""Files in and out: streamed, verified, never whole in memory."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Path
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from pilotage.service.bodies import DRAIN, chunks, json_answer, too_large
from pilotage.service.context import Service
from pilotage.service.errors import ApiError
from pilotage.service.models import safe_name
from pilotage.service.settings import MIB
from pilotage.storage import files
from pilotage.storage.errors import TooLarge
from pilotage.storage.objects import Objects, file_key

Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the content, lower-case hex")]

HOSTILE = {
    "Content-Type": "application/octet-stream",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}
"""Headers of what payloads wrote: a browser must show none of it as a page of ours."""


def safe_path(name: str) -> str:
    """A file's name from a URL. Raises ApiError 422."""
    try:
        return safe_name(name)
    except ValueError as error:
        raise ApiError(422, "invalid", f"name: {error}") from None


def checked_length(request: Request, limit: int) -> None:
    """Refuses by its announcement a body that is too large. Raises ApiError 413."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise too_large("The file", limit)


async def receive(request: Request, service: Service, vo: str, sha256: str) -> Response:
    """Stores the body as a VO's file if it has that digest; 201, or 200 when the VO had it.

    Raises ApiError 413, Mismatch (422): then nothing is stored.
    """
    service.require_capacity()
    storage, limit = service.storage, service.settings.max_file_mib * MIB
    checked_length(request, limit)
    size = (await storage.read(files.sizes, vo, [sha256])).get(sha256)
    status = 200
    if size is None:
        try:
            size, _ = await storage.objects.put_stream(
                file_key(vo, sha256), chunks(request), limit=limit, sha256=sha256
            )
        except TooLarge:
            raise too_large("The file", limit) from None
        status = 201
    else:
        await discard(request)
    await storage.write(files.record, vo, sha256, size, storage.now())
    return json_answer({"sha256": sha256, "size": size}, status)


async def discard(request: Request) -> None:
    """Reads a body that is not wanted, for a while: a client that is cut off in the middle cannot read the answer."""
    total = 0
    async for chunk in chunks(request):
        total += len(chunk)
        if total > DRAIN:
            return


async def send(objects: Objects, key: str, name: str) -> Response:
    """An object as a download. Raises Missing (404)."""
    size, content = await objects.get_stream(key)
    return StreamingResponse(content, headers=download_headers(name, size))


def download_headers(name: str, size: int) -> dict[str, str]:
    """Headers of a download that a browser saves under the last part of ``name``."""
    disposition = f"attachment; filename*=UTF-8''{quote(name.rsplit('/', 1)[-1], safe='')}"
    return {**HOSTILE, "Content-Length": str(size), "Content-Disposition": disposition}
