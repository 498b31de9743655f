"""The all-in-one: storage, engine, service and directors in one event loop. Only `pilotage up` imports this."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import logging.handlers
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pilotage.wholefile import write_whole

from .access import FILE, Access, default_directory, save
from .address import Settings, certificate, everywhere, loopback, own_host, own_name, url_of, urls
from .errors import CliError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pilotage.configuration import Configuration
    from pilotage.configuration.live import Live
    from pilotage.directors.run import Directors
    from pilotage.engines.builtin import BuiltinEngine
    from pilotage.engines.settings import Settings as EngineSettings
    from pilotage.service.tls import TlsFiles
    from pilotage.storage import Storage

    from .configured import Source

log = logging.getLogger("pilotage.up")

DAY = 86400.0
FOR_EVER = 1e11
"""Seconds (3,000 years): what "kept for ever" means to the engine."""

DRAIN_SECONDS = 90.0
"""How long Ctrl-C waits for pilots: a job's grace, the commands that always run, the last report."""

TICK_SECONDS = 2.0
"""Between two looks of the engine for what is over, and two looks for another configuration."""

LOG_BYTES = 10 << 20


def run(settings: Settings, base: Configuration, source: Callable[[Storage], Source]) -> None:
    """Serve until Ctrl-C (or SIGTERM), then drain. A second one ends the process at once, with status 130.

    :param base: says where database and object store are
    :param source: where the configuration comes from, once these are open
    :raises CliError: it cannot start; then nothing was started
    """
    from pilotage.configuration import ConfigurationError

    from .generate import refused

    _log_to(settings.data / "pilotage.log")
    try:
        with asyncio.Runner(loop_factory=_loop) as runner:
            runner.run(_main(settings, base, source))
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


async def _main(settings: Settings, base: Configuration, source: Callable[[Storage], Source]) -> None:
    from pilotage.service.server import bind, serve

    from .stores import opened

    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(bind(settings.host, settings.port))
        except OSError as error:
            raise CliError(error.strerror or str(error)) from error
        port = listener.getsockname()[1]
        stopping = stack.enter_context(_ctrl_c(settings))
        async with opened(base, settings.data) as storage:
            kept = source(storage)
            live = await kept.first()
            tls = certificate(live.current, settings) if settings.tls else None
            engine, app, directors, token = await _assemble(live, settings, storage, port, tls)
            access = Access(url_of(settings, own_host(settings.host), port), token, str(tls.ca) if tls else None)

            def ready(_port: int) -> None:
                save(access, settings.data)
                _greet(access, settings)

            serving = asyncio.create_task(serve(app, settings.host, port, tls, ready, listener))
            ticking = asyncio.create_task(_tick(engine))
            looking = asyncio.create_task(_look(kept, live))
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
                tasks = (ticking, looking, serving, waiting)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def _assemble(
    live: Live, settings: Settings, storage: Storage, port: int, tls: TlsFiles | None
) -> tuple[BuiltinEngine, FastAPI, Directors, str]:
    """The parts, put together: engine, application, running directors, and the administrator's token."""
    from pilotage.directors.run import AlreadyServed, run_directors
    from pilotage.engines.builtin import BuiltinEngine
    from pilotage.service import credentials
    from pilotage.service.app import create_app
    from pilotage.service.settings import Settings as ServiceSettings

    keys = credentials.load(settings.data / "keys.json")
    configuration, addresses = live.current, urls(live.current, settings, port)
    engine = BuiltinEngine(storage, keys.engine, _engine_settings(configuration))
    await engine.start()
    trust = tls.anchors() if tls else []
    token = await _admin_token(configuration, settings.data, storage)
    try:
        directors = await run_directors(storage, engine, live, settings.data, addresses, trust)
    except AlreadyServed as error:
        raise CliError(str(error)) from error
    service = ServiceSettings(token_seconds=_token_seconds(configuration), urls=tuple(addresses), trust=tuple(trust))
    app = create_app(storage, engine, live, keys, service, directors.wake, directors.describe)
    _follow(live, engine, app, directors, lambda now: urls(now, settings, port), tls)
    return engine, app, directors, token


def _follow(
    live: Live,
    engine: BuiltinEngine,
    app: FastAPI,
    directors: Directors,
    addresses: Callable[[Configuration], list[str]],
    tls: TlsFiles | None,
) -> None:
    """Engine, service and directors become what the configuration says, each time that it changes."""
    before = live.current.service

    def take_over() -> None:
        nonlocal before
        now, found = live.current.service, addresses(live.current)
        engine.settings = _engine_settings(live.current)
        if tls is not None and any(urlsplit(url).hostname not in tls.hosts for url in found):
            if now.url != before.url:
                log.warning("The certificate is not for service.url %s: it takes effect at the next start.", now.url)
            found = list(app.state.service.settings.urls)
        app.state.service.reconfigure(_token_seconds(live.current), tuple(found))
        directors.reach(found)
        if (now.database, now.objects) != (before.database, before.objects):
            log.warning("service.database or service.objects has changed: it takes effect at the next start.")
        before = now

    live.subscribe(take_over)


def _token_seconds(configuration: Configuration) -> int:
    return max(1, round(configuration.service.token_seconds))


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
    write_whole(file, token + "\n")
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


async def _look(source: Source, live: Live) -> None:
    """Take over what is configured, when that changes."""
    while True:
        await asyncio.sleep(TICK_SECONDS)
        try:
            await source.look(live)
        except Exception:
            log.exception("Whether the configuration has changed could not be found out; it is tried again.")


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
    if everywhere(settings.host):
        there = url_of(settings, own_name(), urlsplit(access.url).port or 0)
        trust = f" and PILOTAGE_CA=a copy of {access.ca}" if access.ca else ""
        print(f"From other machines: PILOTAGE_URL={there}, PILOTAGE_TOKEN from `pilotage token create`{trust}")
    print("In another terminal:")
    print(f"  {home}pilotage submit --wait -- echo hello")
    print(f"  {home}pilotage summary")
    print("Ctrl-C stops it.", flush=True)
    if not settings.tls and not loopback(settings.host):
        _say("Warning: without --tls, tokens and jobs travel in the clear to and from other machines.")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
