"""`pilotage jobs`, `job`, `kill`: what became of the work."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from .errors import CliError
from .output import clean, duration, moment, print_fields, print_json, print_table, short_moment, size

if TYPE_CHECKING:
    from .client import Client

STATES = ("Waiting", "Matched", "Running", "Done", "Failed", "Killed")
PAGE = 1000

Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


def state_names(given: list[str] | None, kind: str = "job", states: Sequence[str] = STATES) -> list[str] | None:
    """States as the service writes them, from any case and from lists with commas. Raises CliError."""
    if not given:
        return None
    known = {state.lower(): state for state in states}
    names = [name.strip().lower() for text in given for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise CliError(f"there is no {kind} state {name!r}; there are: {', '.join(states)}", 2)
    return [known[name] for name in names]


def jobs(
    state: Annotated[
        list[str] | None, typer.Option(metavar="STATE", help="Only these, e.g. --state running,waiting.")
    ] = None,
    owner: Annotated[str | None, typer.Option(metavar="NAME", help="Only this owner's.")] = None,
    vo: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this VO (administrators see all).")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="At most so many, the newest.")] = 50,
    as_json: Json = False,
) -> None:
    """List jobs, the newest first."""
    from .client import Client

    with Client() as client:
        found = search(client, limit, state=state_names(state), owner=owner, vo=vo)
    if as_json:
        print_json(found)
        return
    rows = (
        (job["id"], job["state"], job["name"], job["owner"], short_moment(job["submitted"]), *_end_of(job))
        for job in found
    )
    head = ("ID", "STATE", "NAME", "OWNER", "SUBMITTED", "TOOK", "PILOT", "REASON")
    print_table(head, rows, empty="no jobs; submit one: pilotage submit -- echo hello")
    if len(found) == limit:
        print(f"(the newest {limit}; more with --limit)", file=sys.stderr)


def _end_of(job: dict[str, Any]) -> tuple[str | None, str | None, str | None]:
    return duration(job["wall_seconds"]), (job["pilot"] or "")[:8], why(job)


def why(job: dict[str, Any]) -> str | None:
    """Why a job ended as it did, in a few words; nothing where all is well."""
    if job["state"] not in ("Failed", "Killed"):
        return None
    reason, message = job["reason"] or "", job["message"] or ""
    if reason == "exit":
        return f"exit status {job['exit_code']}"
    if reason == "signal":
        return f"signal {job['signal']}"
    if message.startswith(reason):
        return message or None
    return f"{reason}: {message}" if message else reason


def search(client: Client, limit: int, **filters: Any) -> list[dict[str, Any]]:
    """Jobs that fit the filters, newest first, page by page."""
    found: list[dict[str, Any]] = []
    after = None
    while len(found) < limit:
        wanted = min(PAGE, limit - len(found))
        page = client.get("/jobs", limit=wanted, after=after, **filters)["jobs"]
        found += page
        if len(page) < wanted:
            break
        after = page[-1]["id"]
    return found


def job(
    identity: Annotated[int, typer.Argument(metavar="ID", min=1, help="The job's number.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Fetch stdout, stderr and output files.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show one job: what it did and what it printed.

    With --output its output files, stdout and stderr are fetched into a directory.
    """
    from .client import Client

    with Client() as client:
        found = client.get(f"/jobs/{identity}")
        fetched = fetch_outputs(client, identity, output) if output else []
    if as_json:
        print_json({**found, "fetched": [str(path) for path in fetched]} if output else found)
        return
    _show(found)
    for path in fetched:
        print(f"fetched  {clean(path)}")


def outputs_of(client: Client, identity: int) -> list[dict[str, Any]]:
    """What a job left, as `fetch` takes it."""
    listed = client.get(f"/jobs/{identity}/output")["outputs"]
    return [{**file, "path": f"/jobs/{identity}/output/{quote(str(file['name']))}"} for file in listed]


def fetch_outputs(client: Client, identity: int, directory: Path) -> list[Path]:
    """Download all that a job left into `directory`."""
    from .fetch import fetch

    return fetch(client, outputs_of(client, identity), directory)


