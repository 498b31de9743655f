"""Runs the application by uvicorn in the caller's event loop; signals are the caller's business."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pilotage.service.tls import TlsFiles

log = logging.getLogger("pilotage.service")

GRACE = 5
"""How long requests under way may go on after the end was asked for [s]; sized for a sync, not for an upload."""
RENEWAL = 3600.0
"""How often the server looks after its certificate [s]."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError with a sentence when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by name: asyncio sets TCP_NODELAY only where it sees it, and without it each answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        text = f"cannot listen on {host} port {port}: {error.strerror or error}"
        raise OSError(error.errno, text) from error
    listener.setblocking(False)
    return listener


async def serve(
    app: FastAPI,
    host: str,
    port: int,
    tls: TlsFiles | None,
    on_ready: Callable[[int], None],
    listener: socket.socket | None = None,
) -> None:
    """Serves ``app`` until the task is cancelled; then requests under way get `GRACE` seconds and it ends cleanly.

    ``on_ready`` is called once with the real port, when connections are taken. ``listener``: a socket from `bind`, for
    a caller that must know the port before the application is made. With ``tls`` the certificate is renewed, and
    reloaded when its files change, while serving.
    """
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_ready(listening.getsockname()[1])

    listening = listener or bind(host, port)
    config = uvicorn.Config(
        app,
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE,
        ssl_certfile=str(tls.cert) if tls else None,
        ssl_keyfile=str(tls.key) if tls else None,
        backlog=2048,
    )
    config.load()
    if config.ssl:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    server = Server(config)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    renewing = asyncio.create_task(_keep_certificate(config.ssl, tls)) if tls and config.ssl else None
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        server.should_exit = True
        await running
        raise
    finally:
        running.cancel()  # had it not ended by now, we were cancelled a second time
        if renewing:
            renewing.cancel()
        listening.close()


async def _keep_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Renews in time, and loads what is new into the live context: new connections show it, old ones go on."""
    seen = files.cert.stat().st_mtime_ns
    while True:
        await asyncio.sleep(RENEWAL)
        try:
            if files.hosts:
                from pilotage.service import tls

                await asyncio.to_thread(tls.ensure, files.cert.parent, files.hosts)
            if files.cert.stat().st_mtime_ns != seen:
                context.load_cert_chain(files.cert, files.key)
                seen = files.cert.stat().st_mtime_ns
        except Exception:  # whatever it is: a loop that ended would be noticed when the certificate has expired
            log.exception("The server's certificate could not be renewed or reloaded; the old one goes on.")
