"""Which pilots differ between two configurations, and in what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pilotage.configuration import shelf
from pilotage.configuration.document import ConfigurationError
from pilotage.configuration.resolve import Target, resolve_target, targets
from pilotage.configuration.schema import Configuration

IGNORED = ("format", "vo", "resource", "queue", "revision", "service")
"""Keys of a profile that name it, or say nothing about what the pilot does."""


class Change(NamedTuple):
    """A value that is not the same: null where there is none. `path` is as in `explain`, lists are told whole."""

    path: str
    old: Any
    new: Any


class Difference(NamedTuple):
    """One kind of pilots that is not the same. `kind`: changed, appeared, vanished."""

    resource: str
    queue: str
    vo: str
    kind: str
    changes: list[Change]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**self._asdict(), "changes": [change._asdict() for change in self.changes]}


def pilots(old: Configuration, new: Configuration) -> list[Difference]:
    """What (resource, queue, VO) would get another pilot under `new`; the revision and the service's address apart.

    Toolboxes are told by name and digest. A pilot that cannot be has `problem` among its changes.
    """
    before, after = _targets(old), _targets(new)
    boxes: dict[str, list[Change]] = {}
    found = []
    for key in [*before, *(key for key in after if key not in before)]:
        if key not in after or key not in before:
            found.append(Difference(*key, "vanished" if key in before else "appeared", []))
            continue
        changes = changes_of(_profile(old, before[key]), _profile(new, after[key]))
        vo = key[2]
        if vo not in boxes:
            boxes[vo] = list(_toolbox_changes(old, new, vo))
        if changes or boxes[vo]:
            found.append(Difference(*key, "changed", [*changes, *boxes[vo]]))
    return found


def changes_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """What differs between two profiles."""
    if {**old, **dict.fromkeys(IGNORED)} == {**new, **dict.fromkeys(IGNORED)}:
        return []
    left, right = dict(_flat(old)), dict(_flat(new))
    return [
        Change(path, left.get(path), right.get(path))
        for path in dict.fromkeys([*left, *right])
        if left.get(path) != right.get(path)
    ]


def _targets(configuration: Configuration) -> dict[tuple[str, str, str], Target]:
    return {(target.resource, target.queue, target.vo): target for target in targets(configuration)}


def _profile(configuration: Configuration, target: Target) -> dict[str, Any]:
    try:
        return resolve_target(configuration, target)[0]
    except ConfigurationError as error:
        return {"problem": str(error)}


def _flat(profile: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in profile.items():
        if key == "commands":
            yield key, [command["name"] for command in value]
            for command in value:
                for option, setting in command["options"].items():
                    yield f"options.{command['name']}.{option}", setting
        elif key == "limits":
            yield from ((f"limits.{name}", limit) for name, limit in value.items())
        elif key not in IGNORED:
            yield key, value


def _toolbox_changes(old: Configuration, new: Configuration, vo: str) -> Iterator[Change]:
    left, right = _toolboxes(old, vo), _toolboxes(new, vo)
    if list(left) != list(right):
        yield Change("toolboxes", list(left), list(right))
    for name in dict.fromkeys([*left, *right]):
        if name in left and name in right and left[name] != right[name]:
            yield Change(f"toolboxes.{name}", left[name], right[name])


def _toolboxes(configuration: Configuration, vo: str) -> dict[str, str]:
    try:
        return {box["name"]: box["digest"] for box in shelf.toolboxes_of(configuration, vo)}
    except ConfigurationError as error:
        return {"problem": str(error)}
