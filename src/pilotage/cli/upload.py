"""Input files on their way to the service: each content travels once, named by its SHA-256."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .client import Client
from .errors import CliError
from .jobfile import Spec
from .output import Bar

PIECE = 1 << 20
"""Bytes read at a time."""

ASK = 10_000
"""Digests in one question to the service."""


def upload_inputs(
    client: Client, specs: list[Spec], vo: str | None = None, check: Callable[[list[Spec]], Any] | None = None
) -> list[Spec]:
    """The specs as the service takes them: inputs as ``{"name", "sha256", "size", "executable"}``, contents uploaded.

    A file that many jobs use is read once; a content that the service has is not sent. ``check`` is called with the
    specs before anything is sent, where something is: what it raises spares a long upload for nothing.
    :raises CliError: a file is missing, unreadable, not a file, or changed while it was read
    """
    paths = {item["path"] for spec in specs for item in spec["inputs"]}
    digests = _by_path(sorted(paths))
    by_digest = {digest: (path, size) for path, (digest, size) in digests.items()}
    missing = _missing(client, sorted(by_digest), vo)
    ready = [{**spec, "inputs": [_entry(item, digests) for item in spec["inputs"]]} for spec in specs]
    if missing and check is not None:
        check(ready)
    with Bar("uploading inputs", sum(by_digest[digest][1] for digest in missing), in_bytes=True) as bar:
        for digest in missing:
            path, size = by_digest[digest]
            client.put(f"/files/{digest}", _pieces(path, size, bar), size, vo=vo)
    return ready


def _entry(item: dict[str, Any], digests: dict[Path, tuple[str, int]]) -> dict[str, Any]:
    digest, size = digests[item["path"]]
    executable = item["executable"]
    if executable is None:
        executable = os.access(item["path"], os.X_OK)
    return {"name": item["name"], "sha256": digest, "size": size, "executable": executable}


def _by_path(paths: list[Path]) -> dict[Path, tuple[str, int]]:
    """SHA-256 and size of each file."""
    found = {}
    total = sum(_size(path) for path in paths)
    with Bar("reading inputs", total, in_bytes=True) as bar:
        for path in paths:
            digest, count = hashlib.sha256(), 0
            for piece in _read(path):
                digest.update(piece)
                count += len(piece)
                bar.advance(len(piece))
            found[path] = (digest.hexdigest(), count)
    return found


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            raise CliError(f"input file {path} is a directory; pack it first (tar), or name its files")
        if path.exists() and not path.is_file():
            raise CliError(f"input file {path} is not a regular file")
        return path.stat().st_size
    except OSError as error:
        raise CliError(f"cannot read input file {path}: {error.strerror}") from error


def _read(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except OSError as error:
        raise CliError(f"cannot read input file {path}: {error.strerror}") from error


def _pieces(path: Path, size: int, bar: Bar) -> Iterator[bytes]:
    sent = 0
    for piece in _read(path):
        sent += len(piece)
        if sent > size:
            break
        yield piece
        bar.advance(len(piece))
    if sent != size:
        raise CliError(f"input file {path} changed while it was sent; submit again")


def _missing(client: Client, digests: list[str], vo: str | None) -> list[str]:
    missing: list[str] = []
    for start in range(0, len(digests), ASK):
        missing += client.post("/files/missing", {"sha256": digests[start : start + ASK]}, vo=vo)["missing"]
    return missing
