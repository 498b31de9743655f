"""A pilot's start: CPU of the whole pilot (sh, runner, courier, first command) from exec to its first command's first
line, the registration over TLS with a pinned certificate included; against importing what any HTTPS client needs with
the same Python in the same run.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bench.allinone import all_in_one
from bench.figures import Report, progress
from bench.floor import import_floor
from bench.pilot import until_first_line

WANTED = ("3.6", "3.11", "3.13")
BAR = 1.5
"""Times the import floor."""


def interpreters() -> dict[str, Path]:
    """The interpreters that are to be measured, by version: real ones of pyenv, else what is on PATH."""
    found = {}
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in WANTED:
        candidates = [*sorted(root.glob(f"{version}.*/bin/python3")), *places_on_path(f"python{version}")]
        for candidate in candidates:
            if version_of(candidate) == version:
                found[version] = candidate
                break
    return found


def places_on_path(name: str) -> list[Path]:
    return [Path(directory) / name for directory in os.environ["PATH"].split(":") if (Path(directory) / name).exists()]


def version_of(python: Path) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run(
        [python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout.strip()


def run(report: Report, runs: int) -> None:
    pythons = interpreters()
    for version in WANTED:
        if version not in pythons:
            report.note(f"there is no Python {version} here: not measured")
    with all_in_one(tls=True) as service:
        for number in range(runs):
            progress(f"run {number + 1} of {runs}")
            for version, python in pythons.items():
                floor = import_floor(str(python))
                # python3 is the first name that the script looks for; /bin has what sh needs.
                cpu, _ = until_first_line(service, ("/bin/sh",), f"{python.parent}:/usr/bin:/bin")
                report.add(f"{version} import floor", floor, "CPU-ms")
                report.add(f"{version} pilot start", 1000 * cpu, "CPU-ms")
                report.add(f"{version} start / floor", 1000 * cpu / floor, "", bar=BAR)
