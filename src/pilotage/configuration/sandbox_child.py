"""What runs in the sandbox: a program of its own, started by sandbox.py, that imports the modules of a toolbox.

It shuts itself in (user, mount, network, process and IPC namespaces; every file system read-only; no capabilities, few
resources), then watches what importing does: Python's audit events, what is printed, what is left changed. It must not
import anything of Pilotage. In: JSON on standard input. Out: JSON lines on the descriptor that its argument names.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
from types import FrameType, ModuleType
from typing import Any

NAMESPACES = 0x10000000 | 0x00020000 | 0x40000000 | 0x20000000 | 0x08000000
"""CLONE_NEWUSER, NEWNS, NEWNET, NEWPID, NEWIPC: unshare(2)."""
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 1, 2, 4, 0x4000, 0x40000
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, CAPABILITIES_3 = 1, 38, 0x20080522
SLOW, LATE = 1.0, 2.0
"""Seconds that importing a module may take, and after which it is stopped."""

PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
FILES = (
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown"),
    *("os.utime", "os.mkfifo", "os.mknod", "tempfile.mkstemp", "tempfile.mkdtemp"),
)
SIGNALS = ("os.kill", "os.killpg", "signal.pthread_kill")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def confine() -> None:
    """Shut this process in; returns in a child of it. Raises OSError where the kernel does not permit it."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(function: Any, *arguments: Any) -> None:
        if function(*arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{getattr(function, '__name__', 'call')}: {os.strerror(number)}")

    uid, gid = os.getuid(), os.getgid()
    call(libc.unshare, NAMESPACES)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    call(libc.mount, None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
    ours = tuple(os.path.realpath(path) + "/" for path in (sys.executable, sys.base_prefix, sys.prefix, __file__))
    for place in ("/run", "/tmp", "/var/tmp"):  # where sockets of other programs are
        if os.path.isdir(place) and not any(path.startswith(os.path.realpath(place) + "/") for path in ours):
            call(libc.mount, b"none", place.encode(), b"tmpfs", ctypes.c_ulong(MS_NOSUID | MS_NODEV), None)
    read_only = (ctypes.c_uint64 * 4)(MS_RDONLY, 0, 0, 0)  # struct mount_attr; MOUNT_ATTR_RDONLY is 1 as well
    call(libc.syscall, MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, read_only, ctypes.sizeof(read_only))
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 127)
    call(libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
    call(libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header, none = (ctypes.c_uint32 * 2)(CAPABILITIES_3, 0), (ctypes.c_uint32 * 6)()
    call(libc.capset, header, none)


def limit() -> None:
    """Few resources: nothing that is imported needs many."""
    sizes = {resource.RLIMIT_AS: 1 << 30, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 64}
    sizes[resource.RLIMIT_NPROC] = 64  # no fork bomb of an ordinary user becomes large (root is never limited)
    for kind, most in sizes.items():
        resource.setrlimit(kind, (most, most))


class Late(BaseException):
    """Importing took too long."""


def stop(number: int, frame: FrameType | None) -> None:
    """Handler of SIGALRM."""
    raise Late


class Toolbox:
    """Finder and loader of the modules, under the names of the files that they were read from."""

    def __init__(self, modules: dict[str, list[str]]) -> None:
        self.modules = modules
        self.packages = {path[:at] for path in modules for at, letter in enumerate(path) if letter == "/"}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """What is in the toolbox."""
        place = name.replace(".", "/")
        if place in self.packages or place + ".py" in self.modules:
            return type(sys.__spec__)(name, self, is_package=place in self.packages)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: Any) -> None:
        """An ordinary one."""

    def exec_module(self, module: ModuleType) -> None:
        """Loader."""
        place = module.__name__.replace(".", "/")
        path = place + "/__init__.py" if place in self.packages else place + ".py"
        text, file = self.modules.get(path, ["", path])
        exec(compile(text, file, "exec", 0, True), module.__dict__)


class Watch:
    """Notes what importing does; `files` are the names of the files that are being tried."""

    def __init__(self, files: set[str], out: int) -> None:
        self.files, self.out = files, out
        self.seen: set[tuple[str, int]] = set()
        self.file = ""
        self.on = False

    def tell(self, **message: Any) -> None:
        os.write(self.out, (json.dumps(message) + "\n").encode())

    def found(self, text: str, frame: FrameType | None) -> None:
        while frame and frame.f_code.co_filename not in self.files:
            frame = frame.f_back
        place = (frame.f_code.co_filename, frame.f_lineno) if frame else (self.file, 1)
        if place not in self.seen and len(self.seen) < 100:
            self.seen.add(place)
            self.tell(file=place[0], line=place[1], text=text[:300])

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        what = ""
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            what = f"writes the file {arguments[0]!r}"
        elif event in FILES:
            what = f"changes files ({event})"
        elif event in PROCESSES:
            what = f"starts a process ({event})"
        elif event in NETWORK:
            what = f"uses the network ({event})"
        elif event in ("os.putenv", "os.unsetenv"):
            what = "changes the environment"
        elif event in SIGNALS:
            what = f"sends a signal ({event})"
        if what:
            self.on = False
            self.found(f"importing it {what}; do that in do()", sys._getframe(1))
            self.on = True

    # As a file: what is printed.
    def write(self, text: str) -> int:
        if text.strip() and self.on:
            self.found("importing it prints something; do that in do()", sys._getframe(1))
        return len(text)

    def flush(self) -> None:
        """Nothing is kept."""


def left() -> list[tuple[str, Any]]:
    """What a module must not leave changed: (what, how it is)."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    return [
        ("a thread running", threading.active_count()),
        ("signal handlers changed", handlers),
        ("sys.path changed", list(sys.path)),
        ("another working directory", os.getcwd()),
        ("another umask", os.umask(os.umask(0o22))),
        ("import hooks", [id(item) for item in sys.meta_path]),
    ]


def attempt(watch: Watch, name: str, file: str) -> bool:
    """Import one module, watched; says whether it came to an end by itself."""
    watch.file, late = file, False
    watch.tell(begin=name, file=file)
    before, started = left(), time.monotonic()
    watch.on = True
    signal.setitimer(signal.ITIMER_REAL, LATE)
    try:
        __import__(name)
    except BaseException as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        late = isinstance(error, Late)
        frame, last = None, error.__traceback__
        while last:
            frame = last.tb_frame if last.tb_frame.f_code.co_filename in watch.files else frame
            last = last.tb_next
        watch.on = False
        slow = f"takes longer than {LATE:.0f} s; do that in do()"
        watch.found(f"importing it {slow if late else f'fails: {type(error).__name__}: {error}'}", frame)
    watch.on = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.monotonic() - started
    if seconds > SLOW and not late:
        watch.found(f"importing it takes {seconds:.1f} s; do that in do()", None)
    for (what, was), (_, now) in zip(before, left(), strict=True):
        if was != now:
            watch.found(f"importing it leaves {what}; do that in do()", None)
    return not late


def main() -> None:
    out = int(sys.argv[1])
    wanted = json.loads(sys.stdin.buffer.read())
    if wanted["confine"]:
        try:
            confine()
        except OSError as error:
            os.write(out, (json.dumps({"forbidden": str(error.strerror or error)}) + "\n").encode())
            return
    os.chdir("/")
    limit()
    watch = Watch({file for _, file in wanted["modules"].values() if file in wanted["watched"]}, out)
    sys.meta_path.insert(0, Toolbox(wanted["modules"]))
    sys.stdout = sys.stderr = watch
    sys.addaudithook(watch.audit)
    signal.signal(signal.SIGALRM, stop)
    all(attempt(watch, name, file) for name, file in wanted["names"])  # others may wait for the one that is late
    watch.tell(end=True)
    os._exit(0)


if __name__ == "__main__":
    main()
