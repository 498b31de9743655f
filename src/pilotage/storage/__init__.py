"""The one door to data: tables, queries, the object store. Synchronous SQLAlchemy Core behind two async calls."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine

from pilotage.storage import schema
from pilotage.storage.clock import Clock
from pilotage.storage.database import PG_WRITERS, READERS, engine_for, parse
from pilotage.storage.objects import Objects
from pilotage.storage.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")


class Storage:
    """The database at ``url`` (``sqlite:////path/to/file`` or ``postgresql://...``) and, beside it, the object store.

    SQLite means one process (and now and then a command beside it): one thread writes, and groups what is waiting into
    one commit. With PostgreSQL several processes may serve one database.
    """

    def __init__(self, url: str, objects: Objects | None = None, *, clock: Callable[[], float] | None = None) -> None:
        """``clock`` gives unix seconds; by default the wall clock read once, then the monotonic one (see `clock`).

        Raises ValueError for a URL of another kind.
        """
        self.url = parse(url)
        self.now: Callable[[], float] = clock or Clock()  # the service's clock [unix s]
        self._objects = objects
        self._writing: Engine | None = None
        self._reading: Engine | None = None
        self._writer: Writer | None = None
        self._readers: ThreadPoolExecutor | None = None

    @property
    def objects(self) -> Objects:
        """The object store. Raises RuntimeError when there is none."""
        if self._objects is None:
            raise RuntimeError("this storage was opened without an object store")
        return self._objects

    async def start(self) -> None:
        """Opens the database; makes it when it is new. Raises SchemaError for one that is older or newer than the
        code."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        engine = engine_for(self.url, writes=True)
        try:
            schema.prepare(engine)
        except BaseException:
            engine.dispose()
            raise
        one = self.url.get_backend_name() == "sqlite"
        self._writing, self._reading = engine, engine_for(self.url, writes=False)
        self._writer = Writer(engine, threads=1 if one else PG_WRITERS, grouped=one)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="storage-reader")

    async def close(self) -> None:
        """Finishes what was asked for, then closes."""
        # Taken away first: what is asked for from now on is refused, not queued where nobody looks any more.
        writer, self._writer = self._writer, None
        readers, self._readers = self._readers, None
        await asyncio.to_thread(self._close, writer, readers)

    def _close(self, writer: Writer | None, readers: ThreadPoolExecutor | None) -> None:
        if writer is not None:
            writer.stop()
        if readers is not None:
            readers.shutdown()
        for engine in (self._reading, self._writing):  # the writer last: it leaves SQLite without a WAL
            if engine is not None:
                engine.dispose()
        self._reading = self._writing = None

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs ``fn(conn, ...)`` in a transaction and gives its value once that is on the disk. When it raises, nothing
        of it stays, and nothing of another's write is lost.

        ``fn`` runs in another thread, and may be run again when the database asks for it (PostgreSQL): it has no
        effects elsewhere.
        """
        if self._writer is None:
            raise RuntimeError("the storage is closed")
        value: T = await self._writer.ask(fn, args, kwargs)
        return value

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs ``fn(conn, ...)`` in another thread, on a connection that can only read, in one consistent view of the
        data."""
        if self._readers is None:
            raise RuntimeError("the storage is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, fn, args, kwargs)

    def _read(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        assert self._reading is not None
        with self._reading.begin() as conn:
            return fn(conn, *args, **kwargs)

    async def ready(self) -> None:
        """Raises when the database cannot be written or read."""
        await self.write(_nothing)
        await self.read(_nothing)

    @property
    def backlog(self) -> int:
        """Writes that wait for their turn: what back-pressure goes by."""
        return 0 if self._writer is None else self._writer.queue.qsize()

    @property
    def statistics(self) -> dict[str, int]:
        """{"writes", "commits"} since the start."""
        writer = self._writer
        return {"writes": 0, "commits": 0} if writer is None else {"writes": writer.writes, "commits": writer.commits}


def _nothing(conn: Connection) -> None:
    conn.exec_driver_sql("SELECT 1")


def migrate(url: str) -> list[str]:
    """Brings an older database up to this code; gives the revisions applied. Raises SchemaError for one it does not
    know."""
    from pilotage.storage.migrations import upgrade

    return upgrade(parse(url))
