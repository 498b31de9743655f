"""Where the pilots that we know miss the aims of generic, configurable pilots: one test for each point.

Each test asserts what a user would notice. Where another test asserts the point already, it is named here instead:

    what was seen elsewhere                            the test that it does not happen here
    -------------------------------------------------  --------------------------------------------------
    two pilots of one submission run different code    unit/test_compose: test_the_same_bytes_..., test_an_altered_...
    TLS verification is switched off                   test_testing_pilot: test_tls_is_verified
    the agent uploads a file's name, not the file      test_testing_pilot: test_a_pilot_runs_its_jobs
    making a pilot needs a server, or hand-written sh  integration/test_generate, unit/test_renderings
    logs only for stamps of one form                   test_allinone: test_pilots_and_their_logs
    files of VO and base flattened into one directory  unit/test_shelf
    names of modules must follow the extension         unit/test_toolboxes_vo
    state is one object that every step changes        test_testing_pilot: test_what_can_go_wrong_with_a_command
    steps rebuild each other's command lines           unit/test_commands: each base command by itself
    what a step started outlives it                    test_runner_ends: test_time_limit_ends_a_command_and_...
    a download is called without a time limit          test_runner_service: test_last_reports_are_sent_in_...
    secrets in logs                                    test_runner: test_credentials_are_gone_and_never_in_...
    a queue gets pilots although nothing waits for it  test_director: test_pilots_go_where_jobs_wait_and_no_more
    a resource whose pilots find no work is fed on     unit/test_plan
    why is this step here?                             unit/test_explain
    no dry run                                         integration/test_generate
    nobody knows what a pilot used                     unit/test_commands_usage, test_runner: test_the_record_...
    no way to test without a grid                      test_testing_pilot, unit/test_testing
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotage.testing import FakeNode, FakeService, PilotResult, start_pilot
from pilotage.testing.processes import eventually
from pilotage_node import exitcodes, meanings, protocol
from pilotage_node.compose import digest_of, read_script
from pilotage_node.compose.script import ScriptText

RunPilot = Callable[..., PilotResult]

CHECK = '''
from pilotage_node import exitcodes
from pilotage_node.command import Command, CommandFailed, Option


class CheckMySoftware(Command):
    """Is it there?"""

    options = {"path": Option(str, "/opt/mine", "where it is")}

    def do(self):
        raise CommandFailed(exitcodes.ENVIRONMENT, "my software is not in %s" % self.options.path)
'''


class Place:
    """A configuration of two communities on three resources, and `pilotage generate` on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.toolbox = directory / "alphatools"
        self.toolbox.mkdir()
        (self.toolbox / "__init__.py").touch()
        self.write("CheckMySoftware", CHECK)
        wait = {"RunJobAgent": {"idle_seconds": 0.3}, "RunEnvironmentTest": {"min_disk_mib": 1}}
        self.text: dict[str, Any] = {
            "pilot": {"options": wait},
            "vos": {
                "alpha": {"toolboxes": [{"name": "alphatools", "path": str(self.toolbox)}]},
                "beta": {"pilot": {"options": {"RunJobAgent": {"hide": ["/beta/private"]}}}},
            },
            "sites": {
                "ONE": {
                    "resources": {
                        "ce": {"type": "local", "flavour": "CREAM", "queues": {"short": {}, "long": {}}},
                        "cloud": {"type": "local", "flavour": "CLOUD", "queues": {"default": {}}},
                    }
                },
                "TWO": {"resources": {"vac": {"type": "local", "flavour": "VAC", "queues": {"default": {}}}}},
            },
        }

    def write(self, command: str, text: str) -> Path:
        file = self.toolbox / f"{command}.py"
        file.write_text(text)
        return file

    def generate(self, *words: str) -> subprocess.CompletedProcess[str]:
        file = self.directory / "pilotage.yaml"
        file.write_text(yaml.safe_dump(self.text, sort_keys=False))
        command = [sys.executable, "-m", "pilotage.cli.main", "generate", "--config", str(file), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ))

    def pilot(self, resource: str, vo: str = "alpha", *words: str) -> ScriptText:
        done = self.generate("--vo", vo, "--resource", resource, *words)
        assert done.returncode == 0, done.stderr
        return read_script(done.stdout)

    def refused(self, resource: str, vo: str = "alpha", *words: str) -> str:
        done = self.generate("--vo", vo, "--resource", resource, *words)
        assert done.returncode != 0 and not done.stdout, "no script, not even a part of one"
        [line] = done.stderr.strip().splitlines()
        return line

    def run(self, run_pilot: RunPilot, resource: str, vo: str = "alpha", **more: Any) -> PilotResult:
        return run_pilot(self.text, vo=vo, resource=resource, **more)


