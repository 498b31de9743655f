"""`pilotage toolbox`: a skeleton that passes its own check and tests, and a check that tells all that is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotage.cli import main
from pilotage.configuration import sandbox


class Cli:
    """Runs the command in this process and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main.run(["toolbox", *words])
        self.out, self.err = self.capsys.readouterr()
        assert ended.value.code == status, f"{words}: {self.out}{self.err}"
        assert "Traceback" not in self.err and len(self.err.splitlines()) == (1 if status else 0), self.err
        return self.out

    def findings(self, *words: str, status: int = 1) -> list[tuple[str, int, str]]:
        found = json.loads(self("check", *words, "--json", status=status))["findings"]
        return [(one["file"], one["line"], one["text"]) for one in found]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def put(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / "mine" / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
    return root / "mine"


def test_a_new_toolbox_passes_its_check_and_its_tests(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli("new", "acme")
    assert "CheckSoftware" in cli("check", "acme")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "acme"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr
    readme = (tmp_path / "acme" / "README.md").read_text()
    (tmp_path / "acme.yaml").write_text(readme.partition("```yaml\n")[2].partition("```")[0])
    listed = json.loads(cli("list", "--config", "acme.yaml", "--json"))
    assert (listed[0]["vo"], listed[0]["name"], listed[0]["commands"]) == ("MYVO", "acme", ["CheckSoftware"])
    assert listed[0]["source"] == str(tmp_path / "acme") and listed[-1]["name"] == "core"
    composed = [sys.executable, "-m", "pilotage.cli.main", "generate", "--flavour", "LOCAL", "--config", "acme.yaml"]
    assert b"#== acme/CheckSoftware.py" in subprocess.run(composed, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("name", ["json", "asyncore", "base", "with-dash", "Upper", "pilotage_node", ".."])
def test_a_name_that_cannot_be_a_package_is_refused(tmp_path: Path, cli: Cli, name: str) -> None:
    cli("new", name, "--dir", str(tmp_path / "x"), status=2)
    assert not (tmp_path / "x").exists()


def test_nothing_is_overwritten(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "README.md").write_text("mine")
    cli("new", "acme", "--dir", str(tmp_path / "acme"), status=1)
    assert "is there already; nothing was written" in cli.err
    assert (tmp_path / "acme" / "README.md").read_text() == "mine"


DO = "    def do(self): pass\n"


def test_the_check_tells_all_that_is_wrong_at_once(tmp_path: Path, cli: Cli) -> None:
    root = put(
        tmp_path,
        RunA="import numpy\nclass RunA:\n" + DO,
        RunB="class RunB:\n    pass\n",
        RunC="class RunC:\n    def do(self):\n        return (a := 1)\n",
        RunD="import mine.helper\nclass RunD:\n" + DO,
        helper="import imp\n",
        RunE="class RunE:\n" + DO,
    )
    later = "not valid for Python 3.6: Assignment expressions are only supported in Python 3.8 and greater"
    assert cli.findings(str(root)) == [
        (f"{root}/RunA.py", 1, "numpy is not in Python's standard library: a pilot has nothing else"),
        (f"{root}/RunB.py", 1, "command RunB has no do()"),
        (f"{root}/RunC.py", 3, later),
        (f"{root}/helper.py", 1, "imp is no longer in newer versions of Python"),
    ]  # fmt: skip
    assert cli.err == f"pilotage: the toolbox {root} has 4 problems\n"
    cli("check", str(root), status=1)
    assert f"{root}/RunB.py:1: command RunB has no do()\n" in cli.out


def test_parts_of_the_standard_library_that_came_later(tmp_path: Path, cli: Cli) -> None:
    text = """
    import subprocess
    class RunA:
        def do(self):
            subprocess.run(["true"], capture_output=True)
            "a".isascii()  # novermin
            "a".removeprefix("a")
    """
    root = put(tmp_path, RunA=text)
    assert cli.findings(str(root)) == [
        (f"{root}/RunA.py", 5, "'subprocess.run(capture_output)' came with Python 3.7; the nodes have 3.6"),
        (f"{root}/RunA.py", 7, "'str.removeprefix' member came with Python 3.9; the nodes have 3.6"),
    ]
    assert [line for _, line, _ in cli.findings(str(root), "--minimum", "3.7")] == [7]
    assert cli.findings(str(root), "--minimum", "3.9", status=0) == []
    cli("check", str(root), "--minimum", "2.7", status=2)


def test_facts_that_are_not_declared(tmp_path: Path, cli: Cli) -> None:
    text = """
    from mine.helper import Base
    class RunA(Base):
        requires = ("software",)
        wants = ("site",)
        provides = ("result",)
        def do(self):
            self.facts.result = self.facts.software, self.facts.site, self.facts.node
            self.facts.other = self.facts.result
            facts = self.facts
            return facts.secret
    """
    helper = "class Base:\n    def help(self):\n        return self.facts.hidden\n"
    root = put(tmp_path, RunA=text, helper=helper, RunB="class RunB:\n    provides = ('software',)\n" + DO)
    assert sorted(cli.findings(str(root))) == [
        (f"{root}/RunA.py", 9, "RunA gives the fact other without saying so: provides = ('other',)"),
        (f"{root}/RunA.py", 11, "RunA uses the fact secret without saying so: requires or wants = ('secret',)"),
        (f"{root}/helper.py", 3, "Base uses the fact hidden without saying so: requires or wants = ('hidden',)"),
    ]


EFFECTS = {
    "a file": ("open({proof!r}, 'w')", "writes the file"),
    "a directory": ("import os; os.mkdir({proof!r})", "changes files (os.mkdir)"),
    "a process": ("import subprocess; subprocess.call(['touch', {proof!r}])", "starts a process"),
    "a shell": ("import os; os.system('touch ' + {proof!r})", "starts a process (os.system)"),
    "network": ("import socket; socket.create_connection(('127.0.0.1', 9), 1)", "uses the network"),
    "environment": ("import os; os.environ['A'] = 'b'", "changes the environment"),
    "a print": ("print('hello')", "prints something"),
    "an exception": ("1 / 0", "fails: ZeroDivisionError: division by zero"),
    "an exit": ("raise SystemExit(3)", "fails: SystemExit: 3"),
    "a signal": ("import signal; signal.signal(15, signal.SIG_IGN)", "leaves signal handlers changed"),
    "a thread": ("import threading as t; t.Thread(target=t.Event().wait, daemon=True).start()", "leaves a thread"),
    "sys.path": ("import sys; sys.path.append('/x')", "leaves sys.path changed"),
    "silence": ("import os; os._exit(0)", "ends or blocks the process"),
}  # fmt: skip


@pytest.mark.parametrize("effect", list(EFFECTS))
def test_what_importing_does_is_found_and_does_not_happen(tmp_path: Path, cli: Cli, effect: str) -> None:
    text, said = EFFECTS[effect]
    proof = tmp_path / "proof"
    root = put(tmp_path, RunA="\n\n" + text.format(proof=str(proof)) + "\nclass RunA:\n" + DO)
    [(file, line, what)] = cli.findings(str(root))[:1]
    assert (file, said in what) == (f"{root}/RunA.py", True), what
    assert line == (1 if "leaves" in what or "blocks" in what else 3)
    assert not proof.exists()


def test_a_module_that_never_ends(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "class RunB:\n" + DO + "while 1: pass\n"
    root = put(tmp_path, RunA="class RunA:\n" + DO, RunB=text, RunC=text.replace("RunB", "RunC"))
    late = (f"{root}/RunB.py", 3, "importing it takes longer than 2 s; do that in do()")
    assert cli.findings(str(root)) == [late]
    stubborn = "import time\nwhile 1:\n    try:\n        time.sleep(9)\n    except: pass\n"
    put(tmp_path, RunB=text.replace("while 1: pass\n", stubborn))
    monkeypatch.setattr(sandbox, "SECONDS", 3.0)
    [(file, _, what)] = cli.findings(str(root))
    assert (file, "ends or blocks" in what) == (f"{root}/RunB.py", True)


def test_helpers_that_only_define_things_are_fine(tmp_path: Path, cli: Cli) -> None:
    """Also what reads, as long as it leaves no trace."""
    helper = "import os, re, json, subprocess, ctypes, ssl\nX = re.compile('a')\nY = os.path.exists('/etc')\n"
    root = put(tmp_path, RunA="import mine.helper\nclass RunA:\n" + DO, helper=helper, unused="import numpy\n")
    shown = cli("check", str(root))
    assert "not needed by any command, so it does not travel: mine/unused.py" in shown


def test_without_a_sandbox_nothing_is_imported_unless_trusted(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sandbox._run
    imported = []

    def forbidding(before: list[str], wanted: dict[str, Any]) -> list[dict[str, Any]]:
        if wanted["confine"]:
            return [{"forbidden": "Operation not permitted"}]
        imported.append(wanted["names"])
        return real(before, wanted)

    monkeypatch.setattr(sandbox, "_run", forbidding)
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    root = put(tmp_path, RunA="print('x')\nclass RunA:\n" + DO)
    cli("check", str(root), status=1)
    assert "its modules were not imported: this kernel permits no sandbox (Operation not permitted)" in cli.err
    assert "use --trust" in cli.err and not imported
    assert [line for _, line, _ in cli.findings(str(root), "--trust")] == [1]


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not here")
def test_bubblewrap_is_the_second_choice(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sandbox._run

    def forbidding(before: list[str], wanted: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"forbidden": "no"}] if wanted["confine"] else real(before, wanted)

    monkeypatch.setattr(sandbox, "_run", forbidding)
    proof = tmp_path / "proof"
    text = f"try:\n    open({str(proof)!r}, 'w')\nexcept OSError:\n    raise ValueError('read-only')\n"
    root = put(tmp_path, RunA=text + "class RunA:\n" + DO)
    [(_, line, what), *_] = cli.findings(str(root))
    assert (line, "writes the file" in what, proof.exists()) == (2, True, False)
    put(tmp_path, RunA="import os\nif os.listdir('/run'): raise ValueError('sockets')\nclass RunA:\n" + DO)
    cli("check", str(root))


def test_other_sources_and_toolboxes_that_it_builds_on(tmp_path: Path, cli: Cli) -> None:
    lib = tmp_path / "lib" / "acmelib"
    lib.mkdir(parents=True)
    (lib / "tools.py").write_text("X = 1\n")
    root = put(tmp_path, RunA="from acmelib.tools import X\nclass RunA:\n" + DO)
    assert cli.findings(str(root))[0][2].startswith("acmelib.tools is not in Python's standard library")
    assert cli.findings(str(root), "--with", str(lib), status=0) == []
    archive = shutil.make_archive(str(tmp_path / "lib"), "gztar", tmp_path / "lib")
    assert cli.findings(str(root), "--with", archive, status=0) == []
    packed = shutil.make_archive(str(tmp_path / "mine-1"), "zip", tmp_path, "mine")
    told = json.loads(cli("check", packed, "--with", archive, "--json"))
    assert told["sha256"] == hashlib.sha256(Path(packed).read_bytes()).hexdigest() and told["good"]
    cli("check", "nowhere.tar.gz", status=1)
    cli("check", str(root), "--with", "/nowhere", status=1)
    assert cli.err.startswith("pilotage: /nowhere: there is no such directory or file")
    (lib / "RunZ.py").write_text("class RunZ: pass\n")
    cli("check", str(root), "--with", str(lib), status=1)
    assert cli.err.startswith("pilotage: a toolbox given by --with cannot be built: ") and "RunZ.py:1:" in cli.err
    (lib / "RunZ.py").unlink()
    assert "it has no commands" in cli("check", str(lib)) and "1 travel, of 1 files" in cli.out
    (lib / "tools.py").write_text("import numpy\n")
    assert [line for _, line, _ in cli.findings(str(lib))] == [1]
    (lib / "tools.py").write_text("import mine.RunA\n")
    cli("check", str(root), "--with", str(lib), status=1)
    assert "mine.RunA is of the toolbox 'checked', which comes before this one" in cli.err
    cli("check", str(root / "RunA.py"), status=1)
    assert cli.err.endswith("RunA.py: is a module: name the directory that it is in\n")
    empty = put(tmp_path / "empty", helper="")
    assert "there are no commands in it" in cli.findings(str(empty))[0][2]


def test_the_list_names_the_toolbox_that_is_broken(tmp_path: Path, cli: Cli) -> None:
    root = put(tmp_path, RunA="class RunA:\n    pass\n")
    config = tmp_path / "c.yaml"
    config.write_text(f"vos:\n  acme:\n    toolboxes:\n      - {{name: own, path: {root}}}\n  other: {{}}\n")
    cli("list", "--config", str(config), status=1)
    assert f"c.yaml:4:9: the toolbox 'own' cannot be used: {root}/RunA.py:1: command RunA has no do()" in cli.err
    assert "RunJobAgent" in cli("list", "--config", str(config), "--vo", "other")
    cli("list", "--config", str(config), "--vo", "acne", status=1)
    assert "did you mean 'acme'" in cli.err


@pytest.fixture
def proof() -> Iterator[Path]:
    """A file that anybody could write."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        yield Path(directory, "proof")


AS_USER = """
import ctypes, os, runpy, sys
child = runpy.run_path(sys.argv[2])
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as a process that was never root
child["main"]()
"""


def test_an_ordinary_user_has_the_sandbox_too(proof: Path) -> None:
    """What most people are: the namespaces do not need root."""
    text = f"open({str(proof)!r}, 'w')"
    wanted = {"modules": {"a.py": [text, "a.py"]}, "watched": ["a.py"], "names": [["a", "a.py"]]}
    reader, writer = os.pipe()
    command = [sys.executable, "-I", "-S", "-c", AS_USER, str(writer), str(sandbox.CHILD)]
    given = json.dumps(wanted | {"confine": True}).encode()
    done = subprocess.run(command, input=given, pass_fds=(writer,), timeout=60)
    os.close(writer)
    with os.fdopen(reader) as told:
        lines = [json.loads(line) for line in told]
    assert done.returncode == 0 and not proof.exists()
    if lines[0].get("forbidden"):
        pytest.skip(f"this kernel permits no namespaces to users: {lines[0]['forbidden']}")
    assert lines[1]["text"].startswith("importing it writes the file")


def test_an_extension_that_nobody_has_commands_of_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Misspelt, it would leave a VO with the commands of Pilotage."""
    folder = tmp_path / "code" / "AcmeDIRAC" / "WorkloadManagementSystem" / "Command"
    folder.mkdir(parents=True)
    (folder / "RunA.py").write_text("class RunA:\n" + DO)
    config = tmp_path / "c.yaml"
    told = []
    for extension in ("Acme", "Acne"):
        toolbox = f"{{name: own, path: {tmp_path / 'code'}}}"
        config.write_text(f"vos:\n  acme: {{extension: {extension}, toolboxes: [{toolbox}]}}\n")
        with pytest.raises(SystemExit) as ended:
            main.run(["toolbox", "list", "--config", str(config)])
        assert not ended.value.code
        told.append(capsys.readouterr().err)
    assert told[0] == "" and "neither a toolbox nor this machine has commands in AcneDIRAC" in told[1]
