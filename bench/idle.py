"""An all-in-one without work: its memory and its CPU over 20 s, once its start is over."""

from __future__ import annotations

import time

from bench import trees
from bench.allinone import all_in_one
from bench.figures import Report, progress

SETTLE = 5.0
WATCH = 20.0


def run(report: Report, runs: int) -> None:
    for number in range(runs):
        progress(f"run {number + 1} of {runs}: watching for {WATCH:.0f} s")
        with all_in_one() as service:
            time.sleep(SETTLE)
            before, started = trees.cpu_below(), time.perf_counter()
            time.sleep(WATCH)
            share = (trees.cpu_below() - before) / (time.perf_counter() - started)
            report.add("idle memory (RSS)", trees.rss_below(service.process.pid) / 2**20, "MiB", bar=150 / 1.048576)
            report.add("idle CPU, of one core", 100 * share, "%", bar=1.0, assertable=False)
