"""A service that pilots can talk to, in the test's own process: it speaks ``pilotage_node.protocol`` over real HTTP."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from pilotage.testing.http import Server, certificate, hang_up, reply
from pilotage.testing.jobs import Jobs, Report
from pilotage_node import protocol

TOKEN = "token-of-"


class FakeService:
    """Registers every pilot, hands out the jobs it was given, and keeps all that it is told.

    Example::

        service.submit(["/bin/echo", "hello"])
        run_pilot(configuration, flavour="LOCAL", service=service)
        assert service.job(1)["stdout"] == "hello\\n"

    What came in: ``registrations`` and ``syncs`` (bodies in their order), ``reports`` (each once), ``uploads`` (files
    of the pilot by name), ``stored`` (outputs of jobs by digest), ``log`` (of all pilots, as it came).

    How it misbehaves, each until it is set back: ``down`` (connections are cut), ``refusing`` (a status for every
    request, such as 503, with Retry-After ``retry_after``), ``slow_seconds`` (before every answer), ``skew_seconds``
    (of its clock).

    :param tls: serve HTTPS with a certificate of its own, which ``trust`` holds
    """

    def __init__(self, tls: bool = False) -> None:
        self.trust: list[str] = []
        with tempfile.TemporaryDirectory() as directory:
            file = None
            if tls:
                pem, file = certificate(Path(directory), "fake-service")
                self.trust = [pem]
            self.server = Server(file)
        self.server.usual = self._answer
        self.matcher = Jobs()
        self.registrations: list[dict[str, Any]] = []
        self.syncs: list[dict[str, Any]] = []
        self.reports: list[Report] = []
        self.uploads: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}
        self.logs: dict[str, bytes] = {}
        self.sync_seconds, self.lease_seconds = 1.0, 120.0
        self.down, self.refusing, self.retry_after = False, 0, 1
        self.slow_seconds = self.skew_seconds = 0.0
        self._nonces: dict[str, str] = {}
        self._seen: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Its address."""
        return self.server.url

    def close(self) -> None:
        """Stop serving."""
        self.server.close()

    # -- what it shall do

    def submit(self, command: list[str], **spec: Any) -> None:
        """Add a job; jobs are numbered from 1 in the order in which they are handed out.

        :param spec: what else differs from ``pilotage.testing.jobs.job()``, e.g. ``wall_seconds=2``
        """
        self.matcher.queue.append(dict(spec, command=command))

    def put(self, data: bytes, name: str, executable: bool = False) -> dict[str, Any]:
        """Store a file; what stands under ``inputs`` of a job that needs it."""
        digest = self.matcher.put(data)
        return {"name": name, "sha256": digest, "size": len(data), "executable": executable}

    def order(self, order: str, job: int | None = None, reason: str = "on order") -> None:
        """Order ``drain`` or ``kill`` for the pilot, or ``kill`` for one job; repeated with every answer."""
        one = {"order": order, "lease": f"lease-{job}", "reason": reason} if job else {"order": order}
        self.matcher.orders.append(one)

    # -- what it was told

    @property
    def log(self) -> str:
        """The log, as far as it came."""
        return b"".join(self.logs.values()).decode(errors="replace")

    @property
    def commands(self) -> dict[str, Report]:
        """The reports of commands by their names."""
        return {report["name"]: report for report in self.reports if report["kind"] == "command"}

    @property
    def pilot(self) -> Report | None:
        """The pilot's last report, None as long as there is none."""
        return next((report for report in self.reports if report["kind"] == "pilot"), None)

    def job(self, number: int) -> Report:
        """The last report of a job; KeyError as long as there is none."""
        return self.matcher.results[f"lease-{number}"]

    # -- the protocol

    def _answer(self, request: Any) -> None:
        if self.slow_seconds:
            time.sleep(self.slow_seconds)
        if self.down:
            hang_up(request)
            return
        if self.refusing:
            body = {"error": "this fake service was told to refuse", "code": "unavailable"}
            reply(request, self.refusing, body, {"Retry-After": str(self.retry_after)})
            return
        with self._lock:
            status, body = self._route(request, request.asked["body"])
        with contextlib.suppress(OSError):
            reply(request, status, body)

    def _route(self, request: Any, data: bytes) -> tuple[int, Any]:
        method, path, token = request.command, request.path, self._token(request)
        if (method, path) == ("POST", protocol.REGISTER):
            return self._register(json.loads(data))
        if (method, path) == ("POST", protocol.SYNC):
            stamp = token.removeprefix(TOKEN)
            if stamp not in self._nonces:
                return 401, {"error": "unknown token", "code": "token"}
            return 200, self._sync(stamp, json.loads(data))
        if method == "PUT" and path.startswith(protocol.OUTPUT):
            self.uploads[path.removeprefix(protocol.OUTPUT)] = data
            return 201, {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if path.startswith(protocol.FILES):
            return self._file(method, path.removeprefix(protocol.FILES), data)
        return 404, {"error": f"no such route: {method} {path}", "code": "unknown"}

    @staticmethod
    def _token(request: Any) -> str:
        return str(request.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _register(self, message: dict[str, Any]) -> tuple[int, Any]:
        if message["protocol"] not in protocol.SUPPORTED:
            return 426, {"error": f"protocol {message['protocol']} is not spoken here", "code": "protocol"}
        stamp, nonce = message["stamp"], message["nonce"]
        if self._nonces.setdefault(stamp, nonce) != nonce:
            return 409, {"error": "this stamp was used before", "code": "stamp_used"}
        self.registrations.append(message)
        self.logs.setdefault(stamp, (message["log"] or "").encode())
        return 200, {
            "stamp": stamp,
            "token": TOKEN + stamp,
            "token_seconds": 600,
            "sync_seconds": self.sync_seconds,
            "lease_seconds": self.lease_seconds,
            "time": time.time() + self.skew_seconds,
            "log_offset": len(self.logs[stamp]),
            "sequence": 0,
        }

    def _sync(self, stamp: str, message: dict[str, Any]) -> dict[str, Any]:
        self.syncs.append(message)
        chunk = message["log"]
        if chunk and chunk["offset"] <= len(self.logs[stamp]):
            self.logs[stamp] = self.logs[stamp][: chunk["offset"]] + chunk["text"].encode()
        for report in message["reports"]:
            if (stamp, report["id"]) not in self._seen:
                self._seen.add((stamp, report["id"]))
                self.reports.append(report)
        answer = self.matcher.answer(message, stamp)
        del answer["new"]
        again = {"again_seconds": self.sync_seconds, "token": None, "token_seconds": 600}
        return dict(answer, log_offset=len(self.logs[stamp]), **again)

    def _file(self, method: str, digest: str, data: bytes) -> tuple[int, Any]:
        if method == "GET":
            found = self.matcher.files.get(digest)
            return (200, found) if found is not None else (404, {"error": "no such file", "code": "unknown"})
        self.stored[digest] = data
        return 201, {"size": len(data), "sha256": digest}
