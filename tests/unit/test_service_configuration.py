"""Revisions over HTTP: applied, refused, rolled back, compared, explained, tried as canaries."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from configuration_parts import OWN, SITE, refused, setting

from pilotage.configuration import pilots as composing
from pilotage.configuration.loader import loads
from pilotage.service import revisions
from pilotage.storage import configurations, events


async def test_applied_and_in_force_at_once(tmp_path: Path) -> None:
    async with setting(tmp_path) as here:
        assert (await here.running())["number"] == 0
        made = await here.applied(here.root, {"site.yaml": SITE})
        digest = loads(SITE).revision
        assert (made["number"], made["state"], made["author"], made["parent"]) == (1, "current", "root", 0)
        assert (here.at.live.number, here.at.live.current.revision) == (1, digest) == (1, made["digest"])
        assert await here.running() == {
            "number": 1,
            "digest": digest,
            "source": None,
            "canary": None,
            "files": {"site.yaml": SITE},
        }
        shown = (await here.anna("GET", "/configurations/1")).json()
        (event,) = shown["events"]
        assert (event["what"], event["who"], event["why"]) == ("applied", "root", "because")
        assert event["request_id"]
        (listed,) = (await here.anna("GET", "/configurations")).json()["configurations"]
        assert listed == made
        assert (await here.anna("GET", "/configurations/2")).status_code == 404


async def test_an_edit_from_another_base_is_refused(tmp_path: Path) -> None:
    async with setting(tmp_path) as here:
        await here.applied(here.root, {"site.yaml": SITE})
        await here.applied(here.vera, {"vos/demo/pilot.yaml": OWN}, 1)
        text = await refused(await here.apply(here.root, {"site.yaml": SITE + "#\n"}, 1), 409, "conflict")
        assert "revision 2 (by vera@demo, " in text and '"because"' in text and "diff 1 2" in text
        text = await refused(await here.apply(here.root, {"site.yaml": SITE + "#\n"}), 409, "conflict")
        assert "--base 2" in text
        assert (await here.running())["number"] == 2


@pytest.mark.parametrize(
    "broken,says",
    [
        (SITE.replace("local,", "local, slot: 1,"), "site.yaml:5:26: unknown key 'slot'; did you mean 'slots'?"),
        (SITE.replace("type: local", "type: locl"), "site.yaml:5:13: resource 'box': unknown type of resource 'locl'"),
        (SITE + "flavours: {LOCAL: {commands: [RunJobAgnt]}}\n", "site.yaml:6:31: unknown command 'RunJobAgnt'"),
        (SITE + "a: [", "site.yaml:7:1: is not YAML"),
        (SITE + "vos: {}\n", "site.yaml:6:1: the key 'vos' is here twice"),
        (SITE + "service: {database: {url: 'sqlite:////x'}}\n", "site.yaml:6:11: service.database cannot be in a rev"),
        (SITE + "service: {objects: {url: /x}}\n", "say it at the start, with `pilotage up --service FILE`"),
    ],
)
async def test_what_is_wrong_is_refused_as_a_whole(tmp_path: Path, broken: str, says: str) -> None:
    async with setting(tmp_path) as here:
        await here.applied(here.root, {"site.yaml": SITE})
        before, live = await here.at.everything(), here.at.live.current
        text = await refused(await here.apply(here.root, {"site.yaml": broken}, 1), 422, "invalid")
        assert says in text
        assert await here.at.everything() == before
        assert here.at.live.current is live


async def test_all_that_is_wrong_is_listed(tmp_path: Path) -> None:
    async with setting(tmp_path) as here:
        files = {"site.yaml": SITE.replace("local,", "local, slot: 1,"), "vos/demo/x.yaml": "vos: {demo: {share: 2}}\n"}
        answer = await here.apply(here.root, files | {"more.yaml": "pilots: {}\nservic: {}\n"})
        found = answer.json()
        assert answer.status_code == 422 and len(found["problems"]) >= 2
        assert found["error"].endswith(f"(and {len(found['problems']) - 1} more)")
        assert found["error"].startswith(found["problems"][0])


@pytest.mark.parametrize(
    "name", ["../x.yaml", "/etc/x.yaml", "a/../x.yaml", ".x.yaml", "x.txt", "a\\x.yaml", "x\n.yaml", ""]
)
async def test_file_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    async with setting(tmp_path) as here:
        for who in (here.root, here.vera):
            answer = await here.apply(who, {name: SITE})
            assert answer.status_code == 422, answer.text
            assert "\n" not in answer.json()["error"]


async def test_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with setting(tmp_path) as here:
        many = {f"f{n}.yaml": "" for n in range(2001)}
        assert "2001 files" in await refused(await here.apply(here.root, many), 422, "invalid")
        large = {"a.yaml": "#" * (20 << 20), "b.yaml": SITE}
        assert "20 MiB" in await refused(await here.apply(here.root, large), 422, "invalid")
        huge = await here.apply(here.root, {"a.yaml": "#" * (33 << 20)})
        assert await refused(huge, 413, "too_large")
        for nothing in ({}, {"a.yaml": "# lost\n", "b/c.yaml": ""}):
            assert "say nothing" in await refused(await here.apply(here.root, nothing), 422, "invalid")
        assert (await here.apply(here.root, {"a.yaml": "a\0b"})).status_code == 422
        raw = await here.root("POST", "/configurations", content=b'{"files": {"a.yaml": "\\ud800"}, "base": 0}')
        assert raw.status_code in (400, 422)
        assert (await here.running())["number"] == 0


async def test_nothing_new(tmp_path: Path) -> None:
    async with setting(tmp_path) as here:
        await here.applied(here.root, {"site.yaml": SITE})
        await refused(await here.apply(here.root, {"site.yaml": SITE}, 1), 409, "unchanged")
        await refused(
            await here.root("POST", "/configuration/rollback", json={"number": 1, "reason": "x"}), 409, "unchanged"
        )


async def test_a_reason_must_be_given(tmp_path: Path) -> None:
    async with setting(tmp_path) as here:
        answer = await here.root("POST", "/configurations", json={"files": {"site.yaml": SITE}, "base": 0})
        assert "reason" in await refused(answer, 422, "invalid")
        answer = await here.apply(here.root, {"site.yaml": SITE}, reason="")
        assert "reason" in await refused(answer, 422, "invalid")


class TestVoAdministrator:
    async def test_changes_own_parts_and_nothing_else_moves(self, tmp_path: Path) -> None:
        async with setting(tmp_path) as here:
            other = "vos: {other: {pilot: {log_mib: 3}}}\n"
            await here.applied(here.root, {"site.yaml": SITE, "vos/other/a.yaml": other, "vos/demo/old.yaml": ""})
            made = await here.applied(here.vera, {"vos/demo/pilot.yaml": OWN}, 1)
            assert (made["vo"], made["author"]) == ("demo", "vera@demo")
            files = (await here.running())["files"]
            assert files == {"site.yaml": SITE, "vos/other/a.yaml": other, "vos/demo/pilot.yaml": OWN}
            composed = composing.compose_pilot(here.at.live.current, "demo", "box")
            options = {command["name"]: command["options"] for command in composed.profile["commands"]}
            assert options["RunJobAgent"]["idle_seconds"] == 5

    async def test_may_hand_in_all_that_was_exported(self, tmp_path: Path) -> None:
        async with setting(tmp_path) as here:
            await here.applied(here.root, {"site.yaml": SITE, "vos/other/a.yaml": ""})
            files = (await here.running())["files"]
            await here.applied(here.vera, {**files, "vos/demo/pilot.yaml": OWN}, 1)
            assert (await here.running())["files"] == {**files, "vos/demo/pilot.yaml": OWN}

    @pytest.mark.parametrize(
        "files,says",
        [
            ({"site.yaml": SITE + "#\n"}, "site.yaml is not as it is now, and is not yours"),
            ({"more.yaml": "", "vos/demo/x.yaml": OWN}, "more.yaml is not there, and is not yours"),
            ({"vos/other/x.yaml": ""}, "vos/other/x.yaml is not there, and is not yours"),
            ({"vos/demo.yaml": ""}, "vos/demo.yaml is not there, and is not yours"),
            ({"site.yaml": SITE}, "there is no file below vos/demo/"),
            (
                {"vos/demo/x.yaml": "vos: {other: {pilot: {log_mib: 3}}}"},
                "vos/demo/x.yaml:1:7: a file of the VO 'demo'",
            ),
            ({"vos/demo/x.yaml": "vos: {demo: {share: 9}}"}, "vos/demo/x.yaml:1:14: 'share' of a VO is the operator's"),
            ({"vos/demo/x.yaml": "service: {}"}, "vos/demo/x.yaml:1:1: 'service' is the operator's"),
            ({"vos/demo/x.yaml": "toolboxes: []"}, "vos/demo/x.yaml:1:1: 'toolboxes' is the operator's"),
            (
                {"vos/demo/x.yaml": "sites: {HOME: {pilot: {log_mib: 1}}}"},
                "vos/demo/x.yaml:1:24: what all VOs get here",
            ),
        ],
    )
    async def test_nothing_outside_of_own_parts(self, tmp_path: Path, files: dict[str, str], says: str) -> None:
        async with setting(tmp_path) as here:
            await here.applied(here.root, {"site.yaml": SITE})
            before = await here.at.everything()
            for path in ("/configurations", "/configuration/validate"):
                body = {"files": files, "base": 1, "reason": "x"} if path == "/configurations" else {"files": files}
                answer = await here.vera("POST", path, json=body)
                assert says in answer.text.replace('\\"', '"'), answer.text
            assert await here.at.everything() == before

    async def test_rolls_back_own_parts_only(self, tmp_path: Path) -> None:
        async with setting(tmp_path) as here:
            await here.applied(here.root, {"site.yaml": SITE})
            await here.applied(here.vera, {"vos/demo/pilot.yaml": OWN}, 1)
            newer = SITE + "# more\n"
            await here.applied(here.root, {"site.yaml": newer, "vos/demo/pilot.yaml": OWN + "# more\n"}, 2)
            answer = await here.vera("POST", "/configuration/rollback", json={"number": 2, "reason": "back"})
            assert answer.status_code == 201, answer.text
            assert (await here.running())["files"] == {"site.yaml": newer, "vos/demo/pilot.yaml": OWN}
            answer = await here.vera("POST", "/configuration/rollback", json={"number": 1, "reason": "all gone"})
            assert (await here.running())["files"] == {"site.yaml": newer}
            assert answer.json()["vo"] == "demo"

    async def test_a_plain_user_changes_nothing(self, tmp_path: Path) -> None:
        async with setting(tmp_path) as here:
            await here.applied(here.root, {"site.yaml": SITE})
            before = await here.at.everything()
            for path in ("s", "/rollback", "/canary/promote", "/canary/withdraw"):
                assert (await here.anna("POST", f"/configuration{path}", json={})).status_code == 403
            assert await here.at.everything() == before


async def test_rolled_back(tmp_path: Path) -> None:
    async with setting(tmp_path) as here:
        await here.applied(here.root, {"site.yaml": SITE})
        await here.applied(here.root, {"site.yaml": SITE + "pilot: {log_mib: 7}\n"}, 1)
        back = {"number": 1, "reason": "it was better"}
        late = await here.root("POST", "/configuration/rollback", json={**back, "base": 1})
        await refused(late, 409, "conflict")
        made = (await here.root("POST", "/configuration/rollback", json=back)).json()
        assert (made["number"], made["parent"], made["reason"]) == (3, 2, "it was better")
        assert (await here.running())["files"] == {"site.yaml": SITE}
        assert here.at.live.number == 3
        (event,) = await here.at.storage.read(events.of, "configuration", "3")
        assert event["what"] == "rolled back to 1"
        defaults = await here.root("POST", "/configuration/rollback", json={"number": 0, "reason": "clean"})
        assert defaults.status_code == 201
        assert (await here.running())["files"] == {}
        missing = await here.root("POST", "/configuration/rollback", json={"number": 99, "reason": "x"})
        await refused(missing, 404, "not_found")


async def test_what_does_not_compose_any_more_is_not_rolled_back_to(tmp_path: Path) -> None:
    async with setting(tmp_path) as here:
        storage = here.at.storage
        gone = SITE + "flavours: {LOCAL: {commands: [RunSomethingOld]}}\n"  # was right with an older toolbox
        now = storage.now()
        await storage.write(configurations.apply, {"site.yaml": gone}, "d", 0, now, who="root", why="x")
        await here.applied(here.root, {"site.yaml": SITE}, 1)
        answer = await here.root("POST", "/configuration/rollback", json={"number": 1, "reason": "x"})
        assert "site.yaml:6:31: unknown command 'RunSomethingOld'" in await refused(answer, 422, "invalid")
        assert (await here.running())["number"] == 2


async def test_where_files_are_the_source_nothing_is_applied(tmp_path: Path) -> None:
    async with setting(tmp_path) as here:
        here.at.live.source = "/etc/pilotage"
        text = await refused(await here.apply(here.root, {"site.yaml": SITE}), 409, "configured_by_file")
        assert text == (
            "This service takes its configuration from /etc/pilotage (pilotage up --config): change it there."
        )
        answer = await here.root("POST", "/configuration/rollback", json={"number": 0, "reason": "x"})
        await refused(answer, 409, "configured_by_file")
        await refused(await here.root("POST", "/configuration/canary/promote", json={}), 409, "configured_by_file")
        assert (await here.running())["source"] == "/etc/pilotage"


async def test_validate_changes_nothing(tmp_path: Path) -> None:
    async with setting(tmp_path) as here:
        before = await here.at.everything()
        good = (await here.root("POST", "/configuration/validate", json={"files": {"a.yaml": SITE}})).json()
        assert good == {"valid": True, "digest": loads(SITE).revision, "problems": []}
        bad = (await here.root("POST", "/configuration/validate", json={"files": {"a.yaml": "vos: 3\n"}})).json()
        assert (bad["valid"], bad["digest"]) == (False, None)
        assert bad["problems"][0].startswith("a.yaml:1:1: vos must be a map")
        assert await here.at.everything() == before


async def test_differences(tmp_path: Path) -> None:
    async with setting(tmp_path) as here:
        await here.applied(here.root, {"site.yaml": SITE, "old.yaml": "# old\n"})
        await here.applied(here.root, {"site.yaml": SITE, "vos/demo/pilot.yaml": OWN}, 1)
        plain = (await here.anna("GET", "/configurations/1/diff/2")).json()
        assert [(file["name"], file["change"]) for file in plain["files"]] == [
            ("old.yaml", "removed"),
            ("vos/demo/pilot.yaml", "added"),
        ]
        assert "+    pilot: {options: {RunJobAgent: {idle_seconds: 5}}}" in plain["files"][1]["diff"]
        assert "pilots" not in plain
        found = (await here.anna("GET", "/configurations/1/diff/2", params={"pilots": True})).json()["pilots"]
        (one,) = found
        assert (one["resource"], one["queue"], one["vo"], one["kind"]) == ("box", "default", "demo", "changed")
        assert one["changes"] == [{"path": "options.RunJobAgent.idle_seconds", "old": None, "new": 5}]
        assert (await here.anna("GET", "/configurations/0/diff/1")).json()["files"][0]["change"] == "added"
        assert (await here.anna("GET", "/configurations/1/diff/9")).status_code == 404


async def test_a_revision_that_an_older_pilotage_understood(tmp_path: Path) -> None:
    async with setting(tmp_path) as here:
        storage = here.at.storage
        files = {"site.yaml": SITE + "gone: {}\n"}
        await storage.write(configurations.apply, files, "d", 0, storage.now(), who="root", why="x")
        await here.applied(here.root, {"site.yaml": SITE}, 1)
        answer = await here.anna("GET", "/configurations/1/diff/2", params={"pilots": True})
        text = await refused(answer, 422, "invalid")
        assert text.startswith("Revision 1 cannot be used any more: site.yaml:6:1: unknown key 'gone'")
        assert (await here.anna("GET", "/configurations/1/diff/2")).json()["files"][0]["change"] == "changed"


async def test_explained(tmp_path: Path) -> None:
    async with setting(tmp_path) as here:
        await here.applied(here.root, {"site.yaml": SITE})
        await here.applied(here.vera, {"vos/demo/pilot.yaml": OWN}, 1)
        found = (await here.anna("GET", "/configuration/explain", params={"resource": "box"})).json()["explained"]
        rows = {row["path"]: row for row in found}
        assert rows["options.RunJobAgent.idle_seconds"] == {
            "path": "options.RunJobAgent.idle_seconds",
            "value": 5,
            "layer": "VO demo",
            "where": "vos/demo/pilot.yaml:3:37",
        }
        assert rows["commands[0]"]["layer"] == "built-in flavour LOCAL"
        old = await here.anna("GET", "/configuration/explain", params={"resource": "box", "number": 1})
        rows = {row["path"]: row for row in old.json()["explained"]}
        assert rows["options.RunJobAgent.idle_seconds"]["layer"] == "default of the command"
        wrong = await here.anna("GET", "/configuration/explain", params={"resource": "bax"})
        assert "unknown resource 'bax'; did you mean 'box'?" in await refused(wrong, 422, "invalid")
        nobody = await here.root("GET", "/configuration/explain", params={"resource": "box"})
        assert "vo" in await refused(nobody, 422, "invalid")


async def test_checking_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one configuration is checked, other requests are answered, and the next change waits its turn."""
    async with setting(tmp_path) as here:
        going, begun = threading.Event(), threading.Event()
        check = revisions.checked

        def slow(*arguments: Any) -> Any:
            begun.set()
            assert going.wait(60)
            return check(*arguments)

        monkeypatch.setattr(revisions, "checked", slow)
        first = asyncio.create_task(here.apply(here.root, {"site.yaml": SITE}))
        await asyncio.to_thread(begun.wait, 60)
        second = asyncio.create_task(here.apply(here.root, {"site.yaml": SITE + "#\n"}))
        assert (await here.anna("GET", "/jobs")).status_code == 200
        assert not first.done()
        going.set()
        assert (await first).status_code == 201
        await refused(await second, 409, "conflict")
