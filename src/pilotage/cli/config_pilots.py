"""`pilotage config validate`, `explain`, `diff`, `schema`: what a configuration means for pilots; online or not."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .config_files import ask, files_of
from .errors import CliError
from .generate import load_configuration, refused
from .output import clean, print_json, print_table

if TYPE_CHECKING:
    from pilotage.configuration import Configuration

COLOURS = {"+": "\x1b[32m", "-": "\x1b[31m", "@": "\x1b[36m"}

Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


def validate(
    source: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A YAML file, or a directory of them.")],
    online: Annotated[
        bool, typer.Option("--online", help="Let the service check it, with the toolboxes and parts that it has.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a configuration, and that the pilots of every resource in it compose. Nothing is changed.

    It works offline. With --online the running service is asked whether `apply` would take it from you.
    """
    found = ask("POST", "/configuration/validate", {"files": files_of(source)}) if online else _checked(source)
    if as_json:
        print_json(found)
    problems = found["problems"]
    if not problems:
        if not as_json:
            print(f"{source} is valid (digest {found['digest']})")
        return
    for problem in problems if len(problems) > 1 and not as_json else ():
        print(clean(problem), file=sys.stderr)
    raise CliError(f"{problems[0]}{f' (and {len(problems) - 1} more)' if len(problems) > 1 else ''}")


def _checked(source: Path) -> dict[str, Any]:
    from pilotage import resources
    from pilotage.configuration import ConfigurationError, check, load

    if not source.exists():
        raise CliError(f"{source} is not there")
    try:
        configuration = load(source)
        resources.check(configuration)
        check(configuration)
    except ConfigurationError as error:
        return {"valid": False, "digest": None, "problems": [" ".join(str(one).split()) for one in error.problems]}
    return {"valid": True, "digest": configuration.revision, "problems": []}


def explain(
    vo: Annotated[str | None, typer.Option(metavar="NAME", help="The VO; needed where there are several.")] = None,
    resource: Annotated[str | None, typer.Option(metavar="NAME", help="The resource that gets the pilot.")] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="Its queue, where it has several.")] = None,
    flavour: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of a resource, for pilots started by hand.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="Of this configuration, without a service.")
    ] = None,
    revision: Annotated[int | None, typer.Option(metavar="N", min=0, help="Of this revision, not the current.")] = None,
    as_json: Json = False,
) -> None:
    """Show the pilot that a resource gets: every command and value, and the layer, file and line that set it."""
    if resource is None and flavour is None:
        raise CliError("which pilot? give --resource NAME (and --queue, --vo), or --flavour NAME", 2)
    names = {"resource": resource, "queue": queue, "flavour": flavour}
    if config is not None:
        if revision is not None:
            raise CliError("--config is a configuration of its own; leave --revision out", 2)
        found = _explained(load_configuration(config), vo, names)
    else:
        found = ask("GET", "/configuration/explain", vo=vo, number=revision, **names)["explained"]
    if as_json:
        print_json(found)
        return
    rows = ((row["path"], json.dumps(row["value"], ensure_ascii=False), row["layer"], row["where"]) for row in found)
    print_table(("WHAT", "VALUE", "SET BY", "WHERE"), rows, narrow=None)


def _explained(configuration: Configuration, vo: str | None, names: dict[str, Any]) -> list[dict[str, Any]]:
    from pilotage.configuration import ConfigurationError
    from pilotage.configuration.revisions import explained

    if vo is None:
        if len(configuration.vos) != 1:
            raise CliError(f"for which VO? give --vo NAME (there are: {', '.join(configuration.vos) or 'none'})", 2)
        vo = next(iter(configuration.vos))
    try:
        return explained(configuration, vo, **names)
    except ConfigurationError as error:
        raise refused(error) from error


def compared(old: str, new: str, pilots: bool) -> dict[str, Any]:
    """{"old", "new", "files": [{name, change, diff}], "pilots": [...] if asked for}; each side a number, `current`, or
    a file or directory. The service is asked for what it has, and for nothing where both sides are files."""
    sides = (_side(old), _side(new))
    if isinstance(sides[0], int) and isinstance(sides[1], int):
        found: dict[str, Any] = ask("GET", f"/configurations/{sides[0]}/diff/{sides[1]}", pilots=pilots)
        return found
    before, after = (_files(side) if isinstance(side, int) else side for side in sides)
    return _compared(before, after, old, new, pilots)


def _side(text: str) -> int | dict[str, str]:
    """The number of a revision, or files."""
    if text == "current":
        running = ask("GET", "/configuration")
        files: dict[str, str] = running["files"]
        return files if running.get("source") else int(running["number"])
    return int(text) if text.isdecimal() else files_of(Path(text))


def _files(number: int) -> dict[str, str]:
    files: dict[str, str] = ask("GET", f"/configurations/{number}")["files"] if number else {}
    return files


def _compared(before: dict[str, str], after: dict[str, str], old: str, new: str, pilots: bool) -> dict[str, Any]:
    from pilotage.configuration import ConfigurationError, load_files
    from pilotage.configuration.revisions import changes, differing

    files = [{"name": name, "change": what, "diff": text} for name, what, text in changes(before, after)]
    found: dict[str, Any] = {"old": old, "new": new, "files": files}
    if pilots:
        try:
            found["pilots"] = differing(load_files(before, prefix=f"{old}:"), load_files(after, prefix=f"{new}:"))
        except ConfigurationError as error:
            raise refused(error) from error
    return found


def print_files(files: Sequence[dict[str, Any]]) -> None:
    """A unified diff; in colour on a terminal."""
    terminal = sys.stdout.isatty()
    if not files:
        print("no file differs")
    for file in files:
        if file["diff"] is None:
            print(f"{clean(file['name'])} is {file['change']}; it is too long to be compared line by line")
        for line in (file["diff"] or "").splitlines():
            colour = COLOURS.get(line[:1], "") if terminal else ""
            print(f"{colour}{clean(line)}{chr(27) + '[0m' if colour else ''}")


def print_pilots(found: Sequence[dict[str, Any]]) -> None:
    """A row for each value that differs; queues of a resource whose pilots differ in the same way are told together."""
    alike: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for one in found:
        alike.setdefault((one["resource"], one["vo"], json.dumps([one["kind"], one["changes"]])), []).append(one)
    rows = []
    for one, *others in alike.values():
        place = (one["resource"], ", ".join(each["queue"] for each in (one, *others)), one["vo"])
        if not one["changes"]:
            rows.append((*place, "its pilots", *(("none", "new") if one["kind"] == "appeared" else ("sent", "none"))))
        for change in one["changes"]:
            nothing = "default" if change["path"].startswith("options.") else "-"
            rows.append((*place, change["path"], _value(change["old"], nothing), _value(change["new"], nothing)))
    print_table(("RESOURCE", "QUEUE", "VO", "WHAT", "BEFORE", "AFTER"), rows, "no resource gets another pilot", None)


def _value(value: Any, nothing: str) -> str:
    if value is None:
        return nothing
    if isinstance(value, list):
        return " > ".join(str(item) for item in value) or "[]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def schema() -> None:
    """Print the JSON Schema of configuration files, for editors that check and complete as you type."""
    from pilotage.configuration.schema import schema_json

    print_json(schema_json())
