"""`pilotage.testing` as a toolbox's author uses it: one command, and whole pilots, in processes of their own."""

from __future__ import annotations

import signal
import textwrap
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.interpreters import CLAIMED, interpreters

from pilotage.configuration.toolboxes import ToolboxError
from pilotage.testing import CommandResult, FakeNode, FakeService, PilotResult, start_pilot
from pilotage.testing.processes import carrying, eventually
from pilotage_node import exitcodes
from pilotage_node.compose import ComposeError
from pilotage_node.toolbox.RunEnvironmentTest import RunEnvironmentTest

Run = Callable[..., CommandResult]
RunPilot = Callable[..., PilotResult]

CHECK = '''
"""Is my software there?"""
import os
from pilotage_node import exitcodes
from pilotage_node.command import Command, CommandFailed, Option


class CheckMySoftware(Command):
    """Check that my software is there, before any job is asked for."""

    options = {"path": Option(str, "/opt/mine", "where it is installed")}
    requires = ("release",)
    wants = ("mirror",)
    provides = ("software",)
    timeout = 2

    def do(self):
        print("looking for %s on %s" % (self.facts.release, self.facts.node["platform"]))
        if self.facts.mirror:
            print("mirror", self.facts.mirror)
        if not os.path.isdir(self.options.path):
            raise CommandFailed(exitcodes.ENVIRONMENT, "my software is not in %s" % self.options.path)
        with open("found", "w") as out:
            out.write(self.options.path)
        self.facts.software = {"path": self.options.path, "home": os.environ["HOME"]}
'''
HAND_RUN: dict[str, Any] = {
    "vos": {"mine": {"pilot": {"options": {"RunJobAgent": {"idle_seconds": 0.5}}}}},
    "service": {"url": "http://192.0.2.1:1"},
}


# -- one command


def test_the_background_command_of_the_page_ends_when_it_is_told_to(run_command: Run) -> None:
    page = (Path(__file__).parents[2] / "docs" / "toolboxes.md").read_text()
    [text] = [block for block in page.split("```python\n") if "class WatchLoad" in block]
    result = run_command(textwrap.dedent(text.partition("```")[0].rstrip(" ")))
    assert (result.outcome, result.log.split()[0]) == ("done", "load"), result.pilot.log
    assert result.seconds < 5


def test_a_command_that_removes_its_directory_is_judged_by_itself(run_command: Run) -> None:
    result = run_command("import shutil\nclass RunX:\n    def do(self):\n        shutil.rmtree(self.pilot.workdir)\n")
    assert (result.outcome, result.pilot.code, result.files) == ("done", 0, {}), result.pilot.output


def test_a_command_gets_its_options_and_facts_and_gives_its_own(run_command: Run, fake_node: FakeNode) -> None:
    fake_node.path("opt/mine").mkdir(parents=True)
    path = str(fake_node.path("opt/mine"))
    result = run_command(CHECK, options={"path": path}, facts={"release": "7.1"})
    assert (result.outcome, result.code, result.text) == ("done", exitcodes.OK, "")
    assert result.log == "looking for 7.1 on x86_64-el9\n"
    assert result.facts == {"software": {"path": path, "home": str(fake_node.home)}}
    assert result.files == {"found": path.encode()}
    assert carrying(str(fake_node.root)) == {}, "nothing is left running"


def test_a_command_that_fails_tells_why(run_command: Run, fake_service: FakeService) -> None:
    result = run_command(CHECK, facts={"release": "7.1", "mirror": ["a", "b"]})
    assert (result.outcome, result.code) == ("failed", exitcodes.ENVIRONMENT)
    assert result.text == "my software is not in /opt/mine"
    assert "mirror ['a', 'b']" in result.log
    assert fake_service.commands["CheckMySoftware"]["message"] == result.text, "the service was told"
    assert result.pilot.code == exitcodes.ENVIRONMENT


def test_a_fact_that_is_not_given_is_missing_as_in_a_pilot(run_command: Run) -> None:
    result = run_command(CHECK)
    assert (result.outcome, result.code) == ("skipped", exitcodes.MISSING_FACT)
    assert "release" in result.text


