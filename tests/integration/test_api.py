"""The API over a real socket, with TLS: what a courier and a client meet."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pilotage.configuration import loads
from pilotage.configuration.live import Live
from pilotage.engines.builtin import BuiltinEngine
from pilotage.service import credentials, server, tls
from pilotage.service.app import create_app
from pilotage.service.settings import Settings
from pilotage.storage import Storage, pilots, tokens
from pilotage.storage.objects import Objects

HOSTS = ("localhost", "127.0.0.1")


class Running:
    """A service that listens, and a user's token for it."""

    def __init__(
        self, serving: asyncio.Task[None], port: int, storage: Storage, token: str, files: tls.TlsFiles | None
    ) -> None:
        self.serving = serving
        self.port = port
        self.storage = storage
        self.headers = {"Authorization": f"Bearer {token}"}
        self.files = files
        self.url = f"{'https' if files else 'http'}://127.0.0.1:{port}"

    def client(self, anchors: str | None = None) -> httpx.AsyncClient:
        """A client that trusts these anchors, or all that the service has."""
        verify: Any = False
        if self.files:
            verify = ssl.create_default_context(cadata=anchors or self.files.ca.read_text())
        return httpx.AsyncClient(base_url=self.url, verify=verify, trust_env=False, timeout=60)

    def plain(self, method: str, path: str, body: bytes | None = None, headers: Any = None) -> tuple[int, bytes, Any]:
        """A request by http.client, as the courier sends it: nothing normalises the path."""
        assert self.files
        context = ssl.create_default_context(cafile=str(self.files.ca))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=60)
        try:
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()


@asynccontextmanager
async def running(directory: Path, *, secure: bool = True, **settings: Any) -> AsyncIterator[Running]:
    storage = Storage(f"sqlite:///{directory}/pilotage.db", Objects(str(directory / "objects")))
    await storage.start()
    keys = credentials.load(directory / "keys.json")
    engine = BuiltinEngine(storage, keys.engine)
    await engine.start()
    files = tls.ensure(directory / "tls", HOSTS) if secure else None
    app = create_app(storage, engine, Live(loads("")), keys, Settings(**settings))
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(server.serve(app, "127.0.0.1", 0, files, ready.set_result))
    try:
        await asyncio.wait({ready, serving}, return_when=asyncio.FIRST_COMPLETED)
        now = storage.now()
        _, token = await storage.write(
            tokens.create, "user", now, vo="demo", owner="anna", roles=["user"], expires=now + 3600
        )
        yield Running(serving, await ready, storage, token, files)
    finally:
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        await storage.close()


async def plan(storage: Storage, stamp: str) -> None:
    now = storage.now()
    record = {"stamp": stamp, "secret_hash": tokens.digest("s" * 40), "secret_expires": now + 600, "vo": "demo"}
    names = {"site": "LOCAL", "resource": "local", "queue": "default", "flavour": "LOCAL"}
    await storage.write(pilots.plan, [{**record, **names}], now)


async def test_a_job_through_the_wire(tmp_path: Path) -> None:
    async with running(tmp_path) as at, at.client() as client:
        data = b"input" * 100_000
        digest = hashlib.sha256(data).hexdigest()

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 65536):
                yield data[start : start + 65536]

        answer = await client.put(f"/files/{digest}", content=pieces(), headers=at.headers)
        assert answer.status_code == 201
        spec = {"command": ["true"], "inputs": [{"name": "in", "sha256": digest, "size": len(data)}]}
        (job,) = (await client.post("/jobs", json=spec, headers=at.headers)).json()["ids"]
        await plan(at.storage, "ab" * 16)
        hello = {
            "protocol": 1,
            "stamp": "ab" * 16,
            "secret": "s" * 40,
            "nonce": "n",
            "node": {"cores": 1},
            "log": "a\n",
        }
        answer = await client.post("/pilot/register", json=hello, headers={"Pilotage-Protocol": "1"})
        assert answer.status_code == 200, answer.text
        pilot = {"Authorization": f"Bearer {answer.json()['token']}"}
        room = {"cores": 1, "memory_mib": 1000, "disk_mib": 1000, "gpus": 0}
        want = {**room, "seconds_left": None, "ahead": 0, "total": room, "tags": [], "platform": "p", "isolation": []}
        message = {"protocol": 1, "sequence": 1, "held": [], "reports": [], "want": want, "log": None, "beat": {}}
        (grant,) = (await client.post("/pilot/sync", json=message, headers=pilot)).json()["granted"]
        fetched = await client.get(f"/pilot/files/{digest}", headers={"Authorization": f"Bearer {grant['token']}"})
        assert fetched.content == data
        report = {"id": "1", "kind": "job", "lease": grant["lease"], "state": "Done", "exit_code": 0, "reason": "exit"}
        message |= {"sequence": 2, "want": None, "reports": [{**report, "stdout": "done\n"}]}
        assert (await client.post("/pilot/sync", json=message, headers=pilot)).json()["acknowledged"] == ["1"]
        assert (await client.get(f"/jobs/{job}", headers=at.headers)).json()["state"] == "Done"
        assert (await client.get(f"/jobs/{job}/output/stdout", headers=at.headers)).text == "done\n"


