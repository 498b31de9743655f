"""The all-in-one: storage, engine, service and directors in one event loop. Only `pilotage up` imports this."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import ipaddress
import logging
import logging.handlers
import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .access import FILE, Access, default_directory, save
from .errors import CliError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pilotage.configuration import Configuration
    from pilotage.directors.run import Directors
    from pilotage.engines.builtin import BuiltinEngine
    from pilotage.engines.settings import Settings as EngineSettings
    from pilotage.service.tls import TlsFiles
    from pilotage.storage import Storage

log = logging.getLogger("pilotage.up")

DAY = 86400.0
FOR_EVER = 1e11
"""Seconds (3,000 years): what "kept for ever" means to the engine."""

DRAIN_SECONDS = 90.0
"""How long Ctrl-C waits for pilots: a job's grace, the commands that always run, the last report."""

TICK_SECONDS = 2.0
"""Between two looks of the engine for what is over."""

LOG_BYTES = 10 << 20


@dataclass(frozen=True)
class Settings:
    """What `pilotage up` was told: the data directory, where to listen, and whether with TLS."""

    data: Path
    host: str
    port: int
    tls: bool


def run(configuration: Configuration, settings: Settings) -> None:
    """Serve until Ctrl-C (or SIGTERM), then drain. A second one ends the process at once, with status 130.

    :raises CliError: it cannot start; then nothing was started
    """
    from pilotage.configuration import ConfigurationError, check

    from .generate import refused

    _log_to(settings.data / "pilotage.log")
    try:
        check(configuration)
        with asyncio.Runner(loop_factory=_loop) as runner:
            runner.run(_main(configuration, settings))
    except ConfigurationError as error:
        raise refused(error) from error


def _loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class _Brief(logging.Formatter):
    """One line a record; tracebacks are in the file."""

    def formatException(self, error: Any) -> str:
        return ""

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # another handler may have kept it there
        return super().format(record).rstrip()


def _log_to(file: Path) -> None:
    """Everything to a file of bounded size; what a person must see also to the terminal."""
    to_file = logging.handlers.RotatingFileHandler(
        file, maxBytes=LOG_BYTES, backupCount=2, encoding="utf-8", delay=True
    )
    to_terminal = logging.StreamHandler()
    to_terminal.setLevel(logging.WARNING)
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    to_file.setFormatter(logging.Formatter(form))
    to_terminal.setFormatter(_Brief(form))
    logging.basicConfig(level=logging.INFO, handlers=[to_file, to_terminal], force=True)


async def _main(configuration: Configuration, settings: Settings) -> None:
    from pilotage.service.server import bind, serve

    from .stores import opened

    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(bind(settings.host, settings.port))
        except OSError as error:
            raise CliError(error.strerror or str(error)) from error
        port = listener.getsockname()[1]
        tls = _certificate(configuration, settings) if settings.tls else None
        urls = _urls(configuration, settings, port)
        stopping = stack.enter_context(_ctrl_c(settings))
        async with opened(configuration, settings.data) as storage:
            engine, app, directors, token = await _assemble(configuration, settings, storage, urls, tls)
            access = Access(_url(settings, _own_host(settings.host), port), token, str(tls.ca) if tls else None)

            def ready(_port: int) -> None:
                save(access, settings.data)
                _greet(access, settings)

            serving = asyncio.create_task(serve(app, settings.host, port, tls, ready, listener))
            ticking = asyncio.create_task(_tick(engine))
            waiting = asyncio.create_task(stopping.wait())
            try:
                await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if serving.done():
                    serving.result()
                    raise CliError(f"the server stopped by itself; see {settings.data / 'pilotage.log'}")
                await _drain(directors)
            finally:
                (settings.data / FILE).unlink(missing_ok=True)
                await directors.stop()
                for task in (ticking, serving, waiting):
                    task.cancel()
                await asyncio.gather(ticking, serving, waiting, return_exceptions=True)


async def _assemble(
    configuration: Configuration, settings: Settings, storage: Storage, urls: list[str], tls: TlsFiles | None
) -> tuple[BuiltinEngine, FastAPI, Directors, str]:
    """The parts, put together: engine, application, running directors, and the administrator's token."""
    from pilotage.directors.run import AlreadyServed, run_directors
    from pilotage.engines.builtin import BuiltinEngine
    from pilotage.service import credentials
    from pilotage.service.app import create_app
    from pilotage.service.settings import Settings as ServiceSettings

    keys = credentials.load(settings.data / "keys.json")
    engine = BuiltinEngine(storage, keys.engine, _engine_settings(configuration))
    await engine.start()
    trust = tls.anchors() if tls else []
    token = await _admin_token(configuration, settings.data, storage)
    try:
        directors = await run_directors(storage, engine, configuration, settings.data, urls, trust)
    except AlreadyServed as error:
        raise CliError(str(error)) from error
    service = ServiceSettings(
        token_seconds=max(1, round(configuration.service.token_seconds)), urls=tuple(urls), trust=tuple(trust)
    )
    app = create_app(storage, engine, configuration, keys, service, directors.wake)
    return engine, app, directors, token


