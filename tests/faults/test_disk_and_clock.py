"""A full disk under the pilot, and clocks that jump: the record says why, and nothing is lost or done twice."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.allinone import AllInOne, eventually
from tests.faults.conftest import configuration, counting, end_states, starts
from tests.interpreters import interpreters


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB of its own."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def hand_run_pilot(one: AllInOne, directory: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Make a bundle for a hand-run pilot in `directory` and run it there to its end."""
    one.cli("generate", "--flavour", "LOCAL", "--bundle", str(directory))
    return subprocess.run(
        ["sh", "./pilot"],
        cwd=directory,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=240,
    )


def without_local_pilots(**options: Any) -> dict[str, Any]:
    """A configuration whose director sends nothing: the test's own pilot is the only one."""
    settings = configuration(**options)
    local = {"type": "local", "flavour": "LOCAL", "slots": 0, "queues": {"default": {"wall_seconds": 86400}}}
    settings["sites"] = {"LOCAL": {"resources": {"local": local}}}
    return settings


def test_no_room_at_the_start_is_told_by_the_environment_test(up: Callable[..., AllInOne], small_disk: Path) -> None:
    settings = without_local_pilots()
    settings["vos"]["demo"]["pilot"]["options"]["RunEnvironmentTest"] = {"min_disk_mib": 100}
    one = up(settings)
    [identity] = one.submit({"command": ["true"]})
    done = hand_run_pilot(one, small_disk / "pilot")
    assert done.returncode == 21, done.stdout.decode()
    [pilot] = one.pilots()
    assert (pilot["state"], pilot["exit_code"]) == ("Failed", 21)
    assert "disk" in pilot["reason"]
    assert one.job(identity)["state"] == "Waiting"


def test_a_disk_that_fills_while_jobs_run(up: Callable[..., AllInOne], small_disk: Path, tmp_path: Path) -> None:
    """One job fills the whole disk; it fails and says so, the pilot lives on, the next job is done."""
    settings = without_local_pilots()
    settings["vos"]["demo"]["pilot"]["options"]["RunEnvironmentTest"] = {"min_disk_mib": 1}
    one, marks = up(settings), tmp_path / "marks"
    hog = f"echo started >> {marks}; head -c 100000000 /dev/zero > fill || exit 9; sleep 2"
    ids = one.submit(
        {"command": ["sh", "-c", hog], "isolation": "none", "retries": 0, "priority": 1},
        {"command": counting(marks), "isolation": "none"},
    )
    done = hand_run_pilot(one, small_disk / "pilot")
    jobs = one.wait(ids)
    assert jobs[0]["state"] == "Failed", done.stdout.decode()
    assert jobs[1]["state"] == "Done", done.stdout.decode()
    assert starts(marks) == 2
    [pilot] = one.pilots()
    assert pilot["state"] == "Done"


LIBRARY = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


def test_the_fake_clock_is_installed() -> None:
    assert LIBRARY, "libfaketime is missing: run `make provision`"


@pytest.mark.parametrize("jump", ["+3d", "-3d"])
@pytest.mark.parametrize("side", ["pilot", "service"])
def test_a_clock_that_jumps(up: Callable[..., AllInOne], tmp_path: Path, side: str, jump: str) -> None:
    """The wall clock of one side jumps by three days while a job runs; the job is done once."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    faked = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    marks = tmp_path / "marks"
    job = {"command": counting(marks, seconds=6), "isolation": "none"}
    one = AllInOneWithClock(tmp_path, faked) if side == "service" else up(without_local_pilots())
    try:
        ids = (one if side == "pilot" else one.start()).submit(job)
        if side == "pilot":
            pilot = start_pilot(one, tmp_path / "pilot", faked)
        eventually(lambda: starts(marks), "the payload runs")
        clock.write_text(jump)
        [ended] = one.wait(ids)
        assert (ended["state"], starts(marks), end_states(ended)) == ("Done", 1, ["Done"])
        if side == "pilot":
            assert pilot.wait(120) == 0
    finally:
        one.stop()


class AllInOneWithClock(AllInOne):
    """An all-in-one whose service has a clock of its own; its pilots keep the machine's."""

    def __init__(self, home: Path, faked: dict[str, str]) -> None:
        super().__init__(home, configuration())
        self.environment |= faked


def start_pilot(one: AllInOne, directory: Path, faked: dict[str, str]) -> subprocess.Popen[bytes]:
    one.cli("generate", "--flavour", "LOCAL", "--bundle", str(directory))
    # From 3.11 on, time.sleep() sleeps until a moment, which libfaketime miscalculates: the tool's fault, not ours.
    python = interpreters()["3.9"]
    return subprocess.Popen([python, "./pilot"], cwd=directory, env={"PATH": os.environ["PATH"], **faked})
