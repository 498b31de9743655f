"""Loads a configuration: YAML over the embedded defaults, validated; every error with file, line and column."""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pilotage.configuration import schema
from pilotage.configuration.document import ConfigurationError, Document, PathInData, parse, read
from pilotage.configuration.schema import Configuration, unknown

REPLACED = ("vos", "sites")
"""Parts that a file gives whole: the embedded ones are examples, not something to build on."""

SECRETS = ("password", "access_key_id", "secret_access_key", "session_token")
"""Keys of references; somebody who wrote the secret itself there must not find it in a log."""

_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "string": "a text",
    "bool": "true or false",
    "dict": "a map of keys and values",
    "list": "a list",
    "model": "a map of keys and values",
}
_NAMES = "letters, digits, '.', '_', '-', begins with a letter or digit, and is at most 100 long"
_PATTERNS = {schema.NAME: f"a name ({_NAMES})", schema.IDENTIFIER: "a Python name", schema.URL: "an http or https URL"}


def load(path: Path | str | None = None) -> Configuration:
    """The configuration of a YAML file over the embedded defaults; of the defaults alone where `path` is None.

    Raises ConfigurationError: its text is one sentence, its `where` the place, its `problems` all that is wrong.
    """
    return _build(read(Path(path)) if path is not None else None)


def loads(text: str, file: str = "<text>") -> Configuration:
    """The same from YAML text."""
    return _build(parse(text, file))


def _build(document: Document | None) -> Configuration:
    content = (resources.files("pilotage.configuration") / "defaults.yaml").read_text(encoding="utf-8")
    defaults = parse(content, "defaults.yaml")
    documents = (document, defaults) if document else (defaults,)
    if document:
        _validate(document.data, (document,))
    data = _over(defaults.data, document.data) if document else defaults.data
    configuration = _validate(data, documents)
    configuration._documents = documents
    configuration._revision = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
    configuration._resources = {name: site for site, name, _ in reversed(list(configuration.resources()))}
    found = [
        ConfigurationError(f"{_dotted(path)}: {text}", configuration.where(path))
        for path, text in configuration.problems()
    ]
    if found:
        raise _all(found)
    return configuration


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The file's data over the defaults': maps merge deeply, all else is replaced; see REPLACED."""

    def merge(low: Any, high: Any) -> Any:
        if isinstance(low, dict) and isinstance(high, dict):
            return {**low, **{key: merge(low.get(key), value) for key, value in high.items()}}
        return high

    merged = {key: value for key, value in below.items() if not (key in REPLACED and key in above)}
    return typing.cast(dict[str, Any], merge(merged, dict(above)))


def _validate(data: dict[str, Any], documents: tuple[Document, ...]) -> Configuration:
    try:
        return Configuration.model_validate(data)
    except ValidationError as error:
        found = [_explain(item, documents) for item in error.errors(include_url=False)]
        raise _all(found) from None


def _all(found: list[ConfigurationError]) -> ConfigurationError:
    found.sort(key=lambda problem: (problem.where.line, problem.where.column) if problem.where else (0, 0))
    found[0].problems = found
    return found[0]


def _explain(item: ErrorDetails, documents: tuple[Document, ...]) -> ConfigurationError:
    """One pydantic error as a sentence with its place."""
    bad_key = bool(item["loc"]) and item["loc"][-1] == "[key]"
    path: PathInData = item["loc"][:-1] if bad_key else item["loc"]
    document = next((document for document in documents if document.has(path)), documents[0])
    where = document.where(path)
    kind, name = item["type"], _dotted(path)
    shown = "what is there" if path and path[-1] in SECRETS else _shown(item["input"])
    if kind == "extra_forbidden":
        parent = _dotted(path[:-1])
        text = unknown("key", str(path[-1]), _known_keys(path[:-1])) + (f" (in {parent})" if parent else "")
    elif kind == "missing":
        text = f"{_dotted(path[:-1])} lacks '{path[-1]}'"
    elif bad_key:
        text = f"{_dotted(path[:-1])}: '{path[-1]}' cannot be a name; a name has {_NAMES}"
    elif kind == "string_pattern_mismatch":
        wanted = _PATTERNS.get(item["ctx"]["pattern"], f"what matches {item['ctx']['pattern']}")
        text = f"{name} must be {wanted}, not {shown}"
    elif kind == "value_error":
        text = f"{name}: {item['ctx']['error']}"
    elif kind.rpartition("_")[2] in ("type", "parsing"):
        wanted = _WANTED.get(kind.rpartition("_")[0], item["msg"])
        text = f"{name} must be {wanted}, not {shown}"
        if item["input"] is None and "map" in wanted:
            text += " (an empty map is {})"
    elif kind == "too_short":
        text = f"{name} is empty"
    else:
        message = item["msg"].replace("Input should be", "it must be")
        text = f"{name} cannot be {_shown(item['input'])}: {message}"
    return ConfigurationError(text, where)


def _known_keys(path: PathInData) -> list[str]:
    """The keys that the schema knows at `path`."""
    models: list[Any] = [Configuration]
    for step in path:
        models = [inner for model in models for inner in _inside(model, step)]
    parts = [model for model in models if isinstance(model, type) and issubclass(model, BaseModel)]
    return [key for part in parts for key in part.model_fields]


def _inside(annotation: Any, step: str | int) -> Iterator[Any]:
    """The annotations of what is under one step of a path."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        for choice in typing.get_args(annotation):
            yield from _inside(choice, step)
    elif origin is typing.Annotated:
        yield from _inside(typing.get_args(annotation)[0], step)
    elif origin in (dict, list):
        yield typing.get_args(annotation)[-1]
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel) and step in annotation.model_fields:
        yield annotation.model_fields[str(step)].annotation


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _dotted(path: PathInData) -> str:
    """`sites.LOCAL.resources.local.vos[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text
