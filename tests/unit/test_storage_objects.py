"""The object store on a local directory. The same tests run on S3 (tests/real)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilotage.storage.errors import Mismatch, Missing, TooLarge
from pilotage.storage.objects import Objects, file_key, log_key, output_key

MIB = 1 << 20


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(str(tmp_path / "objects"))


async def chunks(total: int, size: int = 256 << 10, error: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, total, size):
        yield bytes([start // size % 256]) * min(size, total - start)
    if error is not None:
        raise error


async def joined(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in stream])


@pytest.mark.parametrize("total", [0, 1, 100, MIB, MIB + 1, 12 * MIB + 5])
async def test_what_is_stored_comes_back(objects: Objects, total: int) -> None:
    data = await joined(chunks(total))
    digest = hashlib.sha256(data).hexdigest()
    key = file_key("demo", digest)
    assert not await objects.exists(key)
    assert await objects.put_stream(key, chunks(total), limit=total, sha256=digest) == (total, digest)
    size, stream = await objects.get_stream(key)
    assert (size, await joined(stream)) == (total, data)
    assert await objects.size(key) == total and await objects.exists(key)
    assert await objects.get_range(key, 5, 10) == data[5:15]
    assert await objects.get_range(key, total, 10) == b""
    assert await objects.get_range(key, max(total - 3, 0), MIB) == data[-3:]


@pytest.mark.parametrize("total", [100, 12 * MIB])
async def test_what_is_refused_leaves_nothing(objects: Objects, total: int) -> None:
    for kind, stream in (
        (TooLarge, objects.put_stream("files/x", chunks(total), limit=total - 1)),
        (Mismatch, objects.put_stream("files/x", chunks(total), sha256="0" * 64)),
        (OSError, objects.put_stream("files/x", chunks(total, error=OSError("the client went away")))),
    ):
        with pytest.raises(kind):
            await stream
        assert await objects.names("files") == []


async def test_what_is_interrupted_leaves_what_was_there(objects: Objects) -> None:
    await objects.put("files/x", b"old")

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * (6 * MIB)
        await asyncio.sleep(3600)

    async def put() -> None:
        await objects.put_stream("files/x", slow())

    task = asyncio.create_task(put())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await objects.get("files/x") == b"old"
    assert await objects.names("files") == [("files/x", 3)]


async def test_what_is_not_there(objects: Objects) -> None:
    for call in (objects.get("no"), objects.get_stream("no"), objects.get_range("no", 0, 1)):
        with pytest.raises(Missing):
            await call
    assert await objects.size("no") is None
    await objects.delete("no", "nothing")
    assert await objects.names("no") == []


async def test_names_and_deleting(objects: Objects) -> None:
    for name in ("pilot.log", "a/b c.json"):
        await objects.put(output_key("p1", name), b"text")
    await objects.put(output_key("p11", "other"), b"x")
    assert await objects.names("pilots/p1/") == [("pilots/p1/a/b c.json", 4), ("pilots/p1/pilot.log", 4)]
    assert await objects.delete_under("pilots/p1") == 2
    assert await objects.names("pilots/p1") == []
    assert await objects.exists(output_key("p11", "other"))


async def test_a_log_is_put_together_from_its_chunks(objects: Objects) -> None:
    whole = b"".join(b"line %d\n" % number for number in range(100))
    for start, end in ((0, 300), (300, 301), (301, len(whole))):
        await objects.put(log_key("p1", start), whole[start:end])
    await objects.put(log_key("p1", 250), b"was stored, and its offset never recorded")
    assert await objects.log("p1") == whole
    assert await objects.log("p1", 299) == whole[299:]
    assert await objects.log("p1", 5, 10) == whole[5:15]
    assert await objects.log("p1", 295, 10) == whole[295:305]
    assert await objects.log("p1", len(whole)) == b""
    assert await objects.log("nobody") == b""


def test_stores_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="not supported"):
        Objects("ftp://somewhere/x")


def test_a_directory_is_private(tmp_path: Path) -> None:
    Objects((tmp_path / "deep" / "store").as_uri())
    assert (tmp_path / "deep" / "store").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../../b"])
async def test_no_name_climbs_out(objects: Objects, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="path"):
        await objects.put(output_key("p1", name), b"x")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
