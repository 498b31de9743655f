"""Keys on the disk and pilot tokens."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from pilotage.service import credentials
from pilotage.service.credentials import Keys, PilotTokens
from pilotage.service.errors import ApiError

NOW = 1_700_000_000.0
KEYS = Keys((b"1" * 32,), b"2" * 32)


def refused(tokens: PilotTokens, token: str, now: float = NOW) -> str:
    with pytest.raises(ApiError) as caught:
        tokens.verify(token, now)
    assert caught.value.status == 401
    return caught.value.code


def test_keys_are_made_once(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "keys.json"
    first = credentials.load(file)
    assert credentials.load(file) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len({*first.pilot, first.engine}) == 2
    assert [path.name for path in file.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"pilot": [], "engine": ""}', '{"pilot": ["YQ=="], "engine": "YQ=="}']
)
def test_damaged_keys_are_an_error_and_stay(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="damaged"):
        credentials.load(file)
    assert file.read_text() == text


def test_token_says_who_and_until_when() -> None:
    tokens = PilotTokens(KEYS, 600)
    token = tokens.issue("stamp", "demo", NOW)
    for _ in range(2):
        claims = tokens.verify(token, NOW + 1)
        assert (claims.stamp, claims.vo, claims.expires) == ("stamp", "demo", NOW + 600)
    assert not claims.old(NOW + 299) and claims.old(NOW + 301)
    assert PilotTokens(KEYS, 600).verify(token, NOW + 1) == claims
    head = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    assert head["alg"] == "Ed25519"


def test_expired_also_from_the_cache() -> None:
    tokens = PilotTokens(KEYS, 600)
    token = tokens.issue("stamp", "demo", NOW)
    tokens.verify(token, NOW)
    assert refused(tokens, token, NOW + 600) == "token_expired"
    assert refused(PilotTokens(KEYS, 600), token, NOW + 601) == "token_expired"


def test_forged() -> None:
    tokens = PilotTokens(KEYS, 600)
    token = tokens.issue("stamp", "demo", NOW)
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    other = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "mine"}).encode()).rstrip(b"=").decode()
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    symmetric = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=").decode()
    foreign = PilotTokens(Keys((b"3" * 32,), b""), 600).issue("stamp", "demo", NOW)
    flipped = signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]
    for forged in (
        f"{head}.{other}.{signature}",
        f"{none}.{body}.",
        f"{symmetric}.{body}.{signature}",
        f"{head}.{body}.{flipped}",
        foreign,
        "a.b.c",
        "..",
    ):
        assert refused(tokens, forged) == "token_invalid"


def test_keys_rotate() -> None:
    old, new = b"1" * 32, b"4" * 32
    token = PilotTokens(Keys((old,), b""), 600).issue("stamp", "demo", NOW)
    both = PilotTokens(Keys((new, old), b""), 600)
    assert both.verify(token, NOW).stamp == "stamp"
    assert refused(PilotTokens(Keys((new,), b""), 600), both.issue("x", "demo", NOW) + "x") == "token_invalid"
    assert refused(PilotTokens(Keys((new,), b""), 600), token) == "token_invalid"


def test_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "CACHED", 2)
    tokens = PilotTokens(KEYS, 600)
    made = [tokens.issue(f"stamp{n}", "demo", NOW) for n in range(4)]
    assert [tokens.verify(token, NOW).stamp for token in made] == ["stamp0", "stamp1", "stamp2", "stamp3"]
    assert len(tokens._known) == 2
