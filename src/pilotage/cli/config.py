"""`pilotage config`: revisions of the configuration, kept by the service."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from . import config_canary, config_pilots, dirac
from .config_files import ask, files_of, write_files
from .errors import CliError
from .output import clean, moment, print_fields, print_json, print_table, short_moment, size

app = typer.Typer(
    help="See and change the configuration: revisions, canaries, what a pilot gets.", no_args_is_help=True
)

SHORT = 60
"""Letters of a reason in a table."""

Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
Source = Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A YAML file, or a directory of them.")]


def _why(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("it says nothing")
    return text


Message = Annotated[
    str, typer.Option("--message", "-m", metavar="WHY", help="Why; it is kept with the change.", callback=_why)
]
Base = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="The revision that yours is made from; it must be current.")
]


@app.command()
def apply(
    source: Source,
    message: Message,
    base: Base = None,
    canary: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Only for this share of the new pilots, such as 5%.")
    ] = None,
    resource: Annotated[str | None, typer.Option(metavar="NAME", help="The canary: only at this resource.")] = None,
    vo: Annotated[str | None, typer.Option(metavar="NAME", help="The canary: only with pilots of this VO.")] = None,
    as_json: Json = False,
) -> None:
    """Make a file or directory the configuration of the running service: a new revision, at once.

    An administrator gives the whole configuration. An administrator of a VO gives the directory that holds vos/NAME/:
    what is below that is replaced, everything else stays as it is.

    Where a revision is current, --base names the one that yours is made from; has somebody changed it meanwhile, yours
    is refused. What is wrong, or whose pilots do not compose for some resource, is refused as a whole, and the current
    revision stays.

    With --canary the new revision is tried first: see `pilotage config canary`.
    """
    if canary is None and (resource or vo):
        raise CliError("--resource and --vo say where a canary is tried: give --canary SHARE too", 2)
    body: dict[str, Any] = {"files": files_of(source), "base": base or 0, "reason": message}
    if canary is not None:
        body["canary"] = {"share": _share(canary), "resource": resource, "vo": vo}
    _say(ask("POST", "/configurations", body), as_json)


def _share(text: str) -> float:
    match = re.fullmatch(r"\s*(\d{1,3}(?:\.\d{1,6})?)\s*%\s*", text)
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share < 1:
        raise CliError(f"--canary {text!r}: write a share of the new pilots, more than 0% and less than 100%: 5%", 2)
    return share


def _say(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(made)
    elif made["state"] == "canary":
        print(f"revision {made['number']} is tried as a canary; see it with: pilotage config canary")
    else:
        print(f"revision {made['number']} is current")


@app.command()
def rollback(
    number: Annotated[int, typer.Argument(metavar="N", min=0, help="The revision; 0: the embedded defaults.")],
    message: Message,
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Make the files of an earlier revision current again, as a new revision.

    An administrator of a VO gets back the VO's own parts, and only those.
    """
    body = {"number": number, "base": base, "reason": message}
    _say(ask("POST", "/configuration/rollback", body), as_json)


@app.command()
def log(
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="At most so many, the newest.")
    ] = 50,
    as_json: Json = False,
) -> None:
    """List the revisions, the newest first: who changed the configuration, when and why."""
    found = ask("GET", "/configurations", limit=limit)["configurations"]
    if as_json:
        print_json(found)
        return
    rows = (
        (
            row["number"],
            _state(row),
            short_moment(row["time"]),
            row["author"],
            row["parent"] or None,
            row["digest"],
            row["reason"] if len(row["reason"]) <= SHORT else f"{row['reason'][: SHORT - 1]}…",
        )
        for row in found
    )
    head = ("REVISION", "STATE", "WHEN", "BY", "FROM", "DIGEST", "WHY")
    print_table(head, rows, empty="no revisions; what counts is embedded or from a file: pilotage config show")


def _state(row: dict[str, Any]) -> str:
    return f"canary {row['canary']['share'] * 100:g}%" if row["state"] == "canary" else str(row["state"])


