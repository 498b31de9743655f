"""The same pilot under every Python that the node's half claims: composed once, run for real, its job done."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.allinone import AllInOne
from tests.interpreters import CLAIMED, interpreters

HAND_RUN = {
    "service": {"sync_seconds": 1},
    "vos": {
        "demo": {"pilot": {"options": {"RunJobAgent": {"idle_seconds": 2}, "RunEnvironmentTest": {"min_disk_mib": 64}}}}
    },
    "sites": {
        "LOCAL": {"resources": {"local": {"type": "local", "flavour": "LOCAL", "slots": 0, "queues": {"default": {}}}}}
    },
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AllInOne]:
    service = AllInOne(tmp_path_factory.mktemp("interpreters"), HAND_RUN, "--tls").start()
    yield service
    service.stop()


@pytest.mark.parametrize("version", CLAIMED)
def test_a_pilot_runs_its_job_under(one: AllInOne, tmp_path: Path, version: str) -> None:
    python = interpreters().get(version)
    assert python, f"Python {version} is claimed and must be here: `pyenv install {version}`"
    directory = tmp_path / "a pilot's plâce"
    one.cli("generate", "--flavour", "LOCAL", "--bundle", str(directory))
    [identity] = one.submit({"command": ["/bin/sh", "-c", "echo hello from $PILOTAGE_JOB"]})
    done = subprocess.run(
        [python, "pilot"],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "LANG": "C", "PYTHONPATH": "/nowhere"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=200,
    )
    output = done.stdout.decode()
    assert done.returncode == 0, output
    [job] = one.wait([identity])
    assert (job["state"], job["stdout"]) == ("Done", f"hello from {identity}\n"), output
    stamp = job["pilot"]
    [pilot] = [pilot for pilot in one.pilots() if pilot["stamp"] == stamp]
    assert pilot["state"] == "Done"
    assert pilot["node"]["python"].startswith(version + ".")


def test_a_used_stamp_is_refused_with_its_own_exit_code(one: AllInOne, tmp_path: Path) -> None:
    """A batch system that starts the same pilot again: the second one leaves at once."""
    first, second = tmp_path / "first", tmp_path / "second"
    one.cli("generate", "--flavour", "LOCAL", "--bundle", str(first))
    shutil.copytree(first, second)
    environment = {"PATH": os.environ["PATH"]}
    assert subprocess.run(["sh", "pilot"], cwd=first, env=environment, timeout=200).returncode in (0, 40)
    assert not (first / "credentials.json").exists(), "credentials are removed once read"
    assert subprocess.run(["sh", "pilot"], cwd=second, env=environment, timeout=200).returncode == 12
    assert subprocess.run(["sh", "pilot"], cwd=first, env=environment, timeout=200).returncode == 10