def _engine_settings(configuration: Configuration) -> EngineSettings:
    from pilotage.engines.settings import Settings as EngineSettings

    service, keep = configuration.service, configuration.service.retention

    def seconds(days: float | None) -> float:
        return FOR_EVER if days is None else days * DAY

    return EngineSettings(
        lease_seconds=service.lease_seconds,
        sync_seconds=service.sync_seconds,
        shares={name: {"share": vo.share, "owners": dict(vo.owners)} for name, vo in configuration.vos.items()},
        keep_jobs=seconds(keep.jobs),
        keep_pilots=seconds(keep.pilots),
        keep_logs=seconds(keep.logs),
        keep_events=seconds(keep.events),
        keep_files=seconds(keep.files),
    )


async def _admin_token(configuration: Configuration, data: Path, storage: Storage) -> str:
    """The token of whoever runs this service: kept in a file (0600), made when it is not there or no longer good."""
    from pilotage.storage import tokens

    file = data / "admin.token"
    known = file.read_text().strip() if file.exists() else ""
    if known:
        found = await storage.read(tokens.find, tokens.digest(known), storage.now())
        if found:
            return known
    owner, vo = getpass.getuser(), next(iter(configuration.vos), None)
    _, token = await storage.write(
        tokens.create, "admin", storage.now(), vo=vo, owner=owner, roles=["admin"], expires=None, who="pilotage up"
    )
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(token + "\n")
    return token


async def _tick(engine: BuiltinEngine) -> None:
    """Keep the engine's clock and its house; what goes wrong once is told and tried again."""
    while True:
        try:
            await engine.beat()
            await engine.housekeeping()
        except Exception:
            log.exception("The engine's housekeeping failed; it is tried again.")
        await asyncio.sleep(TICK_SECONDS)


@contextlib.contextmanager
def _ctrl_c(settings: Settings) -> Iterator[asyncio.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one ends the process."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def on_signal() -> None:
        if stopping.is_set():
            (settings.data / FILE).unlink(missing_ok=True)
            _say("Left at once. Pilots that run go on by themselves.")
            os._exit(128 + signal.SIGINT)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        yield stopping
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _drain(directors: Directors) -> None:
    _say("\nStopping: pilots are sent home (Ctrl-C again leaves at once) ...")
    left = await directors.drain(DRAIN_SECONDS)
    if left:
        _say(f"{left} pilot{'s' if left > 1 else ''} did not leave in {DRAIN_SECONDS:.0f} s; they go on by themselves.")
    _say("Stopped.")


def _greet(access: Access, settings: Settings) -> None:
    home = f"PILOTAGE_DATA={shlex.quote(str(settings.data))} " if settings.data != default_directory() else ""
    print(f"Pilotage serves at {access.url}   (data in {settings.data})")
    if _everywhere(settings.host):
        there = _url(settings, _own_name(), urlsplit(access.url).port or 0)
        trust = f" and PILOTAGE_CA=a copy of {access.ca}" if access.ca else ""
        print(f"From other machines: PILOTAGE_URL={there}, PILOTAGE_TOKEN from `pilotage token create`{trust}")
    print("In another terminal:")
    print(f"  {home}pilotage submit --wait -- echo hello")
    print(f"  {home}pilotage summary")
    print("Ctrl-C stops it.", flush=True)
    if not settings.tls and not _loopback(settings.host):
        _say("Warning: without --tls, tokens and jobs travel in the clear to and from other machines.")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# Where it is


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _everywhere(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")


def _own_host(host: str) -> str:
    """How programs of this machine reach what listens on `host`."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _own_name() -> str:
    """How other machines call this one; some systems give "localhost" as the full name."""
    full = socket.getfqdn()
    return socket.gethostname() if full.startswith("localhost") else full


def _url(settings: Settings, host: str, port: int) -> str:
    return f"{'https' if settings.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _urls(configuration: Configuration, settings: Settings, port: int) -> list[str]:
    """Where pilots find the service: what is configured, else this machine's name, if others may come, and address."""
    if configuration.service.url:
        return [configuration.service.url.rstrip("/")]
    own = _url(settings, _own_host(settings.host), port)
    return [_url(settings, _own_name(), port), own] if _everywhere(settings.host) else [own]


def _certificate(configuration: Configuration, settings: Settings) -> TlsFiles:
    """The certificate for all names by which this service may be called."""
    from pilotage.service import tls

    hosts = {"localhost", "127.0.0.1", _own_host(settings.host)}
    if _everywhere(settings.host):
        hosts |= {socket.gethostname(), socket.getfqdn()}
    if configuration.service.url:
        hosts.add(urlsplit(configuration.service.url).hostname or "localhost")
    return tls.ensure(settings.data / "tls", hosts)
