"""What is wrong with a configuration, as one sentence with its place: from what pydantic says."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from pilotage.configuration import parts, schema
from pilotage.configuration.directory import dotted
from pilotage.configuration.document import ConfigurationError, Document, PathInData, nearest
from pilotage.configuration.schema import Configuration, unknown

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
_PATTERNS = {
    parts.NAME: f"a name ({_NAMES})",
    parts.IDENTIFIER: "a Python name",
    parts.DOTTED: "the dotted name of a package",
    parts.INTERPRETER: "an absolute path of letters, digits and _./+@%,~-",
    parts.SHA256: "64 hex digits in lower case",
    parts.VERSION: "a version of Python from 3.6 on, like '3.9'",
    schema.URL: "an http or https URL",
}


def problem(item: ErrorDetails, documents: Sequence[Document]) -> ConfigurationError:
    """One of pydantic's errors as a sentence with its place; `documents` are asked in this order."""
    bad_key = bool(item["loc"]) and item["loc"][-1] == "[key]"
    path: PathInData = item["loc"][:-1] if bad_key else item["loc"]
    path = tuple(step for step in path if step not in (parts.LIST, parts.EDIT, parts.EDITS))
    return ConfigurationError(_sentence(item, path, bad_key), nearest(documents, path))


def _sentence(item: ErrorDetails, path: PathInData, bad_key: bool) -> str:
    kind, name = item["type"], dotted(path)
    shown = "what is there" if path and path[-1] in SECRETS else _shown(item["input"])
    if kind == "extra_forbidden":
        return _unknown_key(item, path)
    if kind == "missing":
        return f"{dotted(path[:-1])} lacks '{path[-1]}'"
    if bad_key and kind == "literal_error":
        return f"{dotted(path[:-1])}: '{path[-1]}' is none of {item['ctx']['expected']}"
    if bad_key and item.get("ctx", {}).get("pattern") == parts.IDENTIFIER:
        command, dot, option = str(path[-1]).partition(".")
        hint = f"; write {command}: {{{option}: ...}}" if dot else ""
        return f"{dotted(path[:-1])}: '{path[-1]}' is not a Python name, as commands and options have{hint}"
    if bad_key:
        return f"{dotted(path[:-1])}: '{path[-1]}' cannot be a name; a name has {_NAMES}"
    if kind == "string_pattern_mismatch":
        wanted = _PATTERNS.get(item["ctx"]["pattern"], f"what matches {item['ctx']['pattern']}")
        return f"{name} must be {wanted}, not {shown}"
    if kind == "value_error":
        return f"{name}: {item['ctx']['error']}"
    if kind.rpartition("_")[2] in ("type", "parsing"):
        wanted = _WANTED.get(kind.rpartition("_")[0], item["msg"])
        return f"{name} must be {wanted}, not {shown}{_hint(item['input'], wanted, path)}"
    if kind == "too_short":
        return f"{name} is empty"
    message = item["msg"].replace("Input should be", "it must be")
    return f"{name} cannot be {_shown(item['input'])}: {message}"


def _unknown_key(item: ErrorDetails, path: PathInData) -> str:
    known = _known_keys(path[:-1])
    key, parent = str(path[-1]), dotted(path[:-1])
    text = unknown("key", key, known) + (f" (in {parent})" if parent else "")
    if key in parts.PilotPart.model_fields and "pilot" in known:
        return f"{text}; what is said about pilots stands under 'pilot'"
    if "options" in known and isinstance(item["input"], dict) and key[:1].isupper():
        return f"{text}; the options of a command stand under options: {{{key}: ...}}"
    return text


def _hint(value: Any, wanted: str, path: PathInData) -> str:
    if path[-2:-1] == ("options",) and not isinstance(value, dict):
        return "; under 'options' stand commands, and under each of them its options"
    if value is None and "map" in wanted:
        return " (an empty map is {})"
    return " (put it in quotes)" if wanted == "a text" and isinstance(value, bool | int | float) else ""


def _known_keys(path: PathInData) -> list[str]:
    """The keys that the schema knows at `path`."""
    found: list[Any] = [Configuration]
    for step in path:
        found = [inner for one in found for inner in _inside(one, step)]
    return [key for one in found for model in _models(one) for key in model.model_fields]


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
    else:
        for model in _models(annotation):
            if step in model.model_fields:
                yield model.model_fields[str(step)].annotation


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a value with this annotation may be."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        for choice in typing.get_args(annotation):
            yield from _models(choice)
    elif origin is typing.Annotated:
        yield from _models(typing.get_args(annotation)[0])
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
