"""The local resource, with real processes: small sh scripts stand in for the pilot script."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pilotage.resources.base import Bundle, ResourceError, State
from pilotage.resources.local import OUTPUT_BYTES, VOID, LocalResource

SECRET = "the-secret-of-this-pilot"


def bundle(script: str, stamp: str = "aaaaaaaa00000000") -> Bundle:
    return Bundle(stamp, "default", script, json.dumps({"stamp": stamp, "secret": SECRET}))


async def until(condition, seconds: float = 30.0):
    """Polls until the condition's value is true, and gives it."""
    end = time.monotonic() + seconds
    while True:
        value = await condition()
        if value or time.monotonic() > end:
            assert value
            return value
        await asyncio.sleep(0.02)


async def ended(resource: LocalResource, stamp: str):
    async def look():
        status = (await resource.status([stamp]))[stamp]
        return status if status.state in (State.ENDED, State.GONE) else None

    return await until(look)


async def file_there(path: Path):
    async def look():
        return path.exists() and path.read_text().strip()

    return await until(look)


@pytest.fixture
async def resource(tmp_path):
    resource = LocalResource(tmp_path / "local" / "here", slots=2, kill_seconds=0.5)
    yield resource
    found = await resource.find()
    for _ in range(2):
        await resource.cancel(list(found.values()))
        await asyncio.sleep(0.1)
    for reference in found.values():
        await ended(resource, reference)


async def test_a_pilot_runs_and_leaves_its_status_and_output(resource, tmp_path):
    script = 'echo out; echo err >&2; echo "{}" >pilot.json; env >environment; cat credentials.json >seen; exit 7\n'
    answer = await resource.submit([bundle(script)])
    assert answer == {"aaaaaaaa00000000": "aaaaaaaa00000000"}
    status = await ended(resource, "aaaaaaaa00000000")
    assert (status.state, status.exit_code) == (State.ENDED, 7)
    assert await resource.output("aaaaaaaa00000000") == {"stdout": b"out\n", "stderr": b"err\n", "pilot.json": b"{}\n"}
    place = tmp_path / "local" / "here" / "aaaaaaaa00000000"
    assert json.loads((place / "seen").read_text())["secret"] == SECRET
    names = {line.partition("=")[0] for line in (place / "environment").read_text().splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "HOME", "LANG", "TMPDIR", "PILOTAGE_HIDE"}
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "credentials.json").stat().st_mode) == 0o600
    await resource.clean(["aaaaaaaa00000000"])
    assert not place.exists()
    assert (await resource.status(["aaaaaaaa00000000"]))["aaaaaaaa00000000"].state == State.GONE


async def test_the_secret_is_in_no_argument_and_no_environment(resource):
    await resource.submit([bundle("echo $$ >pid.pilot; sleep 60\n")])
    pid = await file_there(resource.directory / "aaaaaaaa00000000" / "pid.pilot")
    for process in (pid, (resource.directory / "aaaaaaaa00000000" / "started").read_text().splitlines()[1].split()[0]):
        for name in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{process}/{name}").read_bytes()


async def test_slots_limit(resource):
    stamps = [f"aaaaaaaa0000000{n}" for n in range(3)]
    answer = await resource.submit([bundle("sleep 60\n", stamp) for stamp in stamps])
    assert [type(answer[stamp]) for stamp in stamps] == [str, str, ResourceError]
    assert "2 slots" in str(answer[stamps[2]])
    assert await resource.free_slots() == 0
    await file_there(resource.directory / stamps[0] / "started")
    await resource.cancel(stamps[:1])
    await ended(resource, stamps[0])
    assert await resource.free_slots() == 1
    assert set(await resource.find()) == set(stamps[:2])


