"""Composing: what is refused and how, the same bytes everywhere, and scripts that run wherever a pilot may land."""

from __future__ import annotations

import copy
import glob
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.interpreters import CLAIMED, interpreters

from pilotage.configuration import toolboxes
from pilotage.testing.http import Server, certificate, reply
from pilotage_node.compose import ComposeError, ScriptError, compose, digest_of, read_script
from pilotage_node.compose.script import canonical

LOCAL = ["RunEnvironmentTest", "RunMonitoringAgent", "RunJobAgent", "ReportUsage", "UploadPilotOutput"]
NODE = Path(toolboxes.__file__).parents[3] / "node" / "src"


def profile(commands: list[Any] | None = None, **changed: Any) -> dict[str, Any]:
    listed = [{"name": one} if isinstance(one, str) else one for one in (LOCAL if commands is None else commands)]
    return {
        "format": 1,
        "vo": "demo",
        "site": "LOCAL",
        "resource": "local",
        "queue": "default",
        "flavour": "LOCAL",
        "revision": "r1",
        "service": {"urls": ["https://127.0.0.1:1"], "trust": []},
        "commands": listed,
        "limits": {"cores": 2, "memory_mib": None, "disk_mib": None, "gpus": None, "wall_seconds": 3600},
        "tags": [],
        "platform": None,
        "python": [],
        "log_mib": 10,
    } | changed


def own(directory: Path, name: str = "mine", **modules: str) -> dict[str, Any]:
    """A toolbox of these modules, in a package `mytools`."""
    root = directory / name / "mytools"
    root.mkdir(parents=True)
    for module, text in modules.items():
        (root / f"{module}.py").write_text(text, "utf-8")
    return toolboxes.build(root, name, others=(toolboxes.core(), toolboxes.base()))


@pytest.fixture
def boxes() -> list[dict[str, Any]]:
    return [toolboxes.base(), toolboxes.core()]


def refused(profile: dict[str, Any], boxes: list[dict[str, Any]]) -> str:
    with pytest.raises(ComposeError) as caught:
        compose(profile, boxes)
    return str(caught.value)


# --- what is refused


def test_an_unknown_command_is_refused_with_what_there_is(boxes: list[dict[str, Any]]) -> None:
    text = refused(profile(["RunJobAgnet"]), boxes)
    assert text.startswith("unknown command 'RunJobAgnet' in flavour LOCAL (did you mean RunJobAgent?); ")
    assert "the toolboxes base, core have: " in text and "UploadPilotOutput" in text


def test_options_are_checked(boxes: list[dict[str, Any]]) -> None:
    def option(name: str, value: Any) -> str:
        return refused(profile([{"name": "RunEnvironmentTest", "options": {name: value}}]), boxes)

    where = "of command RunEnvironmentTest in flavour LOCAL"
    assert option("min_disk", 1).startswith(f"unknown option 'min_disk' {where} (did you mean min_disk_mib?); it has: ")
    assert option("min_disk_mib", "much") == f"option 'min_disk_mib' {where} must be int, not \"much\""
    assert option("min_disk_mib", True) == f"option 'min_disk_mib' {where} must be int, not true"
    assert option("min_disk_mib", None) == f"option 'min_disk_mib' {where} must be int, not null"
    assert option("min_disk_mib", 1.5) == f"option 'min_disk_mib' {where} must be int, not 1.5"
    assert option("systems", "Linux") == f"option 'systems' {where} must be list of str, not \"Linux\""
    assert option("systems", [1]) == f"option 'systems' {where} must be list of str, not [1]"
    assert option("max_clock_skew_seconds", float("nan")).startswith("the profile is not plain JSON: ")


def test_facts_must_come_from_a_command_before(tmp_path: Path, boxes: list[dict[str, Any]]) -> None:
    mine = own(
        tmp_path,
        RunGive="class RunGive:\n    provides = ('software',)\n    def do(self): pass\n",
        RunTake="class RunTake:\n    requires = ('software', 'node')\n    def do(self): pass\n",
        RunLast="class RunLast:\n    always = True\n    wants = ('software',)\n    def do(self): pass\n",
    )
    assert refused(profile(["RunTake", "RunGive"]), [mine, *boxes]) == (
        "command RunTake in flavour LOCAL requires the fact 'software', which none before it provides; "
        "commands that do: RunGive"
    )
    compose(profile(["RunGive", "RunTake", "RunLast"]), [mine, *boxes])


