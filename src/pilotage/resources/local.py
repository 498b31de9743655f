"""The machine itself: pilots as detached processes, which outlive the director that started them.

Each pilot has a directory named by its stamp (0700)::

    pilot, credentials.json   the bundle; the credentials are never in arguments or in the environment
    launch                    the launcher: a few lines of sh, leader of a session of its own
    started                   boot id and /proc/PID/stat of the launcher, linked into place before the pilot starts
    stdout, stderr            of the pilot; its own pilot.log and pilot.json beside them
    exit                      its exit status, renamed into place
    cancelled                 when it was first told to leave [s since boot]

`started` is made only once, by the launcher or by whoever wants to be sure that the launcher never starts the pilot:
so what a crash left between two steps is decided, not guessed. All state is in these files; nothing is kept in memory
but the children to be waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from pilotage.resources.base import Bundle, ResourceError, State, Status
from pilotage.wholefile import write_whole
from pilotage_node import facts, processes

LAUNCHER = """\
# Starts ./pilot once, and leaves its exit status in ./exit. Made by Pilotage.
umask 077
trap : TERM INT HUP
read -r boot </proc/sys/kernel/random/boot_id
read -r stat </proc/$$/stat
printf '%s\\n%s\\n' "$boot" "$stat" >starting && ln starting started || exit 75
/bin/sh ./pilot >stdout 2>stderr </dev/null
code=$?
printf '%s\\n' "$code" >exiting && mv exiting exit
"""
VOID = "void\n"
KILL_SECONDS = 90.0
"""From the polite end of a cancelled pilot to the forced one: its grace for jobs, and time for its last reports."""
START_SECONDS = 60.0
"""How long a launcher may take to come to life before it is given up."""
OUTPUT_BYTES = 1 << 20
OUTPUTS = ("stdout", "stderr", "pilot.log", "pilot.json")
_STAMP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,63}\Z")
_LEFT = ".clean-"
P = ParamSpec("P")
T = TypeVar("T")


class LocalResource:
    """Runs at most `slots` pilots at once (None: no limit) below `directory`."""

    def __init__(
        self, directory: Path, slots: int | None = 1, kill_seconds: float = KILL_SECONDS, hide: Path | None = None
    ) -> None:
        """:param hide: what isolated jobs must not see beside the pilots: the service's data (default: directory)"""
        self.directory = directory
        self.hide = hide or directory
        self.slots = slots
        self.kill_seconds = kill_seconds
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = Lock()

    async def node(self) -> dict[str, Any]:
        """This machine; disk left out, as it changes."""
        here = facts.gather_node({}, ".")
        return {name: here[name] for name in ("cores", "memory_mib", "gpus", "platform")}

    async def submit(self, bundles: Sequence[Bundle]) -> dict[str, str | ResourceError]:
        """Starts the pilots; a stamp that was started before is not started again."""
        # All under one lock: `find` after a submission that was given up sees the whole of it.
        return await asyncio.to_thread(self._locked, self._submit, bundles)

    async def status(self, references: Sequence[str]) -> dict[str, Status]:
        """From the files and /proc; ends by force what was cancelled and did not leave in time."""
        return await asyncio.to_thread(self._locked, self._statuses, references)

    async def cancel(self, references: Sequence[str]) -> None:
        """SIGTERM to the process group, once; later calls of it or `status` send SIGKILL when its time is over."""
        await asyncio.to_thread(self._locked, self._cancel, references)

    async def drain(self, references: Sequence[str]) -> None:
        """SIGTERM to the process group: a pilot takes it as the order to drain."""
        await asyncio.to_thread(self._locked, self._drain, references)

    async def output(self, reference: str) -> dict[str, bytes]:
        """At most 1 MiB of each: of longer ones the beginning and the end."""
        return await asyncio.to_thread(self._output, reference)

    async def clean(self, references: Sequence[str]) -> None:
        """Removes the directories of pilots that are over."""
        await asyncio.to_thread(self._locked, self._clean, references)

    async def find(self) -> dict[str, str]:
        """All pilots that were started, and whose directory is still there."""
        return await asyncio.to_thread(self._locked, self._find)

    async def free_slots(self) -> int | None:
        """Slots that no living pilot takes."""
        return await asyncio.to_thread(self._locked, self._free_slots)

    def _locked(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._lock:
            for stamp, child in list(self._children.items()):
                if child.poll() is not None:
                    del self._children[stamp]
            return function(*args, **kwargs)

    # Submission

    def _submit(self, bundles: Sequence[Bundle]) -> dict[str, str | ResourceError]:
        return {bundle.stamp: self._submit_one(bundle) for bundle in bundles}

    def _submit_one(self, bundle: Bundle) -> str | ResourceError:
        place = self._place(bundle.stamp)
        if place.exists():
            given_up = _read(place / "started") in ("", VOID)
            return ResourceError("its submission was given up before") if given_up else bundle.stamp
        if self._free_slots() == 0:
            return ResourceError(f"all {self.slots} slots are taken")
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.mkdir(mode=0o700)
            write_whole(place / "pilot", bundle.script)
            write_whole(place / "launch", LAUNCHER)
            write_whole(place / "credentials.json", bundle.credentials)
            (place / "tmp").mkdir(mode=0o700)
            self._children[bundle.stamp] = subprocess.Popen(
                ["/bin/sh", "launch"],
                cwd=place,
                env=_environment(place, self.hide),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            shutil.rmtree(place, ignore_errors=True)
            return ResourceError(f"cannot start a process in {self.directory}: {error.strerror or error}")
        return bundle.stamp

    def _free_slots(self) -> int | None:
        if self.slots is None:
            return None
        taken = sum(self._status(place).state in (State.WAITING, State.RUNNING) for place in self._places())
        return max(0, self.slots - taken)

    # What is there

    def _place(self, reference: str) -> Path:
        if not _STAMP.match(reference):
            raise ResourceError(f"'{reference[:80]}' is not a reference of a local pilot")
        return self.directory / reference

    def _places(self) -> list[Path]:
        if not self.directory.is_dir():
            return []
        return sorted(place for place in self.directory.iterdir() if _STAMP.match(place.name) and place.is_dir())

    def _find(self) -> dict[str, str]:
        found = {}
        for place in self._places():
            if place.name in self._children or not _void(place):
                found[place.name] = place.name
            else:
                _remove(place)
        for left in self.directory.glob(_LEFT + "*"):
            _remove(left)
        return found

    def _statuses(self, references: Sequence[str]) -> dict[str, Status]:
        found = {}
        for reference in references:
            place = self._place(reference)
            found[reference] = self._status(place)
            if found[reference].state == State.RUNNING:
                self._force(place)
        return found

    def _status(self, place: Path) -> Status:
        """Order matters: the process is looked at before the exit file, which it writes last."""
        started = _read(place / "started")
        if not started:
            return self._not_started(place)
        if started == VOID:
            return Status(State.GONE, reason="it was never started")
        alive = _alive(started)
        code = _read(place / "exit").strip()
        if code.isdigit():
            number = int(code)
            reason = f"ended by {_signal_name(number - 128)}" if number > 128 else ""
            return Status(State.ENDED, number, reason)
        if alive:
            return Status(State.RUNNING)
        if (place / "cancelled").exists():
            return Status(State.ENDED, reason="killed after it was cancelled")
        return Status(State.ENDED, reason="it ended without leaving an exit status: killed, or the machine restarted")

    def _not_started(self, place: Path) -> Status:
        if not place.is_dir():
            return Status(State.GONE, reason="there is no trace of it")
        child = self._children.get(place.name)
        young = time.time() - place.stat().st_mtime < START_SECONDS
        if (child.poll() is None if child else young) or not _void(place):
            return Status(State.WAITING)
        return Status(State.GONE, reason="its launcher did not start")

    # The end

    def _cancel(self, references: Sequence[str]) -> None:
        for reference in references:
            place = self._place(reference)
            if not place.is_dir() or _void(place) or self._status(place).state != State.RUNNING:
                continue
            try:
                descriptor = os.open(place / "cancelled", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                self._force(place)
                continue
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{time.clock_gettime(time.CLOCK_BOOTTIME):.3f}\n")
            _signal_group(place, signal.SIGTERM)

    def _drain(self, references: Sequence[str]) -> None:
        for reference in references:
            place = self._place(reference)
            if self._status(place).state == State.RUNNING and not (place / "cancelled").exists():
                _signal_group(place, signal.SIGTERM)

    def _force(self, place: Path) -> None:
        """SIGKILL to all of a pilot's processes when it was cancelled long enough ago."""
        since = _read(place / "cancelled").strip()
        if not (place / "cancelled").exists():
            return
        asked = float(since) if since else 0.0
        if time.clock_gettime(time.CLOCK_BOOTTIME) - asked >= self.kill_seconds:
            for member in _session(_launcher(_read(place / "started")).pid):
                processes.kill_tree(member)

    def _output(self, reference: str) -> dict[str, bytes]:
        place = self._place(reference)
        found = {name: _bounded(place / name) for name in OUTPUTS}
        return {name: data for name, data in found.items() if data is not None}

    def _clean(self, references: Sequence[str]) -> None:
        for reference in references:
            place = self._place(reference)
            if place.is_dir() and self._status(place).state in (State.ENDED, State.GONE):
                left = self.directory / (_LEFT + place.name)
                place.rename(left)
                _remove(left)


def _environment(place: Path, hide: Path) -> dict[str, str]:
    """All that a pilot gets of our environment: nothing of the service's secrets can be in it."""
    return {
        "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "TMPDIR": str(place / "tmp"),
        "PILOTAGE_HIDE": str(hide.resolve()),
    }


def _read(path: Path) -> str:
    """The text of one of our small files; empty where it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _void(place: Path) -> bool:
    """Make sure that the pilot will never start; False where it did. Atomic: the launcher makes the same name."""
    try:
        descriptor = os.open(place / "started", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(place / "started") in ("", VOID)
    with os.fdopen(descriptor, "w") as file:
        file.write(VOID)
    return True


def _launcher(started: str) -> processes.Process:
    """The launcher as it was when it started: the second line of `started`."""
    return processes.Process(started.splitlines()[1].encode())


def _alive(started: str) -> bool:
    """Whether the launcher lives, or was killed and its pilot lives. Safe against reuse of the pid and restarts."""
    boot = _read(Path("/proc/sys/kernel/random/boot_id")).strip()
    if started.splitlines()[0] != boot:
        return False
    launcher = _launcher(started)
    now = processes.read(launcher.pid)
    if now and now.start_ticks != launcher.start_ticks:
        return False
    return bool(now and now.state not in "ZX") or bool(_session(launcher.pid))


def _session(leader: int) -> list[int]:
    """The living processes of a session (its id is not given to another process while it has any)."""
    seen = processes.snapshot().values()
    return [process.pid for process in seen if process.session == leader and process.state not in "ZX"]


def _signal_group(place: Path, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(_launcher(_read(place / "started")).pid, number)


def _bounded(path: Path) -> bytes | None:
    """A file's bytes, of a long one both ends. Never follows a link or waits on a pipe that a payload put there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        if status.st_size <= OUTPUT_BYTES:
            return file.read(OUTPUT_BYTES)
        begin = file.read(OUTPUT_BYTES // 2)
        file.seek(status.st_size - OUTPUT_BYTES // 2)
        gap = status.st_size - OUTPUT_BYTES
        return begin + b"\n[... %d bytes left out ...]\n" % gap + file.read(OUTPUT_BYTES // 2)


def _remove(place: Path) -> None:
    """Remove a tree, read-only directories of jobs included."""
    for root, directories, _ in os.walk(place):
        for path in (os.path.join(root, name) for name in directories):
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)
    shutil.rmtree(place, ignore_errors=True)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
