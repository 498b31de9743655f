#!/usr/bin/env python3
"""The demo (`make demo`): a service, 64 jobs through real pilots, one picture. Exit 0 only if all is right.

It does what a user does by hand: starts `pilotage up` in a directory of its own, submits picture.yaml, watches, fetches
the tiles, joins and checks them, and stops the service. Nothing is left running.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import join  # noqa: E402
import render  # noqa: E402

from pilotage.cli.access import Access, data_directory  # noqa: E402
from pilotage.cli.client import Client  # noqa: E402
from pilotage.cli.errors import CliError  # noqa: E402
from pilotage.cli.jobfile import read  # noqa: E402
from pilotage.cli.jobs import fetch_outputs, why  # noqa: E402
from pilotage.cli.output import duration, print_table  # noqa: E402
from pilotage.cli.pilots import ENDED, whole_log  # noqa: E402
from pilotage.cli.pilots import place as where  # noqa: E402
from pilotage.cli.submit import TERMINAL, look, send  # noqa: E402
from pilotage.cli.upload import upload_inputs  # noqa: E402

PATIENCE = 240.0
"""Seconds after which the demo gives up; it takes some ten on an idle machine."""

MARK = ".made-by-the-demo"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="where everything goes [demo-output]")
    place = parser.parse_args().output.absolute()
    try:
        return demo(place)
    except CliError as error:
        print(f"demo: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
    return 1


def demo(place: Path) -> int:
    fresh(place)
    plan = json.loads((HERE / "tiles.json").read_text())
    print("Starting Pilotage, all in one, on its embedded defaults ...")
    with service(place) as client:
        print(f"  {client.access.url}   data in {shown(place / 'data')}")
        began = time.monotonic()
        ids = send(client, upload_inputs(client, read(HERE / "picture.yaml")))
        print(f"Submitted {len(ids)} jobs: a picture in {len(plan['tiles'])} tiles, one job a tile.")
        jobs = watch(client, ids)
        took = time.monotonic() - began
        pilots = drained(client)
        logs = save_logs(client, pilots, place / "logs")
        wrong = picture(client, plan, jobs, place) if all(job["state"] == "Done" for job in jobs) else ["no picture"]
    summary(place, jobs, pilots, took, wrong, logs)
    return 1 if wrong else 0


def fresh(place: Path) -> None:
    """An empty directory; only what an earlier demo made is removed for it."""
    if place.exists() and any(place.iterdir()):
        if not (place / MARK).exists():
            raise CliError(f"{place} is there already and was not made by the demo; give another --output")
        shutil.rmtree(place)
    place.mkdir(parents=True, exist_ok=True)
    (place / MARK).touch()


@contextmanager
def service(place: Path) -> Iterator[Client]:
    """`pilotage up` on a free port, for as long as the demo needs it."""
    command = [sys.executable, "-m", "pilotage.cli.main", "up", "--data", str(place / "data"), "--port", "0"]
    with open(place / "up.log", "wb") as log:
        # A session of its own: a Ctrl-C at the terminal is for the demo, which then stops the service in order.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        with Client(access(process, place)) as client:
            yield client
    finally:
        stop(process, place)


def access(process: subprocess.Popen[bytes], place: Path) -> Access:
    """How to reach the service, once it is ready."""
    until = time.monotonic() + PATIENCE
    file = data_directory(place / "data") / "client.json"
    while not file.exists():
        if process.poll() is not None or time.monotonic() > until:
            tail = (place / "up.log").read_text(errors="replace").strip().splitlines()[-1:]
            raise CliError(
                f"the service did not start: {' '.join(tail) or 'it said nothing'} (see {shown(place / 'up.log')})"
            )
        time.sleep(0.05)
    content = json.loads(file.read_text())
    return Access(content["url"], content["token"], content["ca"])


def stop(process: subprocess.Popen[bytes], place: Path) -> None:
    """Ctrl-C; the service sends its pilots home and ends."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise CliError(f"the service did not stop in a minute and was killed (see {shown(place / 'up.log')})") from None


