"""`pilotage publish`: what seeds fetch, as files for a web server or a file system such as CVMFS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import CliError
from .generate import Config, Json, checked_urls, load_configuration, read_anchors, refused
from .output import clean, print_json

if TYPE_CHECKING:
    from pilotage.configuration import Configuration


def publish(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; what is there stays.")],
    vo: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this VO.")] = None,
    flavour: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Instead of those under service.published.")
    ] = None,
    url: Annotated[list[str] | None, typer.Option(metavar="URL", help="Where the pilots find the service.")] = None,
    trust: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A PEM file of trust anchors that they pin.")
    ] = None,
    config: Config = None,
    service: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What --config is put over: that of `pilotage up --service`."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write profiles and built toolboxes into a directory, from which seeds compose pilots.

    Example: pilotage publish --config pilotage.yaml --url https://pilots.example:8842 /var/www/pilots

    The directory, or what serves it, is then named to `pilotage client-pilot`: as --source (a mirror, whose bytes are
    checked), or as --trusted. Publishing again adds what is new; seeds may read all the while.
    """
    from pilotage.configuration import ConfigurationError
    from pilotage.configuration import publish as publishing
    from pilotage.configuration.schema import unknown

    configuration = load_configuration(config) if service is None else _over(service, config)
    if not url and not configuration.service.url:
        raise CliError("the pilots would not know where the service is; give --url, or service.url in --config", 2)
    for kind, names, known in (("VO", vo, configuration.vos), ("flavour", flavour, configuration.flavours)):
        for name in names or []:
            if name not in known:
                raise CliError(unknown(kind, name, known))
    anchors, urls = read_anchors(trust), checked_urls(url)
    flavours = flavour or configuration.service.published
    try:
        # All of it first: what cannot be published is found before anything is written.
        items = list(publishing.everything(configuration, vo or list(configuration.vos), flavours, urls, anchors))
        manifests, blobs = publishing.write(directory, items)
    except ConfigurationError as error:
        raise refused(error) from error
    except OSError as error:
        raise CliError(f"cannot write {error.filename or directory}: {error.strerror or error}") from error
    if as_json:
        print_json({"directory": str(directory), "pilots": len(items), "manifests": manifests, "blobs": blobs})
        return
    print(f"{len(items)} pilots in {clean(directory)}: {manifests} manifests and {blobs} blobs are new")


def _over(service: Path, config: Path | None) -> Configuration:
    """The configuration as a service has it that was started with `--service`. Raises CliError."""
    from pilotage.configuration import ConfigurationError, load_files

    from .config_files import files_of

    below = load_configuration(service)
    try:
        return load_files(files_of(config) if config else {}, below)
    except ConfigurationError as error:
        raise refused(error) from error
