"""Health, metrics, request ids, back-pressure, the description of the API, bundles, flavours."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from service_parts import House, house


async def test_health_and_readiness(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        assert (await at.client.get("/healthz")).json() == {"status": "ok"}
        assert (await at.client.get("/readyz")).json() == {"status": "ok"}
        shutil.rmtree(tmp_path / "objects", ignore_errors=True)
        (tmp_path / "objects").write_text("no directory")
        answer = await at.client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert answer.json()["error"].startswith("The object store cannot be written: ")
        assert str(tmp_path) not in answer.text, "anybody may ask"
        (tmp_path / "objects").unlink()
        await at.storage.close()
        answer = await at.client.get("/readyz")
        assert answer.status_code == 503 and answer.json()["error"].startswith("The database cannot be written: ")
        assert (await at.client.get("/healthz")).status_code == 200


async def test_metrics(tmp_path: Path) -> None:
    async with house(tmp_path, metrics_seconds=0) as at:
        anna = await at.person()
        await anna.submit(*([{"command": ["true"]}] * 3))
        pilot = await at.pilot()
        await pilot.register()
        await pilot.sync()
        await anna("GET", "/jobs/12345")
        answer = await at.client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = answer.text.splitlines()
        assert 'pilotage_jobs{state="Waiting"} 3.0' in lines
        assert 'pilotage_pilots{state="Running"} 1.0' in lines
        assert any(line.startswith("pilotage_commits_total ") for line in lines)
        assert "pilotage_syncs_total 1" in lines
        assert 'pilotage_requests_total{route="show_job",status="404"} 1.0' in lines
        assert 'pilotage_requests_total{route="submit_jobs",status="201"} 1.0' in lines
        assert all(line.startswith(("#", "pilotage_")) for line in lines)


async def test_counts_are_cached(tmp_path: Path) -> None:
    async with house(tmp_path, metrics_seconds=1000) as at:
        anna = await at.person()
        assert (await anna("GET", "/summary")).json()["jobs"] == {}
        await anna.submit()
        assert (await anna("GET", "/summary")).json()["jobs"] == {}
        assert (await anna("GET", "/summary?owner=anna")).json()["jobs"] == {"Waiting": 1}


async def test_request_ids(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        made = [(await anna("GET", "/jobs")).headers["Pilotage-Request"] for _ in range(2)]
        assert made[0] != made[1] and len(made[0]) == 16
        answer = await anna("POST", "/jobs", json={"command": ["true"]}, headers={"Pilotage-Request": "my:id.1"})
        assert answer.headers["Pilotage-Request"] == "my:id.1"
        job = (await anna("GET", f"/jobs/{answer.json()['ids'][0]}")).json()
        assert job["events"][0]["request_id"] == "my:id.1"
        before = await at.everything()
        for bad in ("", "a b", "x" * 65, "a\tb", "é"):
            headers = {b"Pilotage-Request": bad.encode()}
            answer = await at.client.post("/jobs", json={}, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (400, "request_id"), bad
            assert answer.headers["Pilotage-Request"] != bad
        assert await at.everything() == before


@asynccontextmanager
async def busy(at: House, writes: int) -> AsyncIterator[None]:
    """One write that takes its time, and others that queue up behind it."""
    gate = threading.Event()

    def slow(conn: object) -> None:
        gate.wait(30)

    def quick(conn: object) -> None:
        pass

    queued = [asyncio.create_task(at.storage.write(slow))]
    await asyncio.sleep(0.1)
    queued += [asyncio.create_task(at.storage.write(quick)) for _ in range(writes)]
    await asyncio.sleep(0.05)
    try:
        yield
    finally:
        gate.set()
        await asyncio.gather(*queued)


async def test_busy_service_says_so(tmp_path: Path) -> None:
    async with house(tmp_path, max_pending=10) as at:
        anna = await at.person()
        pilot = await at.pilot()
        await pilot.register()
        async with busy(at, 30):
            for answer in (
                await anna("POST", "/jobs", json={"command": ["true"]}),
                await pilot.post("/pilot/sync", pilot.message(), pilot.token),
                await pilot.post("/pilot/register", pilot.registration()),
            ):
                assert (answer.status_code, answer.json()["code"]) == (503, "busy")
                assert int(answer.headers["retry-after"]) > 0
        assert (await anna("POST", "/jobs", json={"command": ["true"]})).status_code == 201


async def test_half_busy_service_keeps_pilots_away_for_a_while(tmp_path: Path) -> None:
    async with house(tmp_path, max_pending=40, retry_after=1000) as at:
        pilot = await at.pilot()
        await pilot.register()
        async with busy(at, 30):
            syncing = asyncio.create_task(pilot.sync())
            await asyncio.sleep(0.1)
        assert (await syncing)["again_seconds"] >= 700
        assert (await pilot.sync())["again_seconds"] < 100


async def test_how_resources_are_served(tmp_path: Path) -> None:
    """All of it for an administrator; for others what concerns their VO, without what a failing resource says."""
    async with house(tmp_path) as at:
        idle = {"pilots": 0, "error": "", "resting": {}, "draining": False, "leaving": ""}
        rests = {"default/demo": "2 pilots in a row got no job", "default/other": "2 pilots in a row failed"}
        at.described += [
            {"resource": "box", **idle, "pilots": 3, "resting": rests, "error": "ssh root@10.0.0.1: refused"},
            {"resource": "gone", **idle, "leaving": "it is no longer configured"},
        ]
        admin = await at.person("op", None, ("admin",))
        assert (await admin("GET", "/resources")).json() == {"resources": at.described}
        anna = await at.person()
        [seen] = (await anna("GET", "/resources")).json()["resources"]
        assert seen["resource"] == "box" and seen["pilots"] is None
        assert seen["error"] == "something is wrong with it"
        assert seen["resting"] == {"default/demo": "2 pilots in a row got no job"}


async def test_failures_inside_say_nothing_but_the_request_id(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        at.app.state.service.live = None
        answer = await anna("GET", "/flavours", headers={"Pilotage-Request": "find-me"})
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "find-me" in answer.json()["error"] and "NoneType" not in answer.text


async def test_description_of_the_api(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        document = (await at.client.get("/openapi.json")).json()
        text = json.dumps(document)
        operations = [o for path in document["paths"].values() for o in path.values()]
        for operation in operations:
            assert operation["summary"] and operation["tags"] and "Who may call: " in operation["description"]
            assert "default" in operation["responses"]
        for name in ("JobSpec", "KillRequest", "TokenRequest", "BundleRequest", "Sync", "Register", "Error"):
            assert name in document["components"]["schemas"]
        references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
        assert references <= set(document["components"]["schemas"])
        assert (await at.client.get("/docs")).status_code == 200


async def test_flavours(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        flavours = {flavour["name"]: flavour for flavour in (await anna("GET", "/flavours")).json()["flavours"]}
        commands = {command["name"]: command for command in flavours["LOCAL"]["commands"]}
        assert commands["RunJobAgent"]["summary"] and "options" in commands["RunJobAgent"]
        gone = await at.person(vo="former")
        answer = await gone("GET", "/flavours")
        assert answer.status_code == 422 and answer.json()["error"].startswith("unknown VO 'former'")


async def test_a_pilot_by_hand(tmp_path: Path) -> None:
    async with house(tmp_path, urls=("https://pilotage.example:8443",), trust=()) as at:
        root = await at.person("root", None, ("admin",))
        answer = await root("POST", "/pilots/bundle", json={"vo": "demo"})
        assert answer.status_code == 201, answer.text
        bundle = answer.json()
        assert bundle["script"].startswith("#!/bin/sh") and "https://pilotage.example:8443" in bundle["script"]
        secret = bundle["credentials"]["secret"]
        assert secret not in bundle["script"] and bundle["credentials"]["stamp"] == bundle["stamp"]
        pilot = (await root("GET", f"/pilots/{bundle['stamp']}")).json()
        assert (pilot["state"], pilot["resource"], pilot["digest"]) == ("Submitted", "box", bundle["digest"])
        assert pilot["reference"] == "hand:root", "directors leave it alone"
        registered = await at.client.post(
            "/pilot/register",
            json={"protocol": 1, "stamp": bundle["stamp"], "secret": secret, "nonce": "n", "node": {}, "log": ""},
        )
        assert registered.status_code == 200
        before = await at.everything()
        for body, text in (
            ({"vo": "nobody"}, "unknown VO 'nobody'"),
            ({"vo": "demo", "resource": "bxo"}, "unknown resource 'bxo'; did you mean 'box'?"),
            ({"vo": "demo", "flavour": "LOCALE"}, "unknown flavour 'LOCALE'; did you mean 'LOCAL'?"),
            ({"vo": "demo", "queue": "no"}, "unknown queue"),
            ({}, "vo: "),
        ):
            answer = await root("POST", "/pilots/bundle", json=body)
            assert answer.status_code == 422 and answer.json()["error"].startswith(text), answer.text
        assert await at.everything() == before
