"""Importing a DIRAC configuration of 200 sites and 1,500 queues, and validating what comes out of it."""

from __future__ import annotations

import time

from bench.dirac_files import big
from bench.figures import Report
from pilotage.configuration.dirac import cfg, convert
from pilotage.configuration.loader import load_files


def run(report: Report, runs: int) -> None:
    text = big()
    for _ in range(runs):
        started = time.perf_counter()
        root = cfg.parse(text, "dirac.cfg")
        parsed = time.perf_counter()
        imported = convert(root)
        converted = time.perf_counter()
        configuration = load_files(imported.files)
        loaded = time.perf_counter()
        report.add("import and validate", loaded - started, "s", bar=2.0, assertable=False)
        report.add("of it: read the .cfg", parsed - started, "s")
        report.add("of it: convert, write YAML", converted - parsed, "s")
        report.add("of it: load and validate", loaded - converted, "s")
    queues = sum(len(resource.queues) for _, _, resource in configuration.resources())
    report.add("sites", len(configuration.sites))
    report.add("queues", queues)
    report.add("lines of .cfg", text.count("\n"))
    report.add("KiB of YAML", sum(len(content.encode()) for content in imported.files.values()) / 1024, "KiB")
    report.add("notes", len(imported.notes))
