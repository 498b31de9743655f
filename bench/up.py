"""`pilotage up`, from exec to the first job done, with a client that submits as soon as it can."""

from __future__ import annotations

import time

from bench.allinone import all_in_one
from bench.figures import Report, progress


def run(report: Report, runs: int) -> None:
    for number in range(runs):
        progress(f"run {number + 1} of {runs}")
        started = time.perf_counter()
        with all_in_one(ready=False) as service:
            service.wait_until_ready(pause=0.005)
            ready = time.perf_counter()
            service.ask("POST", "/jobs", [{"command": ["/bin/true"]}])
            for _ in service.patiently(0.01):
                if service.rows("SELECT state FROM jobs") == [("Done",)]:
                    break
            done = time.perf_counter()
        report.add("exec to ready", ready - started, "s")
        report.add("exec to first job done", done - started, "s", bar=2.0, assertable=False)