def names(script: ScriptText) -> list[str]:
    return [command["name"] for command in script.profile["commands"]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# -- a pilot is generated from commands


def test_what_is_read_is_what_runs(place: Place, run_pilot: RunPilot, fake_service: FakeService) -> None:
    """Seen: the script holds no command; all of them come later, from the network, as they are by then."""
    done = place.generate("--vo", "alpha", "--resource", "ce", "--queue", "short")
    script = read_script(done.stdout)
    assert script.digest == digest_of(done.stdout)
    commands = {name for name in script.sections if "/toolbox/Run" in name or "alphatools/" in name}
    assert commands == {f"pilotage_node/toolbox/{name}.py" for name in ("RunEnvironmentTest", "RunJobAgent")}
    result = run_pilot(script=done.stdout)
    assert list(result.outcomes) == ["RunEnvironmentTest", "RunJobAgent"]
    asked = {(request["method"], request["path"]) for request in fake_service.server.requests}
    assert asked == {("POST", protocol.REGISTER), ("POST", protocol.SYNC)}, "nothing was fetched"
    assert fake_service.registrations[0]["digest"] == script.digest, "the service knows which pilot it was"


def test_the_environment_is_in_no_log(run_pilot: RunPilot, fake_node: FakeNode, fake_service: FakeService) -> None:
    """Seen: the wrapper prints the whole environment, and sends it to the log service."""
    fake_node.environment["SITE_PRIVATE"] = "what-only-the-site-may-know"
    result = run_pilot({"pilot": {"options": {"RunJobAgent": {"idle_seconds": 0.3}}}}, flavour="LOCAL")
    told = [result.log, result.output, fake_service.log, str(result.record), str(fake_service.syncs)]
    told += [data.decode() for data in fake_service.uploads.values()]
    assert fake_service.uploads and not any("what-only-the-site-may-know" in text for text in told)


def test_a_pilot_carries_nothing_of_others(place: Place) -> None:
    """Seen: the configuration of all, the operations of other communities included, is published to every pilot."""
    place.text["service"] = {"database": {"url": "postgresql://pilotage@db.internal/pilotage"}}
    text = place.generate("--vo", "alpha", "--resource", "ce", "--queue", "short").stdout
    assert '"vo": "alpha"' in text
    for other in ("beta", "/beta/private", "cloud", "TWO", "db.internal"):
        assert other not in text, other
    text = place.generate("--vo", "beta", "--resource", "ce", "--queue", "short").stdout
    assert '"vo": "beta"' in text and "alphatools" not in text and "CheckMySoftware" not in text


# -- flavours by resource, and by more than its type


def test_one_queue_may_differ_from_the_next(place: Place) -> None:
    """Seen: only the type of the computing element decides; not site, element, queue or tag."""
    ce = place.text["sites"]["ONE"]["resources"]["ce"]
    ce["queues"]["long"]["pilot"] = {
        "commands": {"insert": {"before": "RunJobAgent", "do": ["CheckMySoftware"]}},
        "options": {"CheckMySoftware": {"path": "/opt/long"}},
        "tags": ["long"],
        "vos": {"alpha": {"options": {"RunJobAgent": {"idle_seconds": 7}}}},
    }
    place.text["sites"]["ONE"]["pilot"] = {"log_mib": 3}
    place.text["toolboxes"] = place.text["vos"]["alpha"].pop("toolboxes")
    short, long = place.pilot("ce", "alpha", "--queue", "short"), place.pilot("ce", "alpha", "--queue", "long")
    assert names(short) == ["RunEnvironmentTest", "RunJobAgent"]
    assert names(long) == ["RunEnvironmentTest", "CheckMySoftware", "RunJobAgent"]
    assert long.profile["commands"][1]["options"] == {"path": "/opt/long"}
    assert (short.profile["tags"], long.profile["tags"]) == ([], ["long"])
    others = place.pilot("ce", "beta", "--queue", "long")
    idle = [script.profile["commands"][-1]["options"]["idle_seconds"] for script in (short, long, others)]
    assert idle == [0.3, 7, 0.3]
    assert [script.profile["log_mib"] for script in (short, place.pilot("vac"))] == [3, 10]


def test_a_flavour_is_only_a_list(place: Place, run_pilot: RunPilot, fake_service: FakeService) -> None:
    """Seen: steps ask which type they run for, and do something else; a new type needs changes in all of them."""
    place.text["flavours"] = {"BALLOON": {"commands": ["RunJobAgent", "ReportUsage"]}}
    place.text["sites"]["TWO"]["resources"]["vac"]["flavour"] = "BALLOON"
    fake_service.submit(["/bin/echo", "up"])
    result = place.run(run_pilot, "vac")
    assert result.outcomes == {"RunJobAgent": "done", "ReportUsage": "done"}
    assert fake_service.job(1)["stdout"] == "up\n"


# -- communities override and inherit


def test_a_vo_that_changes_one_type_leaves_the_others(place: Place) -> None:
    """Seen: a VO that defines the commands of one type loses those of every other, without a word."""
    before = {resource: names(place.pilot(resource)) for resource in ("cloud", "vac")}
    place.text["vos"]["alpha"]["flavours"] = {"CREAM": {"commands": ["CheckMySoftware", "RunJobAgent"]}}
    assert names(place.pilot("ce", "alpha", "--queue", "short")) == ["CheckMySoftware", "RunJobAgent"]
    assert names(place.pilot("ce", "beta", "--queue", "short")) == ["RunEnvironmentTest", "RunJobAgent"]
    assert {resource: names(place.pilot(resource)) for resource in ("cloud", "vac")} == before


def test_lists_are_edited_not_only_replaced(place: Place) -> None:
    """Seen: no way to add a step but to copy the whole list, which then no longer follows the installation's."""
    edit = {"insert": {"before": "RunJobAgent", "do": ["CheckMySoftware"]}, "remove": ["RunMonitoringAgent"]}
    place.text["vos"]["alpha"]["pilot"] = {"commands": edit}
    assert names(place.pilot("cloud")) == ["RunEnvironmentTest", "CheckMySoftware", "RunJobAgent", "UploadPilotOutput"]
    assert names(place.pilot("vac")) == ["CheckMySoftware", "RunJobAgent", "UploadPilotOutput"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class RunJobAgent:\n    def do(self) pass\n", "RunJobAgent.py:2: "),
        ("class RunJobAgent:\n    pass\n", "RunJobAgent.py:1: "),
        ("import numpy\nclass RunJobAgent:\n    def do(self): pass\n", "RunJobAgent.py:1: numpy is not in"),
    ],
    ids=["syntax", "no do", "import"],
)
def test_a_broken_module_of_a_vo_stops_composing(place: Place, text: str, said: str) -> None:
    """Seen: it is replaced by the base command, and nobody is told."""
    file = place.write("RunJobAgent", text)
    refusal = place.refused("ce", "alpha", "--queue", "short")
    assert f"{file.parent}/{said}" in refusal
    assert names(place.pilot("ce", "beta", "--queue", "short")) == ["RunEnvironmentTest", "RunJobAgent"], "not theirs"


