"""A seed's start: CPU of the whole of it, from exec to the first line of its pilot's first command, all that it fetches
being in a local directory and in its cache; against the same pilot, composed by the server, in the same run.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from bench import trees
from bench.allinone import PATIENCE, Service, all_in_one
from bench.figures import Report, progress
from bench.pilot import has_first_line
from bench.start import WANTED, interpreters
from pilotage.configuration import load, publish, seeds
from pilotage_node.compose import read_script

BAR = 2.0
"""Times the start of the server's pilot."""
PAUSE = 0.0005
"""Between two looks for the first line [s]: what is burnt meanwhile is counted."""


def run(report: Report, runs: int) -> None:
    pythons = interpreters()
    for version in WANTED:
        if version not in pythons:
            report.note(f"there is no Python {version} here: not measured")
    with all_in_one(tls=True) as service, tempfile.TemporaryDirectory(prefix="pilotage-bench-") as directory:
        home = Path(directory)
        seed = make_seed(service, home / "published")
        report.add("seed, gzipped", len(gzip.compress(seed.encode(), 9, mtime=0)) / 1024, "KiB", bar=16.0)
        for python in pythons.values():
            start(service, home, seed, python)  # what it fetched is in its cache from now on
        for number in range(runs):
            progress(f"run {number + 1} of {runs}")
            for version, python in pythons.items():
                pilot = 1000 * start(service, home, None, python)
                grown = 1000 * start(service, home, seed, python)
                report.add(f"{version} pilot start", pilot, "CPU-ms")
                report.add(f"{version} seed start", grown, "CPU-ms")
                report.add(f"{version} seed / pilot", grown / pilot, "", bar=BAR)


def make_seed(service: Service, directory: Path) -> str:
    """The seed of the pilot that the service would give by hand, its one trusted place a directory."""
    bundle = service.ask("POST", "/pilots/bundle", {"flavour": "LOCAL"})
    known = read_script(bundle["script"]).profile
    where = known["service"]
    item = publish.published(load(None), known["vo"], flavour="LOCAL", urls=where["urls"], trust=where["trust"])
    publish.write(directory, [item])
    return seeds.make(item, seeds.Places(trusted=[str(directory)]))


def start(service: Service, home: Path, seed: str | None, python: Path) -> float:
    """CPU until the first command's first line [s], of a seed or (None) of the server's script."""
    bundle = service.ask("POST", "/pilots/bundle", {"flavour": "LOCAL"})
    with tempfile.TemporaryDirectory(prefix="start-", dir=home) as directory:
        place = Path(directory)
        (place / "pilot").write_text(bundle["script"] if seed is None else seed, newline="")
        (place / "credentials.json").write_text(json.dumps(bundle["credentials"]))
        with (place / "output").open("wb") as output:
            process = subprocess.Popen(
                ["/bin/sh", "pilot"],
                cwd=place,
                env={"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_for_first_line(process, place)
        finally:
            if process.poll() is None:
                cpu = trees.kill_and_count(process.pid)
                process.returncode = -9
        return cpu


def wait_for_first_line(process: subprocess.Popen[bytes], place: Path) -> None:
    """Until the pilot's log, which is beside its script, has a line of its first command."""
    until = time.monotonic() + PATIENCE
    logs: Iterable[Path] = ()
    while not any(has_first_line(log.read_text(errors="replace")) for log in logs):
        if process.poll() is not None or time.monotonic() > until:
            words = (place / "output").read_text(errors="replace")
            raise RuntimeError(f"the pilot printed no first line; it said: {words}")
        time.sleep(PAUSE)
        logs = [*place.glob("pilot.log"), *place.glob("pilotage-*/pilot.log")]
