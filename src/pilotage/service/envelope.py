"""What surrounds every request: its id, its count, and what no route takes.

Plain ASGI, for it runs on each of a pilot's syncs.
"""

from __future__ import annotations

import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pilotage.service.errors import answer
from pilotage.service.metrics import Metrics

HEADER = b"pilotage-request"
_VALID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


class Envelope:
    """Accepts or makes the request's id, puts it into ``scope`` and into the answer; counts answers by route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == HEADER), None)
        identity = given if given and _VALID.fullmatch(given) else secrets.token_hex(8).encode()
        scope["pilotage_request"] = identity.decode()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != HEADER]
                message["headers"] = [*headers, (HEADER, identity)]
                route = getattr(scope.get("route"), "name", "none")
                self._metrics.requests[route, message["status"]] += 1
            await send(message)

        if given is not None and given is not identity:
            text = "The header Pilotage-Request has 1 to 64 letters, digits, '.', '_', ':' or '-'."
            await answer(400, "request_id", text)(scope, receive, sending)
            return
        if "\x00" in scope["path"] or _has_nul(scope["query_string"]):
            # No name of ours has one, and PostgreSQL takes none in a text.
            text = "A NUL character is not allowed in a path or a query."
            await answer(422, "invalid", text)(scope, receive, sending)
            return
        await self._app(scope, receive, sending)


def _has_nul(query: bytes) -> bool:
    return b"%00" in query or b"\x00" in query
