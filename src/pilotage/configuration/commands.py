"""Reading a command's contract from its source: class attributes, all literals, inherited ones too. No import."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from pilotage.configuration.compaction import ToolboxError

KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "list": (list, tuple),
}
DEFAULTS: dict[str, Any] = {
    "options": {},
    "requires": [],
    "wants": [],
    "provides": [],
    "timeout": 300,
    "on_failure": "abort",
    "always": False,
    "background": False,
}
"""What a class says that says nothing; the same as in ``pilotage_node.command.Command``."""

COMMAND = "pilotage_node/command.py"
_NAMES = {"ABORT": "abort", "CONTINUE": "continue"}
_FILE = re.compile(r"(?!.*\.pyc?\Z)(?:[A-Za-z0-9_][\w.+@%-]*/)*[A-Za-z0-9_][\w.+@%-]*", re.ASCII)
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def dotted(path: str) -> str:
    """The name by which a module is imported that has this path in a toolbox."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class Module:
    """One module of a toolbox.

    :ivar path: as in a script, ``package/RunX.py``; :ivar file: where it was read, for messages
    :ivar tree: its syntax tree; :ivar source: its text
    :ivar options: of the command in it, where it was built before: compact sources have no help
    """

    __slots__ = ("file", "options", "path", "source", "tree")

    def __init__(
        self, path: str, file: str, tree: ast.Module, source: str = "", options: Mapping[str, Any] | None = None
    ) -> None:
        self.path = path
        self.file = file
        self.tree = tree
        self.source = source
        self.options = options

    @property
    def name(self) -> str:
        """The dotted name by which it is imported."""
        return dotted(self.path)

    def beside(self, name: str) -> str:
        """The path in a script of a data file that stands beside this module."""
        return f"{self.path.rpartition('/')[0]}/{name}"

    def origin(self, node: ast.ImportFrom) -> str:
        """The dotted name of the module that a ``from ... import`` names, relative ones resolved."""
        if not node.level:
            return node.module or ""
        package = self.path.split("/")[:-1]
        if node.level > len(package):
            raise ToolboxError(self.file, node.lineno, "this relative import leads out of the package")
        return ".".join(package[: len(package) - node.level + 1] + ([node.module] if node.module else []))


class Described:
    """A command as its source says.

    :ivar entry: for the manifest; :ivar line: of its class
    :ivar files: data files (paths in a script) of each module that declares some, by the module's path
    :ivar modules: (dotted name, line) of modules that it imports dynamically, likewise
    """

    __slots__ = ("entry", "files", "line", "modules")

    def __init__(self, line: int) -> None:
        self.entry: dict[str, Any] = {}
        self.files: dict[str, dict[str, int]] = {}
        self.line = line
        self.modules: dict[str, list[tuple[str, int]]] = {}


def describe(name: str, module: Module, known: Mapping[str, Module]) -> Described:
    """What a module says of the command in it.

    :param known: all modules by path, those of other toolboxes included: where base classes are looked up
    :raises ToolboxError: no class of that name, no do(), attributes that are not literals or not of their type
    """
    classes = [node for node in module.tree.body if isinstance(node, ast.ClassDef)]
    node = next((item for item in classes if item.name == name), None)
    if node is None:
        names = ", ".join(item.name for item in classes) or "none"
        raise ToolboxError(
            module.file,
            1,
            f"a command's module is named for its class, but there is no class {name} here (classes: {names})",
        )
    result = Described(node.lineno)
    found: dict[str, Any] = {}
    _gather(node, module, known, found, result, ())
    if "do" not in found:
        raise ToolboxError(module.file, node.lineno, f"command {name} has no do()")
    _check_called(*found["do"])
    if "__init__" in found:
        _check_called(*found["__init__"])
    text = ast.get_docstring(node) or ast.get_docstring(module.tree) or ""
    entry = {key: found.get(key, default) for key, default in DEFAULTS.items()}
    entry |= {"module": module.name, "summary": text.partition("\n")[0].strip(), "description": text}
    if found.get("files"):
        entry["files"] = found["files"]
    if "read" not in found:
        _check_reads(node, module, found.get("files", {}))
    result.entry = entry
    return result


