"""Whole pilots, run for real on a fake node against a fake service."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilotage.testing.node import FakeNode
from pilotage.testing.processes import carrying, end
from pilotage.testing.service import FakeService

DRIVER = Path(__file__).with_name("driver.py")
SECRET = "open-sesame-of-the-test"


@dataclass(slots=True)
class PilotResult:
    """What became of a pilot.

    :ivar code: its exit code (``pilotage_node.exitcodes``); :ivar reason: why it left
    :ivar outcomes: {command: "done" | "failed" | "timeout" | "crashed" | "killed" | "skipped"}, in their order
    :ivar commands: {command: its result record: outcome, code, message, seconds, usage, tail}
    :ivar log: the whole log; :ivar output: what the pilot printed on standard output and error
    :ivar facts: all that the commands gave, and ``node``
    :ivar files: {path in the working directory: content} as they were at the end
    :ivar record: the pilot's record, whole
    """

    code: int
    reason: str = ""
    outcomes: dict[str, str] = field(default_factory=dict)
    commands: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    log: str = field(default="", repr=False)
    output: str = field(default="", repr=False)
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict, repr=False)

    def log_of(self, command: str) -> str:
        """What one command printed."""
        mark = f"Z {command}: "
        lines = self.log.splitlines(keepends=True)
        return "".join(line.partition(mark)[2] for line in lines if line.partition(" ")[2].startswith(mark[2:]))


class RunningPilot:
    """A pilot that was started; ``wait`` gives its result, ``close`` leaves nothing of it."""

    def __init__(
        self,
        script: str,
        node: FakeNode,
        service: FakeService,
        *,
        facts: Mapping[str, Any] | None = None,
        python: str = sys.executable,
        arguments: Sequence[str] = (),
        runner: Mapping[str, float] | None = None,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="pilot-", dir=node.root))
        for name, text in {
            "pilot": script,
            "credentials.json": json.dumps({"stamp": secrets.token_hex(8), "secret": SECRET, **(credentials or {})}),
            "scenario.json": json.dumps(self._scenario(node, service, facts or {}, arguments, runner or {})),
        }.items():
            (self.place / name).write_text(text, encoding="utf-8", newline="")
        with open(self.place / "output", "wb") as out:
            self.process = subprocess.Popen(
                [python, "-I", "-S", "-X", "utf8", str(DRIVER), str(self.place / "scenario.json")],
                cwd=self.place,
                env=node.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _scenario(
        self,
        node: FakeNode,
        service: FakeService,
        facts: Mapping[str, Any],
        arguments: Sequence[str],
        runner: Mapping[str, float],
    ) -> dict[str, Any]:
        changes: dict[str, Any] = {"service": {"urls": [service.url], "trust": service.trust}}
        if node.wall_seconds:
            changes["limits"] = {"wall_seconds": node.wall_seconds}
        return {
            "script": str(self.place / "pilot"),
            "profile": changes,
            "root": str(node.root),
            "node": node.facts,
            "facts": dict(facts),
            "words": list(arguments),
            "runner": dict(runner),
            "kept": str(self.place / "kept"),
            "told": str(self.place / "facts.json"),
        }

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the pilot, as a batch system would."""
        self.process.send_signal(number)

    @property
    def output(self) -> str:
        """What it printed so far."""
        return (self.place / "output").read_text(errors="replace")

    def wait(self, seconds: float = 120.0) -> PilotResult:
        """Until it ended, at most so many seconds.

        :raises TimeoutError: it did not end; it was killed, and the text tells what it printed
        """
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            output = self.output
            self.close()
            raise TimeoutError(f"the pilot did not end within {seconds:.0f} s; it printed:\n{output}") from None
        result = PilotResult(code=code, output=self.output)
        with contextlib.suppress(FileNotFoundError):
            result.log = (self.place / "pilot.log").read_text(errors="replace")
        with contextlib.suppress(FileNotFoundError):
            result.facts = json.loads((self.place / "facts.json").read_text())
        with contextlib.suppress(FileNotFoundError):
            result.record = json.loads((self.place / "pilot.json").read_text())
            result.reason = result.record.get("reason") or ""  # there is none where the runner itself failed
            result.commands = {one["name"]: one for one in result.record.get("commands", ())}
            result.outcomes = {name: one["outcome"] for name, one in result.commands.items()}
        kept = self.place / "kept"
        files = (file for file in sorted(kept.rglob("*")) if file.is_file())
        result.files = {str(file.relative_to(kept)): file.read_bytes() for file in files}
        return result

    def close(self) -> None:
        """Kill what is left of it, and remove its files."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        until = time.monotonic() + 10
        while (left := carrying(str(self.place))) and time.monotonic() < until:
            end(left)
            time.sleep(0.02)
        shutil.rmtree(self.place, ignore_errors=True)


def script_for(
    configuration: Any = None,
    *,
    profile: Mapping[str, Any] | None = None,
    script: str | Path | None = None,
    toolboxes: Sequence[Mapping[str, Any]] = (),
    vo: str | None = None,
    resource: str | None = None,
    queue: str | None = None,
    flavour: str | None = None,
) -> str:
    """The text of the pilot script of whichever of the three is given; see ``run_pilot``."""
    if [configuration is None, profile is None, script is None].count(False) != 1:
        raise TypeError("give one of: a configuration, profile=, script=")
    if script is not None:
        return script.read_text(encoding="utf-8") if isinstance(script, Path) else script
    if profile is not None:
        from pilotage.configuration.toolboxes import base, core
        from pilotage_node.compose import compose

        return str(compose(dict(profile), [*toolboxes, base(), core()]))
    from pilotage.configuration import Configuration, compose_pilot, load, loads

    if isinstance(configuration, Mapping):
        import yaml

        configuration = loads(yaml.safe_dump(dict(configuration)))
    elif not isinstance(configuration, Configuration):
        configuration = load(Path(configuration))
    if vo is None:
        vo = next(iter(configuration.vos))
    return compose_pilot(configuration, vo, resource, queue, flavour=flavour).script


def start_pilot(
    configuration: Any = None,
    *,
    node: FakeNode,
    service: FakeService,
    facts: Mapping[str, Any] | None = None,
    python: str = sys.executable,
    arguments: Sequence[str] = (),
    runner: Mapping[str, float] | None = None,
    **of: Any,
) -> RunningPilot:
    """Start a pilot, to be watched, signalled and waited for; parameters are those of ``run_pilot``."""
    text = script_for(configuration, **of)
    return RunningPilot(text, node, service, facts=facts, python=python, arguments=arguments, runner=runner)


def run_pilot(
    configuration: Any = None,
    *,
    node: FakeNode | None = None,
    service: FakeService | None = None,
    seconds: float = 120.0,
    **more: Any,
) -> PilotResult:
    """Run a whole pilot to its end, in processes of its own: composed as for a real resource, run by its own runner.

    Example::

        run_pilot("pilotage.yaml", vo="biology", resource="desk", queue="short", service=service).outcomes

    :param configuration: a Configuration, a map like the one in its file, or the path of a file or directory; with it
        ``vo`` (default: the first), ``resource`` and ``queue``, or ``flavour``
    :param profile: instead: a resolved profile, with built ``toolboxes`` before the base one
    :param script: instead: the text of a pilot script, or the Path of one
    :param node, service: None: one of the fake ones, as they are when made; a pilot without work leaves after the
        ``idle_seconds`` of its RunJobAgent
    :param seconds: longest that it may take
    :param facts: facts that are there from the start, as if a command had given them
    :param python: the interpreter
    :param arguments: of the pilot, as on its command line
    :param runner: limits of the runner that shall differ [s], e.g. ``{"register_seconds": 2}``
    :raises TimeoutError: it did not end; it was killed
    """
    with contextlib.ExitStack() as stack:
        if node is None:
            node = FakeNode()
            stack.callback(node.close)
        if service is None:
            service = FakeService()
            stack.callback(service.close)
        pilot = start_pilot(configuration, node=node, service=service, **more)
        stack.callback(pilot.close)
        return pilot.wait(seconds)
