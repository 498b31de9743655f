"""Trust between pilots and the service, end to end: anchors are pinned, a set, and rotated; strangers are refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.allinone import AllInOne, eventually

from pilotage.service import tls
from pilotage_node import exitcodes

LOCAL = {"type": "local", "flavour": "LOCAL", "slots": 0, "queues": {"default": {}}}
OPTIONS = {"RunJobAgent": {"idle_seconds": 2}, "RunEnvironmentTest": {"min_disk_mib": 64}}
CONFIGURATION = {
    "service": {"sync_seconds": 1},
    "vos": {"demo": {"pilot": {"options": OPTIONS}}},
    "sites": {"LOCAL": {"resources": {"local": LOCAL}}},
}
"""The director sends nothing: each pilot here is started by the test, when it likes."""

REGISTERED = 'route="register"'
"""In the metrics of a service that a pilot has spoken to."""


@pytest.fixture
def one(tmp_path: Path) -> Iterator[AllInOne]:
    up = AllInOne(tmp_path, CONFIGURATION, "--tls")
    try:
        yield up.start()
    finally:
        up.stop()
        eventually(lambda: not up.processes(), "no process of the test is left", 30)


def bundle(one: AllInOne, directory: Path) -> str:
    """A pilot composed now, with the anchors of now; how many it pins is in its profile. Gives its stamp."""
    one.cli("generate", "--flavour", "LOCAL", "--bundle", str(directory))
    return str(json.loads((directory / "credentials.json").read_text())["stamp"])


def pinned(one: AllInOne, directory: Path) -> list[str]:
    """The anchors that the script carries."""
    shown = json.loads(one.cli("inspect", str(directory / "pilot"), "--json").stdout)
    return list(shown["profile"]["service"]["trust"])


def run(directory: Path) -> int:
    """Run the pilot to its end; its exit status."""
    environment = {"PATH": os.environ["PATH"]}
    with open(directory / "out", "wb") as out:
        done = subprocess.run(
            ["sh", "./pilot"], cwd=directory, env=environment, stdout=out, stderr=subprocess.STDOUT, timeout=240
        )
    return done.returncode


def rotate(one: AllInOne) -> None:
    """A new authority while the service is down (running, it looks hourly); then it shows a certificate of that."""
    one.kill()
    before = (one.data / "tls" / "server.pem").read_text()
    tls.rotate(one.data / "tls", {"localhost", "127.0.0.1"})
    one.start()
    assert (one.data / "tls" / "server.pem").read_text() != before


def test_pilots_of_every_age_connect_after_rotations(one: AllInOne, tmp_path: Path) -> None:
    stamps = {}
    for age in ("oldest", "older", "newest"):
        stamps[age] = bundle(one, tmp_path / age)
        if age != "newest":
            rotate(one)
    assert [len(pinned(one, tmp_path / age)) for age in stamps] == [1, 2, 3]
    for age, stamp in stamps.items():
        [job] = one.submit({"command": ["echo", age], "wall_seconds": 60})
        assert run(tmp_path / age) == exitcodes.OK, (tmp_path / age / "out").read_text()
        found = one.job(job)
        assert (found["state"], found["stdout"], found["pilot"]) == ("Done", f"{age}\n", stamp)
    assert REGISTERED in one.client().get("/metrics").text


def test_a_service_of_another_authority_is_refused(one: AllInOne, tmp_path: Path) -> None:
    """Somebody else answers at the service's address: the pilot tells him nothing, and says why it leaves."""
    stamp = bundle(one, tmp_path / "mine")
    [job] = one.submit({"command": ["true"]})
    script = tmp_path / "mine" / "pilot"
    text, found = re.subn(r"(register_seconds = (?:\w+ = )*)120\b", r"\g<1>2", script.read_text())
    assert found == 1, "two minutes are too long for a test"
    script.write_text(text)
    one.kill()
    (tmp_path / "other").mkdir()
    other = AllInOne(tmp_path / "other", CONFIGURATION, "--tls")
    other.port = one.port
    try:
        other.start()
        assert run(tmp_path / "mine") == exitcodes.UNREACHABLE
        log = (tmp_path / "mine" / "pilot.log").read_text()
        assert "certificate" in log, log
        assert other.pilots() == []
        assert REGISTERED not in other.client().get("/metrics").text, "not one request reached it"
    finally:
        other.stop()
    one.start()
    assert one.job(job)["state"] == "Waiting"
    assert one.client().get(f"/pilots/{stamp}").json()["registered"] is None
