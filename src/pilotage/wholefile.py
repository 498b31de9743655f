"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(file: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Put a file in its place in one step, on the disk before it is there, and never readable by others for a moment.

    :param mode: its permissions, whatever the umask
    :raises OSError: nothing was changed then
    """
    data = content.encode() if isinstance(content, str) else content
    descriptor, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(draft, file)
    except BaseException:
        os.unlink(draft)
        raise
