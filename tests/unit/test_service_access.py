"""Who may call what: every route has an entry, and the gate keeps to it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_parts import House, house

from pilotage.service.access import ACCESS, ADMIN, OPEN, USER, VO_ADMIN, Caller
from pilotage.service.credentials import Keys, PilotTokens
from pilotage.service.errors import ApiError

DIGEST = "ab" * 32


def routes(app: Any) -> Iterator[Any]:
    """All routes, those inside of mounted or included routers too."""
    for route in getattr(app, "routes", ()):
        inner = list(routes(route)) or list(routes(getattr(route, "original_router", None)))
        yield from inner or [route]


def calls(app: Any) -> list[tuple[str, str, str]]:
    """(name, method, path) of each route, with path parameters filled in."""
    found = []
    for route in routes(app):
        path = route.path.replace("{sha256}", DIGEST).replace("{id}", "1").replace("{stamp}", "s")
        for method in sorted(route.methods - {"HEAD"} or {"HEAD"}):
            found.append((route.name, method, path.replace("{name:path}", "n")))
    return found


async def test_every_route_has_an_entry_and_every_entry_a_route(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        names = {name for name, _, _ in calls(at.app)}
        assert names == set(ACCESS)
        documented = at.app.openapi()
        ids = [o["operationId"] for path in documented["paths"].values() for o in path.values()]
        assert len(ids) == len(set(ids))
        assert set(ids) == names - {"openapi", "swagger_ui_html", "swagger_ui_redirect"}


async def test_without_a_token_only_open_routes_answer(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        for name, method, path in calls(at.app):
            for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer "}):
                answer = await at.client.request(method, path, headers=headers)
                assert (answer.status_code == 401) == (ACCESS[name] != OPEN), name
                if answer.status_code == 401 and method != "HEAD":
                    assert answer.json()["code"] == "token_missing"
                    assert answer.headers["www-authenticate"] == "Bearer"


async def kinds(at: House) -> dict[str, str]:
    """A token of each kind that is good."""
    pilot = await at.pilot()
    await pilot.register()
    anna = await at.person()
    await anna.submit()
    (grant,) = await pilot.take()
    return {
        "user": anna.token,
        "vo_admin": await at.token("vera", "demo", ("vo_admin",)),
        "admin": await at.token("root", None, ("admin",)),
        "pilot": pilot.token,
        "job": grant["token"],
    }


async def test_each_kind_of_token_opens_its_routes_and_no_other(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        tokens = await kinds(at)
        for kind, token in tokens.items():
            for name, method, path in calls(at.app):
                answer = await at.client.request(method, path, headers={"Authorization": f"Bearer {token}"})
                gate = method != "HEAD" and answer.status_code == 403 and "; your token is of kind" in answer.text
                head = method == "HEAD" and answer.status_code == 403
                allowed = ACCESS[name] == OPEN or kind in ACCESS[name]
                assert allowed != (gate or head), (kind, name, answer.text)
                assert answer.status_code not in (401, 500) or name in ("register",), (kind, name, answer.text)


async def test_roles_include_each_other() -> None:
    assert ADMIN < VO_ADMIN < USER


async def test_a_route_without_an_entry_is_closed(tmp_path: Path) -> None:
    async with house(tmp_path) as at:

        async def forgotten() -> str:
            return "secret"

        at.app.get("/forgotten")(forgotten)
        answer = await at.client.get("/forgotten")
        assert answer.status_code == 403
        assert "secret" not in answer.text


async def refused(at: House, token: str) -> httpx.Response:
    before = await at.everything()
    answer = await at.client.post("/jobs", json={"command": ["true"]}, headers={"Authorization": f"Bearer {token}"})
    assert await at.everything() == before
    return answer


async def test_expired_forged_and_revoked_user_tokens(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        token = await at.token()
        for forged in (token[:-1] + ("A" if token[-1] != "A" else "B"), "pt_" + "x" * 43, "é", "x" * 5000):
            answer = await at.client.get("/jobs", headers={b"Authorization": b"Bearer " + forged.encode()})
            assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")
        assert (await at.client.get("/jobs", headers={"Authorization": f"Bearer {token}"})).status_code == 200
        at.clock.time += 3601
        assert (await refused(at, token)).status_code == 401
        admin = await at.person("root", None, ("admin",))
        answer = await admin("POST", "/tokens", json={"vo": "nope", "owner": "anna"})
        assert (answer.status_code, answer.json()["error"]) == (422, "vo: there is no VO 'nope' here.")
        made = (await admin("POST", "/tokens", json={"vo": "demo", "owner": "anna"})).json()
        assert (await admin("DELETE", f"/tokens/{made['id']}")).status_code == 204
        assert (await refused(at, made["token"])).status_code == 401
        assert (await admin("DELETE", f"/tokens/{made['id']}")).status_code == 404


async def test_forged_pilot_and_job_tokens(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        tokens = await kinds(at)
        foreign = PilotTokens(Keys((b"9" * 32,), b""), 600).issue("aa" * 16, "demo", at.clock())
        head, body, signature = tokens["pilot"].split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        other = base64.urlsafe_b64encode(json.dumps({**claims, "vo": "other"}).encode()).rstrip(b"=").decode()
        for forged in (foreign, f"{head}.{other}.{signature}", "a.b.c"):
            answer = await at.client.post("/pilot/sync", json={}, headers={"Authorization": f"Bearer {forged}"})
            assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")
        lease, mac = tokens["job"].rsplit(".", 1)
        for forged in (f"{lease}.{mac[:-1]}", f"{lease}.{'0' * len(mac)}", f"x{lease}.{mac}", f"{lease}."):
            answer = await at.client.get(f"/pilot/files/{DIGEST}", headers={"Authorization": f"Bearer {forged}"})
            assert answer.status_code == 401, forged


async def test_another_vo_does_not_see_and_cannot_touch(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        (job,) = await anna.submit()
        digest = await anna.upload(b"data of demo")
        pilot = await at.pilot()
        await pilot.register()
        for roles in (("user",), ("vo_admin",)):
            oscar = await at.person("oscar", "other", roles)
            before = await at.everything()
            for method, path in (
                ("GET", f"/jobs/{job}"),
                ("GET", f"/jobs/{job}/output"),
                ("GET", f"/jobs/{job}/output/stdout"),
                ("GET", f"/pilots/{pilot.stamp}"),
                ("GET", f"/pilots/{pilot.stamp}/log"),
                ("GET", f"/pilots/{pilot.stamp}/output"),
                ("HEAD", f"/files/{digest}"),
            ):
                answer = await oscar(method, path)
                assert answer.status_code == 404, path
                assert method == "HEAD" or "other" in answer.json()["error"]
            for path in ("drain", "kill"):
                assert (await oscar("POST", f"/pilots/{pilot.stamp}/{path}", json={})).status_code in (403, 404)
            assert (await oscar("GET", "/jobs")).json()["jobs"] == []
            assert (await oscar("GET", "/pilots")).json()["pilots"] == []
            assert (await oscar("GET", "/summary")).json()["jobs"] == {}
            for method, path, body in (
                ("GET", "/jobs?vo=demo", None),
                ("GET", "/pilots?vo=demo", None),
                ("POST", "/jobs?vo=demo", {"command": ["true"]}),
                ("POST", "/files/missing?vo=demo", {"sha256": []}),
            ):
                answer = await oscar(method, path, json=body)
                assert answer.status_code == 403, path
                assert answer.json()["error"] == "Your token is for the VO other, not for demo."
            killed = (await oscar("POST", "/jobs/kill", json={"ids": [job]})).json()
            assert killed["unknown"] == [job] and killed["killed"] == []
            missing = (await oscar("POST", "/files/missing", json={"sha256": [digest]})).json()
            assert missing["missing"] == [digest]
            assert await at.everything() == before


async def test_users_kill_their_own_vo_admins_any_of_the_vo(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna, bert = await at.person("anna"), await at.person("bert")
        first, second = await anna.submit({"command": ["true"]}, {"command": ["true"]})
        (his,) = await bert.submit()
        assert {job["id"] for job in (await bert("GET", "/jobs")).json()["jobs"]} == {first, second, his}
        before = await at.everything()
        answer = await bert("POST", "/jobs/kill", json={"ids": [his, first]})
        assert answer.status_code == 403 and "belongs to anna" in answer.json()["error"]
        assert await at.everything() == before
        assert (await anna("POST", "/jobs/kill", json={"ids": [first]})).json()["killed"] == [first]
        vera = await at.person("vera", "demo", ("vo_admin",))
        answer = await vera("POST", "/jobs/kill", json={"ids": [first, second, his, 999], "reason": "maintenance"})
        assert answer.json() == {"killed": [second, his], "ordered": [], "ended": [first], "unknown": [999]}
        event = (await anna("GET", f"/jobs/{second}")).json()["events"][-1]
        assert "vera" in event["who"] and event["why"] == "maintenance"


async def test_admin_acts_in_any_vo(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        root = await at.person("root", None, ("admin",))
        answer = await root("POST", "/jobs", json={"command": ["true"]})
        assert answer.status_code == 422 and "?vo=NAME" in answer.json()["error"]
        assert "there are: demo, other" in answer.json()["error"]
        (job,) = (await root("POST", "/jobs?vo=other", json={"command": ["true"]})).json()["ids"]
        assert (await root("GET", f"/jobs/{job}")).json()["vo"] == "other"
        assert [found["id"] for found in (await root("GET", "/jobs")).json()["jobs"]] == [job]
        assert (await root("GET", "/jobs?vo=demo")).json()["jobs"] == []


def test_the_vo_that_an_administrator_means() -> None:
    """Where none is named: the token's; one that is not configured (any more) is none."""
    root, of_demo = Caller("admin", None, roles=ADMIN), Caller("admin", "demo", roles=ADMIN)
    assert root.acts_for(None, ["phys"]) == of_demo.acts_for(None, ["phys"]) == "phys"
    assert of_demo.acts_for(None, ["phys", "demo"]) == "demo"
    assert root.acts_for("bio", ["phys", "bio"]) == "bio"
    for caller, vos in ((root, ["phys", "bio"]), (of_demo, ["phys", "bio"]), (root, [])):
        with pytest.raises(ApiError, match=r"there are: (bio, phys|none)"):
            caller.acts_for(None, vos)
    assert Caller("user", "demo", roles=frozenset({"user"})).acts_for(None, ["phys"]) == "demo"  # then refused by name


async def test_a_user_of_no_vo_sees_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        await (await at.person()).submit()
        nobody = await at.person("nobody", None, ("user",))
        for path in ("/jobs", "/pilots", "/summary", "/jobs?vo=demo"):
            assert (await nobody("GET", path)).status_code == 403
        assert (await nobody("GET", "/jobs/1")).status_code == 404
        assert (await nobody("POST", "/jobs", json={"command": ["true"]})).status_code == 403


@pytest.mark.parametrize("roles", [["user"], ["vo_admin"]])
async def test_only_admins_make_tokens(tmp_path: Path, roles: list[str]) -> None:
    async with house(tmp_path) as at:
        person = await at.person("anna", "demo", tuple(roles))
        before = await at.everything()
        answer = await person("POST", "/tokens", json={"vo": "demo", "owner": "anna", "roles": ["admin"]})
        assert answer.status_code == 403 and "administrators" in answer.json()["error"]
        assert (await person("GET", "/tokens")).status_code == 403
        assert await at.everything() == before