@app.command()
def show(
    number: Annotated[int | None, typer.Argument(metavar="[N]", min=1, help="The revision; else the current.")] = None,
    as_json: Json = False,
) -> None:
    """Show a revision: who made it and why, what became of it, and its files."""
    if number is None:
        found = ask("GET", "/configuration")
        number = found["number"]
    if number:
        found = ask("GET", f"/configurations/{number}")
    if as_json:
        print_json(found)
        return
    if number:
        _show_revision(found)
    else:
        print_fields([("source", found["source"] or "embedded defaults; no revision was applied"), *_digest(found)])
    for name, text in sorted(found["files"].items()):
        print(f"\n# {clean(name)}\n{clean(text).rstrip()}")


def _digest(found: dict[str, Any]) -> list[tuple[str, Any]]:
    return [("digest", f"{found['digest']} (as its pilots name it)")]


def _show_revision(found: dict[str, Any]) -> None:
    whose = f"the own parts of the VO {found['vo']}" if found["vo"] else None
    print_fields(
        [
            ("revision", found["number"]),
            ("state", _state(found)),
            ("by", found["author"]),
            ("when", moment(found["time"])),
            ("why", found["reason"]),
            ("changes", whose),
            ("made from", found["parent"] or "the embedded defaults"),
            *_digest(found),
            ("files", f"{len(found['files'])}, {size(sum(len(text.encode()) for text in found['files'].values()))}"),
        ]
    )
    print()
    rows = ((moment(event["time"]), event["what"], event["who"], event["why"]) for event in found["events"])
    print_table(("WHEN", "WHAT", "BY", "WHY"), rows, empty="no events are kept of it")


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="A", help="A revision's number, `current`, or a FILE or DIR.")],
    new: Annotated[str, typer.Argument(metavar="B", help="The same; by default `current`.")] = "current",
    pilots: Annotated[
        bool, typer.Option("--pilots", help="Which resources get another pilot, and what differs in it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare two revisions, or files with a revision, or files with files (then without a service).

    Example: pilotage config diff --pilots current ./configuration
    """
    found = config_pilots.compared(old, new, pilots)
    if as_json:
        print_json(found)
    elif pilots:
        config_pilots.print_pilots(found["pilots"])
    else:
        config_pilots.print_files(found["files"])


@app.command()
def export(
    words: Annotated[
        list[str], typer.Argument(metavar="[N] DIR", help="The revision (else the current), and a new directory.")
    ],
    as_json: Json = False,
) -> None:
    """Write the files of a revision into a directory: to change them there, and apply them again."""
    if len(words) > 2 or (len(words) == 2 and not words[0].isdecimal()):
        raise CliError("give a directory, or a revision's number and a directory: pilotage config export 3 DIR", 2)
    directory, number = Path(words[-1]), int(words[0]) if len(words) == 2 else None
    if number == 0:
        raise CliError("0 are the embedded defaults, which have no files; see `pilotage config explain --revision 0`")
    found = ask("GET", "/configuration" if number is None else f"/configurations/{number}")
    if not found["files"]:
        raise CliError("there are no files: the embedded defaults count")
    written = write_files(found["files"], directory)
    if as_json:
        print_json({"number": found["number"], "directory": str(directory), "files": sorted(found["files"])})
        return
    for file in written:
        print(file)
    if found.get("state", "current") == "current" and found["number"]:
        again = f"pilotage config apply {clean(directory)} --base {found['number']} -m WHY"
        print(f"revision {found['number']}; apply what you change with: {again}", file=sys.stderr)
    elif found["number"]:
        again = f"pilotage config rollback {found['number']} -m WHY"
        print(f"revision {found['number']}, which is not current; make it so with: {again}", file=sys.stderr)


app.command()(config_pilots.validate)
app.command()(config_pilots.explain)
app.command()(config_canary.canary)
app.command()(config_canary.promote)
app.command()(config_canary.withdraw)
app.command()(config_pilots.schema)
app.command("import")(dirac.import_dirac)
app.command("export-dirac")(dirac.export_dirac)
