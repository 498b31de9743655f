"""`pilotage pilots`, `pilot`, `drain`: what the pilots do, and what they did."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from .errors import CliError
from .jobs import Json, state_names
from .output import clean, duration, moment, print_fields, print_json, print_table, short_moment

if TYPE_CHECKING:
    from .client import Client

STATES = ("Planned", "Submitted", "Running", "Done", "Failed", "Aborted")
ENDED = ("Done", "Failed", "Aborted")
STAMP_SHOWN = 8
FOLLOW = 20.0
"""Seconds that the service waits for more of a log that is followed."""

Stamp = Annotated[str, typer.Argument(metavar="STAMP", help="The pilot's stamp, or its first letters (six or more).")]


def pilots(
    state: Annotated[
        list[str] | None, typer.Option(metavar="STATE", help="Only these, e.g. --state running,done.")
    ] = None,
    resource: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this resource.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="At most so many, the newest.")
    ] = 50,
    as_json: Json = False,
) -> None:
    """List pilots, the newest first."""
    from .client import Client

    states = state_names(state, "pilot", STATES)
    with Client() as client:
        found = client.get("/pilots", state=states, resource=resource, limit=limit)["pilots"]
    if as_json:
        print_json(found)
        return
    rows = (
        (
            pilot["stamp"][:STAMP_SHOWN],
            pilot["state"],
            place(pilot),
            pilot["vo"],
            pilot["flavour"],
            pilot["done"],
            short_moment(pilot["created"]),
            duration((pilot["ended"] or pilot["seen"] or pilot["created"]) - (pilot["registered"] or pilot["created"])),
            pilot["reason"] or (f"runs {pilot['phase']}" if pilot["phase"] else ""),
        )
        for pilot in found
    )
    head = ("STAMP", "STATE", "QUEUE", "VO", "FLAVOUR", "JOBS", "CREATED", "LIVED", "REASON")
    print_table(head, rows, empty="no pilots; they are sent where jobs wait")


def whole_stamp(client: Client, text: str) -> str:
    """The stamp of the one pilot that begins with `text`.

    :raises CliError: none does, or several do
    """
    if len(text) < 6:
        raise CliError(f"{clean(text)!r} is too short for a pilot's stamp; give its first six letters or more", 2)
    found = [pilot["stamp"] for pilot in client.get("/pilots", limit=1000)["pilots"] if pilot["stamp"].startswith(text)]
    if len(found) > 1:
        raise CliError(f"{len(found)} pilots begin with {clean(text)}; give more letters")
    return str(found[0]) if found else text


def pilot(
    stamp: Stamp,
    log: Annotated[bool, typer.Option("--log", help="Only its log.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Its log as it comes, until it ends.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Fetch log and record.")] = None,
    as_json: Json = False,
) -> None:
    """Show one pilot: its commands, jobs, usage and log.

    With --output its log, its record and what the resource kept of it are fetched into a directory.
    """
    from .client import Client

    with Client() as client:
        stamp = whole_stamp(client, stamp)
        found = client.get(f"/pilots/{quote(stamp, safe='')}")
        if as_json:
            print_json(found)
        elif not (log or follow or output):
            _show(found)
        if output:
            for path in fetch_outputs(client, stamp, output):
                print(f"fetched  {clean(path)}", file=sys.stderr if as_json else sys.stdout)
        elif not as_json:
            if not (log or follow):
                print("\nlog")
            _print_log(client, stamp, follow)


def read_log(client: Client, stamp: str, offset: int = 0, wait: float = 0.0) -> tuple[str, int, bool]:
    """A piece of the log from `offset` [bytes]: its text, where it goes on, and whether that was the end of it.

    :param wait: how long the service may wait for more to come [s]
    """
    path = f"/pilots/{quote(stamp, safe='')}/log"
    answer = client.request("GET", path, params={"offset": offset, "wait": wait})
    return answer.text, int(answer.headers["Pilotage-Log-Offset"]), answer.headers["Pilotage-Log-End"] == "true"


def whole_log(client: Client, stamp: str) -> str:
    """All that there is of a pilot's log."""
    text, offset, end = read_log(client, stamp)
    while not end:
        more, after, end = read_log(client, stamp, offset)
        if after == offset:
            break
        text, offset = text + more, after
    return text


