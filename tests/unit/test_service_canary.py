"""Canaries over HTTP: begun, compared, promoted, withdrawn, and whose they are to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configuration_parts import OWN, SITE, Setting, refused, setting
from sqlalchemy import Connection, update

from pilotage.configuration.loader import loads
from pilotage.storage import pilots, tables


class TestCanary:
    CHANGED = SITE + "pilot: {log_mib: 7}\n"

    async def begun(self, here: Setting, **scope: Any) -> dict[str, Any]:
        await here.applied(here.root, {"site.yaml": SITE})
        canary = {"share": 0.5, **scope}
        return await here.applied(here.root, {"site.yaml": self.CHANGED}, 1, canary=canary)

    async def test_tried_then_promoted(self, tmp_path: Path) -> None:
        async with setting(tmp_path) as here:
            made = await self.begun(here, resource="box")
            assert made["canary"] == {"share": 0.5, "resource": "box", "vo": None}
            live = here.at.live
            assert (live.number, live.canary.number, live.canary.share) == (1, 2, 0.5)
            assert live.canary.configuration.revision == made["digest"]
            running = await here.running()
            assert (running["number"], running["canary"]["number"], running["files"]) == (1, 2, {"site.yaml": SITE})
            text = await refused(await here.apply(here.root, {"site.yaml": SITE + "#\n"}, 1), 409, "conflict")
            assert "is tried as a canary" in text
            wrong = await here.root("POST", "/configuration/canary/promote", json={"number": 1})
            await refused(wrong, 409, "conflict")
            answer = await here.root("POST", "/configuration/canary/promote", json={"reason": "fine"})
            assert answer.json()["state"] == "current"
            assert (live.number, live.canary, live.current.revision) == (2, None, made["digest"])
            again = await here.root("POST", "/configuration/canary/promote", json={})
            await refused(again, 404, "not_found")

    async def test_both_side_by_side_then_withdrawn(self, tmp_path: Path) -> None:
        async with setting(tmp_path) as here:
            made = await self.begun(here)
            now, storage = here.at.storage.now(), here.at.storage
            for digest, states in ((made["digest"], ("Failed",) * 3), (loads(SITE).revision, ("Aborted", None, None))):
                for index, state in enumerate(states):
                    stamp = f"{digest}{index}".ljust(32, "0")
                    await here.at.pilot(stamp)
                    await storage.write(_of_revision, stamp, digest)
                    if state:
                        await storage.write(pilots.end, stamp, state, now)
            found = (await here.anna("GET", "/configuration/canary")).json()
            assert (found["revision"]["number"], found["base"]) == (2, 1)
            assert found["canary"] == {
                "states": {"Failed": 3},
                "good": 0,
                "failed": 3,
                "waiting": 0,
                "failure_rate": 1.0,
            }
            assert (found["current"]["failed"], found["current"]["waiting"]) == (1, 2)
            assert found["likelihood"] == 1.0
            answer = await here.root("POST", "/configuration/canary/withdraw", json={"number": 2, "reason": "bad"})
            assert answer.json()["state"] == "withdrawn"
            assert (here.at.live.number, here.at.live.canary) == (1, None)
            assert (await here.anna("GET", "/configuration/canary")).status_code == 404
            kept = (await here.anna("GET", "/configuration/canary", params={"number": 2})).json()
            assert kept["revision"]["canary"]["why"] == "bad" and kept["canary"]["failed"] == 3
            await here.applied(here.root, {"site.yaml": SITE + "#\n"}, 1)

    async def test_scopes_that_cannot_be(self, tmp_path: Path) -> None:
        async with setting(tmp_path) as here:
            await here.applied(here.root, {"site.yaml": SITE})
            for canary, says in (
                ({"share": 0.5, "resource": "bax"}, "no resource 'bax'"),
                ({"share": 0.5, "vo": "nobody"}, "no VO 'nobody'"),
                ({"share": 0}, "canary.share"),
                ({"share": 1}, "canary.share"),
                ({"share": 5}, "canary.share"),
            ):
                answer = await here.apply(here.root, {"site.yaml": self.CHANGED}, 1, canary=canary)
                assert says in await refused(answer, 422, "invalid")
            same = await here.apply(here.root, {"site.yaml": SITE + "# only words\n"}, 1, canary={"share": 0.5})
            await refused(same, 409, "unchanged")
            assert here.at.live.canary is None

    async def test_of_a_vo_with_its_own_pilots(self, tmp_path: Path) -> None:
        async with setting(tmp_path) as here:
            await here.applied(here.root, {"site.yaml": SITE})
            files = {"vos/demo/pilot.yaml": OWN}
            answer = await here.apply(here.vera, files, 1, canary={"share": 0.1, "vo": "other"})
            await refused(answer, 403, "forbidden")
            made = await here.applied(here.vera, files, 1, canary={"share": 0.1})
            assert made["canary"]["vo"] == here.at.live.canary.vo == "demo"
            stranger = await here.at.person("otto", "other", ("vo_admin",))
            for end in ("promote", "withdraw"):
                answer = await stranger("POST", f"/configuration/canary/{end}", json={})
                assert "is of the VO demo" in await refused(answer, 403, "forbidden")
            assert (await here.vera("POST", "/configuration/canary/promote", json={})).status_code == 200

    async def test_the_operators_is_not_a_vos_to_end(self, tmp_path: Path) -> None:
        async with setting(tmp_path) as here:
            await self.begun(here, vo="demo")
            answer = await here.vera("POST", "/configuration/canary/withdraw", json={})
            assert "is of the operator" in await refused(answer, 403, "forbidden")
            assert here.at.live.canary is not None

    async def test_promoted_by_a_service_that_has_not_begun_it(self, tmp_path: Path) -> None:
        async with setting(tmp_path) as here:
            made = await self.begun(here)
            here.at.live.clear_canary()  # as another process of the same database has it
            assert (await here.root("POST", "/configuration/canary/promote", json={})).status_code == 200
            assert here.at.live.current.revision == made["digest"]


def _of_revision(conn: Connection, stamp: str, digest: str) -> None:
    conn.execute(update(tables.pilots).where(tables.pilots.c.stamp == stamp).values(revision=digest))
