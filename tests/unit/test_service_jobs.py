"""Jobs and files through the API; each bad input is a clear error and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from service_parts import Person, house, sha


def an_input(data: bytes, name: str = "in.txt", **changes: Any) -> dict[str, Any]:
    return {"name": name, "sha256": sha(data), "size": len(data), **changes}


async def test_submit_one_and_many(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        answer = await anna("POST", "/jobs", json={"command": ["true"], "name": "first"})
        assert answer.status_code == 201
        (one,) = answer.json()["ids"]
        many = await anna.submit(*({"command": ["echo", str(n)]} for n in range(30)))
        assert len(set(many)) == 30 and at.woken == 2
        job = (await anna("GET", f"/jobs/{one}")).json()
        assert (job["state"], job["owner"], job["vo"], job["name"]) == ("Waiting", "anna", "demo", "first")
        assert job["spec"]["command"] == ["true"] and job["events"][0]["what"] == "Waiting"
        assert (await anna("GET", "/summary")).json()["jobs"] == {"Waiting": 31}


async def test_pages(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        ids = await anna.submit(*([{"command": ["true"]}] * 25))
        seen: list[int] = []
        after = ""
        while True:
            page = (await anna("GET", f"/jobs?limit=10{after}")).json()
            seen += [job["id"] for job in page["jobs"]]
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert seen == ids[::-1]
        some = (await anna("GET", f"/jobs?id={ids[3]}&id={ids[5]}&state=Waiting&state=Done")).json()["jobs"]
        assert [job["id"] for job in some] == [ids[5], ids[3]]


async def test_ten_thousand_in_one_request(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        assert len(await anna.submit(*([{"command": ["true"]}] * 10_000))) == 10_000
        before = await at.everything()
        answer = await anna("POST", "/jobs", json=[{"command": ["true"]}] * 10_001)
        assert answer.status_code == 422 and "1 to 10000 jobs, not 10001" in answer.json()["error"]
        assert await at.everything() == before


async def test_the_same_request_again_makes_no_second_jobs(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        headers = {"Pilotage-Request": "batch-1"}
        first = await anna("POST", "/jobs", json=[{"command": ["true"]}] * 3, headers=headers)
        again = await anna("POST", "/jobs", json=[{"command": ["true"]}] * 3, headers=headers)
        assert first.json() == again.json() and again.headers["Pilotage-Request"] == "batch-1"
        other = await anna("POST", "/jobs", json=[{"command": ["false"]}], headers=headers)
        assert (other.status_code, other.json()["code"]) == (409, "conflict")
        assert (await anna("GET", "/summary?batch=batch-1")).json()["jobs"] == {"Waiting": 3}


BAD: list[tuple[Any, int, str, str]] = [
    ({"command": ["true"], "comand": 1}, 422, "invalid", "comand: this key is not known"),
    ({"command": "true"}, 422, "invalid", "command: "),
    ({"command": ["true"], "cores": "two"}, 422, "invalid", 'cores: Input should be a valid integer, not "two"'),
    ([{"command": ["true"]}, {"command": []}], 422, "invalid", "[1].command: "),
    ({"command": ["a\x00b"]}, 422, "invalid", "command[0]: a NUL character cannot be handed"),
    ([], 422, "invalid", "A request has 1 to 10000 jobs, not 0."),
    ("text", 422, "invalid", ""),
    ({"command": ["true"], "inputs": [an_input(b"x", "../../etc/passwd")]}, 422, "invalid", "inputs[0].name: "),
    ({"command": ["true"], "inputs": [an_input(b"x", "/etc/passwd")]}, 422, "invalid", "inputs[0].name: "),
    ({"command": ["true"], "outputs": ["../*"]}, 422, "invalid", "outputs[0]: "),
    ({"command": ["true"], "inputs": [an_input(b"x"), an_input(b"y")]}, 422, "invalid", "two inputs have the name"),
    ({"command": ["true"], "inputs": [an_input(b"x", sha256="zz")]}, 422, "invalid", "inputs[0].sha256: "),
    ({"command": ["true"], "inputs": [an_input(b"never uploaded")]}, 409, "input_missing", "Upload the input files"),
]


@pytest.mark.parametrize(("body", "status", "code", "text"), BAD)
async def test_bad_jobs_change_nothing(tmp_path: Path, body: Any, status: int, code: str, text: str) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        before = await at.everything()
        answer = await anna("POST", "/jobs", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json()["error"].startswith(text) and "\n" not in answer.json()["error"]
        assert await at.everything() == before and at.woken == 0


async def test_jobs_can_be_checked_before_their_inputs_are_there(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        before = await at.everything()
        good = {"command": ["true"], "inputs": [an_input(b"not there")]}
        answer = await anna("POST", "/jobs?check=true", json=[good])
        assert (answer.status_code, answer.json()) == (200, {"ids": []})
        answer = await anna("POST", "/jobs?check=true", json=[good, {"command": []}])
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        assert await at.everything() == before and at.woken == 0


async def test_a_vo_that_is_not_configured_has_no_jobs(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        admin = await at.person("root", None, ("admin",))
        answer = await admin("POST", "/jobs?vo=nowhere", json={"command": ["true"]})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        assert "no VO 'nowhere'" in answer.json()["error"]


async def test_missing_inputs_are_named(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        await anna.upload(b"there")
        inputs = [an_input(b"there", "a"), an_input(b"not there", "b.dat")]
        answer = await anna("POST", "/jobs", json={"command": ["true"], "inputs": inputs})
        assert answer.status_code == 409
        assert f"b.dat (sha256 {sha(b'not there')})" in answer.json()["error"] and "a (" not in answer.json()["error"]
        wrong = [an_input(b"there", "a", size=99)]
        answer = await anna("POST", "/jobs", json={"command": ["true"], "inputs": wrong})
        assert answer.status_code == 422 and "has 5 bytes, not 99" in answer.json()["error"]


async def raw(anna: Person, content: bytes) -> tuple[int, str, str]:
    answer = await anna("POST", "/jobs", content=content, headers={"Content-Type": "application/json"})
    return answer.status_code, answer.json()["code"], answer.json()["error"]


async def test_bodies_that_are_too_large_or_no_text(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        before = await at.everything()
        large = json.dumps({"command": ["x" * 10 * 2**20]}).encode()
        status, code, text = await raw(anna, large)
        assert (status, code) == (413, "too_large")
        assert text == "The job description is larger than the limit of 1 MiB."
        status, code, text = await raw(anna, b"  \n [" + large + b"]")
        assert (status, code) == (413, "too_large") and "[0] is larger than the limit of 1 MiB" in text
        status, code, _ = await raw(anna, b"[" + b" " * (65 * 2**20) + b"]")
        assert (status, code) == (413, "too_large")
        assert (await raw(anna, b'{"command": ["\xff\xfe"]}'))[:2] == (400, "not_utf8")
        assert (await raw(anna, b'{"command": ["true"'))[:2] == (400, "not_json")
        assert (await raw(anna, b""))[:2] == (400, "not_json")
        assert (await raw(anna, b"[" * 200_000))[0] == 400
        assert (await raw(anna, b'{"command": ["\\ud800"]}'))[0] in (400, 422)
        assert await at.everything() == before


async def test_files_are_verified_and_known_to_their_vo(tmp_path: Path) -> None:
    async with house(tmp_path, max_file_mib=1) as at:
        anna = await at.person()
        data = b"content"
        missing = await anna("POST", "/files/missing", json={"sha256": [sha(data), sha(data)]})
        assert missing.json() == {"missing": [sha(data)]}
        answer = await anna("PUT", f"/files/{sha(b'other')}", content=data)
        assert (answer.status_code, answer.json()["code"]) == (422, "digest_mismatch")
        answer = await anna("PUT", f"/files/{sha(b'other')}", content=b"x" * (2**20 + 1))
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")

        async def endless() -> Any:
            for _ in range(20):
                yield b"x" * 2**17

        answer = await anna("PUT", f"/files/{sha(b'other')}", content=endless())
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert (await anna("HEAD", f"/files/{sha(b'other')}")).status_code == 404
        assert not list((tmp_path / "objects").rglob(sha(b"other")))
        for status in (201, 200):
            answer = await anna("PUT", f"/files/{sha(data)}", content=data)
            assert (answer.status_code, answer.json()) == (status, {"sha256": sha(data), "size": 7})
        assert (await anna("HEAD", f"/files/{sha(data)}")).headers["content-length"] == "7"
        assert (await anna("POST", "/files/missing", json={"sha256": [sha(data)]})).json() == {"missing": []}
        for name in ("..%2f..%2fetc", "AB" * 32, "ab"):
            assert (await anna("PUT", f"/files/{name}", content=data)).status_code in (404, 422)
        inputs = [an_input(data)]
        await anna.submit({"command": ["true"], "inputs": inputs})


async def test_kill_requests_are_checked(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        (job,) = await anna.submit()
        before = await at.everything()
        for body in ({}, {"ids": []}, {"ids": ["1"]}, {"ids": [-1]}, {"ids": [2**70]}, {"ids": [job], "why": "x"}):
            assert (await anna("POST", "/jobs/kill", json=body)).status_code == 422, body
        assert await at.everything() == before


async def test_parameters_are_checked(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        anna = await at.person()
        for path in ("/jobs?limit=0", "/jobs?limit=x", "/jobs?state=Lost", "/jobs/0", "/jobs/x", "/pilots?state=Gone"):
            answer = await anna("GET", path)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), path
            assert "\n" not in answer.json()["error"]
        huge = str(2**63)
        for path in (f"/jobs?id={huge}", f"/jobs?after={huge}", f"/jobs/{huge}", "/jobs?id=0"):
            assert (await anna("GET", path)).status_code == 422, path
        for path in (
            "/jobs?owner=a%00b",
            "/jobs?batch=%00",
            "/jobs?vo=demo%00",
            "/summary?batch=a%00",
            "/pilots?resource=%00x",
            "/pilots?after=%00",
            "/pilots/a%00b",
            "/pilots/a%00b/log",
            "/jobs/1/output/a%00b",
        ):
            answer = await anna("GET", path)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), path
            assert "NUL" in answer.json()["error"]
        assert (await anna("GET", "/jobs?owner=a%2500b")).status_code == 200
        answer = await anna("GET", "/jobs/77")
        assert (answer.status_code, answer.json()["error"]) == (404, "There is no job 77 in the VO demo.")
        assert (await anna("GET", "/no/such/place")).json()["code"] == "not_found"
        assert (await anna("DELETE", "/jobs")).json()["code"] == "method_not_allowed"
