"""A real HTTP(S) server on loopback whose answers a test sets, and certificates for it."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def certificate(directory: Path, name: str, host: str = "127.0.0.1") -> tuple[str, Path]:
    """A self-made certificate: (PEM, file of certificate and key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = directory / f"{name}.pem"
    file.write_bytes(pem + private)
    return pem.decode(), file


class Server:
    """A service whose answers a test sets: `answers` are used up one a request, then `usual` is asked.

    :ivar requests: what was asked so far, each {"method", "path", "headers" (names in lower case), "body"}
    :ivar connections: how many were made

    :param tls: a file with certificate and key (see `certificate`); None: plain HTTP
    :param port: 0: any that is free
    """

    def __init__(self, tls: Path | None = None, port: int = 0) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answers: list[Callable[[Any], None]] = []
        self.usual: Callable[[Any], None] = lambda request: reply(request, 200, {"answer": request.path})
        self.connections = 0
        self.open: list[socket.socket] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def setup(self) -> None:
                outer.connections += 1
                outer.open.append(self.request)
                super().setup()

            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                early = getattr(outer.answers[0] if outer.answers else outer.usual, "early", False)
                body = b"" if early else self.rfile.read(size)
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.asked = {"method": self.command, "path": self.path, "headers": headers, "body": body}
                outer.requests.append(self.asked)
                (outer.answers.pop(0) if outer.answers else outer.usual)(self)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_: Any) -> None:
                pass

        class Threads(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self.server = Threads(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.scheme = "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
            self.scheme = "https"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop serving and cut what is open."""
        self.server.shutdown()
        self.server.socket.close()
        self.thread.join()
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def reply(request: Any, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    """Answer a request; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request.send_response(status)
    request.send_header("Content-Length", str(len(data)))
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(data)


def answering(status: int, body: Any, headers: dict[str, str] | None = None) -> Callable[[Any], None]:
    """What always gives the same answer."""
    return lambda request: reply(request, status, body, headers)


def hang_up(request: Any) -> None:
    """No answer: the connection is cut."""
    request.close_connection = True
    with contextlib.suppress(OSError):
        request.connection.shutdown(socket.SHUT_RDWR)
