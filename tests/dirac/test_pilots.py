"""Pilots with the commands of the `dirac` toolbox run real jobs of a real DIRAC, and say why where they cannot."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from tests.dirac.conftest import Start, told
from tests.dirac.server import Server

from pilotage.testing import FakeService, PilotResult
from pilotage.testing.processes import eventually
from pilotage_node import exitcodes

BAR = 4.0
"""Seconds from exec to the job agent's start: half of what DIRAC's own pilot takes for the same set-up."""


@pytest.mark.parametrize("flavour", ["LOCAL", "CREAM", "VAC"])
def test_a_job_runs_to_done(server: Server, start: Start, tmp_path: Path, flavour: str) -> None:
    job = server.submit(tmp_path / "job", "echo hello from $JOBID; sleep 1\n")
    server.waiting(job)
    result = start(flavour).wait(300)
    assert result.code == exitcodes.OK, result.log
    assert server.status(job)["Status"] == "Done", result.log
    assert server.output(job, tmp_path / "output") == f"hello from {job}\n"
    assert told(result) == [(str(job), "Done")]
    used = result.record["jobs"][0]
    assert 1 <= used["wall_seconds"] < 120 and 0.1 < used["usage"]["cpu_user"] < 60
    found = re.search(r"the job agent has started, ([\d.]+) s after the pilot", result.log)
    assert found
    print(f"DIRAC {server.version}, {flavour}: the job agent started after {found.group(1)} s; the bar is {BAR} s")


def test_no_work_is_not_a_failure(start: Start) -> None:
    result = start("CREAM").wait(120)
    assert (result.code, result.outcomes["RunJobAgent"]) == (exitcodes.NO_WORK, "failed"), result.log
    assert result.commands["RunJobAgent"]["message"] == "DIRAC has no job for this node"


def test_a_failing_payload_is_told_as_dirac_tells_it(server: Server, start: Start, tmp_path: Path) -> None:
    job = server.submit(tmp_path / "job", "exit 3\n")
    server.waiting(job)
    result = start().wait(200)
    assert server.status(job) | {
        "Status": "Failed",
        "MinorStatus": "Application Finished With Errors",
    } == server.status(job)
    assert told(result) == [(str(job), "Failed")]
    assert result.code == exitcodes.OK, "a pilot whose job failed did its work"


def test_on_a_drain_order_the_running_job_ends_by_itself(
    server: Server, start: Start, service: FakeService, tmp_path: Path
) -> None:
    first = server.submit(tmp_path / "first", "sleep 15; echo done\n")
    server.waiting(first)
    pilot = start("CREAM")
    eventually(lambda: server.status(first)["Status"] == "Running", lambda: pilot.output + service.log, 120)
    second = server.submit(tmp_path / "second", "echo never here\n")
    service.order("drain")
    result = pilot.wait(120)
    assert told(result) == [(str(first), "Done")], result.log
    assert server.status(first)["Status"] == "Done"
    assert server.status(second)["Status"] in ("Waiting", "Checking", "Received"), "no second job was taken"
    server.alice("dirac-wms-job-kill", str(second))


def test_on_a_signal_the_running_job_is_given_back(server: Server, start: Start, tmp_path: Path) -> None:
    job = server.submit(tmp_path / "job", "sleep 600\n")
    server.waiting(job)
    pilot = start("CREAM")
    eventually(lambda: server.status(job)["Status"] == "Running", lambda: pilot.output, 120)
    begin = time.monotonic()
    pilot.signal()
    result = pilot.wait(60)
    assert time.monotonic() - begin < 35
    assert result.code == exitcodes.DRAINED
    assert result.record["jobs"][0]["reason"] == "lost"
    status = server.status(job)
    assert status["Status"] in ("Received", "Checking", "Waiting"), f"{status}: {result.log}"
    server.alice("dirac-wms-job-kill", str(job))


def test_the_queues_time_is_kept(server: Server, start: Start, tmp_path: Path) -> None:
    """A job that asks for more work than fits before the end of the queue is not taken."""
    job = server.submit(tmp_path / "job", "echo too long\n", CPUTime="100000")
    server.waiting(job)
    result = start("CREAM", wall=600).wait(120)
    assert result.code == exitcodes.NO_WORK, result.log
    assert server.status(job)["Status"] == "Waiting"
    server.alice("dirac-wms-job-kill", str(job))


def test_pip_installs_dirac_and_a_second_pilot_uses_it_again(server: Server, start: Start, tmp_path: Path) -> None:
    job = server.submit(tmp_path / "job", "echo by pip\n")
    server.waiting(job)
    python = str(server.environments.server / "bin/python")
    install = {
        "preinstalled_environment": "/no/such/script",
        "version": server.version,
        "python": python,
        "wheels": str(server.environments.wheels),
        "place": str(tmp_path / "place"),
    }
    options = {"InstallDIRAC": install, "ConfigureDIRAC": {"environment": ""}}
    result = start("CREAM", options).wait(1500)
    assert server.status(job)["Status"] == "Done", result.log
    assert "preinstalled does not work: /no/such/script: " in result.log_of("InstallDIRAC")
    again = start("CREAM", options).wait(120)
    assert "(used again)" in again.log_of("InstallDIRAC"), again.log
    assert again.commands["InstallDIRAC"]["seconds"] < 30


# -- what can be wrong: the true reason, in time


def refused(result: PilotResult, code: int, *texts: str) -> None:
    assert result.code == code, result.log
    for text in texts:
        assert text in result.commands["ConfigureDIRAC"]["message"], result.log
    assert result.outcomes["RunJobAgent"] == "skipped"


def test_no_configuration_server(start: Start) -> None:
    url = "dips://localhost:29999/Configuration/Server"
    result = start("CREAM", {"ConfigureDIRAC": {"configuration_servers": [url]}}).wait(200)
    refused(result, exitcodes.CONNECTIVITY, "no configuration server answers", url)


def test_an_expired_proxy(server: Server, start: Start, tmp_path: Path) -> None:
    proxy = server.proxy(tmp_path / "old", "00:01")
    result = start("CREAM", {"ConfigureDIRAC": {"proxy": str(proxy)}}).wait(100)
    refused(result, exitcodes.NO_CREDENTIALS, f"the proxy {proxy} ")


def test_another_certificate_authority(server: Server, start: Start, tmp_path: Path) -> None:
    (tmp_path / "0a0b0c0d.0").write_text("")
    result = start("CREAM", {"ConfigureDIRAC": {"ca_directory": str(tmp_path)}}).wait(200)
    refused(result, exitcodes.CONNECTIVITY, "no configuration server answers")


def test_an_empty_directory_of_authorities(start: Start, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = start("CREAM", {"ConfigureDIRAC": {"ca_directory": str(tmp_path / "empty")}}).wait(100)
    refused(result, exitcodes.ENVIRONMENT, f"{tmp_path / 'empty'} is empty")


def test_no_such_site(start: Start) -> None:
    options = {"ConfigureDIRAC": {"generic_options": ["/LocalSite/Site=DIRAC.Nowhere.xx"]}}
    refused(start("CREAM", options).wait(100), exitcodes.ENVIRONMENT, "has no site 'DIRAC.Nowhere.xx'")
