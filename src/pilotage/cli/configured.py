"""Where an all-in-one has its configuration from, and how it notices that there is another.

Two sources, of one shape: `first` gives what to start with, `look` is called every few seconds and takes over what has
changed. What is wrong is told once, and what runs goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .errors import CliError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pilotage.configuration import Configuration
    from pilotage.configuration.live import Live
    from pilotage.storage import Storage

log = logging.getLogger("pilotage.configuration")


class Source(Protocol):
    """See `Files` and `Revisions`."""

    async def first(self) -> Live:
        """The configuration to start with. Raises CliError, ConfigurationError."""

    async def look(self, live: Live) -> None:
        """Takes over what has changed."""


class Files:
    """A file or a directory, which people or a tool (Git, Kubernetes) change while we run."""

    def __init__(self, path: Path, first: Configuration) -> None:
        """:param first: what was read there"""
        self.path = path
        self._first = first
        self._read: object = None
        self._seen: object = None
        self._told = ""

    async def first(self) -> Live:
        """What was read at the start."""
        from pilotage.configuration import check
        from pilotage.configuration.live import Live

        await asyncio.to_thread(check, self._first)
        return Live(self._first, source=str(self.path))

    async def look(self, live: Live) -> None:
        """Reads it again when something was written there and then nothing for one look: who writes many files, or one
        in two steps, is let finish. What the texts say decides, not when they were written."""
        seen = await asyncio.to_thread(lambda: sorted(_stamps(self.path)))
        if seen == self._read:
            return
        if seen != self._seen:
            self._seen = seen
            return
        self._read = seen
        with self._telling():
            configuration = await asyncio.to_thread(self._load, live.current)
            if configuration is None:
                if self._told:
                    _say(f"The configuration {self.path} is as it runs again.")
            else:
                live.replace(configuration)
                _say(f"The configuration {self.path} was read again (now {configuration.revision}).")
            self._told = ""

    def _load(self, now: Configuration) -> Configuration | None:
        """What is there now, checked; None where it says what runs."""
        from pilotage import resources
        from pilotage.configuration import check, load

        configuration = load(self.path)
        if configuration.files == now.files:
            return None
        resources.check(configuration)
        check(configuration)
        return configuration

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Tells what is wrong, once."""
        from pilotage.configuration import ConfigurationError

        from .generate import refused

        try:
            yield
        except (OSError, ConfigurationError) as error:
            text = str(refused(error)) if isinstance(error, ConfigurationError) else f"cannot be read: {error}"
            if text != self._told:
                log.error("The configuration has changed and cannot be used; the one before goes on. %s", text)
            self._told = text


class Revisions:
    """The revisions in the database: changed by our own service, or by another process that serves the same one."""

    def __init__(self, storage: Storage, below: Configuration | None, number: int | None) -> None:
        """
        :param below: what every revision is put over; None: the embedded defaults alone
        :param number: the revision to go back to before the start, 0 for the embedded defaults; None: none
        """
        self.storage = storage
        self._below = below
        self._number = number
        self._told: tuple[int, int | None] | None = None

    async def first(self) -> Live:
        """The current revision, with the canary that is tried beside it."""
        from pilotage.configuration import ConfigurationError, check
        from pilotage.configuration.live import Live
        from pilotage.storage import configurations

        from .generate import refused

        if self._number is not None:
            await self._go_back(self._number)
        row = await self.storage.read(configurations.current)
        if row is None:
            from pilotage.configuration import load_files

            configuration = load_files({}, self._below)
            await asyncio.to_thread(check, configuration)
            live = Live(configuration, below=self._below)
        else:
            try:
                live = Live(await self._load(row["files"]), row["number"], below=self._below)
            except ConfigurationError as error:
                raise CliError(
                    f"revision {row['number']} of the configuration, the current one, cannot be used: {refused(error)};"
                    " start with an earlier one by --revision N (0: the embedded defaults)"
                ) from error
        await self.look(live)
        return live

    async def look(self, live: Live) -> None:
        """Takes over what another process has applied, promoted or withdrawn; withdraws a canary that fails."""
        from pilotage.configuration import ConfigurationError
        from pilotage.storage import configurations

        from .generate import refused

        if live.canary is not None:
            await self._judge(live)
        heads = await self.storage.read(configurations.heads)
        if heads in (self._told, (live.number, live.canary.number if live.canary else None)):
            return
        number, canary = heads
        at = number
        try:
            if number != live.number:
                row = await self.storage.read(configurations.get, number)
                live.replace(await self._load(row["files"] if row else {}), number)
            if canary is None:
                live.clear_canary()
            elif live.canary is None or live.canary.number != canary:
                at = canary
                await self._try(live, canary)
            self._told = None
        except ConfigurationError as error:
            log.error("Revision %d of the configuration cannot be used here; what runs goes on. %s", at, refused(error))
            self._told = heads

    async def _try(self, live: Live, number: int) -> None:
        from pilotage.storage import configurations

        row = await self.storage.read(configurations.get, number)
        if row is not None and row["canary"]:
            configuration, of = await self._load(row["files"]), row["canary"]
            live.set_canary(configuration, of["share"], of["resource"], of["vo"], number)

    async def _judge(self, live: Live) -> None:
        from pilotage.storage import configurations

        row = await self.storage.write(configurations.judge, self.storage.now())
        if row is not None:
            log.warning("Revision %d was withdrawn: %s", row["number"], row["canary"]["why"])
            live.clear_canary()

    async def _load(self, files: dict[str, str]) -> Configuration:
        from pilotage.service.revisions import checked

        return await asyncio.to_thread(checked, files, self._below)

    async def _go_back(self, number: int) -> None:
        """Makes an earlier revision current again, as a new one, where the current one keeps the service from
        starting."""
        from pilotage.storage import configurations

        row = await self.storage.read(configurations.get, number) if number else None
        if number and row is None:
            raise CliError(f"there is no revision {number} of the configuration", 2)
        current, canary = await self.storage.read(configurations.heads)
        if number == current:
            return
        why = f"started with --revision {number}"
        files = row["files"] if row else {}
        configuration = await self._load(files)
        if canary is not None:
            await self.storage.write(configurations.retire, canary, self.storage.now(), who="pilotage up", why=why)
        await self.storage.write(
            configurations.apply,
            files,
            configuration.revision,
            current,
            self.storage.now(),
            who="pilotage up",
            why=why,
            what=f"rolled back to {number}",
        )


def _stamps(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """(name, time of change [ns], size, inode) of the file, or of all in the directory that are not hidden."""
    files = [path]
    if path.is_dir():
        files = []
        for place, directories, names in os.walk(path):
            directories[:] = [name for name in directories if not name.startswith(".")]
            files += [Path(place, name) for name in names if not name.startswith(".")]
    for file in files:
        try:
            status = file.stat()
        except OSError:
            yield str(file), 0, 0, 0
        else:
            yield str(file), status.st_mtime_ns, status.st_size, status.st_ino


def _say(text: str) -> None:
    """For whoever sits at the terminal, and for the log."""
    log.info(text)
    print(text, file=sys.stderr, flush=True)
