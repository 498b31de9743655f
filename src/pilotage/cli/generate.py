"""`pilotage flavours`, `generate`, `inspect`: pilot scripts, made and read without a service."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import CliError
from .output import clean, print_fields, print_json, print_table

if TYPE_CHECKING:
    from pilotage.configuration import Configuration

CONFIG_HELP = "Configuration file (YAML); without it the embedded defaults."

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help=CONFIG_HELP)]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


def load_configuration(file: Path | None) -> Configuration:
    """The configuration of a file over the embedded defaults; its error is one line with file and line.

    :raises CliError: the file is not there, or something in it is wrong
    """
    from pilotage.configuration import ConfigurationError, load

    try:
        return load(file)
    except OSError as error:
        raise CliError(f"cannot read the configuration {file}: {error.strerror or error}") from error
    except ConfigurationError as error:
        raise refused(error) from error


def refused(error: Any) -> CliError:
    """A ConfigurationError as one line: its place, its sentence, how many more there are."""
    others = len(getattr(error, "problems", None) or [error]) - 1
    more = f" (and {others} more)" if others else ""
    return CliError(f"{error}{more}")


def flavours(config: Config = None, as_json: Json = False) -> None:
    """List the flavours, and the commands of each."""
    configuration = load_configuration(config)
    found = {name: list(part.commands) for name, part in configuration.flavours.items()}
    if as_json:
        print_json([{"flavour": name, "commands": commands} for name, commands in found.items()])
        return
    rows = ((name, len(commands), " > ".join(commands)) for name, commands in found.items())
    print_table(("FLAVOUR", "COMMANDS", "IN ORDER"), rows, empty="no flavours")


def generate(
    flavour: Annotated[str | None, typer.Option(metavar="NAME", help="The flavour, e.g. LOCAL.")] = None,
    vo: Annotated[str | None, typer.Option(metavar="NAME", help="The VO; needed where there are several.")] = None,
    resource: Annotated[
        str | None, typer.Option(metavar="NAME", help="For this resource (then the flavour is known).")
    ] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="And this queue of it.")] = None,
    url: Annotated[list[str] | None, typer.Option(metavar="URL", help="Where the pilot finds the service.")] = None,
    trust: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A PEM file of trust anchors that it pins.")
    ] = None,
    config: Config = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Make DIR with pilot and credentials, by the service.")
    ] = None,
) -> None:
    """Compose a pilot script and print it.

    Example: pilotage generate --flavour LOCAL > pilot

    It works offline, from the embedded defaults or --config; --url tells the pilot where the service is. Such a script
    carries no credentials. With --bundle the running service is asked for a pilot that can be started by hand at once:
    DIR then holds `pilot` and its one-time `credentials.json`; run it with: sh DIR/pilot
    """
    if bundle is not None:
        if config or url or trust:
            raise CliError(
                "--bundle takes the running service's own configuration; leave --config, --url, --trust out", 2
            )
        _bundle(bundle, {"flavour": flavour, "vo": vo, "resource": resource, "queue": queue})
        return
    if sys.stdout.isatty():
        raise CliError("a pilot script is long; send it to a file: pilotage generate ... > pilot", 2)
    sys.stdout.write(_compose(flavour, vo, resource, queue, url or [], trust or [], config))


def _compose(
    flavour: str | None,
    vo: str | None,
    resource: str | None,
    queue: str | None,
    urls: list[str],
    trust: list[Path],
    config: Path | None,
) -> str:
    from pilotage.configuration import ConfigurationError, compose_pilot
    from pilotage.configuration.toolboxes import ToolboxError

    configuration = load_configuration(config)
    if flavour is None and resource is None:
        names = ", ".join(configuration.flavours)
        raise CliError(f"which pilot? give --flavour NAME (there are: {names}) or --resource NAME", 2)
    if vo is None:
        if len(configuration.vos) != 1:
            raise CliError(f"for which VO? give --vo NAME (there are: {', '.join(configuration.vos) or 'none'})", 2)
        vo = next(iter(configuration.vos))
    anchors = [_read(file, "trust anchors") for file in trust]
    try:
        return compose_pilot(configuration, vo, resource, queue, urls, anchors, flavour=flavour).script
    except ConfigurationError as error:
        raise refused(error) from error
    except ToolboxError as error:
        raise CliError(f"the toolbox cannot be built: {error}") from error


def _bundle(directory: Path, wanted: dict[str, Any]) -> None:
    from .client import Client

    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CliError(f"{directory} is there already and not an empty directory")
    with Client() as client:
        made = client.post("/pilots/bundle", {key: value for key, value in wanted.items() if value is not None})
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(directory / "pilot", made["script"], 0o755)
        _write(directory / "credentials.json", json.dumps(made["credentials"]) + "\n", 0o600)
    except OSError as error:
        raise CliError(f"cannot write {error.filename or directory}: {error.strerror}") from error
    print(f"pilot {made['stamp']}: run it on any machine with: sh {directory / 'pilot'}", file=sys.stderr)


def _write(file: Path, text: str, mode: int) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as out:
        out.write(text)


def _read(file: Path, what: str) -> str:
    try:
        with open(file, encoding="utf-8", newline="") as text:
            return text.read()
    except OSError as error:
        raise CliError(f"cannot read {what} {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CliError(f"{file} is not text: byte {error.start}") from error


def inspect(
    file: Annotated[Path, typer.Argument(metavar="PILOT", help="A pilot script.")],
    sources: Annotated[Path | None, typer.Option(metavar="DIR", help="Unpack all that it carries into DIR.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a pilot script is made of.

    That is profile and commands with all options; and that it was not altered since it was composed.
    """
    from pilotage_node.compose import ScriptError, read_script

    try:
        script = read_script(_read(file, "the pilot script"))
    except ScriptError as error:
        raise CliError(f"{file}: {error}") from error
    if sources is not None:
        _unpack(script.sections, sources)
    if as_json:
        print_json({"digest": script.digest, "profile": script.profile, "provenance": script.provenance})
        return
    profile = script.profile
    where = "/".join(part for part in (profile["site"], profile["resource"], profile["queue"]) if part)
    print_fields(
        [
            ("digest", f"sha256:{script.digest} (as its text)"),
            ("flavour", profile["flavour"]),
            ("VO", profile["vo"]),
            ("where", where or "any machine"),
            ("configuration", profile["revision"]),
            ("service", ", ".join(profile["service"]["urls"]) or "none given"),
            ("trust anchors", len(profile["service"]["trust"]) or "the node's own"),
            (
                "size",
                f"{sum(len(text) for text in script.sections.values())} characters in {len(script.sections)} sections",
            ),
        ]
    )
    print()
    rows = (
        (number, command["name"], " ".join(f"{key}={json.dumps(value)}" for key, value in command["options"].items()))
        for number, command in enumerate(profile["commands"])
    )
    print_table(("#", "COMMAND", "OPTIONS"), rows)
    if sources is not None:
        print(f"\nunpacked {len(script.sections)} files into {clean(sources)}")


def _unpack(sections: dict[str, str], directory: Path) -> None:
    """Write each section to a file of its name; a script of unknown origin does not choose where that is."""
    from .fetch import safe_parts

    for name, text in sections.items():
        parts = safe_parts(name.partition(" ")[0])
        target = directory.joinpath(*parts)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.resolve().is_relative_to(directory.resolve()) or target.is_symlink():
                raise CliError(f"refused to write through a link at {target}")
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CliError(f"cannot write {target}: {error.strerror}") from error
