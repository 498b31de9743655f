"""Renderings of a pilot script: each tried as those who get it would."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interpreters import interpreters

from pilotage.configuration import ComposedPilot, compose_pilot, load
from pilotage.renderings import RENDERINGS, Material, Relocatable, RenderingError, render

NO_CREDENTIALS, NO_PYTHON, DISK = 10, 2, 21
TOOLS = ("sh", "cat", "mkdir", "chmod", "rm", "tar", "gzip", "sha256sum", "printf", "curl")


@pytest.fixture(scope="module")
def pilot() -> ComposedPilot:
    return compose_pilot(load(None), "demo", flavour="VAC", urls=["https://127.0.0.1:1"])


def test_plain_is_the_script_itself(pilot: ComposedPilot) -> None:
    made = render("plain", Material(pilot.script))
    assert (made.data.decode(), made.name) == (pilot.script, "pilot")


def test_what_a_rendering_cannot_hold_is_refused(pilot: ComposedPilot) -> None:
    def refused(name: str, **more: object) -> str:
        with pytest.raises(RenderingError) as caught:
            render(name, Material(pilot.script, **more))  # type: ignore[arg-type]
        return str(caught.value)

    python = Relocatable("/x.tar.gz", "ab" * 32)
    assert refused("tarbal") == "unknown rendering 'tarbal'; did you mean 'tarball'?"
    assert refused("x").endswith(f"(there are: {', '.join(RENDERINGS)})")
    assert "takes no files" in refused("plain", files={"a": b""})
    assert "takes no Python" in refused("tarball", pythons=[python])
    for name in ("pilot", "manifest.json", "../up", "a/b", ""):
        assert refused("tarball", files={name: b""}) == f"a file beside the pilot cannot be called '{name}'"
    for text in ("/x.tar.gz", "/x.tar.gz#sha256=ab", f"x#sha256={'ab' * 32}", f"/a b'#sha256={'ab' * 32}"):
        with pytest.raises(RenderingError):
            Relocatable.parse(text)
    assert Relocatable.parse(f"/x.tar.gz#sha256={'ab' * 32}") == python


def test_the_tarball_has_a_manifest_and_is_reproducible(pilot: ComposedPilot, tmp_path: Path) -> None:
    files = {"table.json": b"{}", "credentials.json": b"{}"}
    made = render("tarball", Material(pilot.script, files))
    backwards = dict(reversed(list(files.items())))
    assert render("tarball", Material(pilot.script, backwards)).data == made.data
    with tarfile.open(fileobj=io.BytesIO(made.data)) as tar:
        members = tar.getmembers()
        assert [(m.name, oct(m.mode), m.mtime, m.uid, m.uname) for m in members] == [
            ("credentials.json", "0o600", 0, 0, ""),
            ("manifest.json", "0o644", 0, 0, ""),
            ("pilot", "0o755", 0, 0, ""),
            ("table.json", "0o644", 0, 0, ""),
        ]
    subprocess.run(["tar", "-xzf", "-"], input=made.data, cwd=tmp_path, check=True)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["digest"] == pilot.digest
    assert set(manifest["files"]) == {"pilot", *files}
    for name, known in manifest["files"].items():
        data = (tmp_path / name).read_bytes()
        assert known == {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


# --- the sh bootstrap


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH without any Python."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found, f"{name} must be on this machine"
        (place / name).symlink_to(found)
    return place


def archive(path: Path, top: str = "python/") -> str:
    """A relocatable Python: its place and SHA-256 as `generate --python` takes it."""
    text = f'#!/bin/sh\necho unpacked >&2\nexec {interpreters()["3.6"]} "$@"\n'.encode()
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo(f"{top}bin/python3")
        entry.size, entry.mode = len(text), 0o755
        tar.addfile(entry, io.BytesIO(text))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(home: Path, path: Path | str, data: bytes, *words: str, shell: str = "sh") -> tuple[int, str]:
    home.mkdir(exist_ok=True)
    (home / "pilot.sh").write_bytes(data)
    done = subprocess.run(
        [shutil.which(shell) or shell, "pilot.sh", *words],
        cwd=home,
        env={"PATH": str(path), "TMPDIR": str(home), "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_with_a_python_the_pilot_inside_runs(pilot: ComposedPilot, tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        assert not os.environ.get("CI") or shell == "busybox", f"{shell} must be here in CI"
        pytest.skip(f"there is no {shell} here")
    home = tmp_path / "a pläce of its own"
    data = render("shell", Material(pilot.script)).data
    path = f"{Path(interpreters()['3.6']).parent}:{os.environ['PATH']}"
    if shell == "busybox":
        (tmp_path / "sh").symlink_to(shutil.which("busybox") or "")
        code, text = run(home, path, data, shell=str(tmp_path / "sh"))
    else:
        code, text = run(home, path, data, shell=shell)
    assert code == NO_CREDENTIALS, text
    assert f"no credentials in {home}/credentials.json" in text
    [inside] = home.glob("pilotage-*/pilot")
    assert inside.read_text() == pilot.script
    assert inside.parent.stat().st_mode & 0o777 == 0o700


def test_without_any_python_it_says_so(pilot: ComposedPilot, tmp_path: Path, tools: Path) -> None:
    code, text = run(tmp_path / "home", tools, render("shell", Material(pilot.script)).data)
    assert code == NO_PYTHON
    assert text == f"pilot: no Python 3.6 or newer on this machine, and none to unpack (PATH={tools})\n"
    assert not list((tmp_path / "home").glob("pilotage-*")), "nothing is left"


@pytest.mark.parametrize("top", ["python/", ""])
def test_a_python_is_unpacked_from_a_path(pilot: ComposedPilot, tmp_path: Path, tools: Path, top: str) -> None:
    file = tmp_path / "python.tar.gz"
    python = Relocatable(str(file), archive(file, top))
    code, text = run(tmp_path / "home", tools, render("shell", Material(pilot.script, pythons=[python])).data)
    assert code == NO_CREDENTIALS, text
    assert "unpacked" in text


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server of the test's directory."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: object) -> None:
            super().__init__(*words, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_wrong_python_is_refused_and_the_next_one_taken(
    pilot: ComposedPilot, tmp_path: Path, tools: Path, web: str
) -> None:
    digest = archive(tmp_path / "python.tar.gz")
    pythons = [
        Relocatable(f"{web}/none.tar.gz", digest),
        Relocatable(f"{web}/python.tar.gz", "ab" * 32),
        Relocatable(f"{web}/python.tar.gz", digest),
    ]
    code, text = run(tmp_path / "home", tools, render("shell", Material(pilot.script, pythons=pythons)).data)
    assert f"pilot: cannot fetch {web}/none.tar.gz" in text
    assert f"pilot: refused {web}/python.tar.gz: it is sha256:{digest}, and not {'ab' * 32}" in text
    assert (code, text.count("unpacked") > 0) == (NO_CREDENTIALS, True), text
    assert not list((tmp_path / "home").rglob("python.tar.gz")), "what was fetched is not needed any more"
    code, text = run(tmp_path / "other", tools, render("shell", Material(pilot.script, pythons=pythons[:2])).data)
    assert code == NO_PYTHON and "none to unpack" in text


def test_with_nowhere_to_write_it_says_so(pilot: ComposedPilot, tmp_path: Path, tools: Path) -> None:
    data = render("shell", Material(pilot.script)).data
    (tmp_path / "pilot.sh").write_bytes(data)
    for name in ("one", "two"):
        (tmp_path / name).write_text("no directory")
    done = subprocess.run(
        ["sh", str(tmp_path / "pilot.sh")],
        cwd="/proc",
        env={"PATH": str(tools), "TMPDIR": str(tmp_path / "one"), "HOME": str(tmp_path / "two")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == DISK and "there is nowhere to write" in done.stdout


def test_arguments_and_standard_input_reach_the_pilot(pilot: ComposedPilot, tmp_path: Path) -> None:
    data = render("shell", Material(pilot.script)).data
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    code, text = run(tmp_path / "home", path, data, "--credentials", "/no where/c.json")
    assert (code, "no credentials in /no where/c.json" in text) == (NO_CREDENTIALS, True), text
    done = subprocess.run(["sh"], input=data, cwd=tmp_path, env={"PATH": path}, capture_output=True, timeout=60)
    assert done.returncode == NO_CREDENTIALS, "as in: curl ... | sh"
