"""Who gets which part of the nodes: fair share, priority, and matching of what jobs need, through real pilots."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.allinone import AllInOne, eventually

OPTIONS = {"RunJobAgent": {"idle_seconds": 3}, "RunEnvironmentTest": {"min_disk_mib": 64}}


def configuration(queues: dict[str, Any], slots: int = 1) -> dict[str, Any]:
    """One local resource with these queues, and pilots that leave soon."""
    local = {"type": "local", "flavour": "LOCAL", "slots": slots, "queues": queues}
    return {
        "service": {"sync_seconds": 1},
        "directors": {"interval_seconds": 1, "empty_seconds": 1},
        "vos": {"demo": {"pilot": {"options": OPTIONS}}},
        "sites": {"LOCAL": {"resources": {"local": local}}},
    }


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], AllInOne]]:
    started: list[AllInOne] = []

    def start(settings: dict[str, Any]) -> AllInOne:
        started.append(AllInOne(tmp_path, settings).start())
        return started[0]

    yield start
    for one in started:
        one.stop()
        eventually(lambda one=one: not one.processes(), "no process of the test is left", 30)


def submit_as(one: AllInOne, owner: str, specs: list[dict[str, Any]]) -> list[int]:
    """Submit with a token of that owner."""
    made = one.client().post("/tokens", json={"vo": "demo", "owner": owner})
    answer = one.client(made.json()["token"]).post("/jobs", json=specs)
    assert answer.status_code == 201, answer.text
    return list(answer.json()["ids"])


def marking(order: Path, word: str, then: str = "true") -> dict[str, Any]:
    """A job that writes a word at the end of a file when it starts (one short write: lines never mix)."""
    text = f"echo {word} >> {shlex.quote(str(order))}; {then}"
    return {"command": ["sh", "-c", text], "isolation": "none", "wall_seconds": 60}


def test_a_flood_does_not_keep_others_out(up: Callable[..., AllInOne], tmp_path: Path) -> None:
    """Ann floods first, with all the priority there is; bob's few jobs get their share long before she is through."""
    one = up(configuration({"q": {"cores": 2}}))
    order = tmp_path / "order"
    order.touch()
    flood = submit_as(one, "ann", [{**marking(order, "ann", "sleep 0.3"), "priority": 1_000_000}] * 40)
    eventually(order.read_text, "the flood has begun")
    few = submit_as(one, "bob", [marking(order, "bob", "sleep 0.3")] * 10)
    assert {job["state"] for job in one.wait([*flood, *few])} == {"Done"}
    started = order.read_text().split()
    assert (started.count("ann"), started.count("bob")) == (40, 10)
    last = max(index for index, word in enumerate(started) if word == "bob")
    assert last < 40, f"first come first served would put bob last: {started}"
    assert {one.job(job)["owner"] for job in few} == {"bob"}


def test_priority_counts_among_ones_own(up: Callable[..., AllInOne], tmp_path: Path) -> None:
    one = up(configuration({"q": {"cores": 1}}))
    order, go = tmp_path / "order", tmp_path / "go"
    first = submit_as(one, "ann", [marking(order, "first", f"while [ ! -e {go} ]; do sleep 0.1; done")])
    eventually(order.exists, "the only core is taken")
    rest = [{**marking(order, word), "priority": n} for n, word in ((-1, "late"), (0, "usual"), (7, "urgent"))]
    ids = [job for spec in rest for job in submit_as(one, "ann", [spec] * 2)]
    go.touch()
    one.wait([*first, *ids])
    assert order.read_text().split() == ["first", "urgent", "urgent", "usual", "usual", "late", "late"]


