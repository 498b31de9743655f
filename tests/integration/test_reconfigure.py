"""The configuration of a service that runs is changed: by files, by revisions; nothing is restarted, nothing lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.allinone import AllInOne, eventually

VOS = {"demo": {"pilot": {"options": {"RunJobAgent": {"idle_seconds": 3}}}}}
QUEUES = {"default": {"cores": 1, "wall_seconds": 86400}}


def resource(**more: Any) -> dict[str, Any]:
    return {"type": "local", "flavour": "LOCAL", "slots": 1, "queues": QUEUES, **more}


class Place:
    """A directory of configuration that the service reads: one file for what is everywhere, one a site."""

    def __init__(self, home: Path) -> None:
        self.directory = home / "conf"
        self.write("all", {"vos": VOS, "directors": {"interval_seconds": 0.5}})

    def write(self, name: str, content: Any) -> None:
        file = self.directory / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))

    def site(self, name: str, resources: dict[str, Any]) -> None:
        self.write(f"sites/{name}", {"sites": {name: {"resources": resources}}})


def resources_of(one: AllInOne) -> dict[str, dict[str, Any]]:
    found = one.client().get("/resources").json()["resources"]
    return {each["resource"]: each for each in found}


def pilots_of(one: AllInOne, name: str) -> list[dict[str, Any]]:
    return [pilot for pilot in one.pilots() if pilot["resource"] == name]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.site("A", {"one": resource()})
    return place


@pytest.fixture
def one(tmp_path: Path, place: Place) -> Iterator[AllInOne]:
    started = AllInOne(tmp_path, None, "--config", str(place.directory))
    try:
        yield started.start()
    finally:
        started.stop()


class TestFiles:
    def test_resources_come_change_and_go(self, one: AllInOne, place: Place) -> None:
        place.site("B", {"two": resource(vos=["demo"])})
        eventually(lambda: "two" in resources_of(one), "the new resource is served")
        ids = one.submit(*[{"command": ["sleep", "60"]} for _ in range(4)])
        eventually(lambda: len(pilots_of(one, "two")) == 1, "a pilot is sent to the new resource")
        place.site("B", {"two": resource(slots=2)})
        eventually(lambda: len(pilots_of(one, "two")) == 2, "its second slot is used")
        (place.directory / "sites" / "B.yaml").unlink()
        eventually(lambda: resources_of(one)["two"]["leaving"], "the resource is left")
        assert "leaving" in one.cli("summary").stdout
        eventually(lambda: sum(one.job(n)["state"] == "Running" for n in ids) >= 3, "its pilots go on")
        one.client().post("/jobs/kill", json={"ids": ids, "reason": "enough"})
        eventually(lambda: set(resources_of(one)) == {"one"}, f"nothing is left there:\n{one.log()}")
        for pilot in pilots_of(one, "two"):
            shown = one.client().get(f"/pilots/{pilot['stamp']}").json()
            assert shown["state"] == "Done" and shown["outputs_at"], shown
        one.wait(one.submit({"command": ["true"]}))
        assert len(pilots_of(one, "two")) == 2

    def test_a_removed_resource_is_served_to_its_end_through_a_crash(self, one: AllInOne, place: Place) -> None:
        [identity] = one.submit({"command": ["sh", "-c", "sleep 15; echo made it"]})
        one.wait([identity], ("Running",))
        [pilot] = pilots_of(one, "one")
        place.site("A", {})
        eventually(lambda: resources_of(one)["one"]["leaving"], "the resource is left")
        one.kill()
        one.start()
        assert "no longer configured" in resources_of(one)["one"]["leaving"]
        [later] = one.submit({"command": ["true"], "tags": ["elsewhere"]})
        [job] = one.wait([identity])
        assert (job["state"], job["stdout"], job["pilot"]) == ("Done", "made it\n", pilot["stamp"])
        eventually(lambda: not resources_of(one), f"nothing is left there:\n{one.log()}")
        shown = one.client().get(f"/pilots/{pilot['stamp']}").json()
        assert shown["state"] == "Done" and shown["outputs_at"]
        assert len(one.pilots()) == 1
        assert one.job(later)["state"] == "Waiting"
        assert not list((one.data / "local" / "one").glob("?" * 32)), "its place is cleaned"

    def test_a_broken_change_is_told_once_and_the_running_one_stays(self, one: AllInOne, place: Place) -> None:
        place.write("flavours", "flavours:\n  LOCAL:\n    commands: [RunNothing]\n")
        eventually(lambda: "RunNothing" in one.log(), "it is told")
        line = next(line for line in one.log().splitlines() if "RunNothing" in line)
        assert f"{place.directory}/flavours.yaml:3" in line
        assert "the one before goes on" in line
        one.wait(one.submit({"command": ["true"]}))
        place.write("flavours", "flavours:\n  LOCAL:\n    log_mib: 7\n")
        eventually(lambda: "was read again" in one.log(), "what is mended counts")
        assert one.log().count("RunNothing") == 1
        [flavour] = [each for each in one.client().get("/flavours").json()["flavours"] if each["name"] == "LOCAL"]
        assert flavour["commands"]

    def test_new_pilots_are_what_is_configured_now(self, one: AllInOne, place: Place) -> None:
        one.wait(one.submit({"command": ["true"]}))
        [old] = one.pilots()
        place.write("all", {"vos": {**VOS, "more": {"share": 5}}, "service": {"lease_seconds": 33.0}})
        eventually(lambda: "was read again" in one.log(), "it counts")
        eventually(lambda: one.client().get(f"/pilots/{old['stamp']}").json()["state"] == "Done", "the old one is gone")
        one.wait(one.submit({"command": ["true"]}))
        new = one.pilots()[0]
        assert new["revision"] != old["revision"]
        shown = one.client().get(f"/pilots/{new['stamp']}").json()
        assert shown["expires"] - shown["seen"] < 60, "half as much again as the lease: it was 180"
        assert one.client().get("/configuration").json()["digest"] == new["revision"]
        made = one.client().post("/tokens", json={"owner": "ann", "vo": "more"})
        assert made.is_success, "the new VO is known to the service, too"

    def test_applying_is_refused_and_says_where_to_change_it(self, one: AllInOne, place: Place) -> None:
        refused = one.client().post("/configurations", json={"files": {"x.yaml": ""}, "base": 0, "reason": "try"})
        assert refused.status_code == 409
        assert str(place.directory) in refused.json()["error"]


class TestRevisions:
    @pytest.fixture
    def one(self, tmp_path: Path) -> Iterator[AllInOne]:
        started = AllInOne(tmp_path)
        try:
            yield started.start()
        finally:
            started.stop()

    def files(self, **more: Any) -> dict[str, str]:
        resources = {"local": resource(slots=12)}
        return {"all.yaml": yaml.safe_dump({"vos": VOS, "sites": {"LOCAL": {"resources": resources}}, **more})}

    def apply(self, one: AllInOne, base: int, files: dict[str, str], **more: Any) -> dict[str, Any]:
        answer = one.client().post("/configurations", json={"files": files, "base": base, "reason": "test", **more})
        assert answer.is_success, answer.text
        return dict(answer.json())

    def test_a_canary_is_tried_by_its_share_of_the_stamps(self, one: AllInOne) -> None:
        first = self.apply(one, 0, self.files())
        tried = self.apply(one, first["number"], self.files(pilot={"log_mib": 7}), canary={"share": 0.5})
        assert tried["digest"] != first["digest"]
        one.submit(*[{"command": ["sleep", "1"]} for _ in range(12)])
        eventually(lambda: len(one.pilots()) >= 12, "pilots are sent")
        shown = one.client().get("/configuration/canary").json()
        counted = sum(sum(shown[side]["states"].values()) for side in ("canary", "current"))
        assert counted >= 12
        from pilotage.configuration import load_files
        from pilotage.configuration.live import Live

        live = Live(load_files(self.files()))
        live.set_canary(load_files(self.files(pilot={"log_mib": 7})), 0.5)
        for pilot in one.pilots():
            assert pilot["revision"] == live.pick(pilot["stamp"], "local", "demo").revision
        assert one.client().post("/configuration/canary/promote", json={}).is_success
        assert one.client().get("/configuration").json()["digest"] == tried["digest"]

    def test_the_current_one_counts_after_a_restart(self, one: AllInOne) -> None:
        self.apply(one, 0, self.files())
        second = self.apply(one, 1, self.files(directors={"interval_seconds": 1.0}))
        one.kill()
        one.start()
        shown = one.client().get("/configuration").json()
        assert (shown["number"], shown["digest"]) == (second["number"], second["digest"])
        [job] = one.wait(one.submit({"command": ["echo", "hello"]}))
        assert job["stdout"] == "hello\n"
        one.kill()
        one.options = ("--revision", "1")
        one.start()
        assert one.client().get("/configuration").json()["number"] == 3

    def test_what_is_told_at_the_start_is_below_every_revision(self, one: AllInOne) -> None:
        self.apply(one, 0, self.files())
        one.kill()
        (one.home / "service.yaml").write_text(json.dumps({"service": {"sync_seconds": 1.5, "url": "http://no.where"}}))
        one.options = ("--service", str(one.home / "service.yaml"))
        one.start()
        assert one.client().get("/configuration").json()["number"] == 1
        made = one.client().post("/pilots/bundle", json={"resource": "local"}).json()
        assert "http://no.where" in made["script"]
        done = one.cli("up", "--data", str(one.home / "other"), "--config", "x", "--service", "y", check=False)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
