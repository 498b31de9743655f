"""The pilots' side of the API, and what people see of pilots."""

from __future__ import annotations

from pathlib import Path

import pytest
from service_parts import House, Pilot, house, sha

from pilotage.service.routers.pilots import whole_characters


async def test_a_pilots_life(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        data = b"the input"
        await anna.upload(data)
        spec = {"command": ["true"], "inputs": [{"name": "in", "sha256": sha(data), "size": 9}], "outputs": ["out"]}
        (job,) = await anna.submit(spec)
        pilot = await at.pilot()
        answer = await pilot.register(log="first line\n")
        assert answer["stamp"] == pilot.stamp and answer["log_offset"] == 11 and answer["time"] == at.clock()
        assert answer["token_seconds"] == 600 and answer["lease_seconds"] > 0 and answer["sync_seconds"] > 0
        (grant,) = await pilot.take()
        assert grant["job"] == job and grant["spec"]["command"] == ["true"]
        job_side = {"Authorization": f"Bearer {grant['token']}"}
        fetched = await at.client.get(f"/pilot/files/{sha(data)}", headers=job_side)
        assert fetched.content == data and fetched.headers["content-length"] == "9"
        result = b"\x89PNG result"
        stored = await at.client.put(f"/pilot/files/{sha(result)}", content=result, headers=job_side)
        assert stored.status_code == 201
        report = {
            "id": "r1",
            "kind": "job",
            "lease": grant["lease"],
            "state": "Done",
            "exit_code": 0,
            "reason": "exit",
            "wall_seconds": 1.5,
            "stdout": "hello\n",
            "stderr": "",
            "usage": {"cpu_user": 1.0, "cpu_system": 0.1, "max_rss_mib": 10},
            "outputs": [{"name": "sub/out", "sha256": sha(result), "size": len(result)}],
        }
        answer = await pilot.sync(held=[], reports=[report])
        assert answer["acknowledged"] == ["r1"] and answer["hold"] == []
        found = (await anna("GET", f"/jobs/{job}")).json()
        assert (found["state"], found["exit_code"], found["stdout"]) == ("Done", 0, "hello\n")
        outputs = (await anna("GET", f"/jobs/{job}/output")).json()["outputs"]
        assert {item["name"]: item["size"] for item in outputs}["sub/out"] == len(result)
        download = await anna("GET", f"/jobs/{job}/output/sub/out")
        assert download.content == result and download.headers["x-content-type-options"] == "nosniff"
        assert (await anna("GET", f"/jobs/{job}/output/stdout")).content == b"hello\n"
        assert (await anna("GET", f"/jobs/{job}/output/nothing")).status_code == 404
        # The job is over, and with it the job token.
        assert (await at.client.get(f"/pilot/files/{sha(data)}", headers=job_side)).status_code == 401
        await leave(at, pilot)


async def leave(at: House, pilot: Pilot) -> None:
    stored = await at.client.put(
        "/pilot/output/pilot.json", content=b"{}", headers={"Authorization": f"Bearer {pilot.token}"}
    )
    assert stored.status_code == 201 and stored.json()["size"] == 2
    command = {"id": "c1", "kind": "command", "name": "RunJobAgent", "index": 1, "outcome": "done", "seconds": 2.0}
    last = {"id": "p1", "kind": "pilot", "exit_code": 0, "reason": "", "usage": {"cpu_user": 1.0}}
    await pilot.sync(reports=[command, last])
    anna = await at.person()
    shown = (await anna("GET", f"/pilots/{pilot.stamp}")).json()
    assert shown["state"] == "Done" and shown["exit_code"] == 0 and shown["node"]["cores"] == 2
    assert [c["name"] for c in shown["commands"]] == ["RunJobAgent"]
    assert not any("secret" in key and key != "secret_expires" for key in shown) and "nonce" not in shown
    listed = (await anna("GET", f"/pilots/{pilot.stamp}/output")).json()["outputs"]
    assert listed == [{"name": "pilot.json", "size": 2}]
    assert (await anna("GET", f"/pilots/{pilot.stamp}/output/pilot.json")).content == b"{}"
    at.clock.time += at.engine.settings.lease_seconds  # till then it may repeat its last words
    again = await pilot.post("/pilot/sync", pilot.message(want={}), pilot.token)
    assert (again.status_code, again.json()["code"]) == (410, "pilot_ended")
    late = await at.client.put("/pilot/output/x", content=b"", headers={"Authorization": f"Bearer {pilot.token}"})
    assert late.status_code == 410


async def test_registration_is_bound_to_its_nonce(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        pilot = await at.pilot()
        first = await pilot.register(log="begin\n")
        again = await pilot.register(log="begin\n")
        assert {**first, "token": ""} == {**again, "token": ""}
        before = await at.everything()
        second = await pilot.post("/pilot/register", pilot.registration(nonce="nonce-2"))
        assert (second.status_code, second.json()["code"]) == (409, "stamp_used")
        wrong = await pilot.post("/pilot/register", pilot.registration(secret="guess"))
        assert wrong.status_code == 401
        unknown = await pilot.post("/pilot/register", pilot.registration(stamp="bb" * 16))
        assert unknown.status_code == 401 and unknown.json()["error"] == wrong.json()["error"]
        after = await at.everything()
        assert {**after, "events": None} == {**before, "events": None}
        told = [event for event in after["events"][len(before["events"]) :] if event["subject"] == pilot.stamp]
        assert len(told) == 2, "attempts with a wrong secret or nonce are in the pilot's events"
        assert not any("guess" in str(event) for event in told)
        # Another nonce or a wrong secret does not harm the pilot that is there.
        assert (await pilot.sync())["log_offset"] == 6


async def test_a_secret_that_is_too_old(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        pilot = await at.pilot()
        at.clock.time += 3601
        answer = await pilot.post("/pilot/register", pilot.registration())
        assert (answer.status_code, answer.json()["code"]) == (401, "expired")
        assert (await at.person()) and (await at.everything())["pilots"][0]["state"] == "Planned"


async def test_versions_that_do_not_exist(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        pilot = await at.pilot()
        await pilot.register()
        before = await at.everything()
        for path, body in (("/pilot/register", pilot.registration()), ("/pilot/sync", pilot.message())):
            token = pilot.token if path.endswith("sync") else None
            for answer in (
                await pilot.post(path, {**body, "protocol": 2}, token),
                await pilot.post(path, {"protocol": 99}, token),
                await pilot.post(path, body, token, **{"Pilotage-Protocol": "7"}),
            ):
                assert (answer.status_code, answer.json()["code"]) == (426, "protocol")
                assert "supported: 1" in answer.json()["error"]
        assert await at.everything() == before


async def test_tokens_are_renewed_before_they_end_and_replaced_after(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        pilot = await at.pilot()
        await pilot.register()
        assert (await pilot.sync())["token"] is None
        at.clock.time += 301
        await at.engine.beat()
        renewed = await pilot.sync()
        assert renewed["token"] and renewed["token_seconds"] == 600
        at.clock.time += 300
        old = await pilot.post("/pilot/sync", pilot.message(), pilot.token)
        assert (old.status_code, old.json()["code"]) == (401, "token_expired")
        pilot.token = renewed["token"]
        await pilot.sync()
        at.clock.time += 3000
        assert (await pilot.post("/pilot/sync", pilot.message(), pilot.token)).status_code == 401
        await pilot.register()  # its secret was used in time, so the same pair is good for as long as the pilot lives
        await pilot.sync()


async def test_a_job_token_reads_its_own_inputs_only(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        await anna.upload(b"mine")
        await anna.upload(b"of another job")
        inputs = [{"name": "in", "sha256": sha(b"mine"), "size": 4}]
        await anna.submit({"command": ["true"], "inputs": inputs})
        pilot = await at.pilot()
        await pilot.register()
        (grant,) = await pilot.take()
        headers = {"Authorization": f"Bearer {grant['token']}"}
        assert (await at.client.get(f"/pilot/files/{sha(b'mine')}", headers=headers)).content == b"mine"
        answer = await at.client.get(f"/pilot/files/{sha(b'of another job')}", headers=headers)
        assert answer.status_code == 403
        bad = await at.client.put(f"/pilot/files/{sha(b'x')}", content=b"y", headers=headers)
        assert (bad.status_code, bad.json()["code"]) == (422, "digest_mismatch")


@pytest.mark.parametrize("name", ["..%2f..%2fkeys", "%2e%2e/x", "a//b", "a%00b", "a%0ab", "%2fetc%2fpasswd"])
async def test_output_names_cannot_climb(tmp_path: Path, name: str) -> None:
    async with house(tmp_path) as at:
        pilot = await at.pilot()
        await pilot.register()
        before = sorted(tmp_path.rglob("*"))
        headers = {"Authorization": f"Bearer {pilot.token}"}
        answer = await at.client.put(f"/pilot/output/{name}", content=b"x", headers=headers)
        assert answer.status_code in (404, 405, 422)
        assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == []
        anna = await at.person()
        assert (await anna("GET", f"/pilots/{pilot.stamp}/output/{name}")).status_code in (404, 422)


async def log_of(at: House, stamp: str) -> bytes:
    anna = await at.person()
    answer = await anna("GET", f"/pilots/{stamp}/log")
    assert int(answer.headers["Pilotage-Log-Offset"]) == len(answer.content)
    return answer.content


async def test_log_is_kept_once_whatever_is_repeated(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        pilot = await at.pilot()
        await pilot.register(log="one\n")

        async def send(offset: int, text: str) -> int:
            return (await pilot.sync(log={"offset": offset, "text": text}))["log_offset"]

        assert await send(4, "two\n") == 8
        assert await send(4, "two\n") == 8
        assert await send(0, "one\ntwo\nthree\n") == 14
        assert await send(99, "after a gap\n") == 14
        assert await send(14, "ä€\U0001f600\n") == 24
        assert await send(24, "") == 24
        assert await log_of(at, pilot.stamp) == "one\ntwo\nthree\nä€\U0001f600\n".encode()
        assert (await pilot.sync())["log_offset"] == 24
        # A service that starts anew knows the length from the database.
        at.app.state.service.logs._sizes.clear()
        assert await send(19, "\U0001f600\nmore\n") == 29


async def test_the_log_of_a_second_registration_is_not_taken_for_the_first(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        pilot = await at.pilot()
        await pilot.register(log="one\n")
        # After its token was too old a pilot registers again, with what it has not yet got rid of.
        answer = await pilot.register(log="text from somewhere later in the log\n")
        assert answer["log_offset"] == 4
        assert await log_of(at, pilot.stamp) == b"one\n"


async def test_log_chunk_stored_but_not_counted_is_written_again(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        pilot = await at.pilot()
        await pilot.register()
        from pilotage.storage.objects import log_key

        await at.storage.objects.put(log_key(pilot.stamp, 0), b"stored before the cra")
        answer = await pilot.sync(log={"offset": 0, "text": "stored before the crash\n"})
        assert answer["log_offset"] == 24
        assert await log_of(at, pilot.stamp) == b"stored before the crash\n"


async def test_repeated_log_at_the_same_time(tmp_path: Path) -> None:
    import asyncio

    async with house(tmp_path) as at:
        logs = at.app.state.service.logs
        pilot = await at.pilot()
        await pilot.register()
        text = "".join(f"line {n}\n" for n in range(100))
        sent = [logs.keep(pilot.stamp, {"offset": 0, "text": text[: 80 * n]}) for n in (3, 1, 4, 2, 9)]
        await asyncio.gather(*sent)
        assert await log_of(at, pilot.stamp) == text[: 80 * 9].encode()
        assert len(logs._locks) == 0


async def test_a_log_beyond_its_limit_is_dropped_not_refused(tmp_path: Path) -> None:
    async with house(tmp_path, max_log_mib=1) as at:
        pilot = await at.pilot()
        await pilot.register()
        chunk = "x" * (2**19) + "\n"
        offset = 0
        for _ in range(5):
            offset = (await pilot.sync(log={"offset": offset, "text": chunk}))["log_offset"]
        assert offset == 5 * len(chunk)
        anna = await at.person()
        assert (await anna("GET", f"/pilots/{pilot.stamp}")).json()["log_size"] <= 2 * 2**20


async def test_following_a_log(tmp_path: Path) -> None:
    import asyncio

    async with house(tmp_path) as at:
        pilot = await at.pilot()
        await pilot.register(log="one\n")
        anna = await at.person()
        waiting = asyncio.create_task(anna("GET", f"/pilots/{pilot.stamp}/log?offset=4&wait=30"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await pilot.sync(log={"offset": 4, "text": "two\n"})
        answer = await asyncio.wait_for(waiting, 20)
        assert answer.text == "two\n"
        assert (answer.headers["Pilotage-Log-Offset"], answer.headers["Pilotage-Log-End"]) == ("8", "false")
        await pilot.sync(reports=[{"id": "p", "kind": "pilot", "exit_code": 0, "reason": "", "usage": {}}])
        answer = await anna("GET", f"/pilots/{pilot.stamp}/log?offset=8&wait=30")
        assert (answer.text, answer.headers["Pilotage-Log-End"]) == ("", "true")


def test_text_is_cut_between_characters() -> None:
    text = "aä€\U0001f600".encode()
    for length in range(1, len(text) + 1):
        cut = whole_characters(text[:length])
        cut.decode()
        assert length - len(cut) < 4
    assert whole_characters(b"") == b"" and whole_characters(b"\xff") == b"\xff"


async def test_orders(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        pilot = await at.pilot()
        await pilot.register()
        anna = await at.person()
        vera = await at.person("vera", "demo", ("vo_admin",))
        assert (await anna("POST", f"/pilots/{pilot.stamp}/drain", json={})).status_code == 403
        answer = await vera("POST", f"/pilots/{pilot.stamp}/drain", json={"reason": "maintenance"})
        assert answer.json() == {"stamp": pilot.stamp, "order": "drain"}
        assert {"order": "drain"}.items() <= (await pilot.sync())["orders"][0].items()
        assert (await vera("POST", f"/pilots/{pilot.stamp}/kill")).status_code == 200
        assert (await pilot.sync())["orders"][0]["order"] == "kill"
        assert (await vera("POST", "/pilots/nobody/kill", json={})).status_code == 404
        await pilot.sync(reports=[{"id": "p", "kind": "pilot", "exit_code": 51, "reason": "killed", "usage": {}}])
        answer = await vera("POST", f"/pilots/{pilot.stamp}/drain", json={})
        assert (answer.status_code, answer.json()["code"]) == (409, "pilot_ended")


async def test_bad_syncs_change_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        pilot = await at.pilot()
        await pilot.register()
        before = await at.everything()
        for change in ({"held": 5}, {"reports": [{"id": "x", "kind": "job"}]}, {"want": []}, {"sequence": "no"}):
            answer = await pilot.post("/pilot/sync", pilot.message(**change), pilot.token)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), change
        headers = {"Authorization": f"Bearer {pilot.token}"}
        answer = await at.client.post("/pilot/sync", content=b"\xff", headers=headers)
        assert answer.status_code == 400
        assert await at.everything() == before


async def test_returned_jobs_wake_the_directors(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        await anna.submit()
        pilot = await at.pilot()
        await pilot.register()
        (grant,) = await pilot.take()
        woken = at.woken
        back = {"id": "r", "kind": "job", "lease": grant["lease"], "state": "Returned", "reason": "drained"}
        await pilot.sync(held=[], reports=[back])
        assert at.woken == woken + 1
        assert (await anna("GET", f"/jobs/{grant['job']}")).json()["state"] == "Waiting"
