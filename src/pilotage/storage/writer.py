"""Writes: queued, run in threads, many in one commit where the database has one writer."""

import asyncio
import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine

from pilotage.storage.database import again

GROUP = 128
"""Most writes in one commit."""

TRIES = 6
"""How often a write is run again when the database asks for it."""


class Write:
    """One function to run in a transaction, and who waits for it."""

    __slots__ = ("args", "error", "fn", "future", "kwargs", "loop", "value")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.fn, self.args, self.kwargs = fn, args, kwargs
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.value: Any = None
        self.error: Exception | None = None

    def answer(self) -> None:
        """Tells who waits, in their own thread; nobody may be waiting any more."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)


class Writer:
    """Threads that carry out writes: one that groups them into commits (SQLite), or several, each write its own
    commit."""

    def __init__(self, engine: Engine, threads: int, grouped: bool) -> None:
        self.engine = engine
        self.group = GROUP if grouped else 1
        self.queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self.threads = [
            threading.Thread(target=self._run, name=f"storage-writer-{n}", daemon=True) for n in range(threads)
        ]
        self.writes = 0
        self.commits = 0
        for thread in self.threads:
            thread.start()

    def ask(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> asyncio.Future[Any]:
        """Queues a write; the future has its value once it is on the disk."""
        write = Write(fn, args, kwargs)
        self.queue.put(write)
        return write.future

    def stop(self) -> None:
        """Carries out what is queued, then ends the threads."""
        for _ in self.threads:
            self.queue.put(None)
        for thread in self.threads:
            thread.join()

    def _run(self) -> None:
        while True:
            first = self.queue.get()
            if first is None:
                return
            batch, stopping = [first], False
            with contextlib.suppress(queue.Empty):
                while len(batch) < self.group:
                    more = self.queue.get_nowait()
                    if more is None:
                        stopping = True
                        break
                    batch.append(more)
            self._commit(batch)
            for loop in {write.loop for write in batch}:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(_answer, [write for write in batch if write.loop is loop])
            if stopping:
                return

    def _commit(self, batch: list[Write]) -> None:
        """One transaction with all of the batch. What fails alone is undone alone; what fails at the commit fails for
        all."""
        for attempt in range(TRIES):
            try:
                with self.engine.begin() as conn:
                    if len(batch) == 1:
                        batch[0].value = batch[0].fn(conn, *batch[0].args, **batch[0].kwargs)
                    else:
                        for write in batch:
                            _run_in_savepoint(conn, write)
            except Exception as error:
                if again(error) and attempt < TRIES - 1:
                    time.sleep(random.uniform(0.0, 0.02 * 2**attempt))
                    continue
                for write in batch:
                    write.error = write.error or error
            break
        self.writes += len(batch)
        self.commits += 1


def _run_in_savepoint(conn: Connection, write: Write) -> None:
    conn.exec_driver_sql("SAVEPOINT one")
    try:
        write.value = write.fn(conn, *write.args, **write.kwargs)
    except Exception as error:
        write.error = error
        conn.exec_driver_sql("ROLLBACK TO SAVEPOINT one")  # fails when the database has given up the whole transaction
    conn.exec_driver_sql("RELEASE SAVEPOINT one")


def _answer(batch: list[Write]) -> None:
    for write in batch:
        write.answer()