def _gather(
    node: ast.ClassDef,
    module: Module,
    known: Mapping[str, Module],
    found: dict[str, Any],
    result: Described,
    seen: tuple[str, ...],
) -> None:
    """Put into `found` what a class and its bases define: its own wins over theirs, the first base over the next."""
    here = f"{module.path}:{node.name}"
    if here in seen:
        raise ToolboxError(module.file, node.lineno, f"class {node.name} inherits from itself")
    for parent in reversed(node.bases):
        place = _find_class(parent, module, known)
        if place and place[1].path != COMMAND:
            _gather(*place, known, found, result, (*seen, here))
    for item in node.body:
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name in ("do", "read", "__init__"):
            found[item.name] = item, module
        target = (
            item.targets[0]
            if isinstance(item, ast.Assign)
            else item.target
            if isinstance(item, ast.AnnAssign)
            else None
        )
        if isinstance(target, ast.Name) and isinstance(item, ast.Assign | ast.AnnAssign) and item.value is not None:
            if target.id == "options":
                found["options"] = module.options or _options(item.value, module, found)
            elif target.id in DEFAULTS:
                found[target.id] = _trait(target.id, item.value, module)
            elif target.id == "files":
                paths = {text: module.beside(text) for text in _texts("files", item.value, module, _FILE)}
                result.files[module.path] = dict.fromkeys(paths.values(), item.lineno)
                found["files"] = found.get("files", {}) | paths
            elif target.id == "modules":
                names = _texts("modules", item.value, module, _MODULE)
                result.modules[module.path] = [(text, item.lineno) for text in names]


def lineage(name: str, module: Module, known: Mapping[str, Module]) -> Iterator[tuple[ast.ClassDef, Module]]:
    """A module's class of this name and all classes that it inherits from, as far as toolboxes have them."""
    waiting: list[tuple[ast.ClassDef, Module]] = []
    waiting += [(node, module) for node in module.tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    seen = set()
    while waiting:
        node, place = waiting.pop()
        if (place.path, node.name) not in seen:
            seen.add((place.path, node.name))
            yield node, place
            waiting += [found for found in (_find_class(parent, place, known) for parent in node.bases) if found]


def _check_called(node: ast.FunctionDef | ast.AsyncFunctionDef, module: Module) -> None:
    """``do()`` and ``__init__()`` are called without arguments, and what is in them must run then."""
    needed = len(node.args.posonlyargs) + len(node.args.args) - len(node.args.defaults)
    text = ""
    if needed > 1 or any(default is None for default in node.args.kw_defaults):
        text = f"{node.name}() takes no arguments but self: values come from options and facts"
    elif isinstance(node, ast.AsyncFunctionDef) or any(
        isinstance(one, ast.Yield | ast.YieldFrom) for one in _own(node)
    ):
        text = f"{node.name}() must be a plain function: called with `async` or `yield` in it, it would do nothing"
    if text:
        raise ToolboxError(module.file, node.lineno, text)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """All that is in a function, without what is in functions and classes inside of it."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield from _own(child)


@lru_cache(maxsize=32)  # many modules ask what one of them has
def bound(tree: ast.Module) -> set[str] | None:
    """The names that a module gives a meaning to, anywhere in it; None where that cannot be told from its source."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names |= {node.id} if isinstance(node.ctx, ast.Store) else set()
            if node.id in ("globals", "locals", "vars", "exec", "setattr"):
                return None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
            names.add(node.name or "")
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
    return None if names & {"*", "__getattr__"} else names


def _check_reads(node: ast.ClassDef, module: Module, files: Mapping[str, str]) -> None:
    """``self.read("x")`` gives what `files` names, and nothing else."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "self.read":
            name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
            if name not in files if name is not None else not files:
                shown = repr(name) if name is not None else "what it reads"
                raise ToolboxError(module.file, call.lineno, f"self.read(): {shown} is not in this command's files")


def _find_class(
    node: ast.expr, module: Module, known: Mapping[str, Module], depth: int = 0
) -> tuple[ast.ClassDef, Module] | None:
    """The class that a base names and its module; None where it is not a toolbox's (object, the standard library's).

    :param depth: of re-exports followed, `from there import X` in the module that X was imported from
    """
    dotted = ast.unparse(node).split(".")
    imported = _imported(dotted, module)
    if imported:
        if "/".join(imported) + ".py" in known and not depth:
            text = f"a class inherits from a class, not from a module: from {'.'.join(imported)} import {imported[-1]}"
            raise ToolboxError(module.file, node.lineno, text)
        return _class_of(imported, known, depth)
    if not isinstance(node, ast.Name):
        return None
    own = next((c for c in module.tree.body if isinstance(c, ast.ClassDef) and c.name == node.id), None)
    names = bound(module.tree)
    if names is not None and node.id not in names and not hasattr(builtins, node.id) and not depth:
        raise ToolboxError(
            module.file, node.lineno, f"{node.id}, which a class inherits from, is nowhere in this module"
        )
    return (own, module) if own else None


def _imported(dotted: list[str], module: Module) -> list[str]:
    """What a name (its parts) means that a module has from an import; none where it is not from one."""
    for item in ast.walk(module.tree):
        if isinstance(item, ast.ImportFrom):
            for alias in item.names:
                if (alias.asname or alias.name) == dotted[0]:
                    return [*module.origin(item).split("."), alias.name, *dotted[1:]]
        elif isinstance(item, ast.Import):
            for alias in item.names:
                shown = (alias.asname or alias.name).split(".")
                if dotted[: len(shown)] == shown:
                    return [*alias.name.split("."), *dotted[len(shown) :]]
    return []


def _class_of(dotted: list[str], known: Mapping[str, Module], depth: int) -> tuple[ast.ClassDef, Module] | None:
    path = "/".join(dotted[:-1])
    module = known.get(path + ".py") or known.get(path + "/__init__.py")
    if module is None:
        return None
    found = next((c for c in module.tree.body if isinstance(c, ast.ClassDef) and c.name == dotted[-1]), None)
    if found is None and depth < 10:
        return _find_class(ast.Name(dotted[-1]), module, known, depth + 1)
    return (found, module) if found else None


def _literal(node: ast.expr, module: Module, what: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        text = (
            f"{what} must be a literal, because it is read without running the module; found: {ast.unparse(node)[:60]}"
        )
        raise ToolboxError(module.file, node.lineno, text) from None


def _trait(name: str, node: ast.expr, module: Module) -> Any:
    """The value of one attribute of the contract, checked."""
    last = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    value = _NAMES[last] if name == "on_failure" and last in _NAMES else _literal(node, module, name)
    wrong = ""
    if name in ("requires", "wants", "provides"):
        value = list(value) if isinstance(value, tuple | list) else value
        if not isinstance(value, list) or not all(isinstance(item, str) and item.isidentifier() for item in value):
            wrong = 'a tuple of fact names, like ("software",)'
    elif name in ("always", "background") and not isinstance(value, bool):
        wrong = "True or False"
    elif name == "timeout" and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
        wrong = "seconds, 0 for no limit"
    elif name == "on_failure" and value not in _NAMES.values():
        wrong = "ABORT or CONTINUE"
    if wrong:
        raise ToolboxError(module.file, node.lineno, f"{name} must be {wrong}, not {value!r}")
    return value


def _texts(name: str, node: ast.expr, module: Module, form: re.Pattern[str]) -> list[str]:
    """The value of ``files`` or ``modules``."""
    value = _literal(node, module, name)
    if not isinstance(value, tuple | list) or not all(isinstance(one, str) and form.fullmatch(one) for one in value):
        example = '("table.json",), beside the module' if name == "files" else '("package.plugin",)'
        raise ToolboxError(module.file, node.lineno, f"{name} must be a tuple like {example}, not {value!r}")
    return list(value)


def _options(node: ast.expr, module: Module, inherited: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of a command; ``{**RunX.options, "more": Option(...)}`` adds to inherited ones."""
    if not isinstance(node, ast.Dict):
        raise ToolboxError(
            module.file, node.lineno, 'options must be written as {"name": Option(type, default, "help"), ...}'
        )
    result: dict[str, dict[str, Any]] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            if not (isinstance(value, ast.Attribute) and value.attr == "options"):
                raise ToolboxError(module.file, value.lineno, "only the options of a base class can be unpacked here")
            result |= inherited.get("options", {})
            continue
        name = _literal(key, module, "an option's name")
        if not isinstance(name, str) or not name.isidentifier():
            raise ToolboxError(module.file, key.lineno, f"an option's name must be an identifier, not {name!r}")
        if name in result and not any(k is None for k in node.keys):
            raise ToolboxError(module.file, key.lineno, f"the option {name} is there twice")
        result[name] = _option(name, value, module)
    return result


