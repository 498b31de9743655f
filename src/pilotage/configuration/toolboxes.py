"""Building toolboxes: a package of commands becomes a built toolbox, plain JSON that composers use.

Nothing of a toolbox is ever imported: all is read from its sources. What cannot run on a worker node is refused with
file and line. The form of a built toolbox::

    {"format": 1, "name", "version", "digest": SHA-256 of the canonical JSON of the rest,
     "modules": {"package/RunX.py": compact source, ...},
     "imports": {"package/RunX.py": [dotted names of modules that it imports, without the standard library's], ...},
     "commands": {"RunX": {"module", "summary", "description", "options": {name: {"type", "default", "help"}},
                           "requires", "wants", "provides", "timeout" [s], "on_failure": "abort" | "continue",
                           "always", "background"}}}
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pilotage.configuration.commands import Module, describe, dotted
from pilotage.configuration.compaction import ToolboxError, compact, parse
from pilotage_node.compose import ComposeError, check_traits
from pilotage_node.compose.script import canonical

__all__ = ["Built", "ToolboxError", "base", "build", "core"]

Built = dict[str, Any]
"""A built toolbox (see this module's docstring for its form)."""

FORMAT = 1
NODE = "pilotage_node"
HEAD = "compose/head.txt"

# The standard library of every Python from 3.6 on: neither what came later nor what has been removed since.
_LATER = {"contextvars", "dataclasses", "graphlib", "tomllib", "zoneinfo", "compression", "annotationlib", "_colorize"}
_GONE = {
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
}
_GONE |= {
    "lib2to3",
    "mailcap",
    "msilib",
    "nis",
    "nntplib",
    "ossaudiodev",
    "pipes",
    "sndhdr",
    "spwd",
    "sunau",
    "telnetlib",
}
_GONE |= {"uu", "xdrlib"}
_LATER_PARTS = {"importlib.resources": "3.7", "importlib.metadata": "3.8", "multiprocessing.shared_memory": "3.8"}


@dataclass(frozen=True, slots=True)
class _Import:
    """An import statement's one target. `sure`: it can only be a module (`from a import b` may name an attribute)."""

    name: str
    line: int
    sure: bool


def build(source: Path | str, name: str, *, others: Sequence[Built] = (), exclude: Collection[str] = ()) -> Built:
    """Build a toolbox.

    :param source: the directory of the package, or its dotted name (found, not imported)
    :param name: the toolbox's name
    :param others: built toolboxes whose modules it may import and whose commands it may extend: base, core
    :param exclude: folders and files left out, relative to the package
    :raises ToolboxError: what cannot travel or run, with file and line
    """
    root, package = _locate(source)
    own = {module.path: module for module in _read(root, package, set(exclude))}
    options = {entry["module"]: entry["options"] for other in others for entry in other["commands"].values()}
    foreign = {
        path: Module(path, f"{other['name']}:{path}", ast.parse(text), options=options.get(dotted(path)))
        for other in others
        for path, text in other["modules"].items()
        if path.endswith(".py")
    }
    known = foreign | own
    imports = {path: _resolve_imports(module, known) for path, module in own.items()}
    result: Built = {
        "format": FORMAT,
        "name": name,
        "version": _version(root),
        "modules": {path: compact(module.source, module.file, module.tree) for path, module in own.items()},
        "imports": imports,
        "commands": dict(_commands(own, known)),
    }
    return _sealed(result)


def base() -> Built:
    """The base toolbox: the commands that every Pilotage has."""
    return _own()["base"]


def core() -> Built:
    """The runner, the courier, the agent: what commands run on. Has no commands, but the frame of the script itself."""
    return _own()["core"]


@cache
def _own() -> dict[str, Built]:
    """The node's own toolboxes. Built once for any state of their sources and kept in the user's cache, because a
    build takes half a second: a copy that cannot be read, or is not what it says, is built anew."""
    root, _ = _locate(NODE)
    digest = hashlib.sha256(sys.version.encode())
    for file in sorted([*root.rglob("*.py"), root / HEAD, *Path(__file__).parent.glob("*.py")]):
        digest.update(f"{file}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    kept = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "pilotage", "toolboxes.json")
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        found = json.loads(kept.read_text("utf-8"))
        if found["of"] == digest.hexdigest() and all(_sealed(found[name]) == found[name] for name in ("base", "core")):
            return {name: found[name] for name in ("base", "core")}
    made_core = _core(root)
    made = {"core": made_core, "base": build(f"{NODE}.toolbox", "base", others=(made_core,))}
    if kept.is_absolute():  # else there is no home
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=kept.parent) as new:
                json.dump(made | {"of": digest.hexdigest()}, new)
                new.flush()
                os.replace(new.name, kept)  # so that nothing is left to remove, which is an OSError
    return made


def _core(root: Path) -> Built:
    result = build(NODE, "core", exclude=("toolbox", "toolboxes", "compose"))
    head = (root / HEAD).read_text("utf-8")
    boot = root / "compose" / "boot.py"
    text = boot.read_text("utf-8")
    result["modules"][f"{NODE}/{HEAD}"] = "".join(
        line for line in head.splitlines(keepends=True) if not line.startswith("## ")
    )
    result["modules"][f"{NODE}/compose/boot.py"] = compact(text, str(boot), parse(text, str(boot)))
    return _sealed(result)


def _sealed(toolbox: Built) -> Built:
    """A toolbox with its digest."""
    plain = {key: value for key, value in toolbox.items() if key != "digest"}
    return plain | {"digest": hashlib.sha256(canonical(plain).encode()).hexdigest()}


def _locate(source: Path | str) -> tuple[Path, str]:
    """The directory of a package and its dotted name. Nothing is imported: only a top-level package is looked up."""
    path = Path(source)
    if isinstance(source, Path) or "/" in source or path.is_dir():
        if not path.is_dir():
            raise ToolboxError(str(path), 0, "there is no such directory")
        package = path.resolve().name
        if not package.isidentifier():
            raise ToolboxError(
                str(path), 0, "the directory of a toolbox is a package: its name must be a Python identifier"
            )
        return path, package
    top, *parts = source.split(".")
    spec = importlib.util.find_spec(top)
    for place in (spec and spec.submodule_search_locations) or ():
        directory = Path(place, *parts)
        if directory.is_dir():
            return directory, source
    raise ToolboxError(source, 0, "there is no such package on this machine")


def _read(root: Path, package: str, exclude: set[str]) -> Iterator[Module]:
    """The package's modules, in the order of their paths."""
    if package.partition(".")[0] in sys.stdlib_module_names:
        raise ToolboxError(str(root), 0, f"the package name {package} is taken by Python's standard library")
    prefix = package.replace(".", "/")
    found = False
    for file in sorted(root.rglob("*.py")):
        relative = file.relative_to(root)
        if exclude & {relative.parts[0], str(relative)}:
            continue
        if not all(part.isidentifier() for part in relative.with_suffix("").parts):
            raise ToolboxError(str(file), 0, "not a module name: use letters, digits and _")
        if not file.resolve().is_relative_to(root.resolve()):
            raise ToolboxError(str(file), 0, "a link that leads out of the toolbox")
        try:
            text = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise ToolboxError(str(file), 0, f"not UTF-8: {error}") from None
        found = True
        yield Module(f"{prefix}/{relative.as_posix()}", str(file), parse(text, str(file)), text)
    if not found:
        raise ToolboxError(str(root), 0, "there are no Python modules in this directory")


def _commands(own: Mapping[str, Module], known: Mapping[str, Module]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The manifest's entries: one for every module whose name begins with a capital letter."""
    files: dict[str, str] = {}
    for module in own.values():
        name = module.name.rpartition(".")[2]
        if not name[0].isupper():
            continue
        if name in files:
            raise ToolboxError(module.file, 1, f"command {name} is also in {files[name]}; a toolbox has one of a name")
        files[name] = module.file
        entry, line = describe(name, module, known)
        try:
            check_traits(name, entry)
        except ComposeError as error:
            raise ToolboxError(module.file, line, str(error)) from None
        yield name, entry


def _version(root: Path) -> str:
    """``__version__`` of the package or the nearest package around it; "0" where there is none."""
    directory = root.resolve()
    while (file := directory / "__init__.py").is_file():
        for node in ast.parse(file.read_text("utf-8")).body:
            named = isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets]
            if named == ["__version__"] and isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                return str(node.value.value)
        directory = directory.parent
    return "0"


def _resolve_imports(module: Module, known: Mapping[str, Module]) -> list[str]:
    """Dotted names of the modules that a module needs, without the standard library's; refuses what a node has not."""
    found: set[str] = set()
    tops = {path.partition("/")[0].removesuffix(".py") for path in known}
    for item in _imports(module):
        top = item.name.partition(".")[0]
        if top in tops:
            base_path = item.name.replace(".", "/")
            is_package = any(path.startswith(base_path + "/") for path in known)
            if base_path + ".py" in known or is_package:
                found.add(item.name)
            elif item.sure:
                raise ToolboxError(module.file, item.line, f"there is no module {item.name}")
        elif top in _LATER or item.name in _LATER_PARTS:
            raise ToolboxError(module.file, item.line, f"{item.name} is not in Python 3.6")
        elif top in _GONE:
            raise ToolboxError(module.file, item.line, f"{item.name} is no longer in newer versions of Python")
        elif item.sure and top not in sys.stdlib_module_names:
            text = f"{item.name} is not in Python's standard library: a pilot has nothing else"
            raise ToolboxError(module.file, item.line, text)
    return sorted(found)


def _imports(module: Module) -> Iterator[_Import]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _Import(alias.name, node.lineno, True)
        elif isinstance(node, ast.ImportFrom):
            origin = module.origin(node)
            yield _Import(origin, node.lineno, True)
            for alias in node.names:
                yield _Import(f"{origin}.{alias.name}", node.lineno, False)
