"""Which modules of a toolbox the toolboxes before it import: they travel too, though its own commands need them not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pilotage.configuration.commands import Module
from pilotage.configuration.compaction import ToolboxError, parse
from pilotage.configuration.imports import imported
from pilotage.configuration.sources import Tree
from pilotage.configuration.toolboxes import commands_in, plain_text


def crossing(trees: Sequence[Tree], extension: str | None, minimum: str) -> list[set[str]]:
    """For each of these toolboxes, in their order, the paths of its modules that earlier ones need.

    What cannot be read is passed over: building says what is wrong with it.
    """
    wanted: list[set[str]] = [set() for _ in trees]
    waiting = [(number, path) for number, tree in enumerate(trees) for path in _roots(tree, extension)]
    seen = set(waiting)
    while waiting:
        number, path = waiting.pop()
        for found in _reached(trees, number, path, minimum):
            if found[0] != number:
                wanted[found[0]].add(found[1])
            if found not in seen:
                seen.add(found)
                waiting.append(found)
    return wanted


def _roots(tree: Tree, extension: str | None) -> list[str]:
    try:
        return list(commands_in(tree, extension).values())
    except ToolboxError:
        return []


def _reached(trees: Sequence[Tree], number: int, path: str, minimum: str) -> Iterator[tuple[int, str]]:
    """(toolbox, path) of what a module imports, from its own toolbox or the next that has it."""
    tree = trees[number]
    try:
        text = plain_text(tree.files[path], path)
        names = [name for name, _, _ in imported(Module(path, path, parse(text, path, minimum), text))]
    except ToolboxError:
        return
    for name in names:
        here = name.replace(".", "/")
        for later, other in enumerate(trees[number:], number):
            found = [one for one in (here + ".py", here + "/__init__.py") if one in other.files]
            if found:
                yield later, found[0]
                break
