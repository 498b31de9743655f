"""Many files as one configuration: which files of a directory count, and how what they say is put together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pilotage.configuration.document import (
    MAX_BYTES,
    MAX_NODES,
    ConfigurationError,
    Document,
    Location,
    PathInData,
    parse,
    text_of,
)

MAX_FILES = 5_000
"""Files of one directory; their bytes and values together have the bounds of one file (document.py)."""
MAX_ENTRIES = 50_000
"""Files of any kind, and directories, that are looked at."""
SUFFIX = ".yaml"


def texts_of(directory: Path) -> dict[str, str]:
    """{name relative to the directory: text} of all its .yaml files, sorted; hidden files and directories are skipped.

    A file that is a link is read (Kubernetes hands out directories of links).
    Raises ConfigurationError: what cannot be read or is too much, a directory without such files, and what somebody
    would wait for in vain: a `.yml`, a link to a directory.
    """
    found: dict[str, str] = {}
    size = 0
    for path in _files(directory):
        if path.suffix != SUFFIX and path.suffix.lower() in (".yml", SUFFIX):
            raise ConfigurationError(f"is not read; name it {path.stem}{SUFFIX}", Location(str(path)))
        if path.suffix != SUFFIX:
            continue
        text = text_of(path)
        found[path.relative_to(directory).as_posix()] = text
        size += len(text.encode())
        if len(found) > MAX_FILES:
            raise ConfigurationError(f"holds more than {MAX_FILES} files", Location(str(directory)))
        if size > MAX_BYTES:
            raise ConfigurationError(f"holds more than {MAX_BYTES >> 20} MiB", Location(str(directory)))
    if not found:
        raise ConfigurationError(f"there is no {SUFFIX} file in it", Location(str(directory)))
    return dict(sorted(found.items()))


def _files(directory: Path) -> Iterator[Path]:
    """All that is no directory and not hidden, below a directory. It gives up early where somebody names `/`."""

    def failed(error: OSError) -> None:
        raise ConfigurationError(f"cannot be read: {error.strerror}", Location(str(error.filename)))

    seen = 0
    for place, directories, names in os.walk(directory, onerror=failed):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in directories:
            if Path(place, name).is_symlink():
                text = "is a link to a directory, which is not read; put the directory itself here"
                raise ConfigurationError(text, Location(str(Path(place, name))))
        seen += len(directories) + len(names)
        if seen > MAX_ENTRIES:
            raise ConfigurationError(f"holds more than {MAX_ENTRIES} files and directories", Location(str(directory)))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def check_name(name: str) -> None:
    """Raise ConfigurationError unless it is the name of a file below a directory: `vos/NAME/pilot.yaml`.

    What a VO may change depends on the name, so nothing that could be read in two ways is one.
    """
    steps = name.split("/")
    plain = name.isprintable() and "\\" not in name and len(name) <= 500
    if not plain or not name.endswith(SUFFIX) or any(not step or step.startswith(".") for step in steps):
        raise ConfigurationError(f"{name!r} is not the name of a configuration file, like sites/north{SUFFIX}")


def parse_all(files: Mapping[str, str], prefix: str = "") -> list[Document]:
    """The files as documents, sorted by name; `prefix` is put before the names in messages."""
    documents = []
    size = values = 0
    if len(files) > MAX_FILES:
        raise ConfigurationError(f"there are more than {MAX_FILES} files")
    for name in sorted(files):
        size += len(files[name].encode())
        if size > MAX_BYTES:
            raise ConfigurationError(
                f"the files hold more than {MAX_BYTES >> 20} MiB together", Location(prefix + name)
            )
        document = parse(files[name], prefix + name)
        values += document.root.size
        if values > MAX_NODES:
            raise ConfigurationError(f"the files hold more than {MAX_NODES} values together", Location(prefix + name))
        documents.append(document)
    return documents


def together(
    documents: Iterable[Document], start: Mapping[str, Any] | None = None, before: Iterable[Document] = ()
) -> dict[str, Any]:
    """What the documents say in all: maps merge deeply; where two set the same thing, that is an error naming both.

    :param start: what is there already, said by the documents `before`
    """
    data: dict[str, Any] = _copy(start or {})
    seen = list(before)
    problems: list[ConfigurationError] = []
    for document in documents:
        _add(data, document.data, (), document, seen, problems)
        seen.append(document)
    if problems:
        problems[0].problems = problems
        raise problems[0]
    return data


def _copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in data.items()}


def _add(
    low: dict[str, Any],
    high: Mapping[str, Any],
    at: PathInData,
    document: Document,
    seen: list[Document],
    problems: list[ConfigurationError],
) -> None:
    for key, value in high.items():
        path = (*at, key)
        if key not in low:
            low[key] = _copy(value) if isinstance(value, Mapping) else value
        elif isinstance(value, Mapping) and isinstance(low[key], dict):
            _add(low[key], value, path, document, seen, problems)
        else:
            first = next((other for other in seen if other.depth(path) == len(path)), None)
            place = f" in {first.where(path)}" if first else ""
            text = f"'{dotted(path)}' is set{place} already; say it in one of the two"
            problems.append(ConfigurationError(text, document.where(path)))


def dotted(path: PathInData) -> str:
    """`sites.LOCAL.resources.local.vos[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text