def test_an_unknown_command_is_refused_with_its_place(place: Place) -> None:
    """Seen: the pilot lands, looks for a module that is not there, and goes on or dies on the node."""
    place.text["vos"]["alpha"]["flavours"] = {"CREAM": {"commands": ["RunEnviromentTest", "RunJobAgent"]}}
    refusal = place.refused("ce", "alpha", "--queue", "short")
    assert "pilotage.yaml:" in refusal and "RunEnviromentTest" in refusal
    assert "did you mean 'RunEnvironmentTest'?" in refusal


def test_an_override_inherits(place: Place, run_pilot: RunPilot) -> None:
    """Seen: to add to a base command is to copy it."""
    place.write(
        "RunEnvironmentTest",
        "from pilotage_node.toolbox.RunEnvironmentTest import RunEnvironmentTest as Base\n"
        "class RunEnvironmentTest(Base):\n    def do(self):\n        super().do()\n        self.log('and mine')\n",
    )
    result = place.run(run_pilot, "ce", queue="short")
    assert result.outcomes["RunEnvironmentTest"] == "done"
    log = result.log_of("RunEnvironmentTest")
    assert "write test" in log and log.endswith("and mine\n")
    assert "and mine" not in place.run(run_pilot, "ce", "beta", queue="short").log


