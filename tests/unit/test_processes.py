"""The process tree, from real processes and from files that play them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pilotage_node import processes

STAT = "{pid} ({name}) S {ppid} 7 8 0 -1 4194560 1 2 3 4 250 50 1000 200 20 0 1 0 12345 99999 256 0 0\n"


def tree_of(root: Path, *rows: tuple[int, int, str]) -> str:
    for pid, ppid, name in rows:
        (root / str(pid)).mkdir()
        (root / str(pid) / "stat").write_text(STAT.format(pid=pid, ppid=ppid, name=name))
    (root / "self").mkdir()
    return str(root)


def eventually(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_fields(tmp_path: Path) -> None:
    [one] = processes.snapshot(tree_of(tmp_path, (42, 1, "a) R 9 (b"))).values()
    ticks = os.sysconf("SC_CLK_TCK")
    assert (one.pid, one.ppid, one.session, one.state) == (42, 1, 8, "S")
    assert (one.cpu_user, one.cpu_system) == (250 / ticks, 50 / ticks)
    assert (one.reaped_user, one.reaped_system) == (1000 / ticks, 200 / ticks)
    assert (one.start_ticks, one.rss) == (12345, 256 * os.sysconf("SC_PAGE_SIZE"))


def test_descendants(tmp_path: Path) -> None:
    rows = ((1, 0, "init"), (10, 1, "a"), (11, 10, "b"), (12, 11, "c"), (13, 10, "d"), (20, 1, "e"))
    everything = processes.snapshot(tree_of(tmp_path, *rows))
    assert sorted(processes.descendants(everything, 10)) == [11, 12, 13]
    assert sorted(processes.children_of(everything, 10)) == [11, 13]
    assert processes.descendants(everything, 99) == []


def test_processes_that_vanish_or_are_strange_are_left_out(tmp_path: Path) -> None:
    root = tree_of(tmp_path, (5, 1, "a"))
    (tmp_path / "6").mkdir()
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("not a stat")
    assert list(processes.snapshot(root)) == [5]


def test_this_process() -> None:
    one = processes.snapshot()[os.getpid()]
    assert one.ppid == os.getppid() and one.rss > 1 << 20 and one.cpu_user > 0


def test_kill_tree() -> None:
    script = "setsid sh -c 'sleep 1000' & sh -c 'sleep 1000 & sleep 1000' & wait"
    root = subprocess.Popen(["sh", "-c", script], start_new_session=True)
    eventually(lambda: len(processes.descendants(processes.snapshot(), root.pid)) >= 4)
    found = processes.descendants(processes.snapshot(), root.pid)
    processes.kill_tree(root.pid)
    root.wait()
    eventually(lambda: not {pid for pid, one in processes.snapshot().items() if one.state != "Z"} & set(found))


PRCTL = """
import os, signal, subprocess, sys
from pilotage_node import processes
assert processes.set_name("a-name-that-is-too-long")
assert open("/proc/self/comm").read() == "a-name-that-is-\\n"
assert processes.set_subreaper()
subprocess.call(["sh", "-c", "sleep 0.2 &"])
assert len(processes.children_of(processes.snapshot(), os.getpid())) == 1
os.wait()
assert processes.set_parent_death_signal(signal.SIGKILL)
assert processes.set_undumpable()
import ctypes
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE
"""


def test_prctl() -> None:
    source = Path(processes.__file__).parents[1]
    subprocess.run([sys.executable, "-c", PRCTL], env={**os.environ, "PYTHONPATH": str(source)}, check=True)