def _show(job: dict[str, Any]) -> None:
    usage, spec = job["usage"] or {}, job["spec"]
    cpu = usage.get("cpu_user", 0) + usage.get("cpu_system", 0) if usage else None
    memory = f"{usage['max_rss_mib']:.0f} MiB at most" if usage.get("max_rss_mib") is not None else None
    print_fields(
        [
            ("job", job["id"]),
            ("name", job["name"]),
            ("state", job["state"]),
            ("reason", why(job)),
            ("command", shlex.join(spec["command"])),
            ("needs", _needs(spec)),
            ("owner", f"{job['owner']} ({job['vo']})"),
            ("pilot", job["pilot"]),
            ("attempt", job["attempt"] if job["attempt"] > 1 else None),
            ("submitted", moment(job["submitted"])),
            ("started", moment(job["started"])),
            ("ended", moment(job["ended"])),
            ("exit status", job["exit_code"]),
            ("wall time", duration(job["wall_seconds"])),
            ("CPU time", duration(cpu)),
            ("memory", memory),
            ("isolation", job["isolation"]),
        ]
    )
    for file in job["outputs"] or []:
        print(f"output       {clean(file['name'])} ({size(file['size'])})")
    print("\nwhat happened")
    for event in job.get("events", []):
        by = f" (by {event['who']})" if event["who"] else ""
        text = f"{event['what']} {event['why'] or ''}".rstrip() + by
        print(f"  {moment(event['time'])}  {clean(text)}")
    for stream in ("stdout", "stderr"):
        if job[stream]:
            print(f"\n{stream}")
            print(clean(job[stream]).rstrip("\n"))


def _needs(spec: dict[str, Any]) -> str:
    """What a pilot must offer for this job, where that is more than one core."""
    texts = [f"{spec['cores']} cores"] if (spec.get("cores") or 1) > 1 else []
    texts += [f"{spec[key]} MiB of {key[:-4]}" for key in ("memory_mib", "disk_mib") if spec.get(key)]
    texts += [f"{spec['gpus']} GPUs"] if spec.get("gpus") else []
    texts += [f"platform {spec['platform']}"] if spec.get("platform") else []
    texts += [f"site {' or '.join(spec['sites'])}"] if spec.get("sites") else []
    texts += [f"tag {tag}" for tag in spec.get("tags") or []]
    return ", ".join(texts)


def kill(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Job numbers, ranges (7-12), or pilots' stamps.")],
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; it is kept with the job or pilot.")] = None,
    as_json: Json = False,
) -> None:
    """Kill jobs, by number, and pilots, by stamp.

    A waiting job is killed at once; for one that runs, its pilot gets the order. A pilot that is killed ends its jobs.
    """
    from .client import Client
    from .pilots import order

    numbers, stamps = _sorted_out(ids)
    said = {"reason": reason} if reason else {}
    answer: dict[str, Any] = {}
    with Client() as client:
        if numbers:
            answer = client.post("/jobs/kill", {"ids": numbers, **said})
        if stamps:
            answer["pilots"] = [order(client, stamp, "kill", said) for stamp in stamps]
    if as_json:
        print_json(answer)
    else:
        _tell_kill(answer)
    if answer.get("unknown"):
        raise CliError(f"there is no such job: {', '.join(map(str, answer['unknown'][:10]))}")


def _sorted_out(words: list[str]) -> tuple[list[int], list[str]]:
    numbers: list[int] = []
    stamps: list[str] = []
    for word in words:
        first, dash, last = word.partition("-")
        if word.isdecimal() and len(word) < 19:
            numbers.append(int(word))
        elif dash and first.isdecimal() and last.isdecimal() and len(word) < 30:
            if not 0 <= int(last) - int(first) < 100_000:
                raise CliError(f"{word} is not a range of jobs", 2)
            numbers += range(int(first), int(last) + 1)
        else:
            stamps.append(word)
    return numbers, stamps


def _tell_kill(answer: dict[str, Any]) -> None:
    texts = {"killed": "killed", "ordered": "ordered to be killed", "ended": "had ended already"}
    for key, text in texts.items():
        if listed := answer.get(key):
            shown = ", ".join(map(str, listed[:10])) + (", ..." if len(listed) > 10 else "")
            print(f"{len(listed)} job{'s' if len(listed) > 1 else ''} {text}: {shown}")
    for stamp in answer.get("pilots", []):
        print(f"pilot {clean(stamp)} is ordered to stop")
