"""Building toolboxes: a package of commands becomes a built toolbox, plain JSON that composers use.

Nothing of a toolbox is ever imported: all is read from its sources. What cannot run on a worker node is refused with
file and line. The form of a built toolbox::

    {"format": 1, "name", "version", "digest": SHA-256 of the canonical JSON of the rest,
     "modules": {"package/RunX.py": compact source, "package/table.json": text of a data file, ...},
     "imports": {"package/RunX.py": [dotted names of modules that it imports, without the standard library's], ...},
     "files": {"package/RunX.py": ["package/table.json"], ...},   (left out where there are none)
     "commands": {"RunX": {"module", "summary", "description", "options": {name: {"type", "default", "help"}},
                           "requires", "wants", "provides", "timeout" [s], "on_failure": "abort" | "continue",
                           "always", "background", "files": {name for self.read(): path} (where there are some)}}}

Only what the commands need is in it: their modules, what these import, in turn, and the data files they declare.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from pilotage.configuration import convention, kept, sources
from pilotage.configuration.commands import Described, Module, describe, dotted
from pilotage.configuration.compaction import MINIMUM, ToolboxError, compact, parse, without_plans
from pilotage.configuration.imports import STANDARD, Reach, folders_of, needed
from pilotage.configuration.sources import Tree
from pilotage_node.compose import ComposeError, check_traits
from pilotage_node.compose.script import MARK, canonical

__all__ = [
    "OWN",
    "Built",
    "ToolboxError",
    "base",
    "build",
    "commands_in",
    "core",
    "dirac",
    "known",
    "library",
    "plain_text",
    "problems",
    "sealed",
]

Built = dict[str, Any]
"""A built toolbox (see this module's docstring for its form)."""

FORMAT = 1
NODE = "pilotage_node"
HEAD = "compose/head.txt"
MAX_BYTES = 1 << 20
"""Of one module or data file."""
OWN = ("base", "core", "dirac")
"""Names of the toolboxes that come with Pilotage."""

_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def build(
    source: Tree | Path | str,
    name: str,
    *,
    others: Sequence[Built] = (),
    before: Mapping[str, str] | None = None,
    more: Collection[str] = (),
    extension: str | None = None,
    minimum: str = MINIMUM,
    plans: bool = False,
) -> Built:
    """Build a toolbox.

    :param source: its files, or the directory of the package, or its dotted name (found, not imported)
    :param name: the toolbox's name
    :param others: built toolboxes whose modules it may import and whose commands it may extend: at least base and core
    :param before: for each module (dotted) of toolboxes that come before it, which toolbox: only for messages
    :param more: paths of modules that must be in it, because toolboxes before it import them
    :param extension: of the community, where its commands are found by the path convention
    :param minimum: the oldest Python that it must run on
    :param plans: whether the commands' `plan` methods, which only dry runs call, stay in
    :raises ToolboxError: what cannot travel or run, with file and line
    """
    tree = source if isinstance(source, Tree) else read(source)
    _check_names(tree, name)
    return _Builder(tree, name, others, before or {}, minimum, plans).built(commands_in(tree, extension), more)


def problems(
    tree: Tree, name: str, *, others: Sequence[Built], extension: str | None = None, minimum: str = MINIMUM
) -> list[ToolboxError]:
    """Why a toolbox cannot be built, each command (or module of a library) for itself, so that all is told at once."""
    try:
        _check_names(tree, name)
        commands = commands_in(tree, extension)
    except ToolboxError as error:
        return [error]
    modules = library(tree, commands)
    if not commands and not modules:
        text = "there are no commands in it: a command RunX is a class RunX with do() in a module RunX.py"
        return [ToolboxError(tree.shown, 0, text)]
    found: dict[str, ToolboxError] = {}
    parts: list[tuple[dict[str, str], list[str]]] = [({command: path}, []) for command, path in commands.items()]
    for part in parts + [({}, [path]) for path in modules]:
        try:
            _Builder(tree, name, others, {}, minimum, False).built(*part)
        except ToolboxError as error:
            found.setdefault(str(error), error)
    return list(found.values())


def library(tree: Tree, commands: Collection[str]) -> list[str]:
    """The modules of a toolbox without commands, which toolboxes before it may import; none of one that has some."""
    modules = [path for path in sorted(tree.files) if path.endswith(".py")]
    return modules if not commands and any(tree.files[path].strip() for path in modules) else []


def known(tree: Tree, others: Sequence[Built], minimum: str = MINIMUM) -> Mapping[str, Module]:
    """The modules of a toolbox and of those after it, by path, parsed when they are asked for."""
    return _Known(tree, others, minimum, True)


def read(source: Path | str) -> Tree:
    """The files of a directory, an archive (whatever its digest) or an installed package."""
    if isinstance(source, Path) or "/" in source or Path(source).is_dir():
        return sources.read_path(Path(source))
    return sources.read_package(source)


def base(plans: bool = False) -> Built:
    """The base toolbox: the commands that every Pilotage has."""
    return _own(plans)["base"]


def core() -> Built:
    """The runner, the courier, the agent: what commands run on. Has no commands, but the frame of the script itself."""
    return _own(False)["core"]


@cache
def dirac(plans: bool = False) -> Built:
    """The commands for DIRAC. Built by itself, and kept: who has no VO of that engine need not wait for it."""
    package, others = f"{NODE}.toolboxes.dirac", (base(plans), core())
    files = sorted(sources.locate(package).rglob("*.py"))
    contents = [part for file in files for part in (str(file), file.read_bytes())]
    key = kept.digest_of(kept.builder(), str(plans), *(other["digest"] for other in others), *contents)
    make = partial(build, package, "dirac", others=others, plans=plans)
    found: Built = kept.keep(key, lambda toolbox: bool(sealed(toolbox) == toolbox), make)
    return found


@cache
def _own(plans: bool) -> dict[str, Built]:
    """The node's own toolboxes. Built once for any state of their sources and kept, because it takes half a second."""
    root = sources.locate(NODE)
    files = sorted([*root.rglob("*.py"), root / HEAD])
    contents = [part for file in files for part in (str(file), file.read_bytes())]
    key = kept.digest_of(kept.builder(), str(plans), *contents)

    def make() -> dict[str, Built]:
        made_core = _core(root)
        return {"core": made_core, "base": build(f"{NODE}.toolbox", "base", others=(made_core,), plans=plans)}

    def good(found: Any) -> bool:
        return {"core", "base"} <= set(found) and all(sealed(toolbox) == toolbox for toolbox in found.values())

    return dict(kept.keep(key, good, make))


def _core(root: Path) -> Built:
    tree = sources.read_package(NODE)
    outside = ("toolbox", "toolboxes", "compose")
    modules = [path for path in tree.files if path.endswith(".py") and path.split("/")[1] not in outside]
    result = _Builder(tree, "core", (), {}, MINIMUM, False).built({}, modules)
    head = (root / HEAD).read_text("utf-8")
    boot = root / "compose" / "boot.py"
    text = boot.read_text("utf-8")
    result["modules"][f"{NODE}/{HEAD}"] = "".join(
        line for line in head.splitlines(keepends=True) if not line.startswith("## ")
    )
    result["modules"][f"{NODE}/compose/boot.py"] = compact(text, str(boot), parse(text, str(boot)))
    return sealed(result)


def sealed(toolbox: Built) -> Built:
    """A toolbox with its digest."""
    plain = {key: value for key, value in toolbox.items() if key != "digest"}
    return plain | {"digest": hashlib.sha256(canonical(plain).encode()).hexdigest()}


def _check_names(tree: Tree, name: str) -> None:
    """Modules that would be taken for the pilot's own, and commands that cannot be imported."""
    ours = [path for path in sorted(tree.files) if path.startswith(f"{NODE}/")]
    if ours and name not in OWN:
        text = f"modules below {NODE} are the pilot's own, the runner among them: rename the package"
        raise ToolboxError(tree.places[ours[0]], 1, text)
    for path in sorted(tree.files):
        command = path.endswith(".py") and path.rpartition("/")[2][0].isupper()
        if command and not all(part.isidentifier() for part in path.removesuffix(".py").split("/")):
            raise ToolboxError(tree.places[path], 0, "not a module name: use letters, digits and _")


def commands_in(tree: Tree, extension: str | None) -> dict[str, str]:
    """Paths of the modules that are commands, by name: those whose names begin with a capital letter; in a package of
    the path convention those in its folder, and of a name in several such packages the one that comes first."""
    found: dict[str, str] = {}
    order = convention.packages(extension)
    followed = {path.partition("/")[0] for path in tree.files if convention.follows(path, tree.files)}
    for path in sorted(tree.files):
        package, name = path.partition("/")[0], path.rpartition("/")[2].removesuffix(".py")
        if not path.endswith(".py") or not (convention.is_command(path) if package in followed else name[0].isupper()):
            continue
        other = found.get(name, "").partition("/")[0]
        if other and not (other in order and package in order and other != package):
            text = f"command {name} is also in {tree.places[found[name]]}; a toolbox has one of a name"
            if other in followed and package in followed:
                text += "; the VO's `extension` (of the check: --extension) says which one it means"
            raise ToolboxError(tree.places[path], 1, text)
        if not other or order.index(package) < order.index(other):
            found[name] = path
    return found


class _Known(Mapping[str, Module]):
    """Modules by path, parsed when they are asked for: those of the toolbox, those that it may import, and those that
    are made when an import by the path convention means a command of ours.

    :ivar commands: module (dotted) of each of these
    """

    def __init__(self, tree: Tree, others: Sequence[Built], minimum: str, plans: bool) -> None:
        self.tree, self.minimum, self.plans = tree, minimum, plans
        self.own: dict[str, Module] = {}
        self.made: dict[str, Module] = {}
        self.foreign = {path: other for other in reversed(others) for path in other["modules"] if path.endswith(".py")}
        self.parsed: dict[str, Module] = {}
        ours = [other["commands"] for other in others if other["name"] in OWN]
        self.commands = {name: entry["module"] for own in reversed(ours) for name, entry in own.items()}

    def __getitem__(self, path: str) -> Module:
        if path not in self:
            raise KeyError(path)
        if path in self.tree.files:
            if path not in self.own:
                self.own[path] = self._read(path)
            return self.own[path]
        if path not in self.foreign:
            if path not in self.made:
                self.made[path] = self._make(convention.command_of(dotted(path)), path)
            return self.made[path]
        if path not in self.parsed:
            other = self.foreign[path]
            text = other["modules"][path]
            name = dotted(path)
            entries = (entry for entry in other["commands"].values() if entry["module"] == name)
            options = next((entry["options"] for entry in entries), None)
            self.parsed[path] = Module(path, f"{other['name']}:{path}", ast.parse(text), text, options)
        return self.parsed[path]

    def __iter__(self) -> Iterator[str]:
        yield from (path for path in self.tree.files if path.endswith(".py"))
        yield from (path for path in self.foreign if path not in self.tree.files)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str) or not path.endswith(".py"):
            return False
        if path in self.tree.files or path in self.foreign:
            return True
        return not path.endswith("/__init__.py") and convention.command_of(dotted(path)) in self.commands

    def _read(self, path: str) -> Module:
        file = self.tree.places[path]
        text = plain_text(self.tree.files[path], file)
        tree = parse(text, file, self.minimum)
        if not self.plans:
            text = without_plans(text, file, tree, dotted(path).rpartition(".")[2])
            tree = parse(text, file, self.minimum)
        return Module(path, file, tree, text)

    def _make(self, command: str, path: str) -> Module:
        text = f"from {self.commands[command]} import {command}\n"
        return Module(path, "made for the path convention", ast.parse(text), text)


