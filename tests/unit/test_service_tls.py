"""The authority and the server's certificate: made, kept, renewed, rotated; checked by OpenSSL, as pilots do."""

from __future__ import annotations

import ssl
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from pilotage.service import tls

HOSTS = ("localhost", "127.0.0.1")


def handshake(server: tls.TlsFiles, anchors: str, host: str = "localhost") -> str:
    """A handshake in memory with exactly these anchors; the issuer of what the server showed."""
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(server.cert, server.key)
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    here.load_verify_locations(cadata=anchors)
    wires = [ssl.MemoryBIO() for _ in range(4)]
    client = here.wrap_bio(wires[0], wires[1], server_hostname=host)
    service = there.wrap_bio(wires[1], wires[0], server_side=True)
    done = False
    while not done:
        done = True
        for side in (client, service):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                done = False
    shown = client.getpeercert()
    assert shown
    return str(shown["issuer"])


def test_made_once_and_private(tmp_path: Path) -> None:
    first = tls.ensure(tmp_path / "tls", HOSTS)
    before = first.cert.read_bytes()
    assert tls.ensure(tmp_path / "tls", reversed(HOSTS)).cert.read_bytes() == before
    assert stat.S_IMODE(first.key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls" / "authority.pem").stat().st_mode) == 0o600
    assert "PRIVATE" not in first.ca.read_text()
    assert len(first.anchors()) == 1
    handshake(first, first.ca.read_text())
    handshake(first, first.ca.read_text(), "127.0.0.1")


def test_verified_by_name_and_anchor(tmp_path: Path) -> None:
    ours = tls.ensure(tmp_path / "ours", HOSTS)
    theirs = tls.ensure(tmp_path / "theirs", HOSTS)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ours, theirs.ca.read_text())
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ours, ours.ca.read_text(), "elsewhere.example")
    handshake(ours, theirs.ca.read_text() + ours.ca.read_text())


def test_other_hosts_make_another_certificate(tmp_path: Path) -> None:
    first = tls.ensure(tmp_path, HOSTS)
    anchors = first.ca.read_text()
    second = tls.ensure(tmp_path, (*HOSTS, "::1", "pilotage.example"))
    assert second.ca.read_text() == anchors
    handshake(second, anchors, "pilotage.example")


def test_rotation_serves_old_and_new_anchors_at_once(tmp_path: Path) -> None:
    old = tls.ensure(tmp_path, HOSTS).anchors()[0]
    issued_by_old = handshake(tls.ensure(tmp_path, HOSTS), old)
    rotated = tls.rotate(tmp_path, HOSTS)
    assert len(rotated.anchors()) == 2 and old in rotated.anchors()
    new = rotated.anchors()[0]
    for anchors in (old, new, old + new):
        assert handshake(rotated, anchors) != issued_by_old
    again = tls.rotate(tmp_path, HOSTS)
    assert len(again.anchors()) == 3
    for anchor in again.anchors():
        handshake(again, anchor)


def test_renewed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tls.ensure(tmp_path, HOSTS)
    before, anchors = first.cert.read_bytes(), first.ca.read_text()
    now = tls._now()
    monkeypatch.setattr(tls, "_now", lambda: now + timedelta(days=tls.SERVER_DAYS - tls.RENEW_DAYS - 1))
    assert tls.ensure(tmp_path, HOSTS).cert.read_bytes() == before
    monkeypatch.setattr(tls, "_now", lambda: now + timedelta(days=tls.SERVER_DAYS - tls.RENEW_DAYS + 1))
    assert tls.ensure(tmp_path, HOSTS).cert.read_bytes() != before
    assert first.ca.read_text() == anchors
    monkeypatch.setattr(tls, "_now", lambda: now + timedelta(days=tls.AUTHORITY_DAYS - tls.SERVER_DAYS + 2))
    assert len(tls.ensure(tmp_path, HOSTS).anchors()) == 2
    monkeypatch.setattr(tls, "_now", lambda: now + timedelta(days=2 * tls.AUTHORITY_DAYS))
    assert len(tls.ensure(tmp_path, HOSTS).anchors()) == 1, "an expired anchor is dropped when the set changes"


def test_a_crash_between_anchors_and_authority_is_mended(tmp_path: Path) -> None:
    old = tls.ensure(tmp_path, HOSTS).anchors()[0]
    (tmp_path / "authority.pem").unlink()
    mended = tls.ensure(tmp_path, HOSTS)
    assert old in mended.anchors()
    handshake(mended, mended.ca.read_text())
