"""Profiles made complete and composed into pilot scripts; what cannot be composed is refused with file and line."""

from __future__ import annotations

import json
import math
from collections import ChainMap, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from pilotage.configuration import finals
from pilotage.configuration.document import ConfigurationError, Location, PathInData
from pilotage.configuration.resolve import Layer, Merged, Target, resolve_target, target, targets
from pilotage.configuration.schema import Configuration, unknown
from pilotage.configuration.shelf import toolboxes_of
from pilotage.configuration.toolboxes import Built, ToolboxError, dirac
from pilotage_node.compose import ComposeError, compose

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
    site: str | None = None,
    extra: Sequence[Layer] = (),
    plans: bool = False,
) -> ComposedPilot:
    """The pilot of one (VO, resource, queue), or of a VO and a flavour for one that is started by hand.

    :param urls: where the pilot finds the service; the configured URL is used where there is none
    :param trust: pinned trust anchors, PEM texts; none: the node's own store
    :param site: of a machine without a resource of its own
    :param extra: layers above all others, for what the command line says: (("--set",), {...})
    :param plans: for a dry run: the commands keep their `plan` methods

    Raises ConfigurationError: an unknown name, a toolbox that cannot be built, or a pilot that does not compose, with
    the place that is to blame.
    """
    chosen = target(configuration, vo, resource, queue, flavour, site)
    toolboxes = _toolboxes(configuration, chosen.vo, plans)
    said = json.dumps([(path, dict(part)) for path, part in extra], sort_keys=True, default=repr) if extra else ""
    key = (
        configuration.revision,
        chosen,
        tuple(urls),
        tuple(trust),
        said,
        *(toolbox["digest"] for toolbox in toolboxes),
    )
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    profile, merged = resolve_target(configuration, chosen, extra)
    profile["service"] = {"urls": list(urls) or profile["service"]["urls"], "trust": list(trust)}
    composed = _composed(configuration, chosen, profile, merged, toolboxes)
    with _lock:
        _cache[key] = composed
        while len(_cache) > CACHED:
            _cache.popitem(last=False)
    return composed


def check(configuration: Configuration) -> None:
    """Whether the pilots of every resource, queue and VO compose; raises ConfigurationError, with all problems.

    Whether one composes depends on its VO, commands, options and interpreters alone: of those that are alike in these,
    one is composed. What is wrong is told for every place.
    """
    found: dict[str, ConfigurationError] = {}
    good: set[tuple[str, str]] = set()
    for chosen in targets(configuration):
        try:
            profile, merged = resolve_target(configuration, chosen)
            decisive = chosen.vo, repr([merged.values.get(key) for key in ("commands", "options", "python")])
            if decisive not in good:
                _composed(configuration, chosen, profile, merged, _toolboxes(configuration, chosen.vo))
                good.add(decisive)
        except ConfigurationError as error:
            found.setdefault(str(error), error)
    found |= {str(error): error for error in _finals_in_vain(configuration)} if not found else {}
    if found:
        first, *_ = problems = list(found.values())
        first.problems = problems
        raise first


def _finals_in_vain(configuration: Configuration) -> Iterator[ConfigurationError]:
    """Final paths that name a command or option that no pilot can have: they would guard nothing, unnoticed."""
    named = list(finals.options(configuration))
    vos = {target.vo for target in targets(configuration)} if named else ()
    manifest = ChainMap(*(box["commands"] for vo in vos for box in _toolboxes(configuration, vo)))
    for path, command, option in named if manifest else ():
        if command not in manifest and command not in dirac()["commands"]:
            yield ConfigurationError(_unknown_command(command, manifest), configuration.where(path))
        elif command in manifest and option is not None and option not in manifest[command]["options"]:
            yield ConfigurationError(_unknown_option(command, option, manifest), configuration.where(path))


def _toolboxes(configuration: Configuration, vo: str, plans: bool = False) -> list[Built]:
    try:
        return toolboxes_of(configuration, vo, plans)
    except ToolboxError as error:
        raise ConfigurationError(f"Pilotage's own toolboxes cannot be built: {error}") from None


def _composed(
    configuration: Configuration, chosen: Target, profile: dict[str, Any], merged: Merged, toolboxes: list[Built]
) -> ComposedPilot:
    """A profile made complete, in place, and composed."""

    def where(path: PathInData) -> Location | None:
        return configuration.where(merged.origin(path))

    complete(profile, merged, ChainMap(*(toolbox["commands"] for toolbox in toolboxes)), where)
    try:
        script = compose(profile, toolboxes)
    except ComposeError as error:
        text = f"the pilot of flavour '{chosen.flavour}' does not compose: {error}"
        raise ConfigurationError(text, where(("commands",))) from None
    return ComposedPilot(script, profile, script.partition("# digest: sha256:")[2][:64])


def complete(
    profile: dict[str, Any],
    merged: Merged,
    manifest: Mapping[str, Mapping[str, Any]],
    where: Callable[[PathInData], Location | None],
) -> None:
    """Check commands and options against the manifest of the toolboxes, fill in the options' defaults, in place."""
    for index, command in enumerate(profile["commands"]):
        if command["name"] not in manifest:
            raise ConfigurationError(_unknown_command(command["name"], manifest), where(("commands", index)))
    for name, options in merged.values.get("options", {}).items():
        if name not in manifest:
            raise ConfigurationError(_unknown_command(name, manifest), where(("options", name)))
        known = manifest[name]["options"]
        for option, value in options.items():
            at = ("options", name, option)
            if option not in known:
                raise ConfigurationError(_unknown_option(name, option, manifest), where(at))
            if not fits(value, known[option]):
                wanted = _TYPES[known[option]["type"]]
                raise ConfigurationError(f"{name}.{option} must be {wanted}, not {value!r}", where(at))
    for command in profile["commands"]:
        known = manifest[command["name"]]["options"]
        command["options"] = {option: command["options"].get(option, known[option]["default"]) for option in known}


def _unknown_command(name: str, manifest: Mapping[str, Any]) -> str:
    if name in dirac()["commands"]:
        return f"the command '{name}' is of the toolbox 'dirac', which only VOs with engine: dirac have"
    return unknown("command", name, manifest)


def _unknown_option(name: str, option: str, manifest: Mapping[str, Any]) -> str:
    others = sorted(other for other in manifest if option in manifest[other]["options"])
    if others:
        return f"{name} has no option '{option}'; it is an option of {', '.join(others)}"
    return unknown(f"option of {name}", option, manifest[name]["options"])


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
    if isinstance(value, float) and not math.isfinite(value):
        return False
    types: dict[str, Any] = {"int": int, "float": int | float, "str": str, "list": list}
    return kind in types and isinstance(value, types[kind])
