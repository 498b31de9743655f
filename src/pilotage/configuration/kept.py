"""What took long to make and is kept on disk: built toolboxes, in the user's cache.

A file that cannot be read, or is not what was asked for, is made anew; a cache that cannot be written does no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

MOST = 200
"""Files kept; of more the oldest go."""


@cache
def builder() -> str:
    """The SHA-256 of what makes toolboxes: this Python and these modules. Another builder builds anew."""
    return digest_of(sys.version, *(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))))


def digest_of(*parts: str | bytes) -> str:
    """The SHA-256 (hex) of several parts, so that no two lists of parts are taken for each other."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(content)}\0".encode() + content)
    return digest.hexdigest()


def keep(key: str, good: Callable[[Any], bool], make: Callable[[], Any]) -> Any:
    """What is kept under a key (hex), else what `make` makes, kept from then on.

    :param good: whether what was found is whole
    """
    directory = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "pilotage", "toolboxes")
    file = directory / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        found = json.loads(file.read_text("utf-8"))
        if good(found):
            os.utime(file)  # what is used is kept longest
            return found
    made = make()
    if directory.is_absolute():  # else there is no home
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=directory) as new:
                json.dump(made, new)
                new.flush()
                _forget(directory.glob("*.json"))
                os.replace(new.name, file)  # so that nothing is left to remove, which is an OSError
    return made


def _forget(files: Iterable[Path]) -> None:
    """Remove the oldest of too many."""
    for file in sorted(files, key=lambda file: file.stat().st_mtime)[: -(MOST - 1)]:
        file.unlink(missing_ok=True)