def test_contradicting_traits_are_refused_wherever_the_toolbox_was_built(boxes: list[dict[str, Any]]) -> None:
    def with_traits(**traits: Any) -> str:
        box = copy.deepcopy(boxes[0])
        box["commands"]["RunJobAgent"].update(traits)
        del box["digest"]
        box["digest"] = hashlib.sha256(canonical(box).encode()).hexdigest()
        return refused(profile(["RunJobAgent"]), [box, boxes[1]])

    assert with_traits(always=True, requires=["a"]).startswith("command RunJobAgent is `always` and so may not require")
    assert with_traits(always=True, background=True) == "command RunJobAgent cannot be both `always` and `background`"
    assert "would come too late" in with_traits(background=True, provides=["a"])
    assert "the runner's own fact" in with_traits(provides=["node"])


def test_a_toolbox_that_is_not_what_it_says_is_refused(boxes: list[dict[str, Any]]) -> None:
    altered = copy.deepcopy(boxes[0]) | {"version": "9", "digest": "0" * 64}
    assert refused(profile(), [altered, boxes[1]]) == "toolbox base is not what its digest says"
    # One that lies with a digest that is known already gets what that digest stands for.
    compose(profile(), boxes)
    liar = copy.deepcopy(boxes[0])
    liar["modules"]["pilotage_node/toolbox/RunJobAgent.py"] = "import evil\n"
    assert "import evil" not in compose(profile(), [liar, boxes[1]])
    assert "has format 2; this composer reads 1" in refused(profile(), [altered | {"format": 2}, boxes[1]])


def test_other_refusals(tmp_path: Path, boxes: list[dict[str, Any]]) -> None:
    assert refused(profile([]), boxes) == "flavour LOCAL has no commands"
    assert refused({"vo": "demo"}, boxes).startswith("the profile lacks: site, resource")
    assert refused(profile(), [boxes[0]]).startswith("the toolbox core is missing")
    for path in ("/opt/my python", "/opt/$(id)", "a'b", 'x"""', "/opt/é\n"):
        assert "is not a plain path" in refused(profile(python=[path]), boxes)
    one = own(tmp_path, "one", RunA="class RunA:\n    def do(self): pass\n")
    two = own(tmp_path, "two", RunA="class RunA:\n    timeout = 1\n    def do(self): pass\n")
    text = refused(profile(["RunA"]), [one, two, *boxes])
    assert text == "the module mytools/RunA.py is in several toolboxes of one, two, base, core and differs"
    leaning = own(
        tmp_path, "leaning", RunB="from pilotage_node.agent import run\nclass RunB:\n    def do(self): pass\n"
    )
    small = copy.deepcopy(boxes[1])
    small["modules"] = {path: text for path, text in small["modules"].items() if "/agent/" not in path}
    del small["digest"]
    small["digest"] = hashlib.sha256(canonical(small).encode()).hexdigest()
    text = refused(profile(["RunB"]), [leaning, small])
    assert text == "mytools/RunB.py needs the module pilotage_node.agent, which none of the toolboxes leaning, core has"


# --- what is made


def test_the_script_says_what_it_is_made_of(boxes: list[dict[str, Any]]) -> None:
    given = profile(["RunEnvironmentTest", {"name": "RunJobAgent", "options": {"idle_seconds": 7.5}}])
    before = copy.deepcopy(given)
    text = compose(given, boxes)
    assert given == before
    read = read_script(text)
    assert text.split("\n")[2] == f"# digest: sha256:{read.digest}" and read.digest == digest_of(text)
    first, second = read.profile["commands"]
    assert first["module"] == "pilotage_node.toolbox.RunEnvironmentTest"
    assert set(first["options"]) == set(boxes[0]["commands"]["RunEnvironmentTest"]["options"])
    assert second["options"]["idle_seconds"] == 7.5
    assert [(one["toolbox"], one["given"]) for one in read.provenance["commands"]] == [
        ("base", []), ("base", ["idle_seconds"]),
    ]  # fmt: skip
    assert [box["digest"] for box in read.provenance["toolboxes"]] == [box["digest"] for box in boxes]
    assert read.provenance["composer"] == boxes[1]["version"] and read.profile["vo"] == "demo"
    head = text.partition("\nexport ")[0].splitlines()
    for command, line in zip((first, second), head[-2:], strict=True):
        assert json.loads(line[2:]) == command, "what is in the head, for people, is what is in the profile"
    assert "\\" not in text.partition("\nimport os\n")[0], "the head is one Python string without escapes"


def test_only_what_the_commands_need_travels(boxes: list[dict[str, Any]]) -> None:
    sections = read_script(compose(profile(["RunEnvironmentTest"]), boxes)).sections
    assert "pilotage_node/runner/__init__.py" in sections and "pilotage_node/courier/__init__.py" in sections
    assert not any("/agent/" in name or "RunJobAgent" in name or "/compose/" in name for name in sections)
    sections = read_script(compose(profile(["RunJobAgent"]), boxes)).sections
    assert any("/agent/" in name for name in sections)


