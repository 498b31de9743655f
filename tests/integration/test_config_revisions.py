"""Revisions of the configuration against the real `pilotage up`: applied, refused, rolled back, kept, tried."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.allinone import AllInOne, eventually

SITE: dict[str, Any] = {
    "vos": {"demo": {}, "physics": {}, "biology": {}},
    # Failed and empty pilots are part of the play: who sends them does not rest long.
    "directors": {"interval_seconds": 0.5, "failed_seconds": 0.1, "empty_seconds": 0.1, "rest_seconds": 0.5},
    "pilot": {"options": {"RunJobAgent": {"idle_seconds": 1}, "RunEnvironmentTest": {"min_disk_mib": 1}}},
    "sites": {
        "HOME": {
            "resources": {
                "desk": {
                    "type": "local",
                    "flavour": "LOCAL",
                    "slots": 4,
                    "queues": {"default": {"cores": 1, "wall_seconds": 86400, "wait_seconds": 600}},
                }
            }
        }
    },
}
OWN = {"vos": {"physics": {"pilot": {"options": {"RunJobAgent": {"idle_seconds": 2}}}}}}
MANY = 240.0
"""Seconds for what needs dozens of pilots."""

Applying = Callable[..., Any]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[AllInOne]:
    one = AllInOne(tmp_path).start()
    yield one
    one.stop()


def written(home: Path, files: dict[str, Any]) -> Path:
    """A directory with these files, and no others."""
    directory = home / "site"
    if directory.exists():
        for file in directory.rglob("*.yaml"):
            file.unlink()
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return directory


def config(house: AllInOne, *words: str, token: str = "", status: int = 0) -> str:
    """`pilotage config ...`: its output; of one that fails what it says."""
    access = json.loads((house.data / "client.json").read_text())
    environment = {**house.environment, "PILOTAGE_URL": access["url"], "PILOTAGE_TOKEN": token or access["token"]}
    command = [sys.executable, "-m", "pilotage.cli.main", "config", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == status, f"{words}: {done.stdout}\n{done.stderr}\n{house.log()}"
    return done.stderr if status else done.stdout


def running(house: AllInOne) -> dict[str, Any]:
    return dict(house.client().get("/configuration").json())


def explained(house: AllInOne, path: str, *words: str) -> tuple[Any, str]:
    """(value, who set it) of one value of a pilot."""
    rows = json.loads(config(house, "explain", "--resource", "desk", "--json", *words))
    return next((row["value"], row["layer"]) for row in rows if row["path"] == path)


def test_changed_refused_and_rolled_back(house: AllInOne, tmp_path: Path) -> None:
    site = written(tmp_path, {"site.yaml": SITE})
    assert running(house)["number"] == 0
    assert config(house, "apply", str(site), "-m", "our site") == "revision 1 is current\n"
    assert explained(house, "options.RunJobAgent.idle_seconds", "--vo", "physics") == (1, "all pilots")

    # Two people began with revision 1; who comes second is told who was first.
    mine = written(tmp_path, {"site.yaml": {**SITE, "pilot": {"log_mib": 3}}})
    assert config(house, "apply", str(mine), "-m", "short logs", "--base", "1") == "revision 2 is current\n"
    for base in ("1", "0"):
        said = config(house, "apply", str(site), "-m", "too late", "--base", base, status=1)
        assert "revision 2 (by " in said and '"short logs") is current' in said and "--base 2" in said
        assert len(said.splitlines()) == 1

    # A broken one changes nothing, and says where.
    broken = written(tmp_path, {"site.yaml": SITE, "more.yaml": "flavours:\n  LOCAL: {comands: []}\n"})
    said = config(house, "apply", str(broken), "-m", "oh", "--base", "2", status=1)
    assert "more.yaml:2:11: unknown key 'comands'; did you mean 'commands'?" in said
    uncomposed = written(tmp_path, {"site.yaml": SITE, "more.yaml": "flavours:\n  LOCAL: {commands: [RunJbAgent]}\n"})
    said = config(house, "apply", str(uncomposed), "-m", "oh", "--base", "2", status=1)
    assert "more.yaml:2:22: unknown command 'RunJbAgent'" in said
    assert running(house)["number"] == 2

    assert "desk      default  physics  log_mib" in config(house, "diff", "--pilots", "1", "2")
    assert config(house, "rollback", "1", "-m", "logs were too short") == "revision 3 is current\n"
    assert explained(house, "log_mib", "--vo", "physics") == (10, "built-in defaults")
    listed = json.loads(config(house, "log", "--json"))
    assert [(row["number"], row["state"], row["parent"]) for row in listed] == [
        (3, "current", 2),
        (2, "past", 1),
        (1, "past", 0),
    ]
    exported = tmp_path / "exported"
    config(house, "export", "2", str(exported))
    assert yaml.safe_load((exported / "site.yaml").read_text())["pilot"] == {"log_mib": 3}


def test_a_vo_administrator_changes_own_parts_only(house: AllInOne, tmp_path: Path) -> None:
    config(house, "apply", str(written(tmp_path, {"site.yaml": SITE})), "-m", "our site")
    made = house.cli("token", "create", "--owner", "vera", "--vo", "physics", "--role", "vo_admin")
    vera = made.stdout.strip()
    own = written(tmp_path, {"vos/physics/pilot.yaml": OWN})
    assert config(house, "apply", str(own), "-m", "ours", "--base", "1", token=vera) == "revision 2 is current\n"
    assert explained(house, "options.RunJobAgent.idle_seconds", "--vo", "physics") == (2, "VO physics")
    assert explained(house, "options.RunJobAgent.idle_seconds", "--vo", "biology") == (1, "all pilots")
    assert sorted(running(house)["files"]) == ["site.yaml", "vos/physics/pilot.yaml"]

    for files, says in (
        ({"site.yaml": {**SITE, "pilot": {}}, "vos/physics/pilot.yaml": OWN}, "site.yaml is not as it is now"),
        ({"vos/biology/pilot.yaml": {}}, "vos/biology/pilot.yaml is not there, and is not yours"),
        (
            {"vos/physics/pilot.yaml": "vos:\n  physics:\n    share: 100\n"},
            "vos/physics/pilot.yaml:3:5: 'share' of a VO is the operator's",
        ),
        (
            {"vos/physics/pilot.yaml": "vos:\n  biology: {}\n"},
            "vos/physics/pilot.yaml:2:3: a file of the VO 'physics' sets nothing of the VO 'biology'",
        ),
    ):
        said = config(house, "apply", str(written(tmp_path, files)), "-m", "more", "--base", "2", token=vera, status=1)
        assert says in said and len(said.splitlines()) == 1
    assert running(house)["number"] == 2

    house.cli("token", "create", "--owner", "anna", "--vo", "physics")
    plain = house.cli("token", "create", "--owner", "anna", "--vo", "physics").stdout.strip()
    assert "VO administrators" in config(house, "apply", str(own), "-m", "x", "--base", "2", token=plain, status=1)


def test_a_revision_outlives_its_service(house: AllInOne, tmp_path: Path) -> None:
    config(house, "apply", str(written(tmp_path, {"site.yaml": SITE})), "-m", "our site")
    before = running(house)
    house.kill()
    house.start()
    assert running(house) == before
    (job,) = house.submit({"command": ["true"]})
    assert house.wait([job])[0]["state"] == "Done"
    assert {pilot["revision"] for pilot in house.pilots()} == {before["digest"]}
    changed = {**SITE, "pilot": {"options": {"RunJobAgent": {"idle_seconds": 1}}, "log_mib": 3}}
    config(
        house, "apply", str(written(tmp_path, {"site.yaml": changed})), "-m", "more", "--base", "1", "--canary", "50%"
    )
    house.kill()
    house.start()
    assert (running(house)["number"], running(house)["canary"]["number"]) == (1, 2), "a canary goes on as well"
    config(house, "withdraw", "-m", "enough")
    again = written(tmp_path, {"site.yaml": {**SITE, "pilot": {"log_mib": 4}}})
    assert config(house, "apply", str(again), "-m", "x", "--base", "1") == "revision 3 is current\n"


def test_where_a_directory_is_the_source_nothing_is_applied(tmp_path: Path) -> None:
    one = AllInOne(tmp_path, SITE).start()
    try:
        said = config(one, "apply", str(written(tmp_path, {"site.yaml": {}})), "-m", "x", status=1)
        assert str(tmp_path / "pilotage.yaml") in said and "pilotage up --config" in said
        assert str(tmp_path / "pilotage.yaml") in config(one, "show")
    finally:
        one.stop()


class TestCanary:
    def sent(self, house: AllInOne, seen: Callable[[], Any], what: str) -> Any:
        """Has pilots sent, wave by wave, until `seen`."""

        def look() -> Any:
            if not any(pilot["ended"] is None for pilot in house.pilots()):
                house.submit(*[{"command": ["true"]}] * 4)
            return seen()

        return eventually(look, f"{what}; the service's log:\n{house.log()[-4000:]}", MANY)

    def begun(self, house: AllInOne, home: Path, options: dict[str, Any]) -> tuple[str, str]:
        """A canary of half of the pilots; the digests of what is current and of the canary."""
        config(house, "apply", str(written(home, {"site.yaml": SITE})), "-m", "our site")
        changed = {**SITE, "pilot": {"options": {**SITE["pilot"]["options"], **options}}}
        site = str(written(home, {"site.yaml": changed}))
        config(house, "apply", site, "-m", "is it better?", "--base", "1", "--canary", "50%", "--resource", "desk")
        found = running(house)
        return found["digest"], found["canary"]["digest"]

    def test_one_whose_pilots_fail_is_withdrawn_by_itself(self, house: AllInOne, tmp_path: Path) -> None:
        hungry = {"RunEnvironmentTest": {"min_disk_mib": 10**12}}
        current, canary = self.begun(house, tmp_path, hungry)
        self.sent(house, lambda: running(house)["canary"] is None, "the canary is withdrawn")
        found = json.loads(config(house, "show", "2", "--json"))
        assert found["state"] == "withdrawn"
        applied, withdrawn = found["events"]
        assert (applied["what"], withdrawn["what"], withdrawn["who"]) == ("applied as canary", "withdrawn", "service")
        assert "pilots failed, against" in withdrawn["why"]
        assert withdrawn["data"]["canary"]["Failed"] >= 5
        assert {pilot["state"] for pilot in house.pilots() if pilot["revision"] == current} <= {"Done", "Running"}
        assert f"Revision 2 was withdrawn: {withdrawn['why']}" in house.log()

        # Afterwards nobody gets it any more.
        eventually(lambda: all(pilot["ended"] for pilot in house.pilots()), "all pilots have left")
        before = {pilot["stamp"] for pilot in house.pilots()}
        assert all(job["state"] == "Done" for job in house.wait(house.submit(*[{"command": ["true"]}] * 8)))
        after = [pilot for pilot in house.pilots() if pilot["stamp"] not in before]
        assert after and {pilot["revision"] for pilot in after} == {current} != {canary}
        assert running(house)["number"] == 1

    def test_a_good_one_is_promoted_by_command(self, house: AllInOne, tmp_path: Path) -> None:
        current, canary = self.begun(house, tmp_path, {"RunEnvironmentTest": {"min_disk_mib": 2}})

        def both() -> bool:
            done = {pilot["revision"] for pilot in house.pilots() if pilot["state"] == "Done"}
            return done == {current, canary}

        self.sent(house, both, "pilots of both have done their work")
        shown = json.loads(config(house, "canary", "--json"))
        assert shown["canary"]["good"] >= 1 and shown["current"]["good"] >= 1
        assert shown["canary"]["failed"] == 0
        assert "50% of new pilots" in config(house, "canary")
        assert config(house, "promote", "-m", "it is") == "revision 2 is current\n"
        assert (running(house)["number"], running(house)["digest"]) == (2, canary)
        eventually(lambda: all(pilot["ended"] for pilot in house.pilots()), "all pilots have left")
        before = {pilot["stamp"] for pilot in house.pilots()}
        house.wait(house.submit(*[{"command": ["true"]}] * 4))
        assert {pilot["revision"] for pilot in house.pilots() if pilot["stamp"] not in before} == {canary}
