"""What the service takes from pilots: strict about shape, patient with what payloads write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pilotage.service import wire
from pilotage.service.errors import ApiError
from pilotage.service.logs import bytes_of


def message(**changes: Any) -> dict[str, Any]:
    return {"protocol": 1, "sequence": 1, "held": [], "reports": [], "want": None, "log": None, "beat": {}, **changes}


def sync(**changes: Any) -> dict[str, Any]:
    return wire.sync(json.dumps(message(**changes)).encode())


def job_report(**changes: Any) -> dict[str, Any]:
    return {"id": "r1", "kind": "job", "lease": "L", "state": "Done", "stdout": "", **changes}


def refused(body: bytes) -> tuple[int, str, str]:
    with pytest.raises(ApiError) as caught:
        wire.sync(body)
    return caught.value.status, caught.value.code, caught.value.text


def test_complete_and_unknown_keys_kept() -> None:
    found = wire.sync(b'{"protocol": 1, "sequence": 3, "new_in_version_2": [1]}')
    assert found["held"] == [] and found["reports"] == [] and found["want"] is None and found["beat"] is None
    assert found["new_in_version_2"] == [1]
    assert sync(reports=[job_report(benchmark=7)])["reports"][0]["benchmark"] == 7


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"sequence": "x"}, "sequence"),
        ({"sequence": -1}, "sequence"),
        ({"held": "L"}, "held"),
        ({"held": [1]}, "held[0]"),
        ({"reports": [{"id": "1", "kind": "letter"}]}, "reports[0]"),
        ({"reports": [{"id": "1", "kind": "job", "lease": "L", "state": "Lost"}]}, "reports[0].job.state"),
        ({"reports": [job_report(exit_code=10**40)]}, "reports[0].job.exit_code"),
        ({"reports": [job_report(stdout="x" * 100_000)]}, "reports[0].job.stdout"),
        ({"want": {"ahead": 65}}, "want.ahead"),
        ({"log": {"offset": -1, "text": ""}}, "log.offset"),
        ({"log": {"offset": 0, "text": 5}}, "log.text"),
    ],
)
def test_wrong_shapes_name_the_field(changes: dict[str, Any], path: str) -> None:
    status, code, text = refused(json.dumps(message(**changes)).encode())
    assert (status, code) == (422, "invalid")
    assert text.startswith(path)


def test_versions() -> None:
    for version in (2, 0, "old", None):
        status, code, text = refused(json.dumps(message(protocol=version)).encode())
        assert (status, code) == (426, "protocol")
        assert "supported: 1" in text
    assert refused(b'{"protocol": 99, "all": "else"}')[0] == 426
    with pytest.raises(ApiError) as caught:
        wire.register(b'{"protocol": 7}')
    assert caught.value.status == 426


def test_not_json_not_utf8() -> None:
    assert refused(b"{")[:2] == (400, "not_json")
    assert refused(b'{"protocol": 1, "sequence": 1, "beat": {"phase": "\xff"}}')[:2] == (400, "not_utf8")
    assert refused(b"[" * 100_000)[0] == 400
    assert refused(b"[1]")[0] == 422


def test_what_payloads_write_is_never_refused() -> None:
    text = "\x00 \ud800 \\ud800 NaN Infinity \U0001f600"
    body = json.dumps(message(reports=[job_report(stdout=text, usage={"x": float("nan")})]))
    report = wire.sync(body.encode())["reports"][0]
    assert "\x00" not in report["stdout"] and report["stdout"].encode() and "\U0001f600" in report["stdout"]
    assert report["usage"] == {"x": None}


def test_unsafe_output_names_are_left_out_and_told() -> None:
    good = {"name": "a/b.png", "sha256": "ab" * 32, "size": 1}
    bad = [{**good, "name": name} for name in ("../../etc/passwd", "/a", "a\nb")]
    report = sync(reports=[job_report(outputs=[good, *bad], message="all well")])["reports"][0]
    assert report["outputs"] == [good]
    assert report["message"].startswith("all well; output '../../etc/passwd' was left out")


def test_many_unsafe_outputs_make_no_long_message() -> None:
    bad = [{"name": "/" + "x" * 300, "sha256": "ab" * 32, "size": 1}] * 50_000
    report = sync(reports=[job_report(outputs=bad)])["reports"][0]
    assert report["outputs"] == [] and len(report["message"]) < 1000
    assert report["message"].endswith("and 49997 more outputs were left out")


@pytest.mark.parametrize("depth", [600, 900, 50_000])
def test_what_is_nested_too_deeply_is_refused(depth: int) -> None:
    body = json.dumps(message(beat={"phase": "\ud800", "usage": {"x": "HERE"}})).replace(
        '"HERE"', "[" * depth + "]" * depth
    )
    with pytest.raises(ApiError) as caught:
        wire.sync(body.encode())
    assert caught.value.status in (400, 422)


def test_log_bytes_survive() -> None:
    raw = b"caf\xc3\xa9 \xff\xfe end"
    body = json.dumps(message(log={"offset": 0, "text": raw.decode("utf-8", "surrogateescape")}))
    assert bytes_of(wire.sync(body.encode())["log"]["text"]) == raw
    assert bytes_of("\ud800") == b"?"
