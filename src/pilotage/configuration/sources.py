"""Where toolboxes come from: a directory, a wheel, an archive, an installed package, an entry point.

A source is read into memory as it is: nothing is imported, nothing unpacked to disk. What a careless or hostile
archive could do (leave its directory, link elsewhere, swell) is refused, with the archive and the entry named.

What counts as the package: a directory that holds modules is one itself; one that holds none, and the root of an
archive, is a folder of packages. In a project (pyproject.toml, setup.py, ...) they are in `src`, or beside that file.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotage.configuration.compaction import ToolboxError
from pilotage.configuration.convention import FOLDER, is_package

if TYPE_CHECKING:
    from pilotage.configuration.parts import Toolbox

GROUP = "pilotage.toolboxes"
"""Entry points of this group name packages: ``mine = "mycommunity.commands"``."""
MAX_BYTES = 20 * 1024 * 1024
MAX_FILES = 2_000
"""Bounds of one source, unpacked."""
INSTALLED = 10
"""Times these for installed packages: whoever installed them has looked at them."""
ARCHIVES = (".whl", ".zip", ".tar.gz")

_PROJECT = ("pyproject.toml", "setup.py", "setup.cfg", "PKG-INFO")
_BESIDE = {"tests", "test", "docs", "doc", "examples", "build", "dist", "bench"}
_COMPILED = (".pyc", ".pyo", ".so")
_VERSION = re.compile(r"""^__version__\s*=\s*["']([^"'\\\n]{1,80})["']""", re.MULTILINE)
_METADATA_VERSION = re.compile(rb"^Version: *([!-~]{1,80})", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a source.

    :ivar files: contents by their paths as modules have them in a script, ``package/RunX.py``
    :ivar places: for each of them how messages name it
    :ivar shown: how messages name the source; :ivar digest: SHA-256 (hex) of all paths and contents
    :ivar version: of the package, "0" where it says none
    """

    files: Mapping[str, bytes]
    places: Mapping[str, str]
    shown: str
    digest: str
    version: str


def read(toolbox: Toolbox) -> Tree:
    """The files of a configured toolbox; raises ToolboxError for whatever is wrong with its source."""
    if toolbox.path is not None:
        return read_path(Path(toolbox.path), toolbox.sha256, checked=True)
    return read_package(toolbox.package if toolbox.package is not None else entry_point(str(toolbox.entry_point)))


def read_path(path: Path, sha256: str | None = None, *, checked: bool = False) -> Tree:
    """The files of a directory or an archive.

    :param sha256: what an archive must be (hex); None: not asked, refused where `checked`
    """
    if path.is_dir():
        package = os.path.basename(os.path.abspath(path))  # of a link its own name: mytools -> mytools-1.4
        found = {f"{package}/{name}": file for name, file, _ in _walk(path)}
        return _tree(_contents(found), str(path), lambda name: str(found[name]), of_directory=True)
    if not str(path).endswith(ARCHIVES):
        what = f"is not an archive ({', '.join(ARCHIVES)})" if path.exists() else "there is no such directory or file"
        what = "is a module: name the directory that it is in" if path.is_file() and path.suffix == ".py" else what
        raise ToolboxError(str(path), 0, what)
    content = _archive(path)
    digest = hashlib.sha256(content).hexdigest()
    if checked and not sha256:
        raise ToolboxError(str(path), 0, f"an archive needs its SHA-256 in the configuration: sha256: {digest}")
    if sha256 and sha256.lower() != digest:
        raise ToolboxError(str(path), 0, f"its SHA-256 is {digest}, but the configuration says {sha256}")
    unpack = _tar if str(path).endswith(".tar.gz") else _zip
    return _tree(unpack(content, str(path)), str(path), lambda name: f"{path}!{name}")


def read_package(name: str) -> Tree:
    """The files of an installed package, by its dotted name; found, not imported."""
    root = locate(name)
    prefix = name.replace(".", "/")
    found = {f"{prefix}/{inner}": file for inner, file, _ in _walk(root, INSTALLED)}
    contents = _contents(found, INSTALLED)
    return _made(contents, {path: str(file) for path, file in found.items()}, str(root), _version_around(root))


def state(toolbox: Toolbox) -> Any:
    """What changes when the source does: names, sizes and times. None where it is not there."""
    try:
        if toolbox.path is not None and not os.path.isdir(toolbox.path):
            one = os.stat(toolbox.path)
            return one.st_mtime_ns, one.st_size, one.st_ino
        name = toolbox.package or toolbox.path or entry_point(str(toolbox.entry_point))
        root = Path(toolbox.path) if toolbox.path is not None else locate(name)
        return [(path, found.st_mtime_ns, found.st_size) for path, _, found in _walk(root, INSTALLED)]
    except (OSError, ToolboxError) as error:
        return str(error)


