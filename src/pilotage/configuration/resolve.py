"""Layers -> one profile: what a pilot of one (VO, site, resource, queue) is, and who said so.

Layers, each a `PilotPart`, later wins (layers.py says how):

    pilot < flavour < flavour for the engine < VO < VO for the flavour
          < site < site for the VO < resource < resource for the VO < queue < queue for the VO < command line

The first three are those of the embedded defaults, then once more those of the files: what a file says wins over all
that is built in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pilotage.configuration.document import ConfigurationError, PathInData
from pilotage.configuration.edits import EditError
from pilotage.configuration.finals import told
from pilotage.configuration.layers import EMPTY, FinalError, Layer, Merged, Stack, merge, stacked
from pilotage.configuration.schema import Configuration, inside, unknown

__all__ = ["Layer", "Merged", "Target", "merge", "resolve", "resolve_target", "target", "targets"]

PROFILE_FORMAT = 1
LIMITS = ("cores", "memory_mib", "disk_mib", "gpus", "wall_seconds")


@dataclass(frozen=True, slots=True)
class Target:
    """For whom a pilot is: site, resource and queue are empty for a pilot that is started by hand; resource and queue
    alone for a machine of a site that nobody sends pilots to."""

    vo: str
    flavour: str
    site: str = ""
    resource: str = ""
    queue: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What all queues of a resource share."""
        return self.vo, self.flavour, self.site, self.resource


def target(
    configuration: Configuration,
    vo: str,
    resource: str | None = None,
    queue: str | None = None,
    flavour: str | None = None,
    site: str | None = None,
) -> Target:
    """Check the names; a resource has its flavour and its site, without a resource `flavour` must be given.

    Raises ConfigurationError for a name that is not there and for a VO that the resource does not admit. `queue` may be
    left out where the resource has one.
    """
    if vo not in configuration.vos:
        raise ConfigurationError(unknown("VO", vo, configuration.vos))
    if site and site not in configuration.sites:
        raise ConfigurationError(unknown("site", site, configuration.sites))
    if resource is None:
        if flavour is None:
            raise ConfigurationError("which pilot? Name a resource or a flavour")
        if flavour not in configuration.flavours:
            raise ConfigurationError(unknown("flavour", flavour, configuration.flavours))
        return Target(vo, flavour, site or "")
    of, site = site, configuration.site_of(resource)
    if site is None:
        raise ConfigurationError(unknown("resource", resource, [name for _, name, _ in configuration.resources()]))
    if of and of != site:
        raise ConfigurationError(f"the resource '{resource}' is in the site '{site}', not in '{of}'")
    chosen = configuration.resource(resource)
    if vo not in configuration.vos_of(chosen):
        raise ConfigurationError(f"the resource '{resource}' does not admit the VO '{vo}'")
    if queue is None and len(chosen.queues) > 1:
        raise ConfigurationError(f"the resource '{resource}' has several queues, name one: {', '.join(chosen.queues)}")
    queue = queue or next(iter(chosen.queues))
    if queue not in chosen.queues:
        raise ConfigurationError(unknown(f"queue of '{resource}'", queue, chosen.queues))
    if flavour is not None and flavour not in configuration.flavours:
        raise ConfigurationError(unknown("flavour", flavour, configuration.flavours))
    return Target(vo, flavour or chosen.flavour, site, resource, queue)


def targets(configuration: Configuration) -> Iterator[Target]:
    """For whom there are pilots: every resource, queue and VO that it admits, in the order of the files."""
    for site, name, resource in configuration.resources():
        for queue in resource.queues:
            for vo in configuration.vos_of(resource):
                yield Target(vo, resource.flavour, site, name, queue)


def _common(configuration: Configuration, target: Target) -> Iterator[Layer]:
    """What does not depend on the place."""
    yield from _of_flavour(configuration, target.flavour, configuration.vos[target.vo].engine)
    path = ("vos", target.vo)
    yield (*path, "pilot"), configuration.said(*path, "pilot")
    yield (*path, "flavours", target.flavour), configuration.said(*path, "flavours", target.flavour)


def _of_flavour(configuration: Configuration, flavour: str, engine: str) -> Iterator[Layer]:
    """Level by level, the embedded defaults first; the paths begin with the number of the level."""
    for number, level in enumerate(configuration.levels):
        yield (number, "pilot"), inside(level.data, "pilot")
        path: PathInData = (number, "flavours", flavour)
        yield path, _without(inside(level.data, *path[1:]), "engines")
        yield (*path, "engines", engine), inside(level.data, *path[1:], "engines", engine)


