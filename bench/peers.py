"""HyperQueue, dask and Parsl beside Pilotage: the same no-op jobs with the same number of workers, alternating.

Each peer lives in an environment of its own under build/peers/, made at the first run. All talk on the loopback
interface, and everything that is started is ended. None of the peers stores a job durably; Pilotage does.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import trees
from bench.figures import Report, progress
from bench.floor import spawn_floor
from bench.overhead import JOBS, SLOTS, measure_pilotage

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "build" / "peers"
DRIVERS = Path(__file__).resolve().parent / "drivers"
PEERS = {"HyperQueue": "hyperqueue", "dask": "dask[distributed]", "Parsl": "parsl"}
SEEN = {"HyperQueue": "3.2 ms, 330-400", "dask": "4.4 ms, 420-470", "Parsl": "8 ms, 280-350"}
"""CPU a job and jobs/s of each on a quiet machine of this kind, from the issue that set the bars."""


def environment(name: str) -> Path:
    """The Python of a peer's own environment, made when it is not there."""
    home = HOME / name.lower()
    python = home / "bin" / "python"
    ready = home / "ready"
    if not ready.exists():
        progress(f"installing {PEERS[name]} in {home.relative_to(ROOT)}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEERS[name]], check=True, stderr=subprocess.DEVNULL)
        ready.touch()
    return python


def version_of(name: str) -> str:
    package = PEERS[name].partition("[")[0]
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([environment(name), "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@contextlib.contextmanager
def peer(name: str, jobs: int, workers: int) -> Iterator[Callable[[], tuple[float, float]]]:
    """Start a peer with its workers; gives a function that runs the jobs and returns (CPU-ms a job, jobs/s)."""
    log = HOME / f"{name.lower()}.log"
    script = DRIVERS / f"{name.lower()}_driver.py"
    python = environment(name)
    settings = {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(HOME)}  # Parsl finds its own parts on PATH
    with log.open("w") as errors:
        process = subprocess.Popen(
            [python, script, str(jobs), str(workers)],
            env=settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    assert process.stdin and process.stdout

    def answer() -> dict[str, float]:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{name} ended early; its words are in {log}")
        return json.loads(line)

    def work() -> tuple[float, float]:
        before = trees.cpu_below()
        process.stdin.write("go\n")
        process.stdin.flush()
        seconds = answer()["seconds"]
        return 1000 * (trees.cpu_below() - before) / jobs, jobs / seconds

    try:
        answer()
        yield work
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        trees.kill_below()


def run(report: Report, runs: int) -> None:
    trees.set_subreaper()
    for name in PEERS:
        report.note(f"{name} {version_of(name)}; on a quiet machine of this kind {SEEN[name]} jobs/s")
    for number in range(runs):
        progress(f"run {number + 1} of {runs}: the floor")
        floor, floor_rate = spawn_floor()
        report.add("spawn floor", floor, "CPU-ms")
        report.add("spawn floor, rate", floor_rate, "jobs/s")
        progress("Pilotage")
        ours = measure_pilotage(JOBS, "none")
        report.add("Pilotage", ours.cpu_ms, "CPU-ms")
        report.add("Pilotage, rate", ours.rate, "jobs/s")
        report.add("Pilotage / floor, CPU", ours.cpu_ms / floor, "", bar=3.0)
        for name in PEERS:
            progress(name)
            with peer(name, JOBS, SLOTS) as work:
                cpu, rate = work()
            report.add(name, cpu, "CPU-ms")
            report.add(f"{name}, rate", rate, "jobs/s")
            report.add(f"{name} / floor, CPU", cpu / floor)
            report.add(f"Pilotage / {name}, CPU", ours.cpu_ms / cpu)
            # The bar of jobs/s is dask's: both sides of this ratio are measured in the same run.
            bar = {"bar": 1.0, "most": False} if name == "dask" else {}
            report.add(f"Pilotage / {name}, jobs/s", ours.rate / rate, "", **bar)
