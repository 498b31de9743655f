"""Edits of a list that layers before have given: remove, replace, insert, prepend, append, in this order.

Pure; every item carries where it was said. An edit never loses or doubles an item: what is not there cannot be edited,
what is there cannot be put in again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pilotage.configuration.document import PathInData

Item = tuple[str, PathInData]
"""An item of a list, and the path that says it."""


class EditError(Exception):
    """An edit, or a list, that cannot be: a sentence, and the path that is to blame."""

    def __init__(self, text: str, path: PathInData) -> None:
        super().__init__(text)
        self.path = path


def edits_of(value: Any) -> list[tuple[PathInData, Mapping[str, Any]]] | None:
    """The edits, with their paths in the value, when it is an edit or a list of such; None for a plain list."""
    if isinstance(value, dict):
        return [((), value)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [((number,), item) for number, item in enumerate(value)]
    return None


def apply(items: Sequence[Item], edit: Mapping[str, Any], source: PathInData) -> list[Item]:
    """The list after one edit; `source` is the edit's own path. Raises EditError."""
    found = list(items)
    for index, name in enumerate(edit.get("remove", ())):
        del found[_position(found, name, "remove", (*source, "remove", index))]
    for old, new in edit.get("replace", {}).items():
        path = (*source, "replace", old)
        at = _position(found, old, "replace", path)
        rest = found[:at] + found[at + 1 :]
        _absent(rest, new, path)
        found[at] = (new, path)
    inserts = edit.get("insert", ())
    alone = isinstance(inserts, dict)
    for number, insert in enumerate([inserts] if alone else inserts):
        path = (*source, "insert") if alone else (*source, "insert", number)
        side = "before" if insert.get("before") is not None else "after"
        at = _position(found, insert[side], f"insert {side}", (*path, side)) + (side == "after")
        found[at:at] = _new(found, insert["do"], (*path, "do"))
    found[:0] = _new(found, edit.get("prepend", ()), (*source, "prepend"))
    found += _new(found, edit.get("append", ()), (*source, "append"))
    return found


def _new(found: Sequence[Item], names: Sequence[str], path: PathInData) -> list[Item]:
    new: list[Item] = []
    for index, name in enumerate(names):
        _absent([*found, *new], name, (*path, index))
        new.append((name, (*path, index)))
    return new


def _absent(found: Sequence[Item], name: str, path: PathInData) -> None:
    if any(item == name for item, _ in found):
        raise EditError(f"'{name}' would be in the list twice", path)


def _position(found: Sequence[Item], name: str, doing: str, path: PathInData) -> int:
    names = [item for item, _ in found]
    if name in names:
        return names.index(name)
    near = get_close_matches(name, names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else f" (it has: {', '.join(names) or 'nothing'})"
    raise EditError(f"{doing}: there is no '{name}' in the list that the layers before give{hint}", path)
