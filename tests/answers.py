"""A small HTTP server that answers what a test says: for what a real service would not do."""

from __future__ import annotations

import json
from typing import Any

from pilotage.testing.http import Server, reply


class Answers(Server):
    """A service that answers what the test says: {(method, path): (status, headers, body)}; keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.table: dict[tuple[str, str], tuple[int, dict[str, str], bytes]] = {}
        self.usual = self._answer

    @property
    def asked(self) -> list[tuple[str, str, bytes]]:
        """(method, path, body) of each request so far."""
        return [(one["method"], one["path"], one["body"]) for one in self.requests]

    def _answer(self, request: Any) -> None:
        unknown: tuple[int, dict[str, str], bytes] = (404, {}, b'{"error": "no such thing"}')
        status, headers, body = self.table.get((request.command, request.path.partition("?")[0]), unknown)
        reply(request, status, body, headers)

    def say(self, method: str, path: str, body: Any, status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.table[method, path] = (status, {name.replace("_", "-"): value for name, value in headers.items()}, content)
