"""What the modules of a toolbox take for granted and a pilot does not give them: found in their sources, line by line.

A command gets its options and facts as attributes, of those names alone that it has declared; its module comes from
the pilot's script, not from a file; and what it imports in a hidden way does not travel by itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pilotage.configuration.commands import Module, bound, lineage
from pilotage.configuration.sandbox import Finding
from pilotage.configuration.sources import Tree
from pilotage.configuration.toolboxes import Built, known

_OF_DICTS = {"get", "items", "keys", "pop", "setdefault", "update", "values"}


def uses(tree: Tree, built: Built, others: Sequence[Built], minimum: str) -> list[Finding]:
    """What would fail in a pilot, in the modules that travel and the classes of the commands.

    :param tree: the files that the toolbox was built from; :param others: toolboxes that it may import from
    """
    modules = known(tree, others, minimum)
    found: dict[Finding, None] = {}  # in order, each once
    for name, entry in built["commands"].items():
        path = entry["module"].replace(".", "/") + ".py"
        for node, module in lineage(name, modules[path], modules):
            if module.path in tree.files:
                found |= dict.fromkeys(_of_class(node, module, entry))
    for path in sorted(built["imports"]):
        if path in tree.files:
            found |= dict.fromkeys(_of_module(modules[path], modules, tree, built))
    return list(found)


def _of_class(kind: ast.ClassDef, module: Module, entry: Mapping[str, Any]) -> Iterator[Finding]:
    """How a command's class, or one that it inherits from, uses ``self.facts`` and ``self.options``."""
    for what in ("facts", "options"):
        names = {f"self.{what}"}
        for node in ast.walk(kind):  # facts = self.facts
            if isinstance(node, ast.Assign) and ast.unparse(node.value) == f"self.{what}":
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        for node in ast.walk(kind):
            text = ""
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in names:
                text = _fact(node, entry) if what == "facts" else _option(node, entry)
            elif isinstance(node, ast.Subscript) and ast.unparse(node.value) in names:
                text = f"takes {ast.unparse(node)}: {_attributes(what)}"
            elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[-1]) in names:
                text = f"asks {ast.unparse(node)[:60]}: {_attributes(what)}" if _contains(node) else ""
            if text:
                yield Finding(module.file, getattr(node, "lineno", 1), f"{kind.name} {text}")


def _contains(node: ast.Compare) -> bool:
    return isinstance(node.ops[-1], ast.In | ast.NotIn)


def _attributes(what: str) -> str:
    return f"{what} are attributes, self.{what}.NAME" + ("; of wants None, where nobody gave it" * (what == "facts"))


def _fact(node: ast.Attribute, entry: Mapping[str, Any]) -> str:
    given = set(entry["provides"])
    declared = {"node", *entry["requires"], *entry["wants"], *given}
    name = node.attr
    if isinstance(node.ctx, ast.Store):
        return "" if name in given else f"gives the fact {name} without saying so: provides = ({name!r},)"
    if name in declared:
        return ""
    if name in _OF_DICTS:
        return f"takes {ast.unparse(node)}: {_attributes('facts')}"
    return f"uses the fact {name} without saying so: requires or wants = ({name!r},)"


def _option(node: ast.Attribute, entry: Mapping[str, Any]) -> str:
    if node.attr in entry["options"] or not isinstance(node.ctx, ast.Load):
        return ""
    if node.attr in _OF_DICTS:
        return f"takes {ast.unparse(node)}: {_attributes('options')}"
    return f"uses the option {node.attr}, which it does not have; it has: {', '.join(entry['options']) or 'none'}"


def _of_module(module: Module, modules: Mapping[str, Module], tree: Tree, built: Built) -> Iterator[Finding]:
    """What a module does that no pilot can, wherever in it."""
    imported = _imported(module, modules)
    for node in ast.walk(module.tree):
        text = ""
        if isinstance(node, ast.Name) and node.id == "__file__":
            text = "a module in a pilot has no __file__: declare data in `files` and take it with self.read()"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            there = imported[node.value.id]
            names = bound(there.tree)
            if names is not None and node.attr not in names and not node.attr.startswith("__"):
                text = f"there is no '{node.attr}' in {there.file}"
        elif isinstance(node, ast.Call):
            text = _call(node, tree, built)
        if text:
            yield Finding(module.file, getattr(node, "lineno", 1), text)


def _call(node: ast.Call, tree: Tree, built: Built) -> str:
    function = ast.unparse(node.func)
    called = function.rpartition(".")[2]
    plain = not any(isinstance(one, ast.Starred) for one in node.args) and all(one.arg for one in node.keywords)
    if called == "CommandFailed" and plain and len(node.args) + len(node.keywords) != 2:
        return "CommandFailed(code, text) wants both: an exit code of pilotage_node.exitcodes, and what was wrong"
    if function == "pkgutil.get_data":
        return "a pilot has no files beside a module: declare data in `files` and take it with self.read()"
    name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
    if called in ("import_module", "__import__") and isinstance(name, str):
        path = name.replace(".", "/") + ".py"
        if path in tree.files and path not in built["modules"]:
            return f"imports {name}, which would not travel: say modules = ({name!r},) in the command"
    return ""


def _imported(module: Module, modules: Mapping[str, Module]) -> dict[str, Module]:
    """The modules of toolboxes that a module has by a plain name, which means nothing else anywhere in it."""
    found: dict[str, Module] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom):
            origin = module.origin(node)
            for alias in node.names:
                path = f"{origin}.{alias.name}".replace(".", "/") + ".py"
                if path in modules:
                    found[alias.asname or alias.name] = modules[path]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)):
            found.pop(node.arg if isinstance(node, ast.arg) else node.id, None)
    return found
