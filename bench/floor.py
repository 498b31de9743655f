"""The machine's floor: what it costs here to start and reap a process, and to start a Python that can speak HTTPS."""

from __future__ import annotations

import os
import resource
import subprocess
import time

from bench.figures import Report

JOBS = 1000
IMPORTS = "import http.client, ssl, json, subprocess, threading"


def spawn_floor(jobs: int = JOBS) -> tuple[float, float]:
    """CPU-ms a job and jobs/s of posix_spawn and reap of /bin/true, one after the other."""
    started, cpu = time.perf_counter(), _cpu()
    for _ in range(jobs):
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    return 1000 * (_cpu() - cpu) / jobs, jobs / (time.perf_counter() - started)


def _cpu() -> float:
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in times)


def import_floor(python: str) -> float:
    """CPU-ms of one ``python -c`` that imports what any HTTPS client with processes and threads needs."""
    process = subprocess.Popen([python, "-c", IMPORTS], env={"PATH": "/usr/bin:/bin"})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{python} -c {IMPORTS!r} ended with {process.returncode}")
    return 1000 * (usage.ru_utime + usage.ru_stime)


def run(report: Report, runs: int) -> None:
    """Spawn floor and import floor of this Python."""
    import sys

    for _ in range(runs):
        cpu, rate = spawn_floor()
        report.add("spawn floor", cpu, "CPU-ms")
        report.add("spawn floor, rate", rate, "jobs/s")
        report.add("import floor", import_floor(os.path.realpath(sys.executable)), "CPU-ms")
