"""`pilotage generate`: options of the command line, renderings, the dry run; offline, as a person uses it."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from pilotage.cli import dryrun
from pilotage.cli.generate import Wanted, load_configuration, read_anchors
from pilotage.configuration import ConfigurationError, toolboxes
from pilotage.configuration.given import layer
from pilotage.renderings.shell import held
from pilotage.service.tls import ensure, rotate
from pilotage_node.compose import read_script

COMMANDS = {
    "RunTell": '''
"""Tells."""
from mytools.words import WORD
from pilotage_node.command import Command, Option


class RunTell(Command):
    """Tell what would be done."""

    options = {"times": Option(int, 2, "how often"), "names": Option(list, [], "whom"), "ratio": Option(float, 0.5, ""),
               "loud": Option(bool, False, ""), "why": Option(str, None, "")}
    wants = ("software",)
    timeout = 60
    files = ("table.json",)

    def plan(self):
        print(WORD * self.options.times, self.facts.node["cores"] > 0, self.facts.software, self.read("table.json"))

    def do(self):
        raise RuntimeError("it was really run")
''',
    "RunReach": '''
"""Reaches out."""
from pilotage_node.command import Command, Option


class RunReach(Command):
    """Try in its plan what a plan may not."""

    options = {"file": Option(str, "/nowhere", "what it would write"), "port": Option(int, 1, "")}

    def plan(self):
        import socket

        place = ("127.0.0.1", self.options.port)
        for attempt, what in ((open, (self.options.file, "w")), (socket.create_connection, (place,))):
            try:
                attempt(*what)
                print("done!")
            except OSError as error:
                print("cannot: %s" % type(error).__name__)

    def do(self):
        pass
''',
    "RunHang": '''
"""Hangs."""
from pilotage_node.command import Command


class RunHang(Command):
    """Hang in its plan."""

    def plan(self):
        while True:
            pass

    def do(self):
        pass
''',
    "RunFail": '''
"""Fails."""
from pilotage_node.command import Command


class RunFail(Command):
    """Fail in its plan."""

    def plan(self):
        raise ValueError("no such luck")

    def do(self):
        pass
''',
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a VO that has commands of its own."""
    package = tmp_path / "mytools"
    package.mkdir()
    for name, text in COMMANDS.items():
        (package / f"{name}.py").write_text(text)
    (package / "__init__.py").write_text("")
    (package / "words.py").write_text("WORD = 'go '\n")
    (package / "table.json").write_text('{"a": 1}\n')
    file = tmp_path / "pilotage.yaml"
    file.write_text(
        f"""
vos:
  mine:
    toolboxes: [{{name: mine, path: {package}}}]
    pilot: {{commands: [RunTell, RunReach, RunFail, RunJobAgent]}}
sites:
  HOME: {{pilot: {{options: {{RunTell: {{times: 3}}}}}}}}
"""
    )
    return file