# -- commands with one purpose each


def test_an_order_that_cannot_work_is_refused(place: Place) -> None:
    """Seen: which step needs which other is told in docstrings; the wrong order fails on the node."""
    place.write("RunNeedy", "class RunNeedy:\n    requires = ('software',)\n    def do(self): pass\n")
    place.write(
        "RunGiver", "class RunGiver:\n    provides = ('software',)\n    def do(self): self.facts.software = 1\n"
    )
    flavour = {"CREAM": {"commands": ["RunNeedy", "RunGiver", "RunJobAgent"]}}
    place.text["vos"]["alpha"]["flavours"] = flavour
    refusal = place.refused("ce", "alpha", "--queue", "short")
    assert "RunNeedy" in refusal and "software" in refusal and "RunGiver" in refusal
    flavour["CREAM"]["commands"] = ["RunGiver", "RunNeedy", "RunJobAgent"]
    assert len(names(place.pilot("ce", "alpha", "--queue", "short"))) == 3


def test_an_early_failure_keeps_its_cause(place: Place, run_pilot: RunPilot, fake_service: FakeService) -> None:
    """Seen: what fails early makes the error handler fail, and only that is told; exit codes are 1 or -1."""
    place.text["vos"]["alpha"]["pilot"] = {"commands": {"prepend": ["CheckMySoftware"]}}
    result = place.run(run_pilot, "cloud")
    assert result.code == exitcodes.ENVIRONMENT
    assert result.reason == "CheckMySoftware: my software is not in /opt/mine"
    assert fake_service.pilot and fake_service.pilot["exit_code"] == exitcodes.ENVIRONMENT
    assert fake_service.commands["CheckMySoftware"]["message"] == "my software is not in /opt/mine"
    assert "Traceback" not in result.log


def test_what_must_run_runs_after_a_failure(place: Place, run_pilot: RunPilot, fake_service: FakeService) -> None:
    """Seen: no step that always runs, so the output of failed pilots is what is missing."""
    place.text["vos"]["alpha"]["pilot"] = {"commands": {"prepend": ["CheckMySoftware"]}}
    outcomes = place.run(run_pilot, "cloud").outcomes
    assert outcomes == {
        "CheckMySoftware": "failed",
        "RunEnvironmentTest": "skipped",
        "RunMonitoringAgent": "skipped",
        "RunJobAgent": "skipped",
        "UploadPilotOutput": "done",
    }
    assert b"my software is not in /opt/mine" in fake_service.uploads["pilot.log"]


def test_a_command_has_a_time_limit(place: Place, run_pilot: RunPilot, fake_service: FakeService) -> None:
    """Seen: no limit by step: one that hangs holds the slot until the batch system ends it, without a trace."""
    place.write("RunForEver", "import time\nclass RunForEver:\n    timeout = 1\n    def do(self): time.sleep(600)\n")
    place.text["vos"]["alpha"]["pilot"] = {"commands": {"prepend": ["RunForEver"]}}
    result = place.run(run_pilot, "cloud", seconds=60)
    assert (result.outcomes["RunForEver"], result.code) == ("timeout", exitcodes.TIMEOUT)
    assert "longer than 1 s" in result.reason
    assert b"longer than 1 s" in fake_service.uploads["pilot.log"]


def test_every_way_to_end_has_a_code_of_its_own() -> None:
    """Seen: everything is 1 or -1. A vacuum's factory wants its own table; both are one here."""
    assert len(set(meanings.TABLE)) == len(meanings.TABLE) >= 20
    for code, (message, text) in meanings.TABLE.items():
        assert 0 <= code < 126 and message in (100, 200, 300, 400, 500, 600, 700) and text


# -- robust, and the parts agree with each other