def test_an_altered_script_is_noticed(boxes: list[dict[str, Any]]) -> None:
    text = compose(profile(), boxes)
    for other in (text.replace('"vo": "demo"', '"vo": "dame"'), text + "\n", text.replace("sha256:", "sha256:0", 1)):
        with pytest.raises(ScriptError):
            read_script(other)
    with pytest.raises(ScriptError, match="altered: its head says sha256:"):
        read_script(text.replace("import os", "import  os", 1))
    with pytest.raises(ScriptError, match="not a pilot script"):
        read_script("#!/bin/sh\necho hello\n")


NASTY = {"revision": "'''\\ \"\"\" \n#== x\n é 𝄞 \ud800 $(id) `id` \\u0041", "tags": ["'''", "\\"]}


def test_awkward_values_come_back_as_they_were(boxes: list[dict[str, Any]]) -> None:
    read = read_script(compose(profile(**NASTY), boxes))
    assert read.profile["revision"] == NASTY["revision"] and read.profile["tags"] == NASTY["tags"]


def test_the_same_bytes_twice_and_on_every_python(tmp_path: Path, boxes: list[dict[str, Any]]) -> None:
    given = profile([*LOCAL[:2], {"name": "RunJobAgent", "options": {"idle_seconds": 0.1}}], **NASTY)
    text = compose(given, boxes)
    assert compose(json.loads(json.dumps(given)), [json.loads(json.dumps(box)) for box in boxes]) == text
    (tmp_path / "input").write_text(json.dumps([given, boxes]))
    program = (
        "import json, sys\nfrom pilotage_node.compose import compose\n"
        "sys.stdout.buffer.write(compose(*json.load(open(sys.argv[1]))).encode())"
    )
    for version in ("3.6", "3.11", "3.13"):
        for seed in ("1", "2"):
            told = subprocess.run(
                [interpreters()[version], "-c", program, str(tmp_path / "input")],
                env={"PYTHONPATH": str(NODE), "PYTHONHASHSEED": seed, "LANG": "C"},
                capture_output=True,
            )
            assert told.stdout == text.encode(), (version, told.stderr.decode())


def test_one_more_pilot_is_cheap(boxes: list[dict[str, Any]]) -> None:
    """At most 2 ms is asked for; what is asserted is that nothing is worked out again that does not change."""
    compose(profile(), boxes)
    start = time.process_time()
    hashlib.sha256(compose(profile(), boxes).encode() * 200).hexdigest()
    floor = time.process_time() - start
    start = time.process_time()
    for number in range(20):
        compose(profile(queue=f"q{number}"), boxes)
    assert time.process_time() - start < 20 * floor


def test_the_local_pilot_is_small(boxes: list[dict[str, Any]]) -> None:
    """The aim is 16 KiB (EC2 user data). Not there yet: until then it may only shrink, so lower this with each diet."""
    size = len(gzip.compress(compose(profile(), boxes).encode(), 9))
    assert size <= 27 * 1024


def test_an_overriding_command_travels_with_the_one_it_inherits_from(
    tmp_path: Path, boxes: list[dict[str, Any]]
) -> None:
    text = "from pilotage_node.toolbox.ReportUsage import ReportUsage as B\nclass ReportUsage(B):\n    timeout = 5\n"
    read = read_script(compose(profile(["ReportUsage"]), [own(tmp_path, ReportUsage=text), *boxes]))
    assert {"mytools/ReportUsage.py", "pilotage_node/toolbox/ReportUsage.py"} <= set(read.sections)
    assert read.profile["commands"][0]["module"] == "mytools.ReportUsage"


# --- what runs

HELLO = """
import os
import sys
from mytools import helper

class RunHello:
    def do(self):
        print("hello from", sys.version_info[:2], helper.GREETING, os.getcwd())
        print("environment", sorted(k for k in os.environ if k.startswith("PILOTAGE")), os.environ.get("LC_ALL"))
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A TLS service that takes any pilot: (server, its certificate)."""
    pem, file = certificate(tmp_path, "service")
    server = Server(file)

    def usual(request: Any) -> None:
        body = json.loads(server.requests[-1]["body"] or b"{}")
        answer = {"stamp": "s", "token": "t", "token_seconds": 600, "sync_seconds": 1, "lease_seconds": 60}
        answer |= {"time": time.time(), "log_offset": 0, "sequence": 0}
        if request.path.endswith("/sync"):
            log = body.get("log") or {"offset": 0, "text": ""}
            answer = {"hold": [], "granted": [], "orders": [], "again_seconds": 1, "token": None, "token_seconds": 600}
            answer |= {"acknowledged": [report["id"] for report in body.get("reports", [])]}
            answer |= {"log_offset": log["offset"] + len(log["text"].encode())}
        reply(request, 200, answer)

    server.usual = usual
    yield server, pem
    server.close()