def _of_resource(configuration: Configuration, target: Target) -> Iterator[Layer]:
    """What site and resource say."""
    site: PathInData = ("sites", target.site)
    if target.site:
        yield from _of_place(configuration, target.vo, site)
    if target.resource:
        yield from _of_place(configuration, target.vo, (*site, "resources", target.resource))


def _of_queue(configuration: Configuration, target: Target) -> Iterator[Layer]:
    if target.resource:
        path = ("sites", target.site, "resources", target.resource, "queues", target.queue)
        yield from _of_place(configuration, target.vo, path)


def _of_place(configuration: Configuration, vo: str, place: PathInData) -> Iterator[Layer]:
    path = (*place, "pilot")
    part = configuration.said(*path)
    if part:
        yield path, _without(part, "vos")
        yield (*path, "vos", vo), inside(part, "vos", vo)


def _without(part: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return {name: value for name, value in part.items() if name != key} if key in part else part


def commands_of(configuration: Configuration, flavour: str, engine: str = "builtin") -> list[str]:
    """The commands of a flavour as they are where no VO and no place says otherwise. Raises ConfigurationError."""
    stack = _stacked(configuration, _of_flavour(configuration, flavour, engine))
    return list(_settled(configuration, stack).values.get("commands", []))


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


def resolve_target(
    configuration: Configuration, target: Target, extra: Sequence[Layer] = ()
) -> tuple[dict[str, Any], Merged]:
    """The profile, and the merged layers that it was made of (to tell who set what).

    :param extra: layers above all others, for what the command line says: (("--set",), {...})

    Raises ConfigurationError: an edit of what is not there, a change of what is final, no commands, one twice.
    """
    merged = _merged(configuration, target, extra)
    values = merged.values
    commands = values.get("commands", [])
    if not commands:
        where = configuration.where(
            merged.origin(("commands",)) if "commands" in values else ("flavours", target.flavour)
        )
        raise ConfigurationError(f"no layer gives the pilot of flavour '{target.flavour}' any commands", where)
    if len(set(commands)) < len(commands):
        index = next(index for index, name in enumerate(commands) if name in commands[:index])
        where = configuration.where(merged.origin(("commands", index)))
        raise ConfigurationError(f"the command '{commands[index]}' is in the list twice", where)
    options = values.get("options", {})
    url = configuration.service.url
    vo = configuration.vos[target.vo]
    profile = {
        "format": PROFILE_FORMAT,
        "vo": target.vo,
        "site": target.site,
        "resource": target.resource,
        "queue": target.queue,
        "flavour": target.flavour,
        "engine": vo.engine,
        "minimum_python": vo.minimum_python,
        "revision": configuration.revision,
        "service": {"urls": [url] if url else [], "trust": []},
        "commands": [{"name": name, "options": dict(options.get(name, {}))} for name in commands],
        "limits": _limits(configuration, target, values.get("limits", {})),
        "tags": list(values.get("tags", ())),
        "platform": values.get("platform"),
        "python": list(values.get("python", ())),
        "log_mib": values.get("log_mib", 10),
    }
    return profile, merged


def _merged(configuration: Configuration, target: Target, extra: Sequence[Layer]) -> Merged:
    """The layers as one. What pilots share is put together once: VO and flavour, and with them site and resource."""
    kept: dict[Any, Stack] = configuration.kept
    stack = kept.get(target.key)
    if stack is None:
        common = kept.get(target.key[:2])
        if common is None:
            common = kept[target.key[:2]] = _stacked(configuration, _common(configuration, target))
        stack = kept[target.key] = _stacked(configuration, _of_resource(configuration, target), common)
    above = _stacked(configuration, [*_of_queue(configuration, target), *extra], stack)
    return _settled(configuration, above)


def _stacked(configuration: Configuration, layers: Iterable[Layer], stack: Stack = EMPTY) -> Stack:
    try:
        return stacked(layers, stack)
    except FinalError as error:
        raise told(configuration, error) from None


def _settled(configuration: Configuration, stack: Stack) -> Merged:
    try:
        return stack.merged()
    except EditError as error:
        raise ConfigurationError(str(error), configuration.where(error.path)) from None


def _limits(configuration: Configuration, target: Target, ceilings: Mapping[str, Any]) -> dict[str, Any]:
    """What the queue gives, under the ceilings of the layers; null where neither says anything."""
    path = ("sites", target.site, "resources", target.resource, "queues", target.queue)
    queue = configuration.said(*path) if target.resource else {}
    limits = {}
    for name in LIMITS:
        own, ceiling = queue.get(name), ceilings.get(name)
        limits[name] = ceiling if own is None else own if ceiling is None else min(own, ceiling)
    return limits