def test_an_unreachable_log_service_does_not_kill_a_pilot(place: Place, fake_node: FakeNode) -> None:
    """Seen: with the log service away, a command that succeeded is made to fail."""
    service = FakeService()
    place.write("RunBriefly", "import time\nclass RunBriefly:\n    def do(self): print('x' * 9999); time.sleep(2)\n")
    place.text["vos"]["alpha"]["flavours"] = {"CREAM": {"commands": ["RunBriefly"]}}
    pilot = start_pilot(place.text, vo="alpha", resource="ce", queue="short", node=fake_node, service=service)
    try:
        eventually(lambda: "RunBriefly begins" in pilot.output, lambda: pilot.output)
        service.down = True
        eventually(lambda: "not reached" in pilot.output, lambda: pilot.output)
        service.down = False
        result = pilot.wait()
        assert result.outcomes == {"RunBriefly": "done"} and result.code == exitcodes.OK
        assert service.commands["RunBriefly"]["outcome"] == "done", "and the service was told after all"
        assert service.log == result.log[: len(service.log)] and "xxx" in service.log
    finally:
        pilot.close()
        service.close()


def test_even_a_service_that_never_comes_back(place: Place, fake_node: FakeNode) -> None:
    service = FakeService()
    place.write("RunBriefly", "import time\nclass RunBriefly:\n    def do(self): time.sleep(1)\n")
    place.text["vos"]["alpha"]["flavours"] = {"CREAM": {"commands": ["RunBriefly"]}}
    pilot = start_pilot(
        place.text,
        vo="alpha",
        resource="ce",
        queue="short",
        node=fake_node,
        service=service,
        runner={"final_seconds": 1},
    )
    try:
        eventually(lambda: "RunBriefly begins" in pilot.output, lambda: pilot.output)
        service.down = True
        result = pilot.wait()
        assert result.outcomes == {"RunBriefly": "done"} and result.code == exitcodes.OK
    finally:
        pilot.close()
        service.close()


def test_parts_of_different_versions_say_so(place: Place, run_pilot: RunPilot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: the director passes an option that the pilot no longer knows; it dies before its first log line."""
    monkeypatch.setattr(protocol, "SUPPORTED", (99,))  # what the fake service speaks
    result = place.run(run_pilot, "ce", queue="short")
    assert result.code == exitcodes.PROTOCOL
    assert "protocol 1 is not spoken here" in result.output


def test_an_argument_that_is_not_known_is_told(place: Place, run_pilot: RunPilot) -> None:
    """Seen: a traceback of the option parser; and -h prints no help."""
    wrong = place.run(run_pilot, "ce", queue="short", arguments=["-V", "lhcb"])
    assert wrong.code == exitcodes.USAGE
    assert "-V" in wrong.output and "usage: pilot" in wrong.output and "Traceback" not in wrong.output
    asked = place.run(run_pilot, "ce", queue="short", arguments=["--help"])
    assert asked.code == exitcodes.OK and "usage: pilot" in asked.output


def test_a_pilot_is_known_before_anything_can_fail(
    place: Place, run_pilot: RunPilot, fake_service: FakeService
) -> None:
    """Seen: registration is the fourth step, after the installation, which fails most; such pilots are never seen."""
    place.write("RunCrash", "import os\nclass RunCrash:\n    def do(self): os.kill(os.getpid(), 9)\n")
    place.text["vos"]["alpha"]["pilot"] = {"commands": {"prepend": ["RunCrash"]}}
    result = place.run(run_pilot, "cloud")
    assert result.outcomes["RunCrash"] == "crashed"
    [registration] = fake_service.registrations
    assert registration["profile"]["resource"] == "cloud" and registration["node"]["hostname"] == "fake-node"
    assert "pilot " in registration["log"], "with its first lines of log"
    assert fake_service.log.index("registered") < fake_service.log.index("RunCrash begins")


def test_the_same_option_twice_is_no_riddle(place: Place) -> None:
    """Seen: of a repeated option the last one counts, and what another layer had set is lost with it."""
    place.text["vos"]["alpha"]["pilot"] = {"options": {"RunEnvironmentTest": {"min_cores": 2}}}
    ce = place.text["sites"]["ONE"]["resources"]["ce"]
    ce["pilot"] = {"options": {"RunEnvironmentTest": {"min_memory_mib": 9}}}
    words = ("--queue", "short", "--set", "RunEnvironmentTest.min_disk_mib=7")
    options = place.pilot("ce", "alpha", *words).profile["commands"][0]["options"]
    assert [options[name] for name in ("min_cores", "min_memory_mib", "min_disk_mib")] == [2, 9, 7]
