"""Profiles made complete and composed into pilot scripts; what cannot be composed is refused with file and line."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from pilotage.configuration import toolboxes
from pilotage.configuration.document import ConfigurationError, Location, PathInData
from pilotage.configuration.resolve import Merged, Target, resolve_target, target
from pilotage.configuration.schema import Configuration, unknown
from pilotage_node.compose import ComposeError, compose, digest_of

CACHED = 256
"""Scripts kept in memory (some 60 KB each)."""


@dataclass(frozen=True, slots=True)
class ComposedPilot:
    """A pilot script, the complete profile in it, and its SHA-256 digest (hex)."""

    script: str
    profile: dict[str, Any]
    digest: str


_cache: OrderedDict[tuple[Any, ...], ComposedPilot] = OrderedDict()
_lock = Lock()


def compose_pilot(
    configuration: Configuration,
    vo: str,
    resource: str | None = None,
    queue: str | None = None,
    urls: Sequence[str] = (),
    trust: Sequence[str] = (),
    *,
    flavour: str | None = None,
) -> ComposedPilot:
    """The pilot of one (VO, resource, queue), or of a VO and a flavour for one that is started by hand.

    :param urls: where the pilot finds the service; the configured URL is used where there is none
    :param trust: pinned trust anchors, PEM texts; none: the node's own store

    Raises ConfigurationError: an unknown name, or a pilot that does not compose, with the place that is to blame.
    """
    chosen = target(configuration, vo, resource, queue, flavour)
    key = (configuration.revision, chosen, tuple(urls), tuple(trust))
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    composed = _compose(configuration, chosen, list(urls), list(trust))
    with _lock:
        _cache[key] = composed
        while len(_cache) > CACHED:
            _cache.popitem(last=False)
    return composed


def check(configuration: Configuration) -> None:
    """Compose the pilots of every resource, queue and VO once; raises ConfigurationError, with all problems."""
    found: dict[str, ConfigurationError] = {}
    for site, name, resource in configuration.resources():
        for queue in resource.queues:
            for vo in configuration.vos_of(resource):
                try:
                    _compose(configuration, Target(vo, resource.flavour, site, name, queue), [], [])
                except ConfigurationError as error:
                    found.setdefault(str(error), error)
    if found:
        first, *_ = problems = list(found.values())
        first.problems = problems
        raise first


def _compose(configuration: Configuration, chosen: Target, urls: list[str], trust: list[str]) -> ComposedPilot:
    profile, merged = resolve_target(configuration, chosen)
    profile["service"] = {"urls": urls or profile["service"]["urls"], "trust": trust}

    def where(path: PathInData) -> Location | None:
        return configuration.where(merged.origin(path))

    try:
        base, core = toolboxes.base(), toolboxes.core()
    except toolboxes.ToolboxError as error:
        raise ConfigurationError(f"the base toolbox cannot be built: {error}") from None
    complete(profile, merged, base["commands"], where)
    try:
        script = compose(profile, [base, core])
    except ComposeError as error:
        text = f"the pilot of flavour '{chosen.flavour}' does not compose: {error}"
        raise ConfigurationError(text, where(("commands",))) from None
    return ComposedPilot(script, profile, digest_of(script))


def complete(
    profile: dict[str, Any],
    merged: Merged,
    manifest: Mapping[str, Mapping[str, Any]],
    where: Callable[[PathInData], Location | None],
) -> None:
    """Check commands and options against a toolbox's manifest and fill in the options' defaults, in place."""
    for index, command in enumerate(profile["commands"]):
        if command["name"] not in manifest:
            raise ConfigurationError(unknown("command", command["name"], manifest), where(("commands", index)))
    for name, options in merged.values.get("options", {}).items():
        if name not in manifest:
            raise ConfigurationError(unknown("command", name, manifest), where(("options", name)))
        known = manifest[name]["options"]
        for option, value in options.items():
            at = where(("options", name, option))
            if option not in known:
                raise ConfigurationError(unknown(f"option of {name}", option, known), at)
            if not fits(value, known[option]):
                wanted = _TYPES[known[option]["type"]]
                raise ConfigurationError(f"{name}.{option} must be {wanted}, not {value!r}", at)
    for command in profile["commands"]:
        known = manifest[command["name"]]["options"]
        command["options"] = {option: command["options"].get(option, known[option]["default"]) for option in known}


_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "list": "a list of texts",
}


def fits(value: Any, option: Mapping[str, Any]) -> bool:
    """Whether a value has the type that an option declares; null only where null is its default."""
    if value is None:
        return option["default"] is None
    kind = option["type"]
    if isinstance(value, bool):
        return bool(kind == "bool")
    types: dict[str, Any] = {"int": int, "float": int | float, "str": str, "list": list}
    return kind in types and isinstance(value, types[kind])