def watch(client: Client, ids: list[int]) -> list[dict[str, Any]]:
    """Show the progress until all jobs have ended; the jobs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    until, before = time.monotonic() + PATIENCE, ""
    bar = Progress(
        TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=Console()
    )
    terminal = sys.stdout.isatty()
    if terminal:
        bar.start()
    task = bar.add_task("waiting for a pilot", total=len(ids))
    try:
        while True:
            jobs = look(client, ids)
            counts = Counter(job["state"] for job in jobs)
            ended = sum(counts[state] for state in TERMINAL)
            text = ", ".join(f"{counts[state]} {state}" for state in counts) + f"; {_living(client)} pilot(s)"
            bar.update(task, completed=ended, description=text)
            if not terminal and text != before:
                print(f"  {text}", flush=True)
            before = text
            if ended == len(ids):
                return jobs
            if time.monotonic() > until:
                raise CliError(f"the jobs did not end in {PATIENCE:.0f} s: {text}")
            time.sleep(0.2 if terminal else 0.5)
    finally:
        if terminal:
            bar.stop()


def _living(client: Client) -> int:
    return sum(pilot["state"] == "Running" for pilot in client.get("/pilots", limit=100)["pilots"])


def drained(client: Client) -> list[dict[str, Any]]:
    """Send the pilots home and wait until they have reported what they used."""
    until, told = time.monotonic() + 60, set()
    while True:
        pilots = [client.get(f"/pilots/{found['stamp']}") for found in client.get("/pilots", limit=100)["pilots"]]
        living = [pilot for pilot in pilots if pilot["state"] not in ENDED]
        if not living or time.monotonic() > until:
            return pilots
        for pilot in living:
            if pilot["stamp"] not in told:
                client.post(f"/pilots/{pilot['stamp']}/drain", {"reason": "the demo is over"})
                told.add(pilot["stamp"])
        time.sleep(0.2)


def save_logs(client: Client, pilots: list[dict[str, Any]], directory: Path) -> Path:
    directory.mkdir()
    for pilot in pilots:
        (directory / f"{pilot['stamp']}.log").write_text(whole_log(client, pilot["stamp"]))
    return directory


def picture(client: Client, plan: dict[str, Any], jobs: list[dict[str, Any]], place: Path) -> list[str]:
    """Fetch the tiles, join them, check the picture; what is wrong with it."""
    tiles = []
    for number, job in enumerate(sorted(jobs, key=lambda job: job["id"])):
        fetch_outputs(client, job["id"], place / "tiles" / f"job-{job['id']}")
        tiles.append((place / "tiles" / f"job-{job['id']}" / f"tile-{number}.png").read_bytes())
    try:
        rows = join.join(plan, tiles)
    except ValueError as error:
        return [str(error)]
    view = plan["view"]
    (place / "picture.png").write_bytes(render.png(view["width"], view["height"], rows))
    bad = join.wrong_pixels(plan, rows)
    return [f"{bad} of the sampled pixels are wrong"] if bad else []


def summary(
    place: Path, jobs: list[dict[str, Any]], pilots: list[dict[str, Any]], took: float, wrong: list[str], logs: Path
) -> None:
    counts = Counter(job["state"] for job in jobs)
    cpu = sum((job["usage"] or {}).get(key, 0.0) for job in jobs for key in ("cpu_user", "cpu_system"))
    print(f"\nJobs: {', '.join(f'{count} {state}' for state, count in counts.items())} in {duration(took)}; ", end="")
    print(f"they used {duration(cpu)} of CPU, {duration(sum(job['wall_seconds'] or 0 for job in jobs))} of wall time")
    for job in [job for job in jobs if job["state"] != "Done"][:5]:
        print(f"  job {job['id']} is {job['state']}: {why(job)}")
    print("\nPilots")
    rows = (
        (
            pilot["stamp"][:8],
            pilot["state"],
            where(pilot),
            pilot["done"],
            ", ".join(f"{count} {outcome}" for outcome, count in outcomes(pilot).items()),
        )
        for pilot in pilots
    )
    print_table(("STAMP", "STATE", "QUEUE", "JOBS", "COMMANDS"), rows, empty="none")
    if wrong:
        print(f"\nThe picture is NOT right: {'; '.join(wrong)}")
    else:
        print(f"\nThe picture is right: {shown(place / 'picture.png')}")
    print(f"Pilots' logs: {shown(logs)}   service's log: {shown(place / 'up.log')}")


def outcomes(pilot: dict[str, Any]) -> Counter[str]:
    """How many of a pilot's commands ended how."""
    return Counter(command["outcome"] for command in pilot["commands"])


def shown(path: Path) -> str:
    """A path as short as it can be typed here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
