"""`pilotage up`: the whole service in one process, in the foreground."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .access import data_directory
from .errors import CliError

if TYPE_CHECKING:
    from pilotage.storage import Storage

    from .configured import Source

PORT = 8842
"""Where the all-in-one listens unless told otherwise; not registered with IANA for anything."""


def up(
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Data directory (default: PILOTAGE_DATA).")] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help="Configuration (YAML), read again when it changes (default: revisions)."),
    ] = None,
    service: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What counts below every revision, as service.database (YAML)."),
    ] = None,
    revision: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Go back to revision N first (0: the embedded defaults).")
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for other machines.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = PORT,
    tls: Annotated[
        bool, typer.Option("--tls", help="Serve HTTPS with a certificate that is made and renewed.")
    ] = False,
) -> None:
    """Start Pilotage all in one, in the foreground.

    That is service, database and director in one process; pilots run on this machine unless configured otherwise.
    Ctrl-C sends the pilots home and ends; a second one leaves at once, and the pilots stay.

    The configuration is the current revision in the database (see `pilotage config`), at first the embedded defaults;
    or, with --config, a file or directory of yours. Either may change while the service runs: what is right takes
    effect within seconds, what is wrong is told, and the one before goes on.

    Data is kept in $XDG_DATA_HOME/pilotage or ~/.local/share/pilotage, unless --data or PILOTAGE_DATA says otherwise.
    Other commands of the same user find the service by the file `client.json` there.
    """
    from .generate import load_configuration

    if config is not None and (service is not None or revision is not None):
        raise CliError("with --config there are no revisions; leave --service and --revision out", 2)
    place = data_directory(data)
    base = load_configuration(config or service)
    with locked(place):
        from .address import Settings
        from .allinone import run
        from .configured import Files, Revisions

        def source(storage: Storage) -> Source:
            if config is not None:
                return Files(config, base)
            return Revisions(storage, base if service else None, revision)

        run(Settings(place, host, port, tls), base, source)


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """The data directory (made with mode 0700), for this process alone.

    :raises CliError: another `pilotage up` has it, or it cannot be made
    """
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CliError(f"cannot use the data directory {place}: {error.strerror}") from error
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read().strip() or "unknown"
            text = f"another `pilotage up` (process {holder}) uses {place}; stop it, or give another --data"
            raise CliError(text) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
