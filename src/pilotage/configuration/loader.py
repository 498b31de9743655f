"""Loads a configuration: YAML over the embedded defaults, validated; every error with file, line and column."""

from __future__ import annotations

import functools
import hashlib
import json
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pilotage.configuration import directory, finals, ownership
from pilotage.configuration.directory import dotted
from pilotage.configuration.document import ConfigurationError, Document, Location, parse, text_of
from pilotage.configuration.schema import Configuration, Level
from pilotage.configuration.sentences import problem

REPLACED = ("vos", "sites")
"""Parts that a file gives whole: the embedded ones are examples, not something to build on."""

STACKED = ("pilot", "flavours")
"""Parts of which every level is a layer of its own (resolve.py)."""

MOST = 1000
"""Problems that are told of one configuration; a file that is something else entirely would have one in every line."""


def load(path: Path | str | None = None) -> Configuration:
    """The configuration of a YAML file, or of all in a directory, over the embedded defaults; None: of those alone.

    Raises ConfigurationError: its text is one sentence, its `where` the place, its `problems` all that is wrong.
    """
    if path is None:
        return load_files({})
    path = Path(path)
    if path.is_dir():
        found = load_files(directory.texts_of(path), prefix=f"{path}/")
    else:
        found = _build([parse(text := text_of(path), str(path))], {path.name: text})
    if says_nothing(found):
        raise ConfigurationError("says nothing; what is embedded counts without it", Location(str(path)))
    return found


def says_nothing(configuration: Configuration) -> bool:
    """Whether the files are empty. They would put the embedded defaults in the place of what there is, and are more
    likely lost than meant."""
    return not configuration.levels[-1].data


def loads(text: str, file: str = "<text>") -> Configuration:
    """The same from YAML text."""
    return _build([parse(text, file)], {file: text})


def load_files(files: Mapping[str, str], below: Configuration | None = None, *, prefix: str = "") -> Configuration:
    """The same from {name: text}, names relative as in a directory: what is below `vos/NAME/` is that VO's.

    :param below: a configuration between the embedded defaults and these files
    :param prefix: put before the names in messages
    """
    for name in files:
        directory.check_name(name)
    return _build(directory.parse_all(files, prefix), dict(sorted(files.items())), below, len(prefix))


@functools.cache
def _defaults() -> Level:
    content = (resources.files("pilotage.configuration") / "defaults.yaml").read_text(encoding="utf-8")
    document = parse(content, "defaults.yaml")
    return Level((document,), document.data)


def _build(
    documents: Sequence[Document], files: dict[str, str], below: Configuration | None = None, prefix: int = 0
) -> Configuration:
    levels = below.levels if below else (_defaults(),)
    data: dict[str, Any] = {}
    for level in levels:
        data = _over(data, level.data)
    owned = [(ownership.owner_of(document.file[prefix:]), document) for document in documents]
    operators = [document for vo, document in owned if vo is None]
    said = directory.together(operators)
    _validate(said, operators)
    data = _over(data, said)
    for vo, document in owned:
        if vo is not None:
            ownership.check(vo, document, data)
    data = directory.together([document for vo, document in owned if vo is not None], data, operators)
    levels = (*levels, Level(tuple(documents), said)) if documents else levels
    configuration = _validate(data, [document for level in reversed(levels) for document in level.documents])
    configuration._levels, configuration._data = levels, data
    configuration._files = files
    configuration._revision = _revision(data, levels)
    configuration._resources = {name: site for site, name, _ in reversed(list(configuration.resources()))}
    found = [
        ConfigurationError(f"{dotted(path)}: {text}", configuration.where(path))
        for path, text in configuration.problems()
    ]
    found += finals.problems(configuration) if not found else []
    if found:
        raise _all(found)
    return configuration


def _revision(data: Mapping[str, Any], levels: Sequence[Level]) -> str:
    """Of what the levels say in all, and of what each says about pilots: edits depend on what is edited."""
    parts = [{key: level.data[key] for key in STACKED if key in level.data} for level in levels]
    text = json.dumps([data, [part for part in parts if part]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The file's data over the defaults': maps merge deeply, all else is replaced; see REPLACED."""

    def merge(low: Any, high: Any) -> Any:
        if isinstance(low, dict) and isinstance(high, dict):
            return {**low, **{key: merge(low.get(key), value) for key, value in high.items()}}
        return high

    merged = {key: value for key, value in below.items() if not (key in REPLACED and key in above)}
    return typing.cast(dict[str, Any], merge(merged, dict(above)))


def _validate(data: Mapping[str, Any], documents: Sequence[Document]) -> Configuration:
    try:
        return Configuration.model_validate(data)
    except ValidationError as error:
        found = [problem(item, documents) for item in error.errors(include_url=False)[:MOST]]
        raise _all(found) from None


def _all(found: list[ConfigurationError]) -> ConfigurationError:
    found.sort(key=lambda problem: (problem.where.line, problem.where.column) if problem.where else (0, 0))
    found[0].problems = found
    return found[0]
