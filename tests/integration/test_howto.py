"""The how-to pages, done as a reader would: every file written, every command line run, what is shown is what comes.

The form of a page: indented lines are commands; a fenced block after "... `PATH`:" is that file; a block of `text` is
(in its order, `...` for anything) in what the commands before it printed. `/home/me` is a directory of the test.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.allinone import AllInOne, eventually

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FAILS = re.compile(r"\s+# it fails$")


@dataclass
class Step:
    """One thing on a page: `what` is "run", "write" or "see"."""

    what: str
    text: str
    file: str = ""


def steps(page: str) -> Iterator[Step]:
    """What a page asks for, in its order."""
    at = 0
    for block in [*FENCE.finditer(page), None]:
        before = page[at : block.start() if block else len(page)]
        for line in before.splitlines():
            if line.startswith("    "):
                yield Step("run", line.strip())
        if block is None:
            return
        at, language = block.end(), block.group(1)
        named = re.search(r"`([^`\s]+)`[^`\n]*:\n*\Z|`([^`\s]+)`, with[^:]*:\n*\Z", before)
        if language == "text":
            yield Step("see", block.group(2))
        elif named:
            yield Step("write", block.group(2), named.group(1) or named.group(2))


@dataclass
class Reader:
    """Who does what a page says, in a directory of their own; `pilotage up` goes on beside."""

    home: Path
    printed: str = ""
    up: subprocess.Popen[bytes] | None = None
    ran: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "PILOTAGE_DATA": str(self.home / "data")}

    def do(self, step: Step) -> None:
        text = step.text.replace("/home/me", str(self.home))
        if step.what == "write":
            file = self.home / step.file
            assert file.parent.is_dir(), f"{step.file}: there is no such directory yet"
            file.write_text(text)
        elif step.what == "see":
            self.see(text)
        elif text.startswith("pilotage up"):
            self.start(text)
        elif not text.startswith(("cd ", ". ")):
            self.run(text)

    def run(self, line: str) -> None:
        fails = bool(FAILS.search(line))
        line = FAILS.sub("", line)
        for word, state in (("STAMP", "done,running"), ("FAILED", "failed")):
            if word in line.split():
                line = line.replace(word, eventually(lambda state=state: self.stamp(state), f"a pilot: {state}"))
        if line == "pilotage pilots --state failed":
            eventually(lambda: self.stamp("failed"), "the pilot left")
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
        )
        self.ran.append(line)
        self.printed += done.stdout
        assert (done.returncode != 0) == fails, f"{line}: {done.returncode}\n{done.stdout}\n{self.log()}"

    def start(self, line: str) -> None:
        """The one deviation: a free port, for other tests run on this machine too."""
        self.ran.append(line)
        with open(self.home / "up.log", "wb") as log:
            self.up = subprocess.Popen(
                ["bash", "-c", f"exec {line} --port 0"],
                cwd=self.home,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(lambda: (self.home / "data" / "client.json").exists(), f"the service is up; its log:\n{self.log()}")

    def see(self, text: str) -> None:
        """Each line of the block is in the output, one after the other; an indented one goes on with the one before."""
        output = self.printed.splitlines()
        for wanted in re.sub(r"\n +", " ", text).splitlines():
            pattern = re.compile(r"\s+".join(map(re.escape, wanted.split())).replace(r"\.\.\.", ".*"))
            while output and not pattern.search(output[0]):
                output.pop(0)
            assert output, f"the page shows {wanted!r}, but there is\n{self.printed}"
        self.printed = ""

    def stamp(self, state: str) -> str:
        line = ["pilotage", "pilots", "--state", state, "--json"]
        told = subprocess.run(line, env=self.environment, capture_output=True, text=True, timeout=60)
        pilots = json.loads(told.stdout or "[]")
        return str(pilots[0]["stamp"]) if pilots else ""

    def log(self) -> str:
        file = self.home / "up.log"
        return file.read_text(errors="replace") if file.exists() else ""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    one = Reader(tmp_path)
    yield one
    if one.up is not None and one.up.poll() is None:
        one.up.send_signal(signal.SIGINT)
        one.up.wait(60)
    AllInOne(tmp_path).stop()


def test_extend_for_your_vo(reader: Reader) -> None:
    page = (DOCS / "howto" / "extend-for-your-vo.md").read_text()
    found = list(steps(page))
    assert [step.what for step in found].count("write") == 4 and len(found) > 25, "the page is read as it is meant"
    for step in found:
        reader.do(step)
    assert shutil.which("pilotage", path=reader.environment["PATH"])
    assert any(line.startswith("pilotage up") for line in reader.ran)


SOFTWARE = """\
import os
from pilotage_node import exitcodes
from pilotage_node.command import Command, CommandFailed, Option


class CheckMySoftware(Command):
    options = {"path": Option(str, "/opt/mine", "where it is")}
    provides = ("software",)

    def do(self):
        version = os.path.join(self.options.path, "version")
        if not os.path.exists(version):
            raise CommandFailed(exitcodes.ENVIRONMENT, "my software is not in %s" % self.options.path)
        with open(version) as file:
            self.facts.software = file.read()
"""


def test_the_examples_of_the_page_on_testing(reader: Reader) -> None:
    """They are tests; what they test is the command that the page speaks of."""
    page = (DOCS / "testing.md").read_text()
    blocks = [match.group(2) for match in FENCE.finditer(page) if match.group(1) == "python"]
    toolbox = reader.home / "mytoolbox"
    toolbox.mkdir()
    (toolbox / "CheckMySoftware.py").write_text(SOFTWARE)
    wait = {"vos": {"biology": {"pilot": {"options": {"RunJobAgent": {"idle_seconds": 0.3}}}}}}
    (reader.home / "pilotage.yaml").write_text(json.dumps(wait))
    (reader.home / "test_page.py").write_text("\n\n".join(blocks))
    reader.run("python -m pytest -q test_page.py")
    assert "3 passed" in reader.printed
