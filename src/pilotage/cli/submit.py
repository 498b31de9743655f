"""`pilotage submit`: jobs from a command line or a job file."""

from __future__ import annotations

import re
import secrets
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import CliError
from .output import Bar, print_json, print_table

if TYPE_CHECKING:
    from .client import Client

BULK = 10_000
"""Jobs in one request."""

ASK = 500
"""Jobs in one question."""

ONE_OF_THEM = re.compile(r"\[(\d+)\]\.?([\w.\[\]]*): (.*)", re.DOTALL)
"""How the service begins when one job of several is wrong: `[3].inputs[0].name: reason`."""

TERMINAL = ("Done", "Failed", "Killed")

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="JOBFILE | -- COMMAND", help="A job file, or a command after two dashes.", show_default=False
    ),
]


def submit(
    context: typer.Context,
    words: Words = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="A name for people; it need not be unique.")] = None,
    input: Annotated[
        list[str] | None, typer.Option("--input", "-i", metavar="[NAME=]FILE", help="A file that the job needs.")
    ] = None,
    output: Annotated[
        list[str] | None, typer.Option("--output", "-o", metavar="PATTERN", help="Files to keep, e.g. '*.png'.")
    ] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="Environment.")] = None,
    cores: Annotated[int | None, typer.Option(metavar="N", help="Cores [1].", show_default=False)] = None,
    memory_mib: Annotated[
        int | None, typer.Option(metavar="N", help="Limit of memory [MiB].", show_default=False)
    ] = None,
    disk_mib: Annotated[int | None, typer.Option(metavar="N", help="Limit of disk [MiB].", show_default=False)] = None,
    gpus: Annotated[int | None, typer.Option(metavar="N", help="GPUs [0].", show_default=False)] = None,
    wall_seconds: Annotated[
        int | None, typer.Option(metavar="N", help="Limit of wall time [s].", show_default=False)
    ] = None,
    cpu_seconds: Annotated[
        int | None, typer.Option(metavar="N", help="Limit of CPU time [s].", show_default=False)
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="A tag that the node must have.")] = None,
    platform: Annotated[str | None, typer.Option(metavar="NAME", help="The platform that the node must be of.")] = None,
    site: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Run only at this site (may be repeated).")
    ] = None,
    priority: Annotated[
        int | None, typer.Option(metavar="N", help="Higher runs first, of your own [0].", show_default=False)
    ] = None,
    retries: Annotated[
        int | None, typer.Option(metavar="N", help="Starts after a lost pilot [2].", show_default=False)
    ] = None,
    isolation: Annotated[
        str | None, typer.Option(metavar="HOW", help="required, preferred or none [preferred].")
    ] = None,
    vo: Annotated[
        str | None, typer.Option(metavar="NAME", help="For this VO (administrators; users have one).")
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", metavar="N", min=1, max=1_000_000, help="So many equal jobs.")
    ] = 1,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end; exit 0 only if all are Done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Submit a job, or the many jobs of a job file.

    A command goes after two dashes; a job file is YAML or JSON (docs/job-files.md). Options win over the file's keys.

    Examples:

        pilotage submit -- echo hello

        pilotage submit --wait --input words.txt -- sort words.txt

        pilotage submit jobs.yaml --wait
    """
    given: dict[str, Any] = {
        "name": name,
        "outputs": output,
        "environment": _environment(env) if env else None,
        "cores": cores,
        "memory_mib": memory_mib,
        "disk_mib": disk_mib,
        "gpus": gpus,
        "wall_seconds": wall_seconds,
        "cpu_seconds": cpu_seconds,
        "tags": tag,
        "platform": platform,
        "sites": site,
        "priority": priority,
        "retries": retries,
        "isolation": isolation,
    }
    more = {key: value for key, value in given.items() if value is not None and value != []}
    specs = [{**spec, **more} for spec in _specs(context, words or [])] * count
    extra = [_input(text) for text in input or []]
    specs = [{**spec, "inputs": [*spec["inputs"], *extra]} for spec in specs]

    from .client import Client
    from .upload import upload_inputs

    with Client() as client:
        try:
            ready = upload_inputs(client, specs, vo, lambda specs: send(client, specs, vo, check=True))
            ids = send(client, ready, vo)
        except JobRefused as error:
            if context.meta.get("pilotage.after_dashes") is not None or error.key in more:
                raise
            from .jobplace import place

            file = Path((words or [""])[0])
            raise CliError(f"{place(file, error.index % (len(specs) // count), error.field)}: {error}") from error
        if not wait:
            _tell(ids, as_json)
            return
        if not as_json:
            print(f"submitted {_range(ids)}", file=sys.stderr)
        try:
            jobs = wait_for(client, ids)
        except KeyboardInterrupt:
            print(f"\nno longer waiting; {_range(ids)} will still run (end with: pilotage kill)", file=sys.stderr)
            raise
    _tell_ended(jobs, as_json)


def _specs(context: typer.Context, words: list[str]) -> list[dict[str, Any]]:
    after = context.meta.get("pilotage.after_dashes")
    if after is not None:
        if after != len(words):
            raise CliError(f"either a job file or a command, not both: {shlex.join(words[: len(words) - after])}", 2)
        if not words:
            raise CliError("there is no command after --", 2)
        return [{"command": words, "inputs": []}]
    if len(words) == 1:
        file = Path(words[0])
        if file.suffix.lower() in (".yaml", ".yml", ".json") or file.is_file():
            from .jobfile import read

            return read(file)
    if not words:
        raise CliError("what is to be run? pilotage submit -- COMMAND ..., or: pilotage submit job.yaml", 2)
    raise CliError(f"a command goes after two dashes: pilotage submit -- {shlex.join(words)}", 2)


class JobRefused(CliError):
    """The service refused one job: ``index`` of it among those sent, ``field`` in it (may be empty), and why."""

    def __init__(self, index: int, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}" if field else why)
        self.index = index
        self.field = field
        self.key = re.split(r"[.\[]", field)[0]


def _environment(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, sign, _ in pairs:
        if not name or not sign:
            raise CliError(f"--env takes NAME=VALUE, not {name!r}", 2)
    return {name: value for name, _, value in pairs}


def _input(text: str) -> dict[str, Any]:
    name, sign, file = text.partition("=")
    if not sign or Path(text).exists():
        name, file = Path(text).name, text
    return {"name": name, "path": Path(file).expanduser(), "executable": None}


def send(client: Client, specs: list[dict[str, Any]], vo: str | None = None, *, check: bool = False) -> list[int]:
    """Submit specs, at most BULK in one request; the ids in their order. A repeated request makes no second jobs.

    :param check: the service only says whether it would take them: no ids
    :raises JobRefused: one of them is wrong
    """
    ids: list[int] = []
    batch = secrets.token_hex(8)
    with Bar("checking" if check else "submitting", len(specs)) as bar:
        for start in range(0, len(specs), BULK):
            part = specs[start : start + BULK]
            headers = {"Pilotage-Request": f"{batch}-{start // BULK}"}
            query = {"vo": vo} if vo else {}
            if check:
                query["check"] = "true"
            try:
                ids += client.request("POST", "/jobs", json=part, headers=headers, params=query).json()["ids"]
            except CliError as error:
                if found := ONE_OF_THEM.fullmatch(str(error)):
                    raise JobRefused(start + int(found[1]), found[2], found[3]) from error
                raise
            bar.advance(len(part))
    return ids


def look(client: Client, ids: list[int]) -> list[dict[str, Any]]:
    """These jobs, as the service's listing has them."""
    found: list[dict[str, Any]] = []
    for start in range(0, len(ids), ASK):
        part = ids[start : start + ASK]
        found += client.get("/jobs", id=part, limit=len(part))["jobs"]
    return found