def _option(name: str, node: ast.expr, module: Module) -> dict[str, Any]:
    called = node.func if isinstance(node, ast.Call) else None
    if not isinstance(node, ast.Call) or getattr(called, "attr", getattr(called, "id", "")) != "Option":
        raise ToolboxError(module.file, node.lineno, f'option {name} must be written as Option(type, default, "help")')
    given: dict[str, ast.expr] = dict(zip(("kind", "default", "help"), node.args, strict=False))
    given |= {keyword.arg or "**": keyword.value for keyword in node.keywords}
    kind = given.get("kind")
    if (
        len(node.args) > 3
        or set(given) - {"kind", "default", "help"}
        or not isinstance(kind, ast.Name)
        or kind.id not in KINDS
    ):
        raise ToolboxError(
            module.file, node.lineno, f"option {name}: Option(type, default, help) with a type of {', '.join(KINDS)}"
        )
    default = _literal(given["default"], module, f"the default of option {name}") if "default" in given else None
    text = _literal(given["help"], module, f"the help of option {name}") if "help" in given else ""
    good = default is None or (
        isinstance(default, KINDS[kind.id]) and (kind.id == "bool" or not isinstance(default, bool))
    )
    if kind.id == "list" and good and default is not None:
        default = list(default)
        good = all(isinstance(item, str) for item in default)
    if not good or not isinstance(text, str):
        raise ToolboxError(module.file, node.lineno, f"option {name}: the default {default!r} is not of type {kind.id}")
    return {"type": kind.id, "default": default, "help": text}
