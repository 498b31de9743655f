"""Importing the modules of a toolbox where they can do no harm, to see whether importing does anything at all.

Only `pilotage toolbox check` does this, never a composer and never the service. The modules are imported in a process
of its own, without network, on a read-only file system, for a few seconds: by namespaces that the process makes for
itself, else by bubblewrap. Where the kernel forbids both, nothing is imported unless the caller trusts the toolbox.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotage.configuration.commands import dotted
from pilotage.configuration.sources import Tree
from pilotage.configuration.toolboxes import Built, plain_text

SECONDS = 10.0
"""Longest that importing all modules of a toolbox may take."""
CHILD = Path(__file__).with_name("sandbox_child.py")
BWRAP = [
    *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--ro-bind", "/", "/"),
    *("--dev", "/dev", "--proc", "/proc", "--remount-ro", "/dev", "--remount-ro", "/proc"),
]
SOCKETS = ("/run", "/tmp", "/var/tmp")
"""Where sockets of other programs are: hidden, unless this Python is there. The child does the same for itself."""
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}


class Forbidden(Exception):
    """This kernel permits no sandbox; says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, and where."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


def side_effects(tree: Tree, built: Built, others: Collection[Built], *, trust: bool = False) -> list[Finding]:
    """What importing the modules of a built toolbox does that it should not.

    :param tree: the files that it was built from; :param others: toolboxes that it may import from
    :param trust: import without a sandbox
    :raises Forbidden: there is no sandbox here, and the toolbox is not trusted
    """
    own = {path: plain_text(tree.files[path], tree.places[path]) for path in built["imports"] if path in tree.files}
    commands = {entry["module"] for entry in built["commands"].values()}
    order = sorted(own, key=lambda path: (dotted(path) in commands, path))  # so that each is tried for itself
    modules = {path: [text, path] for other in others for path, text in other["modules"].items()}
    modules |= {path: [text, path] for path, text in built["modules"].items()}
    modules |= {path: [text, tree.places[path]] for path, text in own.items()}
    wanted = {
        "modules": {path: both for path, both in modules.items() if path.endswith(".py")},
        "watched": sorted(tree.places[path] for path in own),
        "names": [(dotted(path), tree.places[path]) for path in order],
        "confine": not trust,
    }
    lines = _run([], wanted)
    why = [line["forbidden"] for line in lines if "forbidden" in line]
    if why and shutil.which("bwrap"):
        lines = _run([*BWRAP, *_hidden()], wanted | {"confine": False})
        if not any("begin" in line for line in lines):
            raise Forbidden(f"{why[0]}; bubblewrap does not work either")
    elif why:
        raise Forbidden(why[0])
    return list(_findings(lines))


def _hidden() -> list[str]:
    """What else bubblewrap is to be told."""
    ours = [os.path.realpath(path) for path in (sys.executable, sys.base_prefix, sys.prefix, CHILD)]
    places = [os.path.realpath(place) for place in SOCKETS if os.path.isdir(place)]
    free = [place for place in places if not any(path.startswith(place + "/") for path in ours)]
    return [word for place in free for word in ("--tmpfs", place, "--remount-ro", place)]


def _findings(lines: list[dict[str, Any]]) -> Iterator[Finding]:
    yield from (Finding(line["file"], line["line"], line["text"]) for line in lines if "text" in line)
    begun = [line["file"] for line in lines if "begin" in line]
    if not any("end" in line for line in lines):
        text = f"importing it ends or blocks the process (it has {SECONDS:.0f} s); do that in do()"
        yield Finding(begun[-1] if begun else str(CHILD), 1, text)


def _run(before: list[str], wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of one child."""
    reader, writer = os.pipe()
    command = [*before, sys.executable, "-I", "-S", "-B", str(CHILD), str(writer)]
    null = subprocess.DEVNULL
    with os.fdopen(reader, "rb") as messages:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=null,
                stderr=null,
                env=_ENVIRONMENT,
                pass_fds=(writer,),
                start_new_session=True,
            )
        finally:
            os.close(writer)
        try:
            child.communicate(json.dumps(wanted).encode(), timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # with it all that is inside: its first process dies with it
        finally:
            child.kill()
            child.wait()
        # What a module forked without a sandbox may hold the pipe open: only what is there is read.
        os.set_blocking(reader, False)
        return [json.loads(line) for line in (messages.read() or b"").splitlines() if line.endswith(b"}")]
