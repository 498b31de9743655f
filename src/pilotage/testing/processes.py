"""Processes that a test has started, found by what they carry; and waiting for something to become true."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

PATIENCE = 90.0
"""Seconds that a test waits for something to become true: generous, because test machines are shared."""

T = TypeVar("T")


def eventually(what: Callable[[], T], why: str | Callable[[], str] = "", patience: float = PATIENCE) -> T:
    """Ask ``what`` until it gives something true, which is returned.

    :param why: for the assertion that fails after ``patience`` seconds: what did not come
    """
    until, pause = time.monotonic() + patience, 0.02
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() >= until:
            raise AssertionError(f"not within {patience:.0f} s: {why() if callable(why) else why or what}")
        time.sleep(pause)
        pause = min(0.1, 1.5 * pause)


def carrying(mark: str, places: tuple[str, ...] = ("cmdline", "environ")) -> dict[int, str]:
    """{pid: name} of each other live process that has ``mark`` in its working directory or one of ``places`` (proc(5)).

    Zombies are dead; what another user's process carries is not seen.
    """
    found, sought = {}, mark.encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        text = b""
        with contextlib.suppress(OSError):
            text += os.readlink(entry / "cwd").encode()
        for place in places:
            with contextlib.suppress(OSError):
                text += b"\0" + (entry / place).read_bytes()
        with contextlib.suppress(OSError, IndexError):
            if sought in text and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def end(pids: Iterable[int]) -> None:
    """Kill what is left of these processes."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