def _print_log(client: Client, stamp: str, follow: bool) -> None:
    offset, end = 0, False
    while not end:
        before = offset
        text, offset, end = read_log(client, stamp, offset, FOLLOW if follow else 0.0)
        sys.stdout.write(clean(text))
        sys.stdout.flush()
        if offset == before and not follow:
            return


def fetch_outputs(client: Client, stamp: str, directory: Path) -> list[Path]:
    """Download all that a pilot left into `directory`."""
    from .fetch import fetch

    base = f"/pilots/{quote(stamp, safe='')}/output"
    listed = client.get(base)["outputs"]
    return fetch(client, [{**file, "path": f"{base}/{quote(str(file['name']))}"} for file in listed], directory)


def place(pilot: dict[str, Any]) -> str:
    """Where a pilot runs: SITE/RESOURCE/QUEUE; a pilot for any machine was started by hand."""
    return "/".join(filter(None, (pilot["site"], pilot["resource"], pilot["queue"]))) or "by hand"


def _show(pilot: dict[str, Any]) -> None:
    node, usage = pilot["node"] or {}, pilot["usage"] or {}
    machine = ", ".join(
        str(text)
        for text in (
            node.get("hostname"),
            node.get("platform"),
            f"{node['cores']} cores" if node.get("cores") else None,
            f"{node['memory_mib']} MiB" if node.get("memory_mib") else None,
            f"Python {node['python']}" if node.get("python") else None,
        )
        if text
    )
    print_fields(
        [
            ("pilot", pilot["stamp"]),
            ("state", pilot["state"]),
            ("reason", pilot["reason"]),
            ("phase", pilot["phase"]),
            ("where", place(pilot)),
            ("VO", pilot["vo"]),
            ("flavour", f"{pilot['flavour']} (configuration {pilot['revision']})"),
            ("node", machine),
            ("reference", pilot["reference"]),
            ("created", moment(pilot["created"])),
            ("registered", moment(pilot["registered"])),
            ("last seen", moment(pilot["seen"])),
            ("ended", moment(pilot["ended"])),
            ("log deleted", moment(pilot.get("logs_purged"))),
            ("exit status", pilot["exit_code"]),
            ("jobs", f"{pilot['jobs']} taken, {pilot['done']} ended or given back"),
            *_usage(usage),
        ]
    )
    print("\ncommands")
    rows = (
        (c["index"], c["name"], c["outcome"], c["code"], duration(c["seconds"]), c["message"])
        for c in pilot["commands"]
    )
    print_table(("#", "COMMAND", "OUTCOME", "CODE", "TOOK", "MESSAGE"), rows, empty="none has ended yet")


def _usage(usage: dict[str, Any]) -> list[tuple[str, str]]:
    """What the pilot measured, with units. Commands may report more: names are taken as they come."""
    fields = []
    for key, value in usage.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            continue
        name, unit = key, ""
        if key.endswith("_mib"):
            name, unit = key.removesuffix("_mib"), " MiB"
        elif key.endswith("_seconds"):
            name, unit = f"{key.removesuffix('_seconds')}_time", " s"
        elif key in ("cpu_user", "cpu_system"):
            unit = " s"
        elif key == "efficiency" and not isinstance(value, str):
            value, unit = 100 * value, " %"
        fields.append((name.replace("_", " "), f"{_number(value)}{unit}"))
    return fields


def _number(value: float | str) -> str:
    """At most three digits after the point, no zeros at the end."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def order(client: Client, stamp: str, what: str, body: dict[str, Any]) -> str:
    """Tell a pilot to "drain" or "kill" itself; its whole stamp."""
    whole = whole_stamp(client, stamp)
    client.post(f"/pilots/{quote(whole, safe='')}/{what}", body)
    return whole


def drain(
    stamps: Annotated[list[str], typer.Argument(metavar="STAMP", help="Pilots, by stamp or its first letters.")],
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; it is kept with the pilot.")] = None,
    as_json: Json = False,
) -> None:
    """Tell pilots to take no more jobs, and leave.

    Jobs that run get their grace; jobs that were taken and not started wait again.
    """
    from .client import Client

    with Client() as client:
        ordered = [order(client, stamp, "drain", {"reason": reason} if reason else {}) for stamp in stamps]
    if as_json:
        print_json({"pilots": ordered})
        return
    for stamp in ordered:
        print(f"pilot {clean(stamp)} is told to drain")