def generate(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pilotage.cli.main", "generate", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, done.stderr
    return done


def options(text: str, command: str) -> dict[str, Any]:
    return dict(next(one["options"] for one in read_script(text).profile["commands"] if one["name"] == command))


# --- --set


def test_values_have_the_types_that_options_declare(config: Path) -> None:
    words = ["times=7", "names=a, b", "ratio=1", "loud=yes", "why=null"]
    given = [word for text in words for word in ("--set", f"RunTell.{text}")]
    text = generate("--config", str(config), "--flavour", "VAC", *given).stdout
    assert options(text, "RunTell") == {"times": 7, "names": ["a", "b"], "ratio": 1.0, "loud": True, "why": None}
    text = generate("--config", str(config), "--flavour", "VAC", "--set", 'RunTell.names=["a, b"]').stdout
    assert options(text, "RunTell")["names"] == ["a, b"]


def test_what_cannot_be_set_is_refused_in_one_sentence() -> None:
    base = [toolboxes.base()]
    for text, wrong in [
        ("idle_seconds=1", "write Command.option=value"),
        ("RunJobAgent.idle_seconds", "write Command.option=value"),
        ("RunJobAgnet.idle_seconds=1", "unknown command 'RunJobAgnet'; did you mean 'RunJobAgent'?"),
        ("RunJobAgent.idle_second=1", "unknown option of RunJobAgent 'idle_second'; did you mean 'idle_seconds'?"),
        ("RunJobAgent.idle_seconds=soon", "RunJobAgent.idle_seconds must be a number, not 'soon'"),
        ("RunEnvironmentTest.min_cores=1.5", "RunEnvironmentTest.min_cores must be a whole number, not '1.5'"),
        ('RunEnvironmentTest.systems=["a"', "RunEnvironmentTest.systems must be a list of texts; this is not JSON"),
        ("RunEnvironmentTest.systems=[1]", "RunEnvironmentTest.systems must be a list of texts"),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            layer([text], base)
        assert str(caught.value).startswith(f"--set {text}: {wrong}")
    done = generate("--flavour", "LOCAL", "--set", "RunJobAgent.idle=1", check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_the_command_line_is_above_all_layers_but_not_above_what_is_final(config: Path) -> None:
    words = ["--config", str(config), "--flavour", "VAC", "--site", "HOME"]
    assert options(generate(*words).stdout, "RunTell")["times"] == 3
    assert options(generate(*words, "--set", "RunTell.times=4").stdout, "RunTell")["times"] == 4
    config.write_text(config.read_text().replace("RunTell: {times: 3}}", "RunTell: {times: 3}}, final: [options]"))
    done = generate(*words, "--set", "RunTell.times=4", check=False)
    assert done.returncode == 1 and "final" in done.stderr and str(config) in done.stderr


def test_a_site_that_is_not_there_or_not_the_resources_is_refused() -> None:
    done = generate("--flavour", "VAC", "--site", "LOCALE", check=False)
    assert "unknown site 'LOCALE'; did you mean 'LOCAL'?" in done.stderr
    assert read_script(generate("--resource", "local", "--site", "LOCAL").stdout).profile["site"] == "LOCAL"


# --- renderings and files


def test_renderings_from_the_command_line(tmp_path: Path) -> None:
    plain = generate("--flavour", "LOCAL").stdout
    (tmp_path / "table.json").write_text("{}")
    file = tmp_path / "pilot.tar.gz"
    generate("--flavour", "LOCAL", "--rendering", "tarball", "--add", str(tmp_path / "table.json"), "-o", str(file))
    with tarfile.open(file) as tar:
        assert sorted(tar.getnames()) == ["manifest.json", "pilot", "table.json"]
        member = tar.extractfile("pilot")
        assert member is not None and member.read().decode() == plain
    assert not list(tmp_path.glob(".*")), "no draft is left"
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    generate("--flavour", "LOCAL", "-o", str(link))
    assert link.is_symlink() and link.is_char_device(), "a device is not replaced by a file"
    python = f"https://pythons.example/python.tar.gz#sha256={'ab' * 32}"
    text = generate("--flavour", "LOCAL", "--rendering", "shell", "--python", python).stdout
    assert plain in text and f"unpack 'https://pythons.example/python.tar.gz' {'ab' * 32}" in text
    assert read_script(held(text)).digest == read_script(plain).digest, "so `inspect` finds it in there"
    assert held(plain) == plain
    for words, wrong in [
        (["--rendering", "tarbal"], "did you mean 'tarball'?"),
        (["--add", str(file)], "takes no files"),
        (["--rendering", "tarball", "--add", "/nowhere/x"], "cannot read /nowhere/x"),
        (["--rendering", "shell", "--python", "/x"], "lacks its checksum"),
        (["-o", "/nowhere/x"], "cannot write /nowhere/x: No such file or directory"),
        (["--json"], "goes with --dry-run"),
        (["--dry-run", "--rendering", "shell"], "--dry-run makes no pilot; leave --rendering, --python, --add and"),
        (["--queue", "default"], "--queue is that of a resource; name it (--resource)"),
        (["--url", "pilots.example:8842"], "--url pilots.example:8842: this is neither an http nor an https URL"),
    ]:
        done = generate("--flavour", "LOCAL", *words, check=False)
        assert done.returncode and wrong in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_anchors_are_the_services_and_nothing_else_of_a_pem_file(tmp_path: Path) -> None:
    """What is published for a service must be what it gives itself, also after its authority was exchanged."""
    ensure(tmp_path, ["pilots.example"])
    files = rotate(tmp_path, ["pilots.example"])
    assert read_anchors([files.ca]) == files.anchors() and len(files.anchors()) == 2
    (tmp_path / "text.pem").write_text("no certificate\n")
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n")
    for name, wrong in [
        ("server.pem", "holds a private key, which nobody else may have"),
        ("text.pem", "is no PEM file of trust anchors: it holds no certificate"),
        ("broken.pem", "is no PEM file of trust anchors: "),
    ]:
        done = generate("--flavour", "LOCAL", "--trust", str(tmp_path / name), check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert f"{name} {wrong}" in done.stderr


# --- the dry run


def test_a_dry_run_tells_what_each_command_would_do(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "written by a plan"
    words = ["--config", str(config), "--flavour", "VAC", "--set", f"RunReach.file={out}", "--dry-run"]
    text = generate(*words).stdout
    told = [line.strip() for line in text.splitlines()]
    assert [line for line in told if line[:2] in ("1.", "2.", "3.", "4.")] == [
        "1. RunTell (mine, at most 60 s)",
        "2. RunReach (mine, at most 300 s)",
        "3. RunFail (mine, at most 300 s)",
        "4. RunJobAgent (base)",
    ]
    assert '> go go  True None {"a": 1}' in told
    assert told.count("> cannot: OSError") + told.count("> cannot: FileNotFoundError") == 2, "no files, no network"
    assert "its plan failed: ValueError: no such luck" in told
    assert not out.exists() and "times = 2" in told
    assert any(line.startswith("> would ask for jobs for ") for line in told), "RunJobAgent's own plan"
    shown = json.loads(generate(*words, "--json").stdout)
    assert [command["name"] for command in shown["commands"]] == [line.split()[1] for line in told if line[1:2] == "."]
    assert shown["commands"][0]["options"]["times"] == 2
    assert shown["digest"] == read_script(generate(*words[:-1]).stdout).digest, "of the pilot, which has no plans"


def test_a_plan_that_hangs_is_ended(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dryrun, "SECONDS", 1.0)
    config.write_text(config.read_text().replace("[RunTell, RunReach, RunFail, RunJobAgent]", "[RunHang]"))
    [command] = dryrun._commands(load_configuration(config), Wanted("mine", "VAC"))
    assert (command["plan"], command["note"]) == (None, "its plan did not end within 1 s")


def test_a_plan_that_never_stops_talking_fills_no_memory(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang, tell = (
        "        while True:\n            pass\n",
        "        for _ in range(2000):\n            print('x' * 100000)\n",
    )
    file = next(config.parent.rglob("RunHang.py"))
    file.write_text(file.read_text().replace(hang, tell))
    config.write_text(config.read_text().replace("[RunTell, RunReach, RunFail, RunJobAgent]", "[RunHang]"))
    tracemalloc.start()
    [command] = dryrun._commands(load_configuration(config), Wanted("mine", "VAC"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(command["plan"]) == dryrun.MOST and peak < 150e6, "it prints 200 MB"


def test_a_plan_of_strangers_is_not_run_without_a_sandbox(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = config.parent / "sandbox_child.py"
    from pilotage.configuration import sandbox

    text = sandbox.CHILD.read_text()
    text = text.replace("    libc = ctypes", "    raise OSError(1, 'not permitted')\n    libc = ctypes")
    broken.write_text(text)
    monkeypatch.setattr(sandbox, "CHILD", broken)
    commands = dryrun._commands(load_configuration(config), Wanted("mine", "VAC"))
    assert commands[0]["plan"] is None
    assert commands[0]["note"] == "its plan is not run: this kernel permits no sandbox (not permitted)"
    assert commands[-1]["plan"].startswith("would ask for jobs"), "Pilotage's own are trusted"
