"""A private PostgreSQL for tests: its own cluster in a temporary directory, reached only by a Unix socket there."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

PROGRAMS = "/usr/lib/postgresql"
"""Where Debian keeps its versions of PostgreSQL; elsewhere the programs are on PATH."""


def programs() -> Path | None:
    """The directory with initdb and postgres, of the newest version that is installed; None when there is none."""
    found = sorted(Path(PROGRAMS).glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]), reverse=True)
    if found:
        return found[0].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def _unprivileged() -> dict[str, Any]:
    """For subprocess: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Cluster:
    """A running server; `url` makes an empty database in it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.made = 0

    def url(self) -> str:
        """The URL of a new, empty database."""
        self.made += 1
        name = f"test{self.made}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return self.address(name)

    def address(self, database: str) -> str:
        """The URL of a database."""
        return f"postgresql://pilotage@/{database}?host={self.directory}"


@contextmanager
def cluster(where: Path) -> Iterator[Cluster]:
    """A cluster made with the programs in ``where``; it ends, and leaves nothing, with the block."""
    directory = tempfile.mkdtemp(prefix="pg-", dir="/tmp")  # a short path: it holds a socket
    server: subprocess.Popen[bytes] | None = None
    other = _unprivileged()
    try:
        if other:
            os.chown(directory, other["user"], other["group"])
        data = f"{directory}/data"
        make = [str(where / "initdb"), "-D", data, "-U", "pilotage", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL, cwd=directory, **other)
        run = [str(where / "postgres"), "-D", data, "-k", directory, "-c", "listen_addresses=", "-c", "fsync=off"]
        with open(f"{directory}/log", "wb") as log:
            server = subprocess.Popen(run, stdout=log, stderr=log, cwd=directory, start_new_session=True, **other)
        found = Cluster(directory)
        _wait(found, server)
        yield found
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # a fast shutdown: connections are cut
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.send_signal(signal.SIGQUIT)
                server.wait(30)
        shutil.rmtree(directory, ignore_errors=True)


def _wait(found: Cluster, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            psycopg.connect(found.address("postgres")).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL did not start: {Path(found.directory, 'log').read_text()[-2000:]}")
