"""Reading request bodies: by hand, so that who may call is decided before the first byte, and sizes are bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from pilotage.service.errors import ApiError, from_validation

M = TypeVar("M", bound=BaseModel)
P = ParamSpec("P")
T = TypeVar("T")

SMALL = 1024 * 1024
DRAIN = 64 * SMALL
"""How much of a refused body is still read, so that the client gets to read why and not a broken connection."""
ASIDE = 256 * 1024
"""Bodies above this many bytes are checked in a thread."""


def too_large(what: str, limit: int) -> ApiError:
    """413, with the limit in a unit that people read."""
    size = f"{limit // SMALL} MiB" if limit >= SMALL else f"{limit} bytes"
    return ApiError(413, "too_large", f"{what} is larger than the limit of {size}.", {"Connection": "close"})


async def read(request: Request, limit: int, what: str = "The body") -> bytes:
    """The whole body. Raises ApiError 413 when it is longer than ``limit`` bytes."""
    return await read_by_kind(request, limit, limit, what, what)


async def read_by_kind(request: Request, one: int, many: int, what_one: str, what_many: str) -> bytes:
    """The whole body: at most ``one`` bytes, or ``many`` when it is a JSON array. Raises ApiError 413."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max(many, DRAIN):
        raise too_large(what_many, many)
    parts: list[bytes] = []
    total = 0
    begun = False
    limit, what = one, what_one
    async for chunk in chunks(request):
        if not begun and (head := chunk.lstrip()):
            begun = True
            if head.startswith(b"["):
                limit, what = many, what_many
        total += len(chunk)
        if total <= limit:
            parts.append(chunk)
        elif total > DRAIN:
            break
    if total > limit:
        raise too_large(what, limit)
    return b"".join(parts)


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces. A client that went away meanwhile is a 400 that nobody reads."""
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect:
        raise ApiError(400, "disconnected", "The connection ended before the body did.") from None


def text_of(body: bytes) -> str:
    """The body as text. Raises ApiError 400."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(400, "not_utf8", f"The body is not UTF-8: byte {error.start} is wrong.") from None


def parse(model: type[M], body: bytes) -> M:
    """The body as ``model``. Raises ApiError 400 or 422 with the field's path and the reason."""
    try:
        return model.model_validate_json(text_of(body) or "{}")
    except ValidationError as error:
        raise from_validation(error) from None


async def checked(check: Callable[Concatenate[bytes, P], T], data: bytes, *args: P.args, **kwargs: P.kwargs) -> T:
    """``check(data, ...)``; of a large body in a thread, so that no other request waits for it."""
    if len(data) > ASIDE:
        return await asyncio.to_thread(check, data, *args, **kwargs)
    return check(data, *args, **kwargs)


def json_answer(content: Any, status: int = 200) -> Response:
    """A JSON response without a detour through models: what we built needs no check."""
    body = json.dumps(content, separators=(",", ":"), ensure_ascii=False, default=_plain).encode("utf-8", "replace")
    return Response(body, status, None, "application/json")


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)
