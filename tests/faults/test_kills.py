"""kill -9 of each process of the system while a job runs: nothing lost, nothing twice, no orphan left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.allinone import AllInOne, eventually
from tests.faults.conftest import counting, end_states, starts


def pilot_processes(one: AllInOne) -> dict[str, list[int]]:
    """The processes of the one live pilot by their part: runner, courier, agent (told by their parents and names)."""
    parts: dict[str, list[int]] = {"runner": [], "courier": [], "others": []}
    for pid in one.processes():
        name = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        comm = Path(f"/proc/{pid}/comm").read_text().strip()
        if comm == "pilot-courier":
            parts["courier"].append(pid)
        elif comm == "pilot-runner":
            parts["runner"].append(pid)
        elif "pilot" in name:
            parts["others"].append(pid)
    return parts


def running(one: AllInOne, marks: Path, **more: object) -> int:
    """Submit one counting job and wait until its payload runs; the job's id."""
    command = counting(marks, seconds=8)
    [identity] = one.submit({"command": command, "isolation": "none", "cores": 1, **more})
    eventually(lambda: starts(marks), "the payload runs")
    return identity


def test_pilot_killed_mid_job_is_run_again_by_another_pilot(up: Callable[..., AllInOne], tmp_path: Path) -> None:
    one, marks = up(), tmp_path / "marks"
    identity = running(one, marks)
    for pid in pilot_processes(one)["runner"]:
        os.kill(pid, signal.SIGKILL)
    [job] = one.wait([identity])
    assert (job["state"], starts(marks), end_states(job)) == ("Done", 2, ["Done"])
    assert "lost" in str(job["events"])


def test_pilot_killed_mid_job_that_must_not_be_retried(up: Callable[..., AllInOne], tmp_path: Path) -> None:
    one, marks = up(), tmp_path / "marks"
    identity = running(one, marks, retries=0)
    for pid in pilot_processes(one)["runner"]:
        os.kill(pid, signal.SIGKILL)
    [job] = one.wait([identity])
    assert (job["state"], job["reason"], starts(marks)) == ("Failed", "lost", 1)


def test_killed_pilot_leaves_no_payload_behind(up: Callable[..., AllInOne], tmp_path: Path) -> None:
    one, marks = up(), tmp_path / "marks"
    [identity] = one.submit(
        {"command": ["/bin/sh", "-c", f"echo $$ >> {marks}; exec sleep 600"], "isolation": "none", "retries": 0}
    )
    payload = int(eventually(lambda: marks.exists() and marks.read_text().strip(), "the payload runs"))
    for pid in pilot_processes(one)["runner"]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{payload}").exists(), "the payload died with its pilot")
    [job] = one.wait([identity])
    assert job["reason"] == "lost"


def test_courier_killed_mid_job_loses_nothing(up: Callable[..., AllInOne], tmp_path: Path) -> None:
    one, marks = up(), tmp_path / "marks"
    identity = running(one, marks)
    couriers = pilot_processes(one)["courier"]
    assert couriers
    for pid in couriers:
        os.kill(pid, signal.SIGKILL)
    [job] = one.wait([identity])
    assert (job["state"], starts(marks), end_states(job)) == ("Done", 1, ["Done"])


def test_service_killed_mid_match_and_mid_run(up: Callable[..., AllInOne], tmp_path: Path) -> None:
    one, marks = up(), tmp_path / "marks"
    ids = one.submit(*[{"command": counting(marks, seconds=0.1), "isolation": "none"} for _ in range(60)])
    for round_ in range(3):
        eventually(lambda least=5 * round_ + 1: starts(marks) >= least, "jobs run")
        one.kill()
        one.start()
    jobs = one.wait(ids)
    assert {job["state"] for job in jobs} == {"Done"}
    assert all(end_states(job) == ["Done"] for job in jobs)
    assert starts(marks) == 60, "no payload was started twice: no lease was lost"


def test_all_of_it_killed_and_started_again(up: Callable[..., AllInOne], tmp_path: Path) -> None:
    one, marks = up(), tmp_path / "marks"
    ids = one.submit(*[{"command": counting(marks, seconds=0.2), "isolation": "none"} for _ in range(20)])
    eventually(lambda: starts(marks) >= 3, "jobs run")
    one.kill()
    for pid in pilot_processes(one)["runner"]:
        os.kill(pid, signal.SIGKILL)
    one.start()
    jobs = one.wait(ids)
    assert {job["state"] for job in jobs} == {"Done"}
    assert all(end_states(job) == ["Done"] for job in jobs)