@pytest.mark.parametrize(
    ("body", "outcome", "code", "text"),
    [
        ("import time\n        time.sleep(60)", "timeout", exitcodes.TIMEOUT, "longer than 1 s"),
        ("import os\n        os.kill(os.getpid(), 9)", "crashed", exitcodes.CRASHED, "SIGKILL"),
        ("1 / 0", "failed", exitcodes.FAILED, "ZeroDivisionError"),
        ("import sys\n        sys.exit(3)", "failed", exitcodes.FAILED, "sys.exit(3)"),
        ("self.facts.software = 1", "failed", exitcodes.FAILED, "not in this command's provides"),
        ("self.facts.mine = {1, 2}", "failed", exitcodes.FAILED, "the fact mine cannot be written as JSON"),
        ("self.facts.mine = 'x' * 2**21", "failed", exitcodes.FAILED, "the fact mine has more than 1048576 bytes"),
        ("raise CommandFailed('oops', 'it is so')", "failed", exitcodes.FAILED, "it is so (its code 'oops' is no exit"),
        ("raise CommandFailed(0, 'it is so')", "failed", exitcodes.FAILED, "it is so (its code 0 is no exit code)"),
        ("raise CommandFailed(300, 'it is so')", "failed", exitcodes.FAILED, "it is so (its code 300 is no exit code)"),
    ],
)
def test_what_can_go_wrong_with_a_command(run_command: Run, body: str, outcome: str, code: int, text: str) -> None:
    head = "from pilotage_node.command import CommandFailed\nclass RunX:\n    timeout = 1\n    provides = ('mine',)\n"
    result = run_command(f"{head}    def do(self):\n        {body}\n")
    assert (result.outcome, result.code) == (outcome, code)
    assert text in result.text


def test_what_would_not_travel_is_refused_with_file_and_line(run_command: Run) -> None:
    with pytest.raises(ToolboxError, match=r"RunX\.py:2: numpy is not in Python's standard library"):
        run_command("class RunX:\n    import numpy\n    def do(self): pass\n")
    with pytest.raises(ComposeError, match="unknown option 'depth'"):
        run_command(CHECK, options={"depth": 3})
    with pytest.raises(LookupError, match="no class with a do"):
        run_command("x = 1\ny = 2\n")


def test_a_toolbox_with_helpers_and_an_override(run_command: Run, tmp_path: Path) -> None:
    for name, text in {
        "__init__": "",
        "places": "PLACES = ['here', 'there']\n",
        "RunEnvironmentTest": (
            "from pilotage_node.toolbox import RunEnvironmentTest as base\n"
            "from mine.places import PLACES\n"
            "class RunEnvironmentTest(base.RunEnvironmentTest):\n"
            "    def do(self):\n"
            "        base.RunEnvironmentTest.do(self)\n"
            "        print('also', PLACES)\n"
        ),
        "RunOther": "class RunOther:\n    def do(): print('without self')\n",
    }.items():
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / f"{name}.py").write_text(text)
    result = run_command(tmp_path / "mine", "RunEnvironmentTest")
    assert result.outcome == "done", result.text
    assert result.log.endswith("also ['here', 'there']\n")
    assert run_command(tmp_path / "mine", "RunOther").log == "without self\n"
    with pytest.raises(LookupError, match="has: RunEnvironmentTest, RunOther; not one"):
        run_command(tmp_path / "mine")


def test_archives_data_files_other_toolboxes_and_the_path_convention(run_command: Run, tmp_path: Path) -> None:
    common = tmp_path / "common"
    common.mkdir()
    (common / "words.py").write_text("WORD = 'shared'\n")
    where = tmp_path / "up" / "MineDIRAC" / "WorkloadManagementSystem" / "Command"
    where.mkdir(parents=True)
    (where / "table.json").write_text('{"a": 1}\n')
    (where / "RunX.py").write_text(
        "from common.words import WORD\nclass RunX:\n    files = ('table.json',)\n"
        "    def do(self): print(WORD, self.read('table.json').strip())\n"
    )
    directory, archive = tmp_path / "up" / "MineDIRAC", tmp_path / "mine.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for file in where.iterdir():
            out.write(file, file.relative_to(tmp_path / "up"))
    for source in (directory, archive):
        result = run_command(source, "RunX", toolboxes=[common], extension="Mine")
        assert result.log == 'shared {"a": 1}\n', result


def test_the_node_is_what_the_test_says(run_command: Run) -> None:
    node = FakeNode(cores=64, gpus=2, disk_mib=100, programs={"nvidia-smi": "echo a GPU"}, wall_seconds=600)
    try:
        asks = "import subprocess\nclass RunX:\n    def do(self):\n        print(self.facts.node['cores'], "
        asks += "self.facts.node['gpus'], self.facts.node['seconds_left'])\n        subprocess.call(['nvidia-smi'])\n"
        assert run_command(asks, node=node).log == "64 2 570.0\na GPU\n"
        result = run_command(RunEnvironmentTest, node=node)
        assert (result.outcome, result.code) == ("failed", exitcodes.DISK)
        assert "disk_mib: 100, but at least 2048 wanted" in result.text
    finally:
        node.close()


def test_commands_that_run_beside_others_or_always(run_command: Run, fake_service: FakeService) -> None:
    assert run_command("RunMonitoringAgent").outcome == "done"
    assert run_command("UploadPilotOutput").outcome == "done"
    assert b"registered with the service" in fake_service.uploads["pilot.log"]
    assert "the whole pilot" in run_command("ReportUsage").log


def test_a_service_that_misbehaves(run_command: Run, fake_service: FakeService) -> None:
    fake_service.skew_seconds = -1000
    result = run_command("RunEnvironmentTest")
    assert (result.outcome, result.code) == ("failed", exitcodes.CLOCK)
    fake_service.refusing = 503
    result = run_command("RunEnvironmentTest", runner={"register_seconds": 0.5})
    assert (result.outcome, result.code) == ("not run", exitcodes.UNREACHABLE)
    assert "was not reached" in result.text