Land = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def land(tmp_path: Path, served: tuple[Server, str], boxes: list[dict[str, Any]]) -> Land:
    """land(command, ...): put a pilot of RunHello into a place with an awkward name and start it there."""
    server, pem = served
    mine = own(tmp_path, RunHello=HELLO, helper='GREETING = "gr\u00fc\u00dfe"\n')
    place = tmp_path / "a pl\u00e4ce"

    def start(*command: str, directory: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        place.mkdir(exist_ok=True)
        service = {"urls": [server.url], "trust": [pem]}
        (place / "pilot").write_text(compose(profile(["RunHello"], service=service), [mine, *boxes]), "utf-8")
        (place / "credentials.json").write_text(json.dumps({"stamp": "0123456789abcdef", "secret": "x"}))
        return subprocess.run(
            command,
            cwd=directory or place,
            env={"PATH": "/usr/bin:/bin"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=120,
        )

    return start


def log_of(tmp_path: Path) -> str:
    return (tmp_path / "a pl\u00e4ce" / "pilot.log").read_text("utf-8")


@pytest.mark.parametrize("version", CLAIMED)
def test_runs_under_every_python_in_the_c_locale(tmp_path: Path, land: Land, version: str) -> None:
    for locale in ({"LANG": "C"}, {"LC_ALL": "C"}):
        done = land(interpreters()[version], "pilot", PYTHONPATH="/nowhere", PYTHONSTARTUP="/nowhere", **locale)
        assert done.returncode == 0, done.stdout
        major, minor = version.split(".")
        assert f"hello from ({major}, {minor}) gr\u00fc\u00dfe {tmp_path}/a pl\u00e4ce/pilot-01234567" in log_of(
            tmp_path
        )
        assert f"environment [] {locale.get('LC_ALL')}\n" in log_of(tmp_path)


def python_directory(tmp_path: Path, **programs: str) -> str:
    """A PATH with these programs and no other: {name: what it is}."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name, text in programs.items():
        path = directory / name.replace("_", ".")
        if text.startswith("#!"):
            path.write_text(text)
            path.chmod(0o755)
        else:
            path.symlink_to(text)
    return str(directory)


@pytest.mark.parametrize("shell", [["sh"], ["bash"], ["dash"], ["busybox", "sh"]])
def test_runs_as_a_shell_script(tmp_path: Path, land: Land, shell: list[str]) -> None:
    if not shutil.which(shell[0]):
        pytest.skip(f"{shell[0]} is not installed")
    path = python_directory(tmp_path, python3_9=interpreters()["3.9"])
    done = land(shutil.which(shell[0]) or "", *shell[1:], "pilot", PATH=path)
    assert done.returncode == 0, done.stdout
    assert "hello from (3, 9)" in log_of(tmp_path)


def test_runs_from_a_directory_that_cannot_be_written(tmp_path: Path, land: Land) -> None:
    if not shutil.which("bwrap"):
        pytest.skip("bwrap is not installed")
    place, elsewhere = str(tmp_path / "a pl\u00e4ce"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = ["bwrap", "--dev-bind", "/", "/", "--ro-bind", place, place, "--chdir", str(elsewhere)]
    path = python_directory(tmp_path, python3=interpreters()["3.8"])
    done = land(*words, "/bin/sh", f"{place}/pilot", PATH=f"{path}:/usr/bin:/bin")
    assert done.returncode == 0, done.stdout
    assert "hello from (3, 8)" in (elsewhere / "pilot.log").read_text("utf-8")


def test_runs_as_a_program_from_elsewhere(tmp_path: Path, land: Land) -> None:
    path = python_directory(tmp_path, python3=interpreters()["3.13"])
    done = land("chmod", "755", "pilot")
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    place = tmp_path / "a pl\u00e4ce"
    done = land(str(place / "pilot"), directory=elsewhere, PATH=path)
    assert done.returncode == 0, done.stdout
    assert f"hello from (3, 13) gr\u00fc\u00dfe {elsewhere}/pilot-01234567" in log_of(tmp_path)
    assert [name for name in os.listdir(elsewhere) if name.startswith("pilot-")] == [], (
        "the working directory is removed"
    )


def test_an_unfit_python_is_passed_over(tmp_path: Path, land: Land) -> None:
    """One that is too old and one that is incomplete come back to the head, which tries the next."""
    old = "#!/bin/sh\necho old >&2\nexec /bin/sh pilot\n"
    lacking = tmp_path / "lacking"
    shutil.copytree(
        Path(os.path.realpath(interpreters()["3.8"])).parents[1], lacking, symlinks=True, ignore=_without_ssl
    )
    binary = lacking / "bin" / "python3.8"
    path = python_directory(tmp_path, python3=old, python3_8=str(binary), python3_7=interpreters()["3.7"])
    done = land("/bin/sh", "pilot", PATH=path)
    assert done.returncode == 0, done.stdout
    assert "lacks the modules _ssl\n" in done.stdout
    assert "hello from (3, 7)" in log_of(tmp_path)


def _without_ssl(directory: str, names: list[str]) -> set[str]:
    return {name for name in names if name.startswith("_ssl.") or name in ("test", "site-packages", "share", "idlelib")}


def test_python_2_or_none_at_all_is_said_clearly(tmp_path: Path, land: Land) -> None:
    done = land("/bin/sh", "pilot", PATH="/nowhere")
    assert done.returncode == 2
    assert done.stdout == "pilot: no Python 3.6 or newer on this machine (found unfit: none; PATH=/nowhere)\n"
    assert "credentials.json" in os.listdir(tmp_path / "a pl\u00e4ce")


def test_an_old_python_gets_as_far_as_to_say_so(tmp_path: Path, boxes: list[dict[str, Any]]) -> None:
    found = glob.glob(os.path.expanduser("~/.pyenv/versions/2.7.*/bin/python"))
    if not found:
        pytest.skip("no Python 2.7 on this machine")
    (tmp_path / "pilot").write_text(compose(profile(), boxes))
    environment = {"PATH": python_directory(tmp_path, python3=found[0]), "PILOTAGE_TRIED": "python3"}
    done = subprocess.run([found[0], "pilot"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.endswith("is Python 2.7.18")
    assert second.startswith("pilot: no Python 3.6 or newer on this machine (found unfit: python3; PATH=")


def test_inspect_and_help(land: Land) -> None:
    done = land(interpreters()["3.6"], "pilot", "--inspect")
    assert json.loads(done.stdout)["commands"][0]["name"] == "RunHello"
    done = land(interpreters()["3.6"], "pilot", "--help")
    assert (done.returncode, done.stdout.startswith("usage: pilot")) == (0, True)
    assert land(interpreters()["3.6"], "pilot", "--nonsense").returncode == 3


@pytest.mark.parametrize("version", ["3.6", "3.13"])
def test_tracebacks_show_true_lines_of_the_script(tmp_path: Path, boxes: list[dict[str, Any]], version: str) -> None:
    text = "class RunBad:\n    def do(self):\n        def fall():\n            return 1 / 0\n        fall()\n"
    script = compose(profile(["RunBad"]), [own(tmp_path, RunBad=text), *boxes])
    place = tmp_path / "pilot"
    tail = "from pilotage_node.runner import main"
    altered = script.replace(tail, "from mytools.RunBad import RunBad").replace(" main(script)", " RunBad().do()")
    place.write_text(altered, "utf-8")
    done = subprocess.run([interpreters()[version], str(place)], capture_output=True, text=True)
    number = place.read_text("utf-8").split("\n").index("   return 1 / 0") + 1
    assert f'File "{place}", line {number}, in fall\n    return 1 / 0\n' in done.stderr
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("version", ["3.7", "3.13"])
def test_little_is_compiled_before_the_first_command(tmp_path: Path, land: Land, version: str) -> None:
    """Lines of the boot and of every module that any process of the pilot imports until the first command is there."""
    words = ["-I", "-S", "-X", "utf8", "-X", "importtime"]
    done = land(interpreters()[version], *words, "pilot")
    before = log_of(tmp_path).partition("mytools.RunHello")[0]
    read = read_script((tmp_path / "a pl\u00e4ce" / "pilot").read_text("utf-8"))
    lines = (tmp_path / "a pl\u00e4ce" / "pilot").read_text("utf-8").count("\n#== ")
    first = done.stdout.partition("RunHello begins")[0]
    assert first != done.stdout
    for line in f"{first}\n{before}".splitlines():
        name = line.rpartition("|")[2].strip().replace(".", "/")
        found = read.sections.get(f"{name}.py") or read.sections.get(f"{name}/__init__.py") or ""
        lines += found.count("\n")
    print(lines, "lines")
    assert 300 < lines <= 1200
