"""What a seed fetches: manifests, and the profiles and built toolboxes that they name by SHA-256.

A manifest is trusted for where it comes from; a blob is canonical JSON, named by the SHA-256 of its bytes, and may come
from anywhere. The static form, for a web server or a directory such as CVMFS::

    VO/FLAVOUR/manifest.json                         {"format": 1, "profile": SHA-256, "toolboxes": [SHA-256, ...],
    VO/FLAVOUR/SITE/RESOURCE/QUEUE/manifest.json      "script": digest of the pilot script that they make}
    blobs/SHA-256

Profiles hold no secrets: where a configuration needs one it is a reference, and that stays on the server.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pilotage.configuration import pilots, shelf
from pilotage.configuration.document import ConfigurationError
from pilotage.configuration.resolve import Target, target
from pilotage.configuration.schema import Configuration
from pilotage.wholefile import write_whole
from pilotage_node.compose.script import canonical

FORMAT = 1
BLOBS = "blobs"


@dataclass(frozen=True)
class Published:
    """One pilot as a seed gets it: the target, the manifest, and all blobs that it names."""

    target: Target
    manifest: dict[str, Any]
    blobs: dict[str, bytes]

    @cached_property
    def data(self) -> bytes:
        """The manifest's bytes."""
        return str(canonical(self.manifest) + "\n").encode()

    @property
    def profile(self) -> dict[str, Any]:
        """The profile, as a seed reads it."""
        found: dict[str, Any] = json.loads(self.blobs[self.manifest["profile"]])
        return found


def published(
    configuration: Configuration,
    vo: str,
    resource: str | None = None,
    queue: str | None = None,
    urls: Sequence[str] = (),
    trust: Sequence[str] = (),
    *,
    flavour: str | None = None,
    site: str | None = None,
) -> Published:
    """What a seed of this target fetches; arguments and errors as for `pilots.compose_pilot`, whose script it makes."""
    composed = pilots.compose_pilot(configuration, vo, resource, queue, urls, trust, flavour=flavour, site=site)
    profile = canonical(composed.profile).encode()
    name = hashlib.sha256(profile).hexdigest()
    toolboxes = shelf.toolboxes_of(configuration, vo)
    if not all(toolbox["digest"] in composed.script for toolbox in toolboxes):
        raise ConfigurationError("a toolbox was changed just now; try again")
    manifest = {
        "format": FORMAT,
        "profile": name,
        "toolboxes": [toolbox["digest"] for toolbox in toolboxes],
        "script": composed.digest,
    }
    blobs = {name: profile} | {toolbox["digest"]: blob_of(toolbox) for toolbox in toolboxes}
    return Published(target(configuration, vo, resource, queue, flavour, site), manifest, blobs)


def blob_of(toolbox: shelf.Built) -> bytes:
    """A built toolbox as a blob: what its digest is of, so that this is the blob's name."""
    data = _blobs.get(toolbox["digest"])
    if data is None:
        data = canonical({key: value for key, value in toolbox.items() if key != "digest"}).encode()
        if len(_blobs) >= KEPT:
            _blobs.clear()
        _blobs[toolbox["digest"]] = data
    return data


KEPT = 64
_blobs: dict[str, bytes] = {}


def everything(
    configuration: Configuration, vos: Iterable[str], flavours: Iterable[str], urls: Sequence[str], trust: Sequence[str]
) -> Iterator[Published]:
    """All that seeds of these VOs and flavours can ask for: the pilot of no place, of a site, of an entrance that has
    the flavour."""
    wanted = list(flavours)
    for vo in vos:
        for flavour in wanted:
            for site in (None, *configuration.sites):
                yield published(configuration, vo, None, None, urls, trust, flavour=flavour, site=site)
        for _, name, resource in configuration.resources():
            if resource.flavour in wanted and vo in configuration.vos_of(resource):
                for queue in resource.queues:
                    yield published(configuration, vo, name, queue, urls, trust)


def static_path(target: Target) -> str:
    """Where a target's manifest is in the static form, relative; names are safe in paths and URLs."""
    place = [name for name in (target.site, target.resource, target.queue) if name]
    return "/".join([target.vo, target.flavour, *place, "manifest.json"])


def write(directory: Path, items: Iterable[Published]) -> tuple[int, int]:
    """Write the static form into a directory: (manifests, blobs) that are new or changed.

    Safe while seeds read it: a file appears whole, and a manifest after its blobs. What is there already stays: older
    manifests may still be in use. Raises OSError.
    """
    manifests = blobs = 0
    for item in items:
        for name, data in item.blobs.items():
            blobs += _put(directory / BLOBS / name, data)
        manifests += _put(directory / static_path(item.target), item.data)
    return manifests, blobs


def _put(file: Path, data: bytes) -> bool:
    """Write a file that everybody may read, in one step; whether anything had to be done."""
    if file.exists() and file.read_bytes() == data:
        return False
    _directory(file.parent)
    write_whole(file, data, 0o644)
    return True


def _directory(place: Path) -> None:
    """A directory, and those above it, that everybody may read when we make them, whatever the umask."""
    if not place.is_dir():
        _directory(place.parent)
        place.mkdir(exist_ok=True)
        place.chmod(0o755)