def entry_point(name: str) -> str:
    """The dotted name of the package that an entry point names."""
    found = list(importlib.metadata.entry_points(group=GROUP, name=name))
    if not found:
        known = sorted({point.name for point in importlib.metadata.entry_points(group=GROUP)})
        raise ToolboxError(name, 0, f"no installed package has this entry point in {GROUP}; {_there_are(known)}")
    packages = sorted({point.module for point in found})
    if len(packages) > 1:
        raise ToolboxError(name, 0, f"several installed packages have this entry point: {', '.join(packages)}")
    return packages[0]


def locate(name: str) -> Path:
    """The directory of an installed package. Nothing is imported: only the top-level package is looked up."""
    top, *parts = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    for place in (spec and spec.submodule_search_locations) or ():
        directory = Path(place, *parts)
        if directory.is_dir():
            return directory
    raise ToolboxError(name, 0, "there is no such package on this machine")


def follows_convention(package: str) -> bool:
    """Whether a package of this name is installed and has commands where the path convention looks for them."""
    try:
        return any((locate(package) / FOLDER).glob("[A-Z]*.py"))
    except ToolboxError:
        return False


def _there_are(names: Collection[str]) -> str:
    return f"there are: {', '.join(sorted(names)) or 'none'}"


def _walk(root: Path, times: int = 1) -> Iterator[tuple[str, Path, os.stat_result]]:
    """(relative name, path, stat) of the files below a directory, sorted; hidden and compiled ones are left out."""
    count = 0
    inside = root.resolve()
    for directory, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        for name in [*folders, *sorted(names)]:
            if name.startswith(".") or name.endswith(_COMPILED):
                continue
            file = Path(directory, name)
            if file.is_symlink() and not file.resolve().is_relative_to(inside):
                raise ToolboxError(str(file), 0, "a link that leads out of the toolbox")
            if name in folders:
                continue
            try:
                found = file.stat()
            except OSError as error:
                raise ToolboxError(str(file), 0, f"cannot be read: {error.strerror}") from None
            if not stat.S_ISREG(found.st_mode):
                raise ToolboxError(str(file), 0, "neither a file nor a directory")
            count += 1
            if count > MAX_FILES * times:
                raise ToolboxError(str(root), 0, _too_many(times))
            yield file.relative_to(root).as_posix(), file, found


def _contents(found: Mapping[str, Path], times: int = 1) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    size = 0
    for name, file in found.items():
        try:
            with file.open("rb") as opened:
                contents[name] = opened.read(MAX_BYTES * times + 1 - size)
        except OSError as error:
            raise ToolboxError(str(file), 0, f"cannot be read: {error.strerror}") from None
        size += len(contents[name])
        if size > MAX_BYTES * times:
            raise ToolboxError(str(file), 0, _too_large(times))
    return contents


def _too_many(times: int = 1) -> str:
    return f"more than {MAX_FILES * times:,} files; name the directory of the package alone"


def _too_large(times: int = 1) -> str:
    return f"the toolbox is larger than {MAX_BYTES * times >> 20} MiB"


