"""Whole pilots with the `dirac` toolbox on a stand-in of DIRAC's programs: what a real one does seldom, always here."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotage.testing import FakeNode, FakeService, RunningPilot, start_pilot
from pilotage.testing.processes import eventually
from pilotage_node import exitcodes

PYTHON = """
case "$2" in
*PILOTAGE-ANSWER*) cat "$DIRAC_STANDIN/answer" ;;
*) echo "PILOTAGE 8.0.86 3.11.4" ;;
esac
"""
ANSWER = (
    'PILOTAGE-ANSWER {"version": "8.0.86", "name": "Test", "configuration": "1", "site": true, "ce": {}, "queue": {},'
    ' "proxy_seconds": 86000, "platform": "P", "group": "pilot", "identity": "/CN=p"}\n'
)
READY = "echo 'UTC WorkloadManagement/JobAgent NOTICE: Loaded agent module WorkloadManagement/JobAgent'\n"
CYCLE = "echo 'UTC JobAgent NOTICE: Starting cycle for module WorkloadManagement/JobAgent'\n"
EMPTY = "echo 'UTC JobAgent NOTICE: Job request OK, but no match found No match found ( 1510 : )'\n"
MATCHED = "echo 'UTC JobAgent INFO: Received JobID=12, JobType=User, Owner=alice, JobGroup=users'\n"
DONE = """
echo 'UTC None/[12]JobWrapper INFO: Final job status Done ; Execution Complete'
echo 'UTC JobAgent INFO: Job being submitted (DIRAC JobID: 12; Task ID: 0)'
"""
STOP_FILE = "control/WorkloadManagement/JobAgent/stop_agent"

Start = Callable[..., RunningPilot]


@pytest.fixture
def service() -> Iterator[FakeService]:
    found = FakeService()
    yield found
    found.close()


@pytest.fixture
def start(tmp_path: Path, service: FakeService) -> Iterator[Start]:
    """Start a pilot whose dirac-agent is a shell script."""
    pilots: list[RunningPilot] = []

    def make(agent: str, options: dict[str, Any] | None = None, wall: int = 3600) -> RunningPilot:
        prefix = tmp_path / "dirac"
        (prefix / "bin").mkdir(parents=True)
        for name, text in {"python": PYTHON, "dirac-agent": agent}.items():
            (prefix / "bin" / name).write_text("#!/bin/bash\n" + text)
            (prefix / "bin" / name).chmod(0o755)
        (prefix / "answer").write_text(ANSWER)
        script = tmp_path / "diracosrc"
        script.write_text(f"export DIRAC_STANDIN={prefix} PATH={prefix}/bin:$PATH\n")
        (tmp_path / "proxy").write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n")
        (tmp_path / "proxy").chmod(0o600)
        (tmp_path / "authorities").mkdir()
        (tmp_path / "authorities" / "0a0b0c0d.0").touch()
        configured = {
            "InstallDIRAC": {"preinstalled_environment": str(script)},
            "ConfigureDIRAC": {
                "configuration_servers": ["dips://127.0.0.1:1/Configuration/Server"],
                "proxy": str(tmp_path / "proxy"),
                "ca_directory": str(tmp_path / "authorities"),
            },
            "RunJobAgent": {"idle_seconds": 1, "grace_seconds": 4, "reserve_seconds": 1, **(options or {})},
        }
        configuration = {
            "vos": {"mine": {"engine": "dirac", "pilot": {"options": configured}}},
            "service": {"url": "http://192.0.2.1:1"},
        }
        node = FakeNode(tmp_path / "node", cores=2, wall_seconds=wall)
        pilots.append(start_pilot(configuration, node=node, service=service, flavour="CREAM"))
        return pilots[-1]

    yield make
    for pilot in pilots:
        pilot.close()


def test_jobs_are_counted_and_reported(start: Start, service: FakeService) -> None:
    result = start(READY + CYCLE + MATCHED + "sleep 1.2" + DONE).wait(60)
    assert result.code == exitcodes.OK, result.log
    (job,) = result.record["jobs"]
    assert (job["job"], job["state"]) == ("DIRAC 12", "Done") and 1 <= job["wall_seconds"] < 5
    assert result.record["job_totals"]["busy_seconds"] >= 1
    assert [report["state"] for report in service.reports if report["kind"] == "job"] == ["Done"]


def test_no_work_ends_an_agent_that_sleeps(start: Start) -> None:
    result = start(READY + CYCLE + EMPTY + "exec sleep 1000").wait(60)
    assert result.code == exitcodes.NO_WORK, result.log


@pytest.mark.parametrize(
    ("agent", "code", "text"),
    [
        (
            "echo 'UTC JobAgent ERROR: There were errors when loading configuration Mandatory options missing'; exit 1",
            exitcodes.FAILED,
            "the job agent did not start: There were errors when loading configuration Mandatory options missing",
        ),
        (READY + CYCLE + "kill -9 $$", exitcodes.FAILED, "the job agent was ended by signal 9"),
        (
            READY + CYCLE + "echo 'UTC JobAgent NOTICE: Failed to get jobs Cannot connect to dips://m:1 (refused)'",
            exitcodes.CONNECTIVITY,
            "the matcher did not answer as it should, 1 times: Cannot connect to dips://m:1 (refused)",
        ),
        (
            READY + CYCLE + MATCHED + "kill -9 $$",
            exitcodes.FAILED,
            "the job agent was ended by signal 9",
        ),
    ],
)
def test_failures_of_the_agent_have_their_reason(start: Start, agent: str, code: int, text: str) -> None:
    result = start(agent).wait(60)
    assert result.code == code, result.log
    assert result.commands["RunJobAgent"]["message"] == text
    if "Received" in agent:
        (job,) = result.record["jobs"]
        assert job["state"] == "Failed"


def test_on_an_order_the_agent_is_asked_to_stop_and_its_job_ends(start: Start, service: FakeService) -> None:
    loop = f"while ! test -e {STOP_FILE}; do sleep 0.1; done; sleep 2"
    pilot = start(READY + CYCLE + MATCHED + loop + DONE)
    eventually(lambda: b"matched" in b"".join(service.logs.values()), lambda: pilot.output, 30)
    service.order("drain")
    result = pilot.wait(60)
    assert result.code == exitcodes.DRAINED, result.log
    assert [job["state"] for job in result.record["jobs"]] == ["Done"]


def test_on_a_signal_an_agent_that_does_not_listen_is_killed_within_its_grace(start: Start, tmp_path: Path) -> None:
    pilot = start("trap '' TERM\n" + READY + CYCLE + MATCHED + "while :; do sleep 0.2; done")
    eventually(lambda: "matched" in log(pilot), lambda: log(pilot), 30)
    pilot.signal(signal.SIGTERM)
    result = pilot.wait(20)
    assert result.code == exitcodes.DRAINED, result.log
    assert "the job agent has ended (status -9): 1 Failed" in result.log


def test_the_time_of_the_queue_ends_the_agent(start: Start) -> None:
    result = start("trap '' TERM\n" + READY + CYCLE + MATCHED + "while :; do sleep 0.2; done", wall=12).wait(40)
    assert result.code == exitcodes.OK or result.code == exitcodes.OUT_OF_TIME, result.log
    assert "the job agent is asked to leave: the time is up" in result.log


def test_what_a_vo_overrides_is_one_part_of_the_configuration(start: Start, tmp_path: Path) -> None:
    box = tmp_path / "box" / "mine"
    box.mkdir(parents=True)
    (box / "ConfigureDIRAC.py").write_text(
        "from pilotage_node.toolboxes.dirac.ConfigureDIRAC import ConfigureDIRAC as Base\n\n\n"
        "class ConfigureDIRAC(Base):\n"
        '    """Ours."""\n\n'
        "    def place(self):\n"
        '        return dict(super().place(), **{"/LocalSite/Rack": "7"})\n'
    )
    from pilotage.configuration import compose_pilot, loads

    text = f"vos: {{mine: {{engine: dirac, toolboxes: [{{name: mine, path: {box}}}]}}}}\nservice: {{url: 'http://x'}}"
    script = compose_pilot(loads(text), "mine", flavour="CREAM").script
    assert "/LocalSite/Rack" in script and "/LocalSite/GridCE" in script
    shutil.rmtree(box)


def log(pilot: RunningPilot) -> str:
    file = pilot.place / "pilot.log"
    return file.read_text(errors="replace") if file.exists() else ""
