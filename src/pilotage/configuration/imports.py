"""What the modules of a toolbox import: followed by AST, so that what they need travels and nothing else.

Only what every Python of a node has may be imported beside toolboxes: the standard library of all versions from the
minimum on, without what has been removed since.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pilotage.configuration import convention
from pilotage.configuration.commands import Module, bound
from pilotage.configuration.compaction import ToolboxError, number

_LATER = {
    "contextvars": "3.7",
    "dataclasses": "3.7",
    "importlib.resources": "3.7",
    "importlib.metadata": "3.8",
    "multiprocessing.shared_memory": "3.8",
    "graphlib": "3.9",
    "zoneinfo": "3.9",
    "tomllib": "3.11",
    "annotationlib": "3.14",
    "compression": "3.14",
    "concurrent.interpreters": "3.14",
    "string.templatelib": "3.14",
    "_colorize": "3.13",
}
"""Modules that came after Python 3.6, and with which version."""
_GONE = {
    *(
        "asynchat",
        "asyncore",
        "distutils",
        "imp",
        "smtpd",
        "aifc",
        "audioop",
        "cgi",
        "cgitb",
        "chunk",
        "crypt",
        "imghdr",
    ),
    *("lib2to3", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "pipes", "sndhdr", "spwd", "sunau", "telnetlib"),
    *("uu", "xdrlib"),
}
"""Modules of Python 3.6 that newer versions do not have."""

STANDARD = sys.stdlib_module_names | _GONE | {name.partition(".")[0] for name in _LATER}
"""Top-level names that belong to Python, of whichever version."""


class Import(NamedTuple):
    """An import statement's one target. `sure`: it can only be a module (`from a import b` may name an attribute)."""

    name: str
    line: int
    sure: bool


@dataclass(frozen=True, slots=True)
class Reach:
    """What the modules of one toolbox can import.

    :ivar known: modules by path, of this toolbox and of those after it; :ivar folders: the packages that they are in
    :ivar commands: those that an import by the path convention may lead to
    :ivar before: for each module (dotted) of the toolboxes before this one, which cannot be imported, its toolbox
    :ivar minimum: the oldest Python of the nodes
    """

    known: Mapping[str, Module]
    folders: frozenset[str]
    commands: Collection[str]
    before: Mapping[str, str]
    minimum: str


def folders_of(paths: Iterable[str]) -> frozenset[str]:
    """The paths of the packages that modules are in."""
    folders = set()
    for path in paths:
        while "/" in path:
            path = path.rpartition("/")[0]
            folders.add(path)
    return frozenset(folders)


def needed(module: Module, reach: Reach) -> list[str]:
    """Dotted names of the modules that a module needs, without the standard library's.

    :raises ToolboxError: something that a node does not have, with file and line
    """
    found: set[str] = set()
    for item in imported(module):
        if _there(item.name, reach):
            found.add(item.name)
            continue
        if convention.command_of(item.name):
            has = ", ".join(sorted(reach.commands)) or "none"
            text = f"there is no module {item.name}, and no such command of Pilotage's own (there are: {has})"
            raise ToolboxError(module.file, item.line, text)
        if item.sure:
            wrong = _wrong(item, reach)
            if wrong:
                raise ToolboxError(module.file, item.line, wrong)
        elif _LATER.get(item.name) and number(_LATER[item.name]) > number(reach.minimum):
            raise ToolboxError(module.file, item.line, f"{item.name} is not in Python {reach.minimum}")
        else:
            _check_attribute(item, module, reach)
    return sorted(found)


def _there(name: str, reach: Reach) -> bool:
    path = name.replace(".", "/")
    return path + ".py" in reach.known or path in reach.folders


def _wrong(item: Import, reach: Reach) -> str:
    """Why a module that no toolbox in reach has cannot be imported; "" where Python itself has it."""
    top = item.name.partition(".")[0]
    if item.name in reach.before:
        toolbox = reach.before[item.name]
        return (
            f"{item.name} is of the toolbox '{toolbox}', which comes before this one; a toolbox imports only from "
            "those after it, so that none go round in a circle"
        )
    if item.name == convention.DIRAC or convention.DIRAC.startswith(item.name + "."):
        return ""
    if top in reach.folders or top + ".py" in reach.known:
        return f"there is no module {item.name}"
    since = next((_LATER[name] for name in (item.name, top) if name in _LATER), reach.minimum)
    if number(since) > number(reach.minimum):
        return f"{item.name} is not in Python {reach.minimum}"
    if top in _GONE:
        return f"{item.name} is no longer in newer versions of Python"
    if top not in sys.stdlib_module_names:
        return f"{item.name} is not in Python's standard library: a pilot has nothing else"
    return ""


def _check_attribute(item: Import, module: Module, reach: Reach) -> None:
    """`from origin import name`: the origin must have it; a package without an ``__init__.py`` has only its modules."""
    origin, _, name = item.name.rpartition(".")
    path = origin.replace(".", "/")
    text = ""
    there = next((reach.known[one] for one in (f"{path}.py", f"{path}/__init__.py") if one in reach.known), None)
    if there is not None:
        names = bound(there.tree)
        if names is not None and name not in names and not name.startswith("__"):
            text = f"there is no '{name}' in {there.file}"
    elif path in reach.folders:
        text = f"there is no module {item.name}, and {origin} has no __init__.py"
    if text:
        raise ToolboxError(module.file, item.line, text)


def imported(module: Module) -> Iterator[Import]:
    """All that a module imports, anywhere in it; the names are dotted, relative ones resolved."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, True)
        elif isinstance(node, ast.ImportFrom):
            origin = module.origin(node)
            yield Import(origin, node.lineno, True)
            for alias in node.names:
                if alias.name != "*":
                    yield Import(f"{origin}.{alias.name}", node.lineno, False)
