"""`pilotage flavours`, `generate`: pilot scripts, made without a service."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import CliError
from .output import print_json, print_table

if TYPE_CHECKING:
    from pilotage.configuration import ComposedPilot, Configuration

CONFIG_HELP = "Configuration (YAML); without it the embedded defaults."

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE|DIR", help=CONFIG_HELP)]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]

NO_RESOURCE = "--queue is that of a resource; name it (--resource)"


def load_configuration(file: Path | None) -> Configuration:
    """The configuration of a file or directory over the embedded defaults; its error is one line with file and line.

    :raises CliError: it is not there, or something in it is wrong
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
    from pilotage.configuration.resolve import commands_of

    configuration = load_configuration(config)
    found = {name: commands_of(configuration, name) for name in configuration.flavours}
    if as_json:
        print_json([{"flavour": name, "commands": commands} for name, commands in found.items()])
        return
    rows = ((name, len(commands), " > ".join(commands)) for name, commands in found.items())
    print_table(("FLAVOUR", "COMMANDS", "IN ORDER"), rows, empty="no flavours")


def generate(
    flavour: Annotated[str | None, typer.Option(metavar="NAME", help="The flavour, e.g. LOCAL.")] = None,
    vo: Annotated[str | None, typer.Option(metavar="NAME", help="The VO; needed where there are several.")] = None,
    site: Annotated[str | None, typer.Option(metavar="NAME", help="For a machine of this site.")] = None,
    resource: Annotated[
        str | None, typer.Option(metavar="NAME", help="For this resource (then the flavour is known).")
    ] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="And this queue of it.")] = None,
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="COMMAND.OPTION=VALUE", help="Set an option; may be repeated.")
    ] = None,
    url: Annotated[list[str] | None, typer.Option(metavar="URL", help="Where the pilot finds the service.")] = None,
    trust: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A PEM file of trust anchors that it pins.")
    ] = None,
    config: Config = None,
    rendering: Annotated[
        str, typer.Option(metavar="NAME", help="plain: the script; shell: it unpacks a Python if need be; tarball.")
    ] = "plain",
    python: Annotated[
        list[str] | None,
        typer.Option(metavar="PLACE#sha256=HEX", help="With shell: a Python to unpack, a .tar.gz at a path or URL."),
    ] = None,
    add: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="With tarball: put this file in, too.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what each command would do on this machine.")
    ] = False,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Make DIR with pilot and credentials, by the service.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: JSON for programs.")] = False,
) -> None:
    """Compose a pilot script and print it.

    Example: pilotage generate --flavour LOCAL --set RunJobAgent.idle_seconds=60 > pilot

    It works offline, from the embedded defaults or --config; --url tells the pilot where the service is. Such a script
    carries no credentials. With --dry-run nothing is contacted and nothing is made: each command is shown with its
    options, and what it would do here where it can tell. With --bundle the running service is asked for a pilot that
    can be started by hand at once: DIR then holds `pilot` and its one-time `credentials.json`; run it with: sh
    DIR/pilot
    """
    if bundle is not None:
        others = (config, url, trust, site, given, python, add, output, dry_run)
        if any(others) or rendering != "plain":
            raise CliError(
                "--bundle takes the running service's own configuration; it goes with --flavour, --vo, --resource and "
                "--queue alone",
                2,
            )
        _bundle(bundle, {"flavour": flavour, "vo": vo, "resource": resource, "queue": queue})
        return
    if as_json and not dry_run:
        raise CliError("--json goes with --dry-run; what a script is made of tells: pilotage inspect FILE --json", 2)
    anchors = tuple(read_anchors(trust))
    wanted = Wanted(vo, flavour, site, resource, queue, tuple(checked_urls(url)), anchors, tuple(given or ()))
    if dry_run:
        if python or add or output or rendering != "plain":
            raise CliError("--dry-run makes no pilot; leave --rendering, --python, --add and --output out", 2)
        from .dryrun import show

        show(load_configuration(config), wanted, as_json)
        return
    deliver(
        _rendered(rendering, wanted.compose(load_configuration(config)).script, python or [], add or []),
        output,
        "a pilot script is long; send it to a file: pilotage generate ... > pilot",
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which pilot the command line asks for."""

    vo: str | None
    flavour: str | None
    site: str | None = None
    resource: str | None = None
    queue: str | None = None
    urls: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()
    given: tuple[str, ...] = ()

    def compose(self, configuration: Configuration, plans: bool = False) -> ComposedPilot:
        """That pilot; `plans`: for a dry run. Raises CliError."""
        from pilotage.configuration import ConfigurationError, compose_pilot, shelf
        from pilotage.configuration.given import layer

        if self.flavour is None and self.resource is None:
            names = ", ".join(configuration.flavours)
            raise CliError(f"which pilot? give --flavour NAME (there are: {names}) or --resource NAME", 2)
        if self.queue and not self.resource:
            raise CliError(NO_RESOURCE, 2)
        vo = one_vo(configuration, self.vo)
        try:
            extra = [layer(self.given, shelf.toolboxes_of(configuration, vo))] if self.given else []
            return compose_pilot(
                configuration,
                vo,
                self.resource,
                self.queue,
                self.urls,
                self.trust,
                flavour=self.flavour,
                site=self.site,
                extra=extra,
                plans=plans,
            )
        except ConfigurationError as error:
            raise refused(error) from error


def one_vo(configuration: Configuration, vo: str | None) -> str:
    """The VO that is meant: the one that there is, where none is named. Raises CliError for one that is not there."""
    from pilotage.configuration.schema import unknown

    if vo is None:
        if len(configuration.vos) != 1:
            raise CliError(f"for which VO? give --vo NAME (there are: {', '.join(configuration.vos) or 'none'})", 2)
        return next(iter(configuration.vos))
    if vo not in configuration.vos:
        raise CliError(unknown("VO", vo, configuration.vos))
    return vo


def _rendered(name: str, script: str, python: list[str], add: list[Path]) -> bytes:
    from pilotage.renderings import Material, Relocatable, RenderingError, render

    names = [file.name for file in add]
    if len(set(names)) < len(names):
        raise CliError("two files of --add have the same name", 2)
    try:
        files = {file.name: file.read_bytes() for file in add}
        return render(name, Material(script, files, [Relocatable.parse(text) for text in python])).data
    except OSError as error:
        raise CliError(f"cannot read {error.filename}: {error.strerror}") from error
    except RenderingError as error:
        raise CliError(str(error), 2) from error


def deliver(data: bytes, output: Path | None, refusal: str) -> None:
    """Write what was made to a file (replaced whole, executable), or to standard output unless that is a terminal.

    What is there and is no file (a device, a pipe) is written to, and stays what it is.
    """
    if output is None:
        if sys.stdout.isatty():
            raise CliError(refusal, 2)
        sys.stdout.buffer.write(data)
        return
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        if output.exists() and not output.is_file():
            output.write_bytes(data)
            return
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755), "wb") as file:
            file.write(data)
        os.replace(draft, output)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise CliError(f"cannot write {output}: {error.strerror}") from error


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


def read_anchors(files: Sequence[Path] | None) -> list[str]:
    """The trust anchors (PEM) of files, each a text of its own, as the service gives them. Raises CliError."""
    import ssl

    from pilotage.service.tls import split

    found = []
    for file in files or []:
        text = read_text(file, "trust anchors")
        if "PRIVATE KEY-----" in text:
            raise CliError(
                f"{file} holds a private key, which nobody else may have; the anchors of a service: ca.pem", 2
            )
        anchors = split(text)
        try:
            if not anchors:
                raise ValueError("it holds no certificate")
            ssl.create_default_context(cadata="".join(anchors))
        except (ValueError, ssl.SSLError) as error:
            raise CliError(f"{file} is no PEM file of trust anchors: {error}", 2) from error
        found += anchors
    return found


def checked_urls(urls: Sequence[str] | None) -> list[str]:
    """What --url was given. Raises CliError for what is no URL of a service."""
    from pilotage.configuration.schema import URL

    for url in urls or []:
        if not re.match(URL, url):
            raise CliError(f"--url {url}: this is neither an http nor an https URL", 2)
    return list(urls or [])


def read_text(file: Path, what: str) -> str:
    """A text file, its line ends as they are. Raises CliError."""
    try:
        with open(file, encoding="utf-8", newline="") as text:
            return text.read()
    except OSError as error:
        raise CliError(f"cannot read {what} {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CliError(f"{file} is not text: byte {error.start}") from error
