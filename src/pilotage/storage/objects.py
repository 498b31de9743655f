"""The object store: files by digest, pilots' logs and outputs. A local directory or S3, through obstore, one code for
both."""

import hashlib
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, ObjectStore, S3Store

from pilotage.storage.errors import Mismatch, Missing, TooLarge

SMALL = 1 << 20
"""Bytes up to which a stream is gathered and stored in one request."""

PART = 5 << 20
"""Bytes of a part of a larger one (S3 takes no smaller ones), and of a chunk that is read."""


def file_key(vo: str, sha256: str) -> str:
    """Where a VO's file is kept: content-addressed."""
    return f"files/{vo}/{sha256[:2]}/{sha256}"


def log_key(stamp: str, offset: int) -> str:
    """Where the chunk of a pilot's log that begins at ``offset`` is kept."""
    return f"logs/{stamp}/{offset:012d}"


def output_key(stamp: str, name: str) -> str:
    """Where an output of the pilot itself is kept."""
    return f"pilots/{stamp}/{name}"


class Objects:
    """An object store at a URL: ``/a/directory``, ``file:///a/directory`` or ``s3://bucket/prefix``.

    An object is there whole or not at all, whoever is interrupted when.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        """``options`` are for S3, as obstore names them: endpoint, region, access_key_id, secret_access_key,
        virtual_hosted_style_request...; and ``allow_http`` (for an endpoint without TLS). What is not given is taken
        from the environment (AWS_...). A local directory is made, for our eyes only. Raises ValueError for another kind
        of URL.
        """
        self.store: ObjectStore
        parts = urlsplit(url)
        if parts.scheme == "s3":
            settings = dict(options or {})
            client: Any = {"allow_http": True} if settings.pop("allow_http", False) else None
            self.store = S3Store(parts.netloc, prefix=parts.path.strip("/") or None, client_options=client, **settings)
        elif parts.scheme in ("", "file"):
            directory = Path(unquote(parts.path) if parts.scheme else url)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.store = LocalStore(directory.resolve())
        else:
            raise ValueError(f"object store {parts.scheme!r} is not supported: use a directory or s3://BUCKET/PREFIX")

    async def put_stream(
        self, key: str, chunks: AsyncIterable[bytes], *, limit: int | None = None, sha256: str | None = None
    ) -> tuple[int, str]:
        """Stores a stream whole or not at all; gives (size, sha256 hex). Raises TooLarge over ``limit`` bytes, Mismatch
        when the digest is not ``sha256``; then nothing was changed."""
        checked = _Checked(chunks, limit, sha256)
        stream = aiter(checked)
        head = bytearray()
        async for chunk in stream:
            head += chunk
            if len(head) > SMALL:
                await obstore.put_async(self.store, key, _joined(bytes(head), stream), chunk_size=PART)
                break
        else:
            await obstore.put_async(self.store, key, bytes(head))
        return checked.size, checked.digest.hexdigest()

    async def put(self, key: str, data: bytes) -> None:
        """Stores bytes, replacing what was there."""
        await obstore.put_async(self.store, key, data)

    async def get_stream(self, key: str) -> tuple[int, AsyncIterator[bytes]]:
        """(size, chunks) of an object. Raises Missing."""
        try:
            result = await obstore.get_async(self.store, key)
        except FileNotFoundError:
            raise Missing(f"there is no {key}") from None
        return result.meta["size"], _chunks(result)

    async def get(self, key: str) -> bytes:
        """A small object, whole. Raises Missing."""
        try:
            return bytes(await (await obstore.get_async(self.store, key)).bytes_async())
        except FileNotFoundError:
            raise Missing(f"there is no {key}") from None

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """At most ``length`` bytes from ``start``; none beyond the end. Raises Missing."""
        size = await self.size(key)
        if size is None:
            raise Missing(f"there is no {key}")
        end = min(start + length, size)
        if start >= end:
            return b""
        return bytes(await obstore.get_range_async(self.store, key, start=start, end=end))

    async def size(self, key: str) -> int | None:
        """Bytes of the object, None when there is none."""
        try:
            return (await obstore.head_async(self.store, key))["size"]
        except FileNotFoundError:
            return None

    async def exists(self, key: str) -> bool:
        """Whether it is there."""
        return await self.size(key) is not None

    async def names(self, prefix: str) -> list[tuple[str, int]]:
        """(key, size) of all objects under a prefix such as ``pilots/<stamp>/``, sorted."""
        found: list[tuple[str, int]] = []
        async for some in obstore.list(self.store, prefix.rstrip("/")):
            found += [(item["path"], item["size"]) for item in some]
        return sorted(found)

    async def delete(self, *keys: str) -> None:
        """Deletes objects; those that are not there are no error."""
        for key in keys:
            try:
                await obstore.delete_async(self.store, key)
            except FileNotFoundError:
                pass

    async def delete_under(self, prefix: str) -> int:
        """Deletes all objects under a prefix; gives how many."""
        keys = [key for key, _ in await self.names(prefix)]
        await self.delete(*keys)
        return len(keys)

    async def ready(self) -> None:
        """Raises when nothing can be written here."""
        key = f"ready/{secrets.token_hex(8)}"
        await self.put(key, b"ready")
        await self.delete(key)

    async def log(self, stamp: str, offset: int = 0, limit: int = 1 << 20) -> bytes:
        """At most ``limit`` bytes of a pilot's log from ``offset``, put together from its chunks.

        A chunk whose offset was never recorded (the service died between the two) is overlaid by the one that was.
        """
        text = bytearray()
        at = offset
        for key, size in await self.names(f"logs/{stamp}"):
            begin = int(key.rsplit("/", 1)[1])
            if begin <= at < begin + size and len(text) < limit:
                text += await self.get_range(key, at - begin, limit - len(text))
                at = offset + len(text)
        return bytes(text)


class _Checked:
    """A stream that is counted and digested as it passes, and breaks off where it is not as announced."""

    def __init__(self, chunks: AsyncIterable[bytes], limit: int | None, sha256: str | None) -> None:
        self.chunks, self.limit, self.sha256 = chunks, limit, sha256
        self.size, self.digest = 0, hashlib.sha256()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self.chunks:
            self.size += len(chunk)
            if self.limit is not None and self.size > self.limit:
                raise TooLarge(f"more than the {self.limit} bytes allowed")
            self.digest.update(chunk)
            if chunk:
                yield chunk
        if self.sha256 is not None and self.digest.hexdigest() != self.sha256:
            raise Mismatch(f"the SHA-256 of what came is {self.digest.hexdigest()}, not {self.sha256}")


async def _joined(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in rest:
        yield chunk


async def _chunks(result: Any) -> AsyncIterator[bytes]:
    async for chunk in result.stream(min_chunk_size=256 << 10):
        yield bytes(chunk)
