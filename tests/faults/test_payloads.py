"""Payloads that misbehave: the record says why they ended, and nothing of them is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.allinone import AllInOne, eventually


@pytest.fixture
def run(up: Callable[..., AllInOne]) -> Callable[..., dict[str, Any]]:
    """Run one job to its end; the job as the service tells it."""
    one = up()

    def run_one(script: str, **more: Any) -> dict[str, Any]:
        [identity] = one.submit({"command": ["/bin/sh", "-c", script], "retries": 0, "isolation": "none", **more})
        return one.wait([identity])[0]

    return run_one


def test_a_job_that_forks_away_leaves_no_orphan(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    marks = tmp_path / "pids"
    job = run(
        f"trap '' TERM HUP; (setsid sh -c 'echo $$ >> {marks}; trap \"\" TERM HUP; sleep 500; sleep 500' &) ; sleep 2"
    )
    assert job["state"] == "Done"
    pids = [int(line) for line in marks.read_text().split()]
    assert pids
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the daemon of the job is gone")


@pytest.mark.parametrize("isolation", ["none", "preferred"])
def test_a_job_that_ignores_sigterm_ends_at_its_wall_limit(run: Callable[..., dict[str, Any]], isolation: str) -> None:
    job = run("trap '' TERM; while :; do sleep 1; done", wall_seconds=2, isolation=isolation)
    assert (job["state"], job["reason"]) == ("Failed", "wall_limit")


def test_a_job_that_fills_stdout(run: Callable[..., dict[str, Any]]) -> None:
    job = run("head -c 1000000000 /dev/zero; echo the end >&2", stdout_mib=1, disk_mib=4096)
    assert job["state"] in ("Done", "Failed")
    assert job["state"] == "Done" or job["reason"] in ("disk_limit", "signal"), job
    assert len(job["stdout"] or "") <= 3 * 4096 + 200


def test_a_job_that_exceeds_its_memory(run: Callable[..., dict[str, Any]]) -> None:
    hog = "python3 -c 'import time; a = bytearray(300 << 20); a[::4096] = b\"x\" * len(a[::4096]); time.sleep(60)'"
    job = run(hog, memory_mib=100)
    assert (job["state"], job["reason"]) == ("Failed", "memory_limit")


def test_a_job_that_burns_its_cpu_time(run: Callable[..., dict[str, Any]]) -> None:
    job = run("while :; do :; done", cpu_seconds=2, wall_seconds=100)
    assert (job["state"], job["reason"]) == ("Failed", "cpu_limit")


def test_a_job_that_fills_its_disk(run: Callable[..., dict[str, Any]]) -> None:
    job = run("i=0; while [ $i -lt 60 ]; do head -c 4000000 /dev/zero > f$i; i=$((i+1)); sleep 0.2; done", disk_mib=20)
    assert (job["state"], job["reason"]) == ("Failed", "disk_limit")


def test_exit_codes_and_signals_are_told_as_they_were(run: Callable[..., dict[str, Any]]) -> None:
    job = run("exit 3")
    assert (job["state"], job["exit_code"], job["reason"]) == ("Failed", 3, "exit")
    job = run("kill -SEGV $$")
    assert (job["state"], job["signal"], job["reason"]) == ("Failed", 11, "signal")
    job = run("exec /no/such/program")
    assert (job["state"], job["exit_code"]) == ("Failed", 127)
