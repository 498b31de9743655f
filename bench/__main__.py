"""`python -m bench NAME [--json] [--runs N] [--check]`: one benchmark; see bench/README.md."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from bench.figures import Report

NAMES = {
    "floor": (5, "the machine's floor: spawning a process, importing what an HTTPS client needs"),
    "overhead": (3, "2,000 no-op jobs through one pilot with 2 slots, against the spawn floor"),
    "start": (9, "a pilot's start, from exec to the first line of its first command, against the import floor"),
    "seed": (9, "a seed's start with a warm local source, against that of the server's pilot"),
    "script": (5, "size of the LOCAL pilot, lines compiled before its first command, time of composing one more"),
    "merge": (3, "every pilot of 1,500 queues x 10 VOs: layers put together, scripts composed; memory"),
    "dirac_import": (5, "importing and validating a DIRAC configuration of 200 sites and 1,500 queues"),
    "up": (5, "`pilotage up` to the first job done"),
    "idle": (1, "an idle `pilotage up`: memory and CPU"),
    "peers": (3, "HyperQueue, dask and Parsl beside Pilotage, alternating"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "name", choices=[*NAMES, "all"], help="; ".join(f"{name}: {text}" for name, (_, text) in NAMES.items())
    )
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--runs", type=int, help="how many alternating runs (each benchmark has its own default)")
    parser.add_argument(
        "--check", action="store_true", help="exit 1 when a count, size or ratio passes its bar (never for seconds)"
    )
    args = parser.parse_args()
    names = [name for name in NAMES if name != "peers"] if args.name == "all" else [args.name]
    missed = []
    for name in names:
        runs, title = NAMES[name]
        load = os.getloadavg()[0]
        report = Report(f"{name}: {title}")
        if load > 0.5:
            report.note(f"the machine was busy with other things: load {load:.1f} before the first run")
        importlib.import_module(f"bench.{name}").run(report, args.runs or runs)
        report.print(args.json)
        missed += [f"{name}: {figure}" for figure in report.missed()]
    if missed and args.check:
        print("missed: " + "; ".join(missed), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