def wait_for(client: Client, ids: list[int]) -> list[dict[str, Any]]:
    """Poll until all jobs have ended, with a progress bar; the jobs in the order of `ids`."""
    ended: dict[int, dict[str, Any]] = {}
    pause = 0.1
    with Bar("running", len(ids)) as bar:
        while True:
            for job in look(client, [identity for identity in ids if identity not in ended]):
                if job["state"] in TERMINAL:
                    ended[job["id"]] = job
            bar.reach(len(ended))
            if len(ended) == len(ids):
                return [ended[identity] for identity in ids]
            time.sleep(pause)
            pause = min(pause * 1.3, 2.0)


def _range(ids: list[int]) -> str:
    """job 7, jobs 7-12, jobs 7, 9, 12, ..."""
    if len(ids) == 1:
        return f"job {ids[0]}"
    if ids == list(range(ids[0], ids[0] + len(ids))):
        return f"jobs {ids[0]}-{ids[-1]}"
    return f"jobs {', '.join(map(str, ids[:10]))}{', ...' if len(ids) > 10 else ''}"


def _tell(ids: list[int], as_json: bool) -> None:
    if as_json:
        print_json({"ids": ids})
        return
    print(f"submitted {_range(ids)}")
    if sys.stdout.isatty():
        print(f"watch with: pilotage jobs; one of them with: pilotage job {ids[0]}")


def _tell_ended(jobs: list[dict[str, Any]], as_json: bool) -> None:
    from .jobs import why

    done = [job for job in jobs if job["state"] == "Done"]
    if as_json:
        print_json({"ids": [job["id"] for job in jobs], "jobs": jobs})
    else:
        print(f"{len(done)} of {len(jobs)} done")
        rows = [(job["id"], job["state"], job["name"], why(job)) for job in jobs if job["state"] != "Done"]
        if rows:
            print_table(("ID", "STATE", "NAME", "REASON"), rows[:20])
    if len(done) < len(jobs):
        worst = next(job for job in jobs if job["state"] != "Done")
        more = f"see: pilotage job {worst['id']}"
        raise CliError(f"{len(jobs) - len(done)} of {len(jobs)} jobs are not done; {more}")
