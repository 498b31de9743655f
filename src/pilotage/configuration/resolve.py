"""Layers -> one profile: what a pilot of one (VO, site, resource, queue) is, and who said so.

Layers, each a `PilotPart`, later wins: defaults (`pilot`) < flavour < VO < site < resource < queue.
Maps merge deeply, all else is replaced. `merge` is pure and remembers for every value the layer that set it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pilotage.configuration.document import ConfigurationError, PathInData
from pilotage.configuration.schema import Configuration, PilotPart, Queue, unknown

PROFILE_FORMAT = 1
LIMITS = ("cores", "memory_mib", "disk_mib", "gpus", "wall_seconds")

Layer = tuple[PathInData, Mapping[str, Any]]
"""Where in the configuration a layer is, and what it says (only what it says, no defaults)."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The layers as one; `origins` gives for each path in `values` the path in the configuration that set it."""

    values: dict[str, Any]
    origins: dict[PathInData, PathInData]

    def origin(self, path: PathInData) -> PathInData:
        """Who set the value at `path`: as for the nearest parent where it has no origin of its own."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]] + path[length:]
        return path


@dataclass(frozen=True, slots=True)
class Target:
    """For whom a pilot is: site, resource and queue are empty for a pilot that is started by hand."""

    vo: str
    flavour: str
    site: str = ""
    resource: str = ""
    queue: str = ""


def merge(layers: Iterable[Layer]) -> Merged:
    """Put layers together: maps merge deeply, all else is replaced by the later layer."""
    values: dict[str, Any] = {}
    origins: dict[PathInData, PathInData] = {}

    def put(low: dict[str, Any], high: Mapping[str, Any], at: PathInData, source: PathInData) -> None:
        for key, value in high.items():
            path, origin = (*at, key), (*source, key)
            if isinstance(value, Mapping):
                if not isinstance(low.get(key), dict):
                    low[key] = {}
                    origins[path] = origin
                put(low[key], value, path, origin)
            else:
                low[key] = list(value) if isinstance(value, list) else value
                origins[path] = origin

    for source, part in layers:
        put(values, part, (), source)
    return Merged(values, origins)


def target(
    configuration: Configuration,
    vo: str,
    resource: str | None = None,
    queue: str | None = None,
    flavour: str | None = None,
) -> Target:
    """Check the names; a resource has its flavour, without a resource `flavour` must be given.

    Raises ConfigurationError for a name that is not there and for a VO that the resource does not admit. `queue` may be
    left out where the resource has one.
    """
    if vo not in configuration.vos:
        raise ConfigurationError(unknown("VO", vo, configuration.vos))
    if resource is None:
        if flavour is None or flavour not in configuration.flavours:
            raise ConfigurationError(unknown("flavour", flavour or "", configuration.flavours))
        return Target(vo, flavour)
    site = configuration.site_of(resource)
    if site is None:
        raise ConfigurationError(unknown("resource", resource, [name for _, name, _ in configuration.resources()]))
    chosen = configuration.resource(resource)
    if vo not in configuration.vos_of(chosen):
        raise ConfigurationError(f"the resource '{resource}' does not admit the VO '{vo}'")
    if queue is None and len(chosen.queues) == 1:
        queue = next(iter(chosen.queues))
    if queue not in chosen.queues:
        raise ConfigurationError(unknown(f"queue of '{resource}'", queue or "", chosen.queues))
    if flavour is not None and flavour not in configuration.flavours:
        raise ConfigurationError(unknown("flavour", flavour, configuration.flavours))
    return Target(vo, flavour or chosen.flavour, site, resource, queue)


def layers(configuration: Configuration, target: Target) -> list[Layer]:
    """The layers that make up a target's pilot, first the weakest."""
    found: list[tuple[PathInData, PilotPart]] = [
        (("pilot",), configuration.pilot),
        (("flavours", target.flavour), configuration.flavours[target.flavour]),
        (("vos", target.vo, "pilot"), configuration.vos[target.vo].pilot),
    ]
    if target.resource:
        site = configuration.sites[target.site]
        resource = site.resources[target.resource]
        at: PathInData = ("sites", target.site)
        below: PathInData = (*at, "resources", target.resource)
        found.append(((*at, "pilot"), site.pilot))
        found.append(((*below, "pilot"), resource.pilot))
        found.append(((*below, "queues", target.queue, "pilot"), resource.queues[target.queue].pilot))
    return [(path, part.model_dump(exclude_unset=True)) for path, part in found]


def resolve(
    configuration: Configuration,
    vo: str,
    resource: str | None = None,
    queue: str | None = None,
    *,
    flavour: str | None = None,
) -> dict[str, Any]:
    """The profile of a target, JSON-able; the options in it are those that are set (see `pilots.compose_pilot`).

    `service` holds the configured URL, if any, and no trust anchors: who composes knows the addresses.
    """
    return resolve_target(configuration, target(configuration, vo, resource, queue, flavour))[0]


def resolve_target(configuration: Configuration, target: Target) -> tuple[dict[str, Any], Merged]:
    """The profile, and the merged layers that it was made of (to tell who set what)."""
    merged = merge(layers(configuration, target))
    values = merged.values
    commands = values.get("commands", [])
    if not commands:
        where = configuration.where(
            merged.origin(("commands",)) if "commands" in values else ("flavours", target.flavour)
        )
        raise ConfigurationError(f"no layer gives the pilot of flavour '{target.flavour}' any commands", where)
    for index, name in enumerate(commands):
        if name in commands[:index]:
            where = configuration.where(merged.origin(("commands", index)))
            raise ConfigurationError(f"the command '{name}' is in the list twice", where)
    options = values.get("options", {})
    url = configuration.service.url
    profile = {
        "format": PROFILE_FORMAT,
        "vo": target.vo,
        "site": target.site,
        "resource": target.resource,
        "queue": target.queue,
        "flavour": target.flavour,
        "revision": configuration.revision,
        "service": {"urls": [url] if url else [], "trust": []},
        "commands": [{"name": name, "options": dict(options.get(name, {}))} for name in commands],
        "limits": _limits(configuration, target, values.get("limits", {})),
        "tags": values.get("tags", []),
        "platform": values.get("platform"),
        "python": values.get("python", []),
        "log_mib": values.get("log_mib", 10),
    }
    return profile, merged


def _limits(configuration: Configuration, target: Target, ceilings: Mapping[str, Any]) -> dict[str, Any]:
    """What the queue gives, under the ceilings of the layers; null where neither says anything."""
    queue = configuration.resource(target.resource).queues[target.queue] if target.resource else Queue()
    both = {name: (getattr(queue, name), ceilings.get(name)) for name in LIMITS}
    return {name: min((n for n in pair if n is not None), default=None) for name, pair in both.items()}
