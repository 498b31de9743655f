"""Pilots on virgin machines: roots with a bare Python, with less, with none; and hostile surroundings.

Where Python is complete the pilot does a real job for the all-in-one; where it is not, it says what is missing and
leaves with its exit code from the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.allinone import AllInOne
from tests.interpreters import interpreters
from tests.real.virgin import Machine, busybox, debian

from pilotage_node import exitcodes

HAND_RUN = {
    "service": {"sync_seconds": 1, "published": ["LOCAL"]},
    "vos": {
        "demo": {
            "pilot": {"options": {"RunJobAgent": {"idle_seconds": 0.3}, "RunEnvironmentTest": {"min_disk_mib": 16}}}
        }
    },
    "sites": {
        "LOCAL": {"resources": {"local": {"type": "local", "flavour": "LOCAL", "slots": 0, "queues": {"default": {}}}}}
    },
}
JOB = "printf 'gr\\303\\274\\303\\237e from %s\\n' $PILOTAGE_JOB"
POLLUTION = {
    "json.py": "raise SystemExit('a json of the place was imported')\n",
    "ssl.py": "raise SystemExit('an ssl of the place was imported')\n",
    "pilotage_node/__init__.py": "raise SystemExit('a pilotage_node of the place was imported')\n",
    "sitecustomize.py": "raise SystemExit('a sitecustomize of the place was imported')\n",
    "usercustomize.py": "raise SystemExit('a usercustomize of the place was imported')\n",
}


class House:
    """The all-in-one, and what of it is carried to a machine: a pilot script, or a seed that fetches one."""

    def __init__(self, one: AllInOne, form: str, seed: str) -> None:
        self.one, self.form, self.seed = one, form, seed

    def lay(self, place: Path) -> None:
        """A pilot with its credentials, as `pilotage generate --bundle` leaves it; or the seed in its place."""
        made = self.one.client().post("/pilots/bundle", json={"flavour": "LOCAL", "vo": "demo"}).json()
        text = self.seed if self.form == "seed" else made["script"]
        place.mkdir(parents=True)
        (place / "pilot").write_text(text, encoding="utf-8", newline="")
        (place / "pilot").chmod(0o755)
        (place / "credentials.json").write_text(json.dumps(made["credentials"]))

    def does_a_job(self, machine: Machine, place: Path, start: str = "exec sh ./pilot") -> dict[str, Any]:
        """Run it there to its end, with a job that waits for it: the pilot as the service knows it."""
        self.lay(place)
        [identity] = self.one.submit({"command": ["/bin/sh", "-c", JOB]})
        done = machine.run(place, start)
        assert done.code == exitcodes.OK, done.output
        [job] = self.one.wait([identity])
        assert (job["state"], job["stdout"]) == ("Done", f"grüße from {identity}\n"), done.output
        [pilot] = [pilot for pilot in self.one.pilots() if pilot["stamp"] == job["pilot"]]
        assert pilot["state"] == "Done"
        assert list(place.rglob("pilot.log")), "the log is beside the script"
        assert not list(place.glob("pilot-*")), "the working directory is gone"
        return pilot


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AllInOne]:
    one = AllInOne(tmp_path_factory.mktemp("virgin"), HAND_RUN, "--tls").start()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def seed(service: AllInOne) -> str:
    return service.cli("client-pilot", "--vo", "demo", "--flavour", "LOCAL").stdout


@pytest.fixture(params=["pilot", "seed"])
def house(request: pytest.FixtureRequest, service: AllInOne, seed: str) -> House:
    return House(service, request.param, seed)


@pytest.fixture(scope="module")
def python3() -> Machine:
    return Machine(debian("python3"))


# -- a complete Python, and nothing else


def test_a_minimal_debian(house: House, python3: Machine, tmp_path: Path) -> None:
    pilot = house.does_a_job(python3, tmp_path / "pilot")
    assert pilot["node"]["user"] == "nobody"


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"LANG": "C", "LC_ALL": "C", "HOME": "/nonexistent"}, id="LANG=C, HOME that is not there"),
        pytest.param({"HOME": "/root"}, id="HOME of somebody else"),
        pytest.param({"TMPDIR": "/nonexistent", "TZ": "Nowhere/Land", "TERM": ""}, id="TMPDIR, TZ, TERM"),
        pytest.param({"PATH": "/nonexistent:/usr/bin:"}, id="PATH with the current directory"),
    ],
)
def test_an_environment(house: House, python3: Machine, tmp_path: Path, environment: dict[str, str]) -> None:
    house.does_a_job(replace(python3, environment=environment), tmp_path / "pilot")


def test_no_environment_at_all(house: House, python3: Machine, tmp_path: Path) -> None:
    house.does_a_job(python3, tmp_path / "pilot", "exec env -i /bin/sh ./pilot")


def test_a_home_that_is_read_only(house: House, python3: Machine, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o777)
    machine = replace(python3, bound=[home])
    machine = replace(machine, environment={"HOME": machine.inside(home)})
    house.does_a_job(machine, tmp_path / "pilot", 'touch "$HOME/x" 2>/dev/null && exit 99; exec sh ./pilot')


@pytest.mark.parametrize("options", ["noexec", "ro"])
def test_a_tmp_that_is(house: House, python3: Machine, tmp_path: Path, options: str) -> None:
    house.does_a_job(replace(python3, tmp_options=options), tmp_path / "pilot")


def test_started_from_a_tmp_that_is_noexec(house: House, python3: Machine, tmp_path: Path) -> None:
    """Pilot, log and working directory are all in there."""
    machine = replace(python3, tmp_options="noexec,nosuid,nodev")
    start = "cp -r . /tmp/here && cd /tmp/here && { ./pilot 2>/dev/null && exit 99; sh ./pilot; }"
    start += " && cp $(find . -name pilot.log) %s"
    place = tmp_path / "pilot"
    house.does_a_job(machine, place, start % machine.inside(place))


def test_a_polluted_python_path(house: House, python3: Machine, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    for name, text in POLLUTION.items():
        file = bad / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    machine = replace(python3, bound=[bad])
    inside = machine.inside(bad)
    machine = replace(
        machine,
        environment={
            "PYTHONPATH": inside,
            "PYTHONHOME": "/nonexistent",
            "PYTHONSTARTUP": f"{inside}/sitecustomize.py",
            "PYTHONWARNINGS": "error",
            "PYTHONIOENCODING": "ascii",
            "PYTHONOPTIMIZE": "2",
        },
    )
    house.does_a_job(machine, tmp_path / "pilot", f"cp -r {inside}/. . && exec sh ./pilot")


def test_umask_077(house: House, python3: Machine, tmp_path: Path) -> None:
    house.does_a_job(python3, tmp_path / "pilot", "umask 077; exec sh ./pilot")


@pytest.mark.parametrize("name", ["a pilot's plâce", '日本 $HOME `id` "x" *', "-n"])
def test_a_path_of(house: House, python3: Machine, tmp_path: Path, name: str) -> None:
    house.does_a_job(replace(python3, environment={"LANG": "C"}), tmp_path / "above" / name)


@pytest.mark.parametrize("start", ["exec ./pilot", "exec python3 -O -B pilot", "exec sh ./pilot <&- >&- 2>&-"])
def test_started_by(house: House, python3: Machine, tmp_path: Path, start: str) -> None:
    house.does_a_job(python3, tmp_path / "pilot", start)


def test_a_place_that_cannot_be_written(house: House, python3: Machine, tmp_path: Path) -> None:
    place = tmp_path / "pilot"
    house.lay(place)
    done = python3.run(place, "chmod 500 . && exec sh ./pilot")
    assert done.code == exitcodes.DISK, done.output
    assert "the working directory cannot be made: [Errno 13] Permission denied" in done.output.splitlines()[-1]


@pytest.mark.parametrize("version", ["3.6", "3.13"])
def test_all_of_it_at_once_under(house: House, python3: Machine, tmp_path: Path, version: str) -> None:
    python = interpreters().get(version)
    assert python, f"Python {version} is claimed and must be here: `pyenv install {version}`"
    prefix = Path(python).resolve().parents[1]
    machine = replace(python3, bound=[prefix], tmp_options="noexec")
    inside = machine.inside(prefix)
    environment = {
        "PATH": f"{inside}/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": f"{inside}/lib",  # of interpreters that were built for another place
        "LANG": "C",
        "PYTHONPATH": "/mnt",
        "PYTHONHOME": "/mnt",
    }
    machine = replace(machine, environment=environment)
    pilot = house.does_a_job(machine, tmp_path / "a pilot's plâce", "umask 077; exec sh ./pilot")
    assert pilot["node"]["python"].startswith(version + ".")


# -- less than that


def test_python_that_is_not_complete_is_named_with_what_it_lacks(house: House, tmp_path: Path) -> None:
    place = tmp_path / "pilot"
    house.lay(place)
    done = Machine(debian("python3-minimal")).run(place, "sh ./pilot")
    assert done.code == exitcodes.NO_PYTHON, done.output
    assert "python3 lacks the modules json, _ctypes, resource" in done.output
    assert "no Python 3.6 or newer on this machine (found unfit: python3:python3." in done.output
    assert "Traceback" not in done.output
    assert (place / "credentials.json").exists(), "it can be started again where there is a Python"


def test_no_python_at_all(house: House, tmp_path: Path) -> None:
    place = tmp_path / "pilot"
    house.lay(place)
    done = Machine(busybox(tmp_path)).run(place, "sh ./pilot")
    assert done.code == exitcodes.NO_PYTHON, done.output
    assert done.output == ("pilot: no Python 3.6 or newer on this machine (found unfit: none; PATH=/usr/bin:/bin)\n")
    assert (place / "credentials.json").exists()


def test_a_python3_that_is_something_else(house: House, tmp_path: Path) -> None:
    """It cannot even be started: that is said, and the exit status is the shell's."""
    place = tmp_path / "pilot"
    house.lay(place)
    (place / "python3").write_text("#!/bin/nowhere\n")
    (place / "python3").chmod(0o755)
    done = Machine(busybox(tmp_path), environment={"PATH": "/bin:."}).run(place, "sh ./pilot")
    assert done.code == 127, done.output
    assert "python3" in done.output