class _Builder:
    """One toolbox being built."""

    def __init__(
        self, tree: Tree, name: str, others: Sequence[Built], before: Mapping[str, str], minimum: str, plans: bool
    ) -> None:
        self.tree, self.name = tree, name
        self.known = _Known(tree, others, minimum, plans)
        self.reach = Reach(self.known, folders_of(self.known), self.known.commands, before, minimum)
        self.imports: dict[str, list[str]] = {}
        self.files: dict[str, list[str]] = {}

    def built(self, commands: Mapping[str, str], modules: Collection[str] = ()) -> Built:
        """The toolbox of these commands (paths by name), what they need, and these modules."""
        described = {name: self._describe(name, path) for name, path in commands.items()}
        for one in described.values():
            self._declared(one)
        self._follow([*commands.values(), *modules])
        texts = {
            path: compact(one.source, one.file, one.tree)
            for path, one in self.known.own.items()
            if path in self.imports
        }
        texts |= {path: one.source for path, one in self.known.made.items() if path in self.imports}
        texts |= {path: self._data(path) for paths in self.files.values() for path in paths}
        result: Built = {
            "format": FORMAT,
            "name": self.name,
            "version": self.tree.version,
            "modules": texts,
            "imports": self.imports,
            "commands": {name: one.entry for name, one in described.items()},
        }
        return sealed(result | ({"files": self.files} if self.files else {}))

    def _describe(self, name: str, path: str) -> Described:
        module = self.known[path]
        described = describe(name, module, self.known)
        try:
            check_traits(name, described.entry)
        except ComposeError as error:
            raise ToolboxError(module.file, described.line, str(error)) from None
        return described

    def _declared(self, described: Described) -> None:
        """Data files and dynamic imports that a command and its bases declare; other toolboxes' are in those."""
        for path, files in described.files.items():
            for file, line in files.items() if path in self.tree.files else ():
                if file not in self.tree.files:
                    name = file.rpartition("/")[2]
                    raise ToolboxError(self.tree.places[path], line, f"there is no file {name} beside this module")
            if path in self.tree.files:
                self.files[path] = sorted(files)
        for path, modules in described.modules.items():
            for name, line in modules if path in self.tree.files else ():
                base_path = name.replace(".", "/")
                if base_path + ".py" not in self.known and base_path not in self.reach.folders:
                    raise ToolboxError(self.tree.places[path], line, f"modules: there is no module {name}")
            self.imports.setdefault(path, []).extend(name for name, _ in modules if path in self.tree.files)

    def _follow(self, paths: Collection[str]) -> None:
        """Note what these modules import, and what that imports, as far as it is of this toolbox."""
        declared, self.imports = self.imports, {}
        waiting = list(paths)
        while waiting:
            path = waiting.pop()
            own = path in self.tree.files or path not in self.known.foreign
            if path in self.imports or path not in self.known or not own:
                continue
            package = path.partition("/")[0]
            if package in STANDARD:
                text = f"the package name {package} is taken by Python's standard library"
                raise ToolboxError(self.tree.places[path], 0, text)
            names = sorted({*needed(self.known[path], self.reach), *declared.get(path, ())})
            self.imports[path] = names
            for name in [*names, *self._around(path)]:
                here = name.replace(".", "/")
                waiting += [here + ".py", here + "/__init__.py"]

    def _around(self, path: str) -> list[str]:
        """The packages that a module is in; not those of the path convention, which are part of something larger."""
        if convention.follows(path, self.tree.files):
            return []
        parts = path.split("/")[:-1]
        return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]

    def _data(self, path: str) -> str:
        """The text of a data file, as it will be in a script."""
        file = self.tree.places[path]
        text = plain_text(self.tree.files[path], file)
        if not text.strip():
            raise ToolboxError(file, 0, "a data file that is empty cannot travel in a pilot script")
        for number, line in enumerate(text.split("\n"), 1):
            wrong = "a control character" if _FORBIDDEN.search(line) else "three single quotes" if "'''" in line else ""
            if wrong or line.startswith(MARK):
                wrong = wrong or f"a line that begins with {MARK!r}"
                raise ToolboxError(file, number, f"{wrong} cannot travel in a pilot script")
        return text if text.endswith("\n") else text + "\n"


def plain_text(content: bytes, file: str) -> str:
    """The text of a module or data file: UTF-8, lines ended as Unix does."""
    if len(content) > MAX_BYTES:
        raise ToolboxError(file, 0, f"it would travel in every pilot, so it may have at most {MAX_BYTES >> 10} KiB")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ToolboxError(file, content.count(b"\n", 0, error.start) + 1, f"not UTF-8: {error.reason}") from None