async def test_a_pilot_outlives_its_director(tmp_path):
    """The process that submitted is killed -9; a new resource object finds the pilot, and its exit status."""
    directory = tmp_path / "here"
    code = (
        "import asyncio, os, sys; from pathlib import Path\n"
        "from pilotage.resources.local import LocalResource; from pilotage.resources.base import Bundle\n"
        "asyncio.run(LocalResource(Path(sys.argv[1])).submit([Bundle('bbbbbbbb00000000', 'q', "
        "'while test ! -e go; do sleep 0.05; done; exit 3', '{}')]))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(directory)], check=False)
    assert done.returncode == -signal.SIGKILL
    resource = LocalResource(directory)

    async def running():
        return (await resource.status(["bbbbbbbb00000000"]))["bbbbbbbb00000000"].state == State.RUNNING

    await until(running)
    assert await resource.find() == {"bbbbbbbb00000000": "bbbbbbbb00000000"}
    assert await resource.free_slots() == 0
    (directory / "bbbbbbbb00000000" / "go").touch()
    assert (await ended(resource, "bbbbbbbb00000000")).exit_code == 3


async def test_cancel_is_polite_first(resource):
    await resource.submit([bundle("trap 'echo leaving; exit 5' TERM\necho yes >up\nwhile :; do sleep 0.05; done\n")])
    await file_there(resource.directory / "aaaaaaaa00000000" / "up")
    await resource.cancel(["aaaaaaaa00000000"])
    assert (await ended(resource, "aaaaaaaa00000000")).exit_code == 5
    assert (await resource.output("aaaaaaaa00000000"))["stdout"] == b"leaving\n"


async def test_cancel_ends_the_whole_tree_by_force(resource):
    """A pilot that ignores SIGTERM, with a child in a session of its own: nothing is left."""
    script = "trap '' TERM\nsetsid sh -c 'echo $$ >child; exec sleep 300' &\nsleep 300\n"
    await resource.submit([bundle(script)])
    child = int(await file_there(resource.directory / "aaaaaaaa00000000" / "child"))
    await resource.cancel(["aaaaaaaa00000000"])
    assert (await resource.status(["aaaaaaaa00000000"]))["aaaaaaaa00000000"].state == State.RUNNING
    status = await ended(resource, "aaaaaaaa00000000")
    assert status.reason == "killed after it was cancelled"

    async def gone():
        try:
            return "\nState:\tZ" in Path(f"/proc/{child}/status").read_text()
        except FileNotFoundError:
            return True

    await until(gone)


async def test_a_pilot_whose_launcher_was_killed_still_runs(resource):
    await resource.submit([bundle("echo $$ >pid.pilot; while test ! -e go; do sleep 0.05; done\n")])
    place = resource.directory / "aaaaaaaa00000000"
    await file_there(place / "pid.pilot")
    os.kill(int((place / "started").read_text().splitlines()[1].split()[0]), signal.SIGKILL)
    await asyncio.sleep(0.2)
    assert (await resource.status(["aaaaaaaa00000000"]))["aaaaaaaa00000000"].state == State.RUNNING
    (place / "go").touch()
    status = await ended(resource, "aaaaaaaa00000000")
    assert status.exit_code is None
    assert "without leaving an exit status" in status.reason


async def test_a_reused_pid_is_not_the_pilot(resource):
    """The start time in /proc tells the processes apart; so does the boot."""
    await resource.submit([bundle("exit 0\n")])
    await ended(resource, "aaaaaaaa00000000")
    place = resource.directory / "aaaaaaaa00000000"
    boot, _ = (place / "started").read_text().splitlines()
    ours = Path("/proc/self/stat").read_text()
    (place / "exit").unlink()
    fields = ours.rpartition(")")[2].split()
    fields[19] = str(int(fields[19]) - 1)
    (place / "started").write_text(f"{boot}\n{os.getpid()} (sh) {' '.join(fields)}\n")
    assert (await resource.status([place.name]))[place.name].state == State.ENDED
    (place / "started").write_text(f"another boot\n{ours}")
    assert (await resource.status([place.name]))[place.name].state == State.ENDED
    (place / "started").write_text(f"{boot}\n{ours}")
    assert (await resource.status([place.name]))[place.name].state == State.RUNNING
    (place / "exit").write_text("0\n")


async def test_a_submission_cut_short_never_starts(resource):
    """Files there and no launcher yet: whoever makes `started` first decides, and the launcher obeys."""
    answer = await resource.submit([bundle("exit 0\n")])
    await ended(resource, "aaaaaaaa00000000")
    place = resource.directory / "cccccccc00000000"
    place.mkdir()
    for name in ("pilot", "launch", "credentials.json"):
        (place / name).write_text((resource.directory / answer["aaaaaaaa00000000"] / name).read_text())
    (place / "pilot").write_text("touch ran\n")
    (place / "started").write_text(VOID)
    subprocess.run(["sh", "launch"], cwd=place, check=False, capture_output=True)
    assert not (place / "ran").exists()
    assert (await resource.status([place.name]))[place.name].state == State.GONE
    refused = await resource.submit([bundle("exit 0\n", place.name)])
    assert isinstance(refused[place.name], ResourceError)
    assert set(await resource.find()) == {"aaaaaaaa00000000"}
    assert not place.exists()


async def test_a_stamp_is_never_started_twice(resource):
    await resource.submit([bundle("echo once >>../count\n")])
    await ended(resource, "aaaaaaaa00000000")
    assert await resource.submit([bundle("echo once >>../count\n")]) == {"aaaaaaaa00000000": "aaaaaaaa00000000"}
    assert (resource.directory / "count").read_text() == "once\n"


async def test_output_is_bounded_and_follows_no_link(resource, tmp_path):
    (tmp_path / "key").write_text("service's own")
    script = f"head -c 3000000 /dev/zero; echo end; rm stderr; ln -s {tmp_path}/key stderr; mkfifo pilot.log\n"
    await resource.submit([bundle(script)])
    await ended(resource, "aaaaaaaa00000000")
    output = await resource.output("aaaaaaaa00000000")
    assert set(output) == {"stdout"}
    assert OUTPUT_BYTES < len(output["stdout"]) < OUTPUT_BYTES + 100
    assert b"bytes left out" in output["stdout"] and output["stdout"].endswith(b"end\n")


async def test_clean_removes_what_jobs_made_read_only(resource, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious").chmod(0o750)
    await resource.submit([bundle(f"mkdir -p a/b; ln -s {tmp_path}/precious link; touch a/b/c; chmod 500 a/b a\n")])
    await ended(resource, "aaaaaaaa00000000")
    await resource.clean(["aaaaaaaa00000000"])
    assert list(resource.directory.iterdir()) == []
    assert stat.S_IMODE((tmp_path / "precious").stat().st_mode) == 0o750


async def test_clean_spares_what_runs_and_references_cannot_lead_outside(resource, tmp_path):
    await resource.submit([bundle("sleep 60\n")])
    await resource.clean(["aaaaaaaa00000000"])
    assert (resource.directory / "aaaaaaaa00000000").is_dir()
    for reference in ("../../etc", "a/b", "", "..", "x" * 100):
        with pytest.raises(ResourceError, match="not a reference"):
            await resource.clean([reference])


async def test_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    answer = await LocalResource(tmp_path / "file" / "here").submit([bundle("exit 0\n")])
    assert "cannot start a process in" in str(answer["aaaaaaaa00000000"])