@pytest.mark.parametrize("version", CLAIMED)
def test_under_every_python(run_command: Run, fake_node: FakeNode, version: str) -> None:
    python = interpreters().get(version)
    assert python, f"Python {version} is claimed and must be here: `pyenv install {version}`"
    result = run_command(CHECK, facts={"release": "7.1"}, options={"path": str(fake_node.root)}, python=python)
    assert result.outcome == "done", result.pilot.output
    assert result.pilot.facts["node"]["python"].startswith(version + ".")


# -- whole pilots


def test_a_pilot_runs_its_jobs(run_pilot: RunPilot, fake_service: FakeService) -> None:
    given = fake_service.put(b"hello", "in.txt")
    fake_service.submit(["/bin/sh", "-c", "cat in.txt; echo more > out.txt"], inputs=[given], outputs=["out.txt"])
    fake_service.submit(["/bin/sh", "-c", "exit 7"])
    result = run_pilot(HAND_RUN, flavour="LOCAL")
    assert result.code == exitcodes.OK, result.output
    assert set(result.outcomes.values()) == {"done"}
    assert next(iter(result.outcomes)) == "RunEnvironmentTest"
    done, failed = fake_service.job(1), fake_service.job(2)
    assert (done["state"], done["stdout"]) == ("Done", "hello")
    assert fake_service.stored[done["outputs"][0]["sha256"]] == b"more\n"
    assert (failed["state"], failed["exit_code"]) == ("Failed", 7)
    assert fake_service.uploads["pilot.log"].decode() in result.log
    assert fake_service.pilot and fake_service.pilot["exit_code"] == exitcodes.OK
    assert fake_service.log == result.log[: len(fake_service.log)]


def test_a_pilot_follows_an_order(run_pilot: RunPilot, fake_service: FakeService) -> None:
    fake_service.order("drain")
    patient = {"vos": {"mine": {"pilot": {"options": {"RunJobAgent": {"idle_seconds": 600}}}}}}
    result = run_pilot(patient, flavour="LOCAL")
    assert result.code == exitcodes.DRAINED, result.output
    assert "the service orders it" in result.reason


def test_a_pilot_can_be_signalled(fake_node: FakeNode, fake_service: FakeService) -> None:
    fake_service.submit(["/bin/sleep", "600"])
    pilot = start_pilot(HAND_RUN, flavour="LOCAL", node=fake_node, service=fake_service)
    try:
        eventually(lambda: fake_service.matcher.started, lambda: pilot.output)
        pilot.signal(signal.SIGTERM)
        assert pilot.wait().code == exitcodes.DRAINED
        assert fake_service.job(1)["reason"] == "drained"
    finally:
        pilot.close()


def test_a_pilot_that_does_not_end_is_killed(run_pilot: RunPilot, fake_node: FakeNode) -> None:
    patient = {"vos": {"mine": {"pilot": {"options": {"RunJobAgent": {"idle_seconds": 600}}}}}}
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=r"did not end within 1 s; it printed:\n(?s:.*)RunEnvironmentTest begins"):
        run_pilot(patient, flavour="LOCAL", seconds=1)
    assert time.monotonic() - begun < 60
    assert carrying(str(fake_node.root)) == {}


def test_a_script_that_was_made_elsewhere(run_pilot: RunPilot, tmp_path: Path) -> None:
    from pilotage.testing.pilots import script_for

    file = tmp_path / "pilot"
    file.write_text(script_for(HAND_RUN, flavour="LOCAL"))
    result = run_pilot(script=file)
    assert (result.code, result.outcomes["RunJobAgent"]) == (exitcodes.NO_WORK, "failed"), result.output


def test_a_profile_with_a_toolbox(run_pilot: RunPilot, tmp_path: Path) -> None:
    from pilotage.configuration.toolboxes import base, build, core

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "RunX.py").write_text("class RunX:\n    def do(self): print('mine')\n")
    place = dict.fromkeys(("vo", "site", "resource", "queue", "flavour", "revision"), "test")
    profile = {**place, "service": {"urls": [], "trust": []}, "commands": [{"name": "RunX"}]}
    box = build(tmp_path / "mine", "mine", others=[base(), core()])
    assert run_pilot(profile=profile, toolboxes=[box]).log_of("RunX") == "mine\n"


def test_tls_is_verified(run_pilot: RunPilot) -> None:
    service = FakeService(tls=True)
    try:
        assert run_pilot(HAND_RUN, flavour="LOCAL", service=service).code == exitcodes.NO_WORK
        service.trust = []
        refused = run_pilot(HAND_RUN, flavour="LOCAL", service=service, runner={"register_seconds": 1})
        assert refused.code == exitcodes.UNREACHABLE
        assert "certificate verify failed" in refused.log
    finally:
        service.close()
