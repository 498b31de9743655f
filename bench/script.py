"""The LOCAL pilot script: its size, how much of it is compiled before the first command, the cost of one more."""

from __future__ import annotations

import gzip
import time
from typing import Any

from bench.figures import Report, progress
from bench.pilot import lines_compiled, local_pilot
from pilotage.configuration import toolboxes
from pilotage_node.compose import compose, read_script

REPEAT = 50


def gzipped(text: str) -> int:
    """Bytes of the script as a rendering for user data would carry it."""
    return len(gzip.compress(text.encode(), 9, mtime=0))


def milliseconds_to_compose(profile: dict[str, Any]) -> float:
    """Mean of composing REPEAT pilots, each with a revision of its own, from toolboxes that are known."""
    built = [toolboxes.base(), toolboxes.core()]
    compose(profile, built)
    started = time.perf_counter()
    for number in range(REPEAT):
        compose(dict(profile, revision=f"r{number}"), built)
    return 1000 * (time.perf_counter() - started) / REPEAT


def run(report: Report, runs: int) -> None:
    pilot = local_pilot("http://127.0.0.1:1", [])
    text = pilot.script
    sections = read_script(text).sections
    report.add("LOCAL pilot, gzipped", gzipped(text) / 1024, "KiB", bar=16.0)
    report.add("LOCAL pilot, plain", len(text.encode()) / 1024, "KiB")
    report.add("lines in it", text.count("\n"))
    report.add("modules in it", sum(name.endswith(".py") for name in sections))
    progress("starting one pilot to see what it compiles")
    lines, modules = lines_compiled()
    report.add("lines compiled before the first command", lines, "", bar=1200)
    report.note(f"compiled before the first command: boot and {', '.join(sorted(modules))}")
    for _ in range(runs):
        report.add("composing one more pilot", milliseconds_to_compose(pilot.profile), "ms", bar=2.0, assertable=False)
