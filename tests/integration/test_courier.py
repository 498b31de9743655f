"""The courier in a process of its own, against real HTTP and HTTPS servers that behave well, badly, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotage.testing.http import Server, answering, certificate, hang_up, reply
from pilotage_node import courier
from pilotage_node.courier import service, transfers

HELLO = b"hello, worker node\n" * 100_000
SHA = hashlib.sha256(HELLO).hexdigest()


def half(request: Any) -> None:
    """The connection breaks in the middle of the body."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(HELLO)))
    request.end_headers()
    request.wfile.write(HELLO[: len(HELLO) // 2])
    request.wfile.flush()
    hang_up(request)


class Pilot:
    """The runner's side of one courier."""

    def __init__(self, urls: list[str], trust: list[str] | None = None) -> None:
        self.sock, theirs = socket.socketpair()
        profile = {"service": {"urls": urls, "trust": trust or []}}
        self.pid = os.fork()
        if not self.pid:
            os.closerange(3, theirs.fileno())  # the test's servers are not the courier's
            os.closerange(theirs.fileno() + 1, 4096)
            courier.main(theirs, profile, {"stamp": "s1", "secret": "sesame"})
            os._exit(0)
        theirs.close()
        self.sock.settimeout(60)
        self.file = self.sock.makefile("rb")
        self.number = 0
        self.status: int | None = None

    def send(self, **message: Any) -> int:
        self.number += 1
        self.sock.sendall(json.dumps({"id": self.number, **message}).encode() + b"\n")
        return self.number

    def receive(self) -> dict[str, Any]:
        line = self.file.readline()
        assert line, "the courier ended"
        return json.loads(line)

    def ask(self, **message: Any) -> dict[str, Any]:
        number = self.send(**message)
        answer = self.receive()
        assert answer["id"] == number
        return answer

    def end(self) -> int:
        """Close the socket and wait for the courier: its exit status."""
        self.file.close()
        self.sock.close()
        return self.wait()

    def wait(self) -> int:
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """start(Server, ...) or start(Pilot, ...): ended with the test."""
    started: list[Any] = []

    def make(kind: Callable[..., Any], *arguments: Any) -> Any:
        started.append(kind(*arguments))
        return started[-1]

    yield make
    for one in reversed(started):
        with contextlib.suppress(OSError, ValueError):
            one.end() if isinstance(one, Pilot) else one.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits shortened, for the courier that is forked next."""
    monkeypatch.setattr(service, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(transfers, "RETRY_SECONDS", 2)


def get(path: Path, **more: Any) -> dict[str, Any]:
    return {"op": "get", "sha256": SHA, "path": str(path), "token": "job-token", **more}


def test_registers_and_keeps_the_token_to_itself(start: Any) -> None:
    server = start(Server)
    server.answers = [answering(200, {"token": "first", "sync_seconds": 5}), answering(200, {"token": "second"})]
    pilot = start(Pilot, [server.url + "/base/"])
    answer = pilot.ask(op="register", body={"nonce": "n"})
    assert (answer["status"], answer["body"], answer["op"]) == (200, {"sync_seconds": 5}, "answer")
    assert 0 < answer["seconds"] < 60
    assert pilot.ask(op="sync", body={"sequence": 1})["body"] == {}
    assert pilot.ask(op="sync", body={"sequence": 2})["body"] == {"answer": "/base/pilot/sync"}
    first, second, third = server.requests
    assert first["path"] == "/base/pilot/register"
    assert json.loads(first["body"]) == {"nonce": "n", "stamp": "s1", "secret": "sesame"}
    assert "authorization" not in first["headers"]
    assert first["headers"]["pilotage-protocol"] == "1"
    assert second["headers"]["authorization"] == "Bearer first"
    assert third["headers"]["authorization"] == "Bearer second"
    assert server.connections == 1, "one connection is kept"
    assert pilot.end() == 0


def test_errors_are_passed_on_with_status_and_body(start: Any) -> None:
    server = start(Server)
    server.answers = [
        answering(409, {"error": "used", "code": "stamp_used"}),
        answering(503, {"error": "later"}, {"Retry-After": "7"}),
        answering(502, b"<html>bad gateway"),
        answering(307, b"", {"Location": "http://127.0.0.1:1/"}),
        answering(200, b"welcome to the captive portal"),
        answering(200, {"fine": True}),
    ]
    pilot = start(Pilot, [server.url])
    told = [pilot.ask(op="sync", body={}) for _ in range(6)]
    assert [one["status"] for one in told] == [409, 503, 502, 307, 0, 200]
    assert told[0]["body"] == {"error": "used", "code": "stamp_used"}
    assert told[1]["retry_after"] == 7
    assert told[2]["body"]["error"] == "502 <html>bad gateway"
    assert "is this a Pilotage service?" in told[4]["body"]["error"]
    assert told[5]["body"] == {"fine": True}


def test_the_true_cause_of_not_being_reached_is_named(start: Any, tmp_path: Path, impatient: None) -> None:
    pinned, file = certificate(tmp_path, "right")
    other, _ = certificate(tmp_path, "other")
    elsewhere, elsewhere_file = certificate(tmp_path, "elsewhere", "elsewhere.example")
    tls, wrong_host, slow = start(Server, file), start(Server, elsewhere_file), start(Server)
    slow.usual = lambda request: time.sleep(5)
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    port = closed.getsockname()[1]

    def cause(url: str, trust: list[str]) -> str:
        answer = start(Pilot, [url], trust).ask(op="register", body={})
        assert answer["status"] == 0
        assert answer["body"]["error"].startswith(f"{url}: ")
        return str(answer["body"]["error"])

    assert "Connection refused" in cause(f"http://127.0.0.1:{port}", [])
    assert "Name or service not known" in cause("http://no-such-host.invalid", [])
    assert "timed out" in cause(slow.url, [])
    assert "CERTIFICATE_VERIFY_FAILED" in cause(tls.url, [other])
    assert "CERTIFICATE_VERIFY_FAILED" in cause(tls.url, [])
    assert "CERTIFICATE_VERIFY_FAILED" in cause(wrong_host.url, [elsewhere])
    assert "SSL" in cause(tls.url.replace(str(tls.port), str(slow.port)), [pinned])
    assert cause(tls.url.replace("https", "http"), [pinned]).partition(": ")[2]
    assert tls.requests == [], "nothing was sent to a server that is not trusted"
    closed.close()


def test_anchors_are_a_set_so_that_certificates_can_be_rotated(start: Any, tmp_path: Path) -> None:
    old, old_file = certificate(tmp_path, "old")
    new, new_file = certificate(tmp_path, "new")
    server = start(Server, old_file)
    pilot = start(Pilot, [server.url], [old, new])
    assert pilot.ask(op="sync", body={})["status"] == 200
    port = server.port
    server.close()
    assert pilot.ask(op="sync", body={})["status"] == 0
    again = Server(new_file, port)
    try:
        assert pilot.ask(op="sync", body={})["status"] == 200
    finally:
        again.close()


def test_addresses_are_tried_in_order_and_the_one_that_answers_is_kept(start: Any) -> None:
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    server = start(Server)
    pilot = start(Pilot, [f"http://127.0.0.1:{closed.getsockname()[1]}", server.url])
    assert [pilot.ask(op="sync", body={})["status"] for _ in range(3)] == [200, 200, 200]
    assert server.connections == 1
    closed.close()


def test_a_kept_connection_that_the_server_closed_is_replaced_at_once(start: Any) -> None:
    server = start(Server)
    pilot = start(Pilot, [server.url])
    assert pilot.ask(op="sync", body={})["status"] == 200
    server.answers = [hang_up]
    assert pilot.ask(op="sync", body={})["status"] == 200
    assert server.connections == 2


def test_leaves_at_once_when_the_runner_is_gone(start: Any, tmp_path: Path) -> None:
    server = start(Server)
    server.usual = lambda request: time.sleep(2)
    left = start(Pilot, [server.url])
    left.send(**get(tmp_path / "a"))
    while not server.requests:
        time.sleep(0.01)
    assert left.end() == 0, "not even a transfer under way keeps it"


def test_gets_a_file(start: Any, tmp_path: Path) -> None:
    server = start(Server)
    server.usual = answering(200, HELLO)
    answer = start(Pilot, [server.url]).ask(**get(tmp_path / "in put é"))
    assert answer == {"op": "transferred", "id": 1, "error": None, "size": len(HELLO), "sha256": SHA}
    assert (tmp_path / "in put é").read_bytes() == HELLO
    assert os.listdir(tmp_path) == ["in put é"]
    [request] = server.requests
    assert (request["path"], request["headers"]["authorization"]) == (f"/pilot/files/{SHA}", "Bearer job-token")


def test_gets_a_file_from_a_server_that_fails_first(start: Any, tmp_path: Path) -> None:
    server = start(Server)
    server.answers = [half, answering(503, {"error": "busy"}, {"Retry-After": "1"}), hang_up, answering(200, HELLO)]
    assert start(Pilot, [server.url]).ask(**get(tmp_path / "a"))["error"] is None
    assert (tmp_path / "a").read_bytes() == HELLO
    assert not server.answers


def test_bodies_of_every_kind_are_read(start: Any, tmp_path: Path) -> None:
    """In chunks, of a length, or none; what breaks off is noticed, and the connection is kept where it can be."""

    def raw(text: bytes, close: bool = False) -> Callable[[Any], None]:
        def answer(request: Any) -> None:
            request.wfile.write(text)
            request.close_connection = close

        return answer

    server = start(Server)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.answers = [
        raw(chunked + b'8;more=1\r\n{"a": 1,\r\n7\r\n"b": 2}\r\n0\r\nTrailer: x\r\n\r\n'),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
        raw(b"HTTP/1.1 404\r\n\r\n"),
        raw(chunked + b"ffff\r\nshort", close=True),
        raw(chunked + b"nonsense\r\n", close=True),
    ]
    pilot = start(Pilot, [server.url])
    told = [pilot.ask(op="sync", body={}) for _ in range(5)]
    assert [one["body"] for one in told[:3]] == [{"a": 1, "b": 2}, {}, {"error": "404 "}]
    assert [one["status"] for one in told] == [200, 200, 404, 0, 0]
    assert "bytes are missing" in told[3]["body"]["error"]
    assert server.connections == 2, "what broke off ends its connection, and nothing else does"


def test_a_transfer_survives_a_restart_of_the_server(start: Any, tmp_path: Path) -> None:
    server = Server()
    port = server.port
    server.close()
    pilot = start(Pilot, [server.url])
    pilot.send(**get(tmp_path / "a"))
    time.sleep(0.5)
    again = start(Server, None, port)
    again.usual = answering(200, HELLO)
    assert pilot.receive()["error"] is None


def test_transfers_that_cannot_succeed_say_why_and_leave_nothing(start: Any, tmp_path: Path, impatient: None) -> None:
    server = start(Server)
    pilot = start(Pilot, [server.url])

    def error(answer: Callable[[Any], None], path: str = "a") -> str:
        server.usual = answer
        told = pilot.ask(**get(tmp_path / path))["error"]
        assert os.listdir(tmp_path) == []
        return told

    assert error(answering(200, b"not it")).startswith("a: it is not what was asked for: sha256 ")
    assert error(answering(403, {"error": "not yours"})) == "a: the service refused it (403): not yours"
    assert "the service refused it (302)" in error(answering(302, b"", {"Location": server.url}))
    assert "No such file or directory" in error(answering(200, HELLO), "nowhere/a")
    assert "bytes are missing" in error(half)
    assert error(answering(500, {"error": "oops"})) == "a: the service refused it (500): oops"
    assert "timed out" in error(lambda request: time.sleep(4))
    server.close()
    assert "Connection refused" in error(hang_up)


def test_a_full_disk_is_an_error_that_leaves_nothing(start: Any) -> None:
    server = start(Server)
    server.usual = answering(200, HELLO)
    pilot = start(Pilot, [server.url])
    # /dev/full is the disk that is always full; the name of the part is a link to it.
    directory = Path("/dev/shm") / f"pilotage-{os.getpid()}"
    directory.mkdir()
    try:
        (directory / "a.part").symlink_to("/dev/full")
        assert pilot.ask(**get(directory / "a"))["error"] == "a: [Errno 28] No space left on device"
        assert os.listdir(directory) == []
    finally:
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()


def test_puts_and_uploads(start: Any, tmp_path: Path) -> None:
    server = start(Server)
    server.answers = [answering(200, {"token": "pilot-token"}), hang_up]
    pilot = start(Pilot, [server.url])
    pilot.ask(op="register", body={})
    file = tmp_path / "out"
    file.write_bytes(HELLO)
    (tmp_path / "empty").write_bytes(b"")
    assert pilot.ask(op="put", path=str(file), name="out", token="job-token") == {
        "op": "transferred", "id": 2, "error": None, "size": len(HELLO), "sha256": SHA,
    }  # fmt: skip
    assert pilot.ask(op="upload", path=str(file), name="a b/é?.log")["error"] is None
    assert pilot.ask(op="put", path=str(tmp_path / "empty"), name="x", token="t")["size"] == 0
    assert "No such file" in pilot.ask(op="put", path=str(tmp_path / "gone"), name="x", token="t")["error"]
    _, _, put, upload, empty = server.requests
    assert (put["method"], put["path"], put["body"]) == ("PUT", f"/pilot/files/{SHA}", HELLO)
    assert put["headers"]["authorization"] == "Bearer job-token"
    assert upload["path"] == "/pilot/output/a%20b%2F%C3%A9%3F.log"
    assert upload["headers"]["authorization"] == "Bearer pilot-token"
    assert empty["headers"]["content-length"] == "0"


def test_a_put_that_is_refused_before_it_is_read_names_the_refusal(start: Any, tmp_path: Path) -> None:
    def refuse(request: Any) -> None:
        reply(request, 413, {"error": "too large"})
        request.wfile.flush()
        time.sleep(0.5)
        request.close_connection = True

    refuse.early = True  # type: ignore[attr-defined]
    server = start(Server)
    server.usual = refuse
    file = tmp_path / "big"
    with file.open("wb") as out:
        out.truncate(64 << 20)
    told = start(Pilot, [server.url]).ask(op="put", path=str(file), name="big", token="t")
    assert told["error"] == "big: the service refused it (413): too large"


def test_equal_gets_at_the_same_time_fetch_once(start: Any, tmp_path: Path) -> None:
    server = start(Server)

    def slowly(request: Any) -> None:
        time.sleep(0.3)
        reply(request, 200, HELLO)

    server.usual = slowly
    pilot = start(Pilot, [server.url])
    cache = tmp_path / "cache"
    cache.mkdir()
    for number in range(64):
        pilot.send(**get(tmp_path / str(number), cache=str(cache)))
    assert {(one["error"], one["size"]) for one in (pilot.receive() for _ in range(64))} == {(None, len(HELLO))}
    assert len(server.requests) == 1
    assert pilot.ask(**get(tmp_path / "late", cache=str(cache)))["error"] is None
    assert len(server.requests) == 1
    (cache / SHA).write_bytes(b"altered by a job")
    assert pilot.ask(**get(tmp_path / "later", cache=str(cache)))["error"] is None
    assert len(server.requests) == 2
    assert {(tmp_path / name).read_bytes() for name in ("0", "63", "late", "later")} == {HELLO}


def test_a_bad_token_spoils_only_its_own_get(start: Any, tmp_path: Path) -> None:
    server = start(Server)

    def choose(request: Any) -> None:
        time.sleep(0.2)
        good = request.headers["Authorization"] == "Bearer job-token"
        reply(request, *((200, HELLO) if good else (403, {"error": "dead job"})))

    server.usual = choose
    pilot = start(Pilot, [server.url])
    dead = pilot.send(**get(tmp_path / "dead", cache=str(tmp_path), token="dead"))
    while not server.requests:
        time.sleep(0.01)
    for number in range(5):
        pilot.send(**get(tmp_path / str(number), cache=str(tmp_path)))
    told = {one["id"]: one["error"] for one in (pilot.receive() for _ in range(6))}
    assert told.pop(dead) == "dead: the service refused it (403): dead job"
    assert set(told.values()) == {None}


def test_a_cache_is_kept_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "CACHE_BYTES", 25)
    for number in range(4):
        (tmp_path / str(number)).write_bytes(b"x" * 10)
        os.utime(tmp_path / str(number), (number, number))
    transfers.trim(str(tmp_path), str(tmp_path / "0"))
    assert sorted(os.listdir(tmp_path)) == ["0", "3"]


def test_a_slow_transfer_does_not_hold_up_a_sync_nor_the_other_way_round(start: Any, tmp_path: Path) -> None:
    server = start(Server)
    release = threading.Event()

    def held(request: Any) -> None:
        release.wait(30)
        reply(request, 200, HELLO)

    server.answers = [held] * 3
    pilot = start(Pilot, [server.url])
    for number in range(3):
        pilot.send(**get(tmp_path / str(number)))
    while len(server.requests) < 3:
        time.sleep(0.01)
    assert pilot.ask(op="sync", body={})["status"] == 200
    release.set()
    assert [pilot.receive()["error"] for _ in range(3)] == [None] * 3
