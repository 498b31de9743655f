"""Real pilots of a few lines: commands and a service given as source text, everything else as on a worker node."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotage.testing.processes import PATIENCE, carrying, end, eventually
from pilotage_node.command import CONTINUE, Command
from pilotage_node.compose.composer import TRAITS

REPOSITORY = Path(__file__).parents[2]
COMMANDS = """
import os, signal, subprocess, sys, time
from pilotage_node.command import CONTINUE, Command, CommandFailed, Option
"""


def traits(commands: str, name: str) -> dict[str, Any]:
    """What the composer writes of a command into the profile: the attributes of its class, read from the source."""
    found: dict[str, Any] = {trait: getattr(Command, trait) for trait in TRAITS}
    for node in ast.walk(ast.parse(textwrap.dedent(commands))):
        if isinstance(node, ast.ClassDef) and node.name == name:
            for line in node.body:
                target = getattr(line, "targets", [None])[0]
                if isinstance(line, ast.Assign) and isinstance(target, ast.Name) and target.id in TRAITS:
                    found[target.id] = eval(ast.unparse(line.value), {"CONTINUE": CONTINUE})
    return found


class Pilot:
    """One runner process in a directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.place = home  # of the pilot script
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        commands: str,
        names: str,
        *words: str,
        service: str = "",
        python: str = sys.executable,
        limits: dict[str, Any] | None = None,
        log_mib: float = 10,
        options: dict[str, Any] | None = None,
        **changed: Any,
    ) -> Pilot:
        """Start a pilot of the classes ``names`` in ``commands``; ``changed`` are attributes of the Runner."""
        (self.home / "commands.py").write_text(COMMANDS + textwrap.dedent(commands))
        if service:
            (self.home / "service.py").write_text(textwrap.dedent(service))
        (self.place / "credentials.json").write_text(json.dumps({"stamp": "s1234567890", "secret": "sesame-open"}))
        profile = {
            "vo": "demo",
            "site": "LOCAL",
            "resource": "local",
            "queue": "default",
            "flavour": "TEST",
            "revision": "1",
            "service": {"urls": ["https://service.example"], "trust": []},
            "limits": dict.fromkeys(("cores", "memory_mib", "disk_mib", "gpus", "wall_seconds")) | (limits or {}),
            "log_mib": log_mib,
            "commands": [
                {"name": name, "module": "commands", "options": (options or {}).get(name, {}), **traits(commands, name)}
                for name in names.split()
            ],
        }
        (self.home / "scenario.json").write_text(json.dumps({"profile": profile, "changed": changed}))
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "node" / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        program = str(Path(__file__).with_name("runner_process.py"))
        with open(self.home / "stdout", "wb") as out:
            self.process = subprocess.Popen(
                [python, program, str(self.home), *words],
                cwd=self.place,
                env=environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return self

    def run(self, commands: str, names: str, **more: Any) -> int:
        """Start a pilot and wait for its end: its exit code."""
        return self.start(commands, names, **more).wait()

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def eventually(self, what: Callable[[], Any], patience: float = PATIENCE) -> Any:
        return eventually(what, lambda: self.output, patience)

    @property
    def output(self) -> str:
        return (self.home / "stdout").read_text(errors="replace")

    @property
    def log(self) -> str:
        file = self.place / "pilot.log"
        return file.read_text() if file.exists() else ""

    @property
    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.place / "pilot.json").read_text()))

    @property
    def outcomes(self) -> dict[str, str]:
        return {one["name"]: one["outcome"] for one in self.record["commands"]}

    @property
    def wire(self) -> list[dict[str, Any]]:
        """All that the courier was asked, in order."""
        file = self.home / "wire.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def syncs(self) -> list[dict[str, Any]]:
        return [message["body"] for message in self.wire if message["op"] == "sync"]

    def processes(self) -> dict[int, str]:
        """{pid: name} of every live process that works in this test's directory or was started from it."""
        return carrying(str(self.home), ("cmdline",))

    def pid_of(self, name: str) -> int:
        return int(self.eventually(lambda: [pid for pid, its in self.processes().items() if its == name])[0])

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        until = time.monotonic() + 20
        while self.processes() and time.monotonic() < until:
            time.sleep(0.02)
        left = self.processes()
        end(left)
        assert not left, f"left behind: {left}\n{self.output}"


@pytest.fixture
def pilot(tmp_path: Path) -> Iterator[Pilot]:
    """A pilot to be started; at the end of the test nothing of it may be left."""
    one = Pilot(tmp_path)
    yield one
    one.close()