async def test_only_the_pinned_anchor_is_trusted(tmp_path: Path) -> None:
    other = tls.ensure(tmp_path / "other", HOSTS)
    async with running(tmp_path) as at:
        async with at.client(other.ca.read_text()) as stranger:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await stranger.get("/healthz")
        async with httpx.AsyncClient(trust_env=False) as plain:
            with pytest.raises(httpx.HTTPError):
                await plain.get(f"http://127.0.0.1:{at.port}/healthz")
        async with at.client() as client:
            answer = await client.get("/healthz")
            assert answer.status_code == 200 and "server" not in answer.headers


async def test_rotation_while_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "RENEWAL", 0.05)
    async with running(tmp_path) as at:
        assert at.files
        old = at.files.anchors()[0]
        async with at.client(old) as kept:
            assert (await kept.get("/healthz")).status_code == 200
            rotated = await asyncio.to_thread(tls.rotate, tmp_path / "tls", HOSTS)
            new = next(anchor for anchor in rotated.anchors() if anchor != old)
            for _ in range(200):
                try:
                    async with at.client(new) as later:
                        assert (await later.get("/healthz")).status_code == 200
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.1)
            else:
                pytest.fail("the new certificate was never shown")
            # A pilot that was sent before pinned the old anchor only: old connections and new ones go on.
            assert (await kept.get("/healthz")).status_code == 200
            async with at.client(old) as reconnected:
                assert (await reconnected.get("/healthz")).status_code == 200


def refused(answer: tuple[int, bytes, Any]) -> tuple[int, str]:
    status, body, headers = answer
    assert headers["content-type"] == "application/json" and headers["Pilotage-Request"]
    content = json.loads(body)
    assert set(content) == {"error", "code"} and "\n" not in content["error"]
    return status, content["code"]


async def test_bad_input_is_answered_not_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path) as at, at.client() as client:

        async def ask(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
            return refused(await asyncio.to_thread(at.plain, method, path, body, headers))

        before = sorted(path for path in tmp_path.rglob("*") if "objects" in path.parts)
        large = json.dumps({"command": ["x" * (10 << 20)]}).encode()
        assert await ask("POST", "/jobs", large) == (413, "too_large")
        assert await ask("POST", "/jobs", b'{"command": ["\xff"]}') == (400, "not_utf8")
        digest = hashlib.sha256(b"x").hexdigest()
        assert await ask("PUT", f"/files/{digest}", b"y") == (422, "digest_mismatch")
        assert (await ask("PUT", "/files/../../etc/passwd", b"y"))[0] in (404, 422)
        assert (await ask("GET", "/jobs/1/output/../../../etc/passwd"))[0] in (404, 422)
        assert await ask("GET", "/jobs", None, Authorization="Bearer forged") == (401, "token_invalid")
        assert await ask("POST", "/pilot/register", b"{}", **{"Pilotage-Protocol": "9"}) == (426, "protocol")
        assert (await client.get("/summary", headers=at.headers)).json()["jobs"] == {}
        assert sorted(path for path in tmp_path.rglob("*") if "objects" in path.parts) == before


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, secure=False) as at, at.client() as client:
        data = b"z" * (4 << 20)
        digest = hashlib.sha256(data).hexdigest()
        _, writer = await asyncio.open_connection("127.0.0.1", at.port)
        head = f"PUT /files/{digest} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
        writer.write((head + f"Authorization: {at.headers['Authorization']}\r\n\r\n").encode() + data[: 1 << 20])
        await writer.drain()
        writer.transport.abort()
        for _ in range(100):
            requests = (await client.get("/metrics")).text
            if 'route="upload_file"' in requests:
                break
            await asyncio.sleep(0.1)
        assert (await client.head(f"/files/{digest}", headers=at.headers)).status_code == 404
        assert not [path for path in (tmp_path / "objects").rglob("*") if path.is_file() and "ready" not in path.parts]
        answer = await client.put(f"/files/{digest}", content=data, headers=at.headers)
        assert answer.status_code == 201


async def test_ending_lets_requests_finish_and_touches_no_signals(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with running(tmp_path, secure=False) as at:
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        async with at.client() as client:
            idle = await client.get("/healthz")
            slow = asyncio.create_task(client.post("/jobs", content=_slowly(), headers=at.headers))
            await asyncio.sleep(0.3)
            port = at.port
            at.serving.cancel()
            answer = await slow
            assert (idle.status_code, answer.status_code) == (200, 201)
            await asyncio.wait([at.serving])
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 2).close()


async def _slowly() -> AsyncIterator[bytes]:
    for part in (b'{"comm', b'and": ["tr', b'ue"]}'):
        await asyncio.sleep(0.3)
        yield part


def test_an_address_in_use_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with server.bind("127.0.0.1", 0) as listener:
            assert listener.proto == socket.IPPROTO_TCP, "asyncio sets TCP_NODELAY only where it sees the protocol"
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            server.bind("127.0.0.1", port)