def _archive(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ToolboxError(str(path), 0, f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ToolboxError(str(path), 0, _too_large())
    return content


def _check_name(name: str, kind: str, shown: str) -> None:
    """Refuse an entry that could land elsewhere, or be something else than a file."""
    parts = name.split("/")
    wrong = kind
    if name.startswith("/") or "\\" in name or ":" in parts[0]:
        wrong = "an absolute path"
    elif ".." in parts:
        wrong = "a path with .."
    elif not name.isprintable():
        wrong = "a name with control characters"
    if wrong:
        raise ToolboxError(shown, 0, f"the archive holds {wrong}: {name[:200]!r}")


def _zip(content: bytes, shown: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES:
                raise ToolboxError(shown, 0, _too_many())
            for entry in entries:
                mode = stat.S_IFMT(entry.external_attr >> 16)
                kind = "a link" if stat.S_ISLNK(mode) else ""
                _check_name(entry.orig_filename, kind, shown)
                if mode not in (0, stat.S_IFREG, stat.S_IFDIR) or entry.flag_bits & 1:
                    raise ToolboxError(shown, 0, f"the archive holds what is not a plain file: {entry.filename!r}")
                if not entry.is_dir():
                    with archive.open(entry) as file:
                        _put(files, entry.filename, file.read(MAX_BYTES + 1), shown)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        raise ToolboxError(shown, 0, f"is not a whole zip archive: {error}") from None
    return files


def _tar(content: bytes, shown: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        # All of it at once, bounded: reading entry by entry would follow the sizes that the archive claims.
        plain = gzip.GzipFile(fileobj=io.BytesIO(content)).read(2 * MAX_BYTES + 1)
        if len(plain) > 2 * MAX_BYTES:
            raise ToolboxError(shown, 0, _too_large())
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for number, entry in enumerate(archive):
                if number >= MAX_FILES:
                    raise ToolboxError(shown, 0, _too_many())
                plain_file = entry.isreg() and not entry.issparse()
                kind = "a link" if entry.issym() or entry.islnk() else "" if plain_file or entry.isdir() else "a device"
                _check_name(entry.name, kind, shown)
                file = archive.extractfile(entry) if plain_file else None
                if file is not None:
                    _put(files, entry.name, file.read(MAX_BYTES + 1), shown)
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        raise ToolboxError(shown, 0, f"is not a whole tar.gz archive: {error}") from None
    return files


def _put(files: dict[str, bytes], name: str, content: bytes, shown: str) -> None:
    name = name.removeprefix("./")
    if name in files:
        raise ToolboxError(shown, 0, f"the archive holds {name!r} twice")
    files[name] = content
    if sum(map(len, files.values())) > MAX_BYTES:
        raise ToolboxError(shown, 0, _too_large())


def _tree(contents: Mapping[str, bytes], shown: str, place: Any, of_directory: bool = False) -> Tree:
    """The packages among the files: the wrapping directories of archives and projects are taken off."""
    names = [name for name in contents if not any(part.startswith(".") for part in name.split("/"))]
    prefix, project = _root(names, of_directory)
    inner = {name[len(prefix) :]: name for name in names if name.startswith(prefix)}
    modules = [name for name in inner if name.endswith(".py")]
    loose = sorted(name for name in modules if "/" not in name)
    if loose and not project:
        text = "a module outside of a package: its directory's name must be a Python identifier"
        raise ToolboxError(place(inner[loose[0]]), 0, text)
    packages = {name.partition("/")[0] for name in modules if "/" in name}
    packages = {name for name in packages if name.isidentifier() and not (project and name in _BESIDE)}
    if not packages:
        raise ToolboxError(shown, 0, "there are no Python modules in it")
    chosen = {name: old for name, old in inner.items() if name.partition("/")[0] in packages}
    version = _version(contents, chosen)
    return _made(
        {name: contents[old] for name, old in chosen.items()},
        {name: place(old) for name, old in chosen.items()},
        shown,
        version,
    )


def _root(names: Iterable[str], of_directory: bool) -> tuple[str, bool]:
    """What stands before the packages in all names, and whether that is a project."""
    names, prefix = list(names), ""
    while True:
        if any(prefix + mark in names for mark in _PROJECT):
            source = prefix + "src/"
            return (source if any(name.startswith(source) for name in names) else prefix), True
        tops = {name[len(prefix) :].partition("/")[0] for name in names if "/" in name[len(prefix) :]}
        files = [name for name in names if "/" not in name[len(prefix) :]]
        if len(tops) != 1 or files:
            return prefix, False
        top = tops.pop()
        below = f"{prefix}{top}/"
        is_project = any(below + mark in names for mark in _PROJECT)
        has_modules = any(name.endswith(".py") and "/" not in name[len(below) :] for name in names)
        folder = of_directory and not prefix and not has_modules and not is_package(top)
        if not (is_project or folder or not top.isidentifier()):
            return prefix, False
        prefix = below


def _made(files: Mapping[str, bytes], places: Mapping[str, str], shown: str, version: str) -> Tree:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return Tree(files, places, shown, digest.hexdigest(), version)


def _version(contents: Mapping[str, bytes], chosen: Mapping[str, str]) -> str:
    """What the metadata of a wheel or a source archive says, else ``__version__`` of a package."""
    for name in sorted(contents):
        if name.endswith(".dist-info/METADATA") or name.rpartition("/")[2] == "PKG-INFO":
            found = _METADATA_VERSION.search(contents[name])
            if found:
                return found[1].decode()
    for name, old in sorted(chosen.items()):
        if name.count("/") == 1 and name.endswith("/__init__.py"):
            stated = _VERSION.search(contents[old].decode("utf-8", "replace"))
            if stated:
                return stated[1]
    return "0"


def _version_around(root: Path) -> str:
    """``__version__`` of an installed package or the nearest package around it."""
    directory = root.resolve()
    while (directory / "__init__.py").exists():
        found = _VERSION.search((directory / "__init__.py").read_text("utf-8", "replace"))
        if found:
            return found[1]
        directory = directory.parent
    return "0"
