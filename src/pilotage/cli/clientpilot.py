"""`pilotage client-pilot`: a seed, for machines that nobody sends pilots to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import CliError, Refusal
from .generate import NO_RESOURCE, checked_urls, deliver, load_configuration, one_vo, read_anchors, refused

if TYPE_CHECKING:
    from pilotage.configuration.publish import Published

Places = list[str] | None
NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class _Wanted:
    vo: str | None
    flavour: str
    site: str | None
    resource: str | None
    queue: str | None

    def described(self) -> str:
        place = "/".join(name for name in (self.site, self.resource, self.queue) if name)
        return f"pilot of flavour {self.flavour} for the VO {self.vo}" + (f" at {place}" if place else "")


def client_pilot(
    flavour: Annotated[str, typer.Option(metavar="NAME", help="The flavour, e.g. VAC.")],
    vo: Annotated[str | None, typer.Option(metavar="NAME", help="The VO.")] = None,
    site: Annotated[str | None, typer.Option(metavar="NAME", help="For machines of this site.")] = None,
    resource: Annotated[str | None, typer.Option(metavar="NAME", help="For machines of this resource.")] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="And this queue of it.")] = None,
    url: Annotated[
        Places, typer.Option(metavar="URL", help="Where machines find the service (default: as it says itself).")
    ] = None,
    trust: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A PEM file of trust anchors of the service.")
    ] = None,
    trusted: Annotated[
        Places, typer.Option(metavar="URL|DIR", help="A published place that is trusted: https, or a directory.")
    ] = None,
    source: Annotated[
        Places, typer.Option(metavar="URL|DIR", help="A mirror: it delivers, and what it delivers is checked.")
    ] = None,
    pin: Annotated[
        bool, typer.Option("--pin", help="Put the manifest into the seed: this pilot and no other.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where machines keep what they fetched (default: ~/.cache).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="Configuration (YAML); without it the running service's.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file.")] = None,
) -> None:
    """Make a seed: one small file that gets a pilot onto a machine to which no director sends any.

    Example: pilotage client-pilot --vo demo --flavour VAC > seed

    On the machine, `sh seed` fetches profile and toolboxes, checks them, composes the pilot with the composer that the
    service has, and becomes it; arguments and credentials.json beside it are the pilot's. What is to be fetched must
    be said by the service over https, by a trusted place, or by the seed itself (--pin). The files it looks for in its
    cache, then at mirrors, the service, trusted places. The running service is asked what there is; with --config
    nothing is contacted.
    """
    wanted = _Wanted(vo, flavour, site, resource, queue)
    if queue and not resource:
        raise CliError(NO_RESOURCE, 2)
    anchors, urls = read_anchors(trust), checked_urls(url)
    found = _by_configuration(wanted, config, urls, anchors) if config else _by_service(wanted)
    profile = found.profile
    if not profile["service"]["urls"]:
        raise CliError("the pilot would not know where the service is; give --url, or service.url in the configuration")
    from pilotage.configuration import seeds

    places = seeds.Places(
        service=urls or profile["service"]["urls"],
        trust=anchors or profile["service"]["trust"],
        trusted=[_absolute(place) for place in trusted or []],
        mirrors=[_absolute(place) for place in source or []],
    )
    try:
        text = seeds.make(found, places, pin=pin, cache_directory=str(cache.expanduser().absolute()) if cache else None)
    except seeds.SeedError as error:
        raise CliError(str(error), 2) from error
    deliver(text.encode(), output, "a seed is long; send it to a file: pilotage client-pilot ... > seed")


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).expanduser().absolute())


def _by_configuration(wanted: _Wanted, config: Path, urls: list[str], anchors: list[str]) -> Published:
    from pilotage.configuration import ConfigurationError
    from pilotage.configuration.publish import published

    configuration = load_configuration(config)
    vo = one_vo(configuration, wanted.vo)
    try:
        return published(
            configuration, vo, wanted.resource, wanted.queue, urls, anchors, flavour=wanted.flavour, site=wanted.site
        )
    except ConfigurationError as error:
        raise refused(error) from error


def _by_service(wanted: _Wanted) -> Published:
    """What the running service publishes; only the profile is fetched."""
    from pilotage.configuration.publish import Published
    from pilotage.configuration.resolve import Target

    from .client import Client

    if wanted.vo is None:
        raise CliError("for which VO? give --vo NAME", 2)
    query = {"site": wanted.site, "resource": wanted.resource, "queue": wanted.queue}
    with Client() as client:
        try:
            manifest: dict[str, Any] = client.get(f"/seed/{wanted.vo}/{wanted.flavour}/manifest", **query)
        except Refusal as error:
            if error.code != NOT_FOUND:
                raise
            hint = "look for the names, and whether service.published has the flavour, in: pilotage config show"
            raise CliError(f"the service publishes no {wanted.described()}; {hint}") from error
        blob = b"".join(client.download(f"/seed/blobs/{manifest['profile']}"))
    if hashlib.sha256(blob).hexdigest() != manifest["profile"]:
        raise CliError("the service gave a profile that is not what its manifest says")
    profile = json.loads(blob)
    names = (profile[name] for name in ("vo", "flavour", "site", "resource", "queue"))
    return Published(Target(*names), manifest, {manifest["profile"]: blob})
