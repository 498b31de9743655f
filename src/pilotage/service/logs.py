"""A pilot's log on its way to the object store: each byte kept once, in order, whatever is repeated or lost between.

A chunk is an object named by its offset, written before the database counts it (compare-and-set of the length).
A crash between the two leaves an object that is not counted: the same offset is written again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any
from weakref import WeakValueDictionary

from pilotage.storage import Storage, pilots
from pilotage.storage.objects import log_key

REMEMBERED = 10_000
TRIES = 3


def bytes_of(text: str) -> bytes:
    """The bytes that the pilot's log has: lone surrogates stand for what was no UTF-8 there (surrogateescape)."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


class Logs:
    """Writes log chunks; remembers lengths, so that a chunk costs no reading."""

    def __init__(self, storage: Storage, limit: int) -> None:
        self._storage = storage
        self._limit = limit
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def keep(self, stamp: str, chunk: dict[str, Any]) -> int:
        """Stores what is new of ``chunk`` {"offset", "text"}; gives the bytes of log that the service now has.

        What begins after the end of what we have is not taken: the answer tells the pilot where to go on. Beyond the
        limit of one log, text is acknowledged and dropped, so that a mad payload cannot fill the store.
        """
        data = bytes_of(chunk["text"])
        lock = self._locks.get(stamp)
        if lock is None:
            # Kept only while somebody holds or awaits it.
            lock = self._locks[stamp] = asyncio.Lock()
        async with lock:
            return await self._keep(stamp, int(chunk["offset"]), data)

    async def _keep(self, stamp: str, offset: int, data: bytes) -> int:
        size = self._sizes.get(stamp)
        if size is None:
            size = await self._stored(stamp)
        for _ in range(TRIES):
            if size >= self._limit:
                return max(size, offset + len(data))
            if offset > size or offset + len(data) <= size:
                break
            new = data[size - offset :]
            await self._storage.objects.put(log_key(stamp, size), new)
            counted = await self._storage.write(pilots.log_extended, stamp, size, len(new))
            self._remember(stamp, counted)
            if counted == size + len(new):
                return counted
            size = counted  # another process was faster
        return size

    async def _stored(self, stamp: str) -> int:
        row = await self._storage.read(pilots.get, stamp)
        size = int(row["log_size"]) if row else 0
        self._remember(stamp, size)
        return size

    def _remember(self, stamp: str, size: int) -> None:
        self._sizes[stamp] = size
        self._sizes.move_to_end(stamp)
        if len(self._sizes) > REMEMBERED:
            self._sizes.popitem(last=False)
