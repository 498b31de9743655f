"""Files from the service into a directory of this machine. Names from the service are never trusted as local paths."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from .client import Client
from .errors import CliError
from .output import Bar, clean


def safe_parts(name: str) -> list[str]:
    """The parts of a relative file name; refuses what could lead outside of the directory.

    :raises CliError: absolute, empty, with `.` or `..`, a backslash or a control character
    """
    parts = name.split("/")
    bad = any(part in ("", ".", "..") for part in parts)
    if bad or "\\" in name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise CliError(f"refused to write an output of the unsafe name {clean(name)!r}")
    return parts


def fetch(client: Client, files: list[dict[str, Any]], directory: Path) -> list[Path]:
    """Download files (each ``{"path": of the API, "name", "size", "sha256" or None}``) below `directory`.

    A file appears only when it is whole and has the digest that was announced; one that was there is replaced.
    :raises CliError: an unsafe name, a link in the way, wrong content, a full or unwritable disk
    """
    targets = [(file, safe_parts(str(file["name"]))) for file in files]  # all names are good before anything is written
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with Bar("fetching", sum(file.get("size") or 0 for file in files), in_bytes=True) as bar:
            return [_fetch_one(client, file, _place(directory, parts), bar) for file, parts in targets]
    except OSError as error:
        raise CliError(f"cannot write to {error.filename or directory}: {error.strerror}") from error


def _place(directory: Path, parts: list[str]) -> Path:
    """The path of a file below `directory`, its directories made; follows no link that lies below."""
    place = directory
    for part in parts[:-1]:
        place = place / part
        if place.is_symlink():
            raise CliError(f"refused to write through the link {place}")
        place.mkdir(exist_ok=True)
    return place / parts[-1]


def _fetch_one(client: Client, file: dict[str, Any], target: Path, bar: Bar) -> Path:
    draft = target.with_name(f".{target.name[:200]}.part")
    draft.unlink(missing_ok=True)
    digest = hashlib.sha256()
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        with os.fdopen(descriptor, "wb") as out:
            for piece in client.download(file["path"]):
                digest.update(piece)
                out.write(piece)
                bar.advance(len(piece))
        if file.get("sha256") and digest.hexdigest() != file["sha256"]:
            raise CliError(
                f"{clean(file['name'])} arrived damaged (its SHA-256 is not what the job recorded); fetch it again"
            )
        os.replace(draft, target)  # replaces a link itself, not what it points to
    finally:
        draft.unlink(missing_ok=True)
    return target
