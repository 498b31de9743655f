"""Tells of one pilot what it gets and why: for every value and every command, the layer, file and line that set it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pilotage.configuration import pilots
from pilotage.configuration.document import ConfigurationError, Location, PathInData
from pilotage.configuration.resolve import LIMITS, Layer, Merged, Target, resolve_target
from pilotage.configuration.schema import Configuration

COMMAND = "default of the command"
NOBODY = "nobody"


class Explained(NamedTuple):
    """One value of a pilot's profile.

    :ivar path: `commands[2]`, `options.RunJobAgent.idle_seconds`, `limits.cores`, ...
    :ivar layer: who set it, in words; `nobody` for what is left to the node
    :ivar where: the file and line that set it, None where no file does
    """

    path: str
    value: Any
    layer: str
    where: Location | None

    def plain(self) -> dict[str, Any]:
        """As JSON has it; `where` is FILE:LINE:COLUMN."""
        return {**self._asdict(), "where": str(self.where) if self.where else None}


def explain(configuration: Configuration, target: Target, extra: Sequence[Layer] = ()) -> list[Explained]:
    """Every value of a target's pilot with who set it, in the order of the profile.

    :param extra: layers above all others (`resolve.resolve_target`)

    What the options are that nobody sets is told where the pilot composes. Raises ConfigurationError where there is no
    profile.
    """
    profile, merged = resolve_target(configuration, target, extra)
    rows = [*_of_vo(configuration, target, profile), *_commands(configuration, target, profile, merged, extra)]
    rows += [_limit(configuration, target, name, profile["limits"][name], merged) for name in LIMITS]
    for name in ("tags", "python"):
        rows += [
            _told(configuration, merged, f"{name}[{index}]", value, (name, index))
            for index, value in enumerate(profile[name])
        ] or [_told(configuration, merged, name, [], (name,))]
    rows += [_told(configuration, merged, name, profile[name], (name,)) for name in ("platform", "log_mib")]
    return rows


def layer_of(path: PathInData) -> str:
    """The layer that a path in the configuration is in, in words."""
    words = [str(step) for step in path]
    if words and words[0].startswith("--"):
        return f"command line ({words[0]})"
    embedded = path[:1] == (0,)
    if path and isinstance(path[0], int):
        words = words[1:]
    if words[:1] == ["pilot"]:
        return "built-in defaults" if embedded else "all pilots"
    if words[:1] == ["flavours"]:
        engine = f" for engine {words[3]}" if words[2:3] == ["engines"] else ""
        return f"{'built-in ' if embedded else ''}flavour {words[1]}{engine}"
    if words[:1] == ["vos"]:
        return f"VO {words[1]}" + (f" for flavour {words[3]}" if words[2:3] == ["flavours"] else "")
    return _place_of(words) if words[:1] == ["sites"] else ".".join(words)


def _place_of(words: list[str]) -> str:
    depth = 1 + 2 * (words[2:3] == ["resources"]) + 2 * (words[4:5] == ["queues"])
    text = f"{words[depth - 1][:-1]} {words[depth]}"
    if depth == 5:
        text += f" of {words[3]}"
    return text + (f" for VO {words[depth + 3]}" if words[depth + 1 : depth + 3] == ["pilot", "vos"] else "")


def _of_vo(configuration: Configuration, target: Target, profile: dict[str, Any]) -> Iterator[Explained]:
    said = configuration.said("vos", target.vo)
    for name in ("engine", "minimum_python"):
        path: PathInData = ("vos", target.vo, name)
        where = configuration.where(path) if name in said else None
        yield Explained(name, profile[name], f"VO {target.vo}" if name in said else "built-in defaults", where)


def _commands(
    configuration: Configuration, target: Target, profile: dict[str, Any], merged: Merged, extra: Sequence[Layer]
) -> Iterator[Explained]:
    complete = _complete(configuration, target, extra) or profile["commands"]
    given = merged.values.get("options", {})
    for index, command in enumerate(complete):
        name = command["name"]
        yield _told(configuration, merged, f"commands[{index}]", name, ("commands", index))
        for option, value in command["options"].items():
            path = f"options.{name}.{option}"
            if option in given.get(name, {}):
                yield _told(configuration, merged, path, value, ("options", name, option))
            else:
                yield Explained(path, value, COMMAND, None)


def _complete(configuration: Configuration, target: Target, extra: Sequence[Layer]) -> list[dict[str, Any]] | None:
    """The commands with all their options; None where the pilot does not compose (its toolbox is not there, say)."""
    names = (target.resource or None, target.queue or None)
    more: dict[str, Any] = {"flavour": target.flavour, "site": target.site or None}
    try:
        composed = pilots.compose_pilot(configuration, target.vo, *names, **more, extra=extra)
    except ConfigurationError:
        return None
    commands: list[dict[str, Any]] = composed.profile["commands"]
    return commands


def _limit(configuration: Configuration, target: Target, name: str, value: Any, merged: Merged) -> Explained:
    """A limit is the queue's own or the ceiling of a layer, whichever is lower."""
    path = f"limits.{name}"
    if target.resource and value is not None:
        place: PathInData = ("sites", target.site, "resources", target.resource, "queues", target.queue)
        if configuration.said(*place).get(name) == value:
            where = configuration.where((*place, name))
            return Explained(path, value, f"queue {target.queue} of {target.resource}", where)
    return _told(configuration, merged, path, value, ("limits", name))


def _told(configuration: Configuration, merged: Merged, path: str, value: Any, at: PathInData) -> Explained:
    inside: Any = merged.values
    for step in at:
        if isinstance(step, str) and step not in inside:
            return Explained(path, value, NOBODY, None)
        inside = inside[step]
    origin = merged.origin(at)
    return Explained(path, value, layer_of(origin), configuration.where(origin))