def test_jobs_run_where_what_they_need_is(up: Callable[..., AllInOne]) -> None:
    """Tags, platform, cores, memory: each alone leads to the one queue that has it; what nobody has waits."""
    big = {"tags": ["himem"], "platform": "x86_64-test"}
    one = up(
        configuration(
            {"small": {"cores": 1, "memory_mib": 256}, "big": {"cores": 2, "memory_mib": 1024, "pilot": big}}, 2
        )
    )
    plain = {"command": ["true"], "wall_seconds": 60}
    only_big: list[dict[str, Any]] = [
        {"tags": ["himem"]},
        {"platform": "x86_64-test"},
        {"cores": 2},
        {"memory_mib": 512},
    ]
    nowhere: list[dict[str, Any]] = [
        {"tags": ["himem", "ssd"]},
        {"platform": "vax"},
        {"cores": 3},
        {"memory_mib": 2048},
        {"gpus": 1},
        {"sites": ["ELSEWHERE"]},
        {"banned_sites": ["LOCAL"]},
    ]
    waiting = one.submit(*({**plain, **need} for need in nowhere))
    ids = one.submit(*({**plain, **need} for need in only_big))
    anywhere = one.submit(*[plain] * 3)
    jobs = one.wait([*ids, *anywhere])
    assert {job["state"] for job in jobs} == {"Done"}
    queues = {pilot["stamp"]: pilot["queue"] for pilot in one.pilots()}
    assert [queues[job["pilot"]] for job in jobs[: len(ids)]] == ["big"] * len(ids)
    one.wait(one.submit({**plain, "tags": ["himem"]}))
    assert {one.job(job)["state"] for job in waiting} == {"Waiting"}


DEVICES = ("nvidia0", "nvidia1")


def gpu_node(script: Path) -> list[str]:
    """The command that runs a pilot on a node with two GPUs: its own /dev, with two device files of their names."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        pytest.skip("bubblewrap is not installed")
    line = [bwrap, "--bind", "/", "/", "--dev", "/dev", "--die-with-parent"]
    for name in DEVICES:
        line += ["--dev-bind", "/dev/null", f"/dev/{name}"]
    return [*line, "sh", str(script)]


def test_gpus_are_handed_out(up: Callable[..., AllInOne], tmp_path: Path) -> None:
    """Jobs that need a GPU run only at the pilot whose node has some, each with one of its own."""
    one = up(configuration({"q": {"cores": 1}}))
    marks = tmp_path / "marks"
    marks.mkdir()
    # Each waits for the other: they can only be done side by side.
    both = f'touch "{marks}/$CUDA_VISIBLE_DEVICES"; while [ "$(ls {marks} | wc -l)" -lt 2 ]; do sleep 0.1; done; '
    show = 'echo "cuda=$CUDA_VISIBLE_DEVICES"'
    shared = {"isolation": "none", "wall_seconds": 120}
    gpu = one.submit(*[{**shared, "command": ["sh", "-c", both + show], "gpus": 1}] * 2)
    [plain] = one.wait(one.submit({**shared, "command": ["sh", "-c", show]}))
    assert (plain["state"], plain["stdout"]) == ("Done", "cuda=\n"), "a job that asked for none sees none"
    assert {one.job(job)["state"] for job in gpu} == {"Waiting"}

    one.cli("generate", "--flavour", "LOCAL", "--bundle", str(tmp_path / "mine"))
    stamp = json.loads((tmp_path / "mine" / "credentials.json").read_text())["stamp"]
    with open(tmp_path / "mine.out", "wb") as out:
        pilot = subprocess.Popen(
            gpu_node(tmp_path / "mine" / "pilot"),
            cwd=tmp_path / "mine",
            env={"PATH": os.environ["PATH"]},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        jobs = one.wait(gpu)
        assert {job["state"] for job in jobs} == {"Done"}, [job["stderr"] for job in jobs]
        assert sorted(job["stdout"] for job in jobs) == ["cuda=0\n", "cuda=1\n"]
        assert {job["pilot"] for job in jobs} == {stamp}
        isolated = one.submit({"command": ["sh", "-c", f"{show}; ls /dev/nvidia?"], "gpus": 2, "wall_seconds": 120})
        [job] = one.wait(isolated)
        first, *devices = job["stdout"].splitlines()
        assert first in ("cuda=0,1", "cuda=1,0")
        assert devices == [f"/dev/{name}" for name in DEVICES], "isolated, it sees the devices all the same"
        assert one.client().get(f"/pilots/{stamp}").json()["node"]["gpus"] == 2
        assert pilot.wait(120) == 0, (tmp_path / "mine.out").read_text()
    finally:
        if pilot.poll() is None:
            pilot.kill()
            pilot.wait()
