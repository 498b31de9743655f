"""Putting layers together: maps merge deeply, lists are replaced or edited, all else is replaced. Pure.

For every value, and every item of a list, it is remembered who said it. Merging is associative: what edits come to is
only made out when all layers are there, so it is no matter in which groups they are put together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pilotage.configuration.document import PathInData
from pilotage.configuration.edits import EditError, Item, apply, edits_of
from pilotage.configuration.parts import LISTS

Layer = tuple[PathInData, Mapping[str, Any]]
"""Where in the configuration a layer is, and what it says (only what it says, no defaults)."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The layers as one; `origins` gives for each path in `values` the path in the configuration that set it.

    Nothing in it may be changed: profiles share it.
    """

    values: dict[str, Any]
    origins: dict[PathInData, PathInData]

    def origin(self, path: PathInData) -> PathInData:
        """Who set the value at `path`: as for the nearest parent where it has no origin of its own."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]] + path[length:]
        return path


class FinalError(EditError):
    """A layer sets what a layer before has made final; `path` is what sets it, `final` what forbids it."""

    def __init__(self, name: str, path: PathInData, final: PathInData) -> None:
        super().__init__(f"'{name}' is final", path)
        self.final = final


class Listed:
    """What layers say about one list, since the last that gave it whole, (path, value) each; never changed.

    What it comes to is made out when it is asked for, and kept, because many pilots share it.
    """

    __slots__ = ("_made", "said")

    def __init__(self, said: tuple[tuple[PathInData, Any], ...]) -> None:
        self.said = said
        self._made: tuple[list[str], dict[PathInData, PathInData]] | None = None

    @property
    def whole(self) -> bool:
        """Whether one of the layers gives the list, and not edits only."""
        return edits_of(self.said[0][1]) is None

    def edits(self) -> list[tuple[PathInData, Mapping[str, Any]]]:
        """All edits, with their paths."""
        return [((*path, *inside), edit) for path, value in self.said for inside, edit in edits_of(value) or ()]

    def made(self, key: str) -> tuple[list[str], dict[PathInData, PathInData]]:
        """The list, and the origins of it and its items; edits of what nobody gave whole are edits of an empty list.

        Raises EditError.
        """
        if self._made is None:
            source, first = self.said[0]
            items: list[Item] = [(item, (*source, index)) for index, item in enumerate(first if self.whole else ())]
            for path, edit in self.edits():
                items = apply(items, edit, path)
            origins: dict[PathInData, PathInData] = {(key, index): path for index, (_, path) in enumerate(items)}
            origins[(key,)] = self.said[-1][0]
            self._made = [item for item, _ in items], origins
        return self._made


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers put together so far. Never changed: `over` makes a new one that shares what stays the same.

    :ivar lists: what is said about each of `LISTS`
    :ivar final: for each dotted path that is final, who says so
    """

    values: dict[str, Any]
    origins: dict[PathInData, PathInData]
    lists: dict[str, Listed]
    final: dict[tuple[str, ...], PathInData]

    def over(self, layer: Layer) -> Stack:
        """With one more layer on top. Raises FinalError."""
        source, part = layer
        if not part:
            return self
        if self.final:
            _refuse(self.final, source, part)
        origins, lists, final = dict(self.origins), self.lists, self.final
        plain = {}
        for key, value in part.items():
            if key == "final":
                final = {**{tuple(path.split(".")): (*source, key, i) for i, path in enumerate(value)}, **final}
            elif key in LISTS and isinstance(value, list | dict):
                said = ((*source, key), value)
                below = lists[key].said if key in lists and edits_of(value) is not None else ()
                lists = {**lists, key: Listed((*below, said))}
            else:
                plain[key] = value
        return Stack(_merged(self.values, plain, (), source, origins), origins, lists, final)

    def merged(self) -> Merged:
        """What all layers come to. Raises EditError: an edit of what is not there."""
        values, origins = dict(self.values), dict(self.origins)
        for key, listed in self.lists.items():
            values[key], of_items = listed.made(key)
            origins.update(of_items)
        return Merged(values, origins)


EMPTY = Stack({}, {}, {}, {})


def stacked(layers: Iterable[Layer], stack: Stack = EMPTY) -> Stack:
    """The layers, the weakest first, on top of what is there. Raises FinalError."""
    for layer in layers:
        stack = stack.over(layer)
    return stack


def merge(layers: Iterable[Layer]) -> Merged:
    """Put layers together, the weakest first, as one layer: lists that none of them gives whole stay edits.

    Raises EditError: an edit of what is not there; FinalError.
    """
    stack = stacked(layers)
    values, origins = dict(stack.values), dict(stack.origins)
    for key, listed in stack.lists.items():
        if listed.whole:
            values[key], of_items = listed.made(key)
            origins.update(of_items)
        else:
            edits = listed.edits()
            values[key] = listed.said[0][1] if len(listed.said) == 1 else [edit for _, edit in edits]
            origins[(key,)] = listed.said[0][0]
            origins.update({(key, number): path for number, (path, _) in enumerate(edits) if len(listed.said) > 1})
    return Merged(values, origins)


def _merged(
    low: Mapping[str, Any],
    high: Mapping[str, Any],
    at: PathInData,
    source: PathInData,
    origins: dict[PathInData, PathInData],
) -> dict[str, Any]:
    """`high` over `low`, as a new map; maps that nobody touches are shared with `low`."""
    values = dict(low)
    for key, value in high.items():
        path, origin = (*at, key), (*source, key)
        if isinstance(value, dict):
            before = values.get(key)
            if not isinstance(before, dict):
                before = {}
                origins[path] = origin
            values[key] = _merged(before, value, path, origin, origins)
        else:
            values[key] = value
            origins[path] = origin
    return values


def _refuse(final: Mapping[tuple[str, ...], PathInData], source: PathInData, part: Mapping[str, Any]) -> None:
    for steps, origin in final.items():
        value: Any = part
        path = source
        for step in steps:
            if not isinstance(value, dict) or step not in value:
                break
            value, path = value[step], (*path, step)
        else:
            if value != {} or steps[0] in LISTS:
                raise FinalError(".".join(steps), path, origin)
