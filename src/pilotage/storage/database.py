"""Engines for the two databases, and what is particular to each."""

import contextlib
import os
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

BUSY_SECONDS = 30
"""How long a connection to SQLite waits for another process's write (``pilotage token create`` beside the service)."""

READERS = 4
"""Connections for reading."""

PG_WRITERS = 4
"""Connections for writing to PostgreSQL; SQLite has one."""

AGAIN = {"40001", "40P01"}
"""SQLSTATEs of PostgreSQL after which a transaction is simply run again: serialization failure, deadlock."""


def parse(url: str) -> URL:
    """The URL with our driver. Raises ValueError for what is not SQLite in a file or PostgreSQL."""
    try:
        parsed = make_url(url)
    except Exception:
        raise ValueError("not a database URL") from None  # without the text: there may be a password in it
    name = parsed.get_backend_name()
    if name in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if name != "sqlite":
        raise ValueError(f"database {name!r} is not supported: use sqlite:///FILE or postgresql://...")
    if not parsed.database or parsed.database == ":memory:":
        raise ValueError("a SQLite database must be a file: sqlite:///FILE")
    return parsed.set(drivername="sqlite+pysqlite")


def engine_for(url: URL, *, writes: bool) -> Engine:
    """An engine for one of the two uses. Each transaction of a reader sees one state of the data.

    Values stay out of exceptions, and so out of logs: there are people's environments among them.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, writes)
    engine = create_engine(
        url,
        pool_size=PG_WRITERS if writes else READERS,
        max_overflow=2,
        connect_args={"connect_timeout": 10, "application_name": "pilotage"},
        hide_parameters=True,
    )
    if writes:
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _sqlite(url: URL, writes: bool) -> Engine:
    if writes and url.database:
        # SQLite would make it as the umask says, for everybody to read; its other files get the same mode.
        with contextlib.suppress(OSError):  # SQLite says it better
            os.close(os.open(url.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    engine = create_engine(
        url,
        pool_size=1 if writes else READERS,
        max_overflow=2,
        connect_args={"timeout": BUSY_SECONDS},
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def settle(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself: see `begin`
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "cache_size=-16000",
            "temp_store=MEMORY",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        if not writes:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        # A writer takes its lock at once: upgrading a read lock later may fail however long one waits.
        conn.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def again(error: Exception) -> bool:
    """Whether a transaction that failed so may be run again as it is."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in AGAIN
