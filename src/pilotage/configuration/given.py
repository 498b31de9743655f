"""What the command line says about a pilot's options: `Command.option=value` as the layer above all others."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any

from pilotage.configuration.document import ConfigurationError
from pilotage.configuration.layers import Layer
from pilotage.configuration.schema import unknown
from pilotage.configuration.toolboxes import Built

AT = ("--set",)
"""The place of this layer; errors name it where others name a file."""

_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def layer(texts: Sequence[str], toolboxes: Sequence[Built]) -> Layer:
    """The layer that these texts make; each value gets the type that its option declares.

    A list is written `a,b,c` or as JSON; `null` unsets an option that may be unset. Raises ConfigurationError.
    """
    commands: Mapping[str, Any] = ChainMap(*(toolbox["commands"] for toolbox in toolboxes))
    options: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        command, dot, option = name.strip().partition(".")
        if not (equals and dot):
            raise ConfigurationError(f"--set {text}: write Command.option=value")
        if command not in commands:
            raise ConfigurationError(f"--set {text}: {unknown('command', command, commands)}")
        known = commands[command]["options"]
        if option not in known:
            raise ConfigurationError(f"--set {text}: {unknown(f'option of {command}', option, known)}")
        try:
            options.setdefault(command, {})[option] = typed(value, known[option])
        except ValueError as error:
            raise ConfigurationError(f"--set {text}: {command}.{option} must be {error}") from None
    return AT, {"options": options} if options else {}


def typed(text: str, option: Mapping[str, Any]) -> Any:
    """A value as its option wants it; ValueError that says what it wants."""
    kind = option["type"]
    if text == "null" and option["default"] is None:
        return None
    if kind == "str":
        return text
    if kind == "list":
        return _items(text)
    word = text.strip().lower()
    try:
        if kind == "bool":
            return _TRUTH[word]
        return int(word) if kind == "int" else float(word)
    except (ValueError, KeyError):
        wanted = {"int": "a whole number", "float": "a number", "bool": "true or false"}[kind]
        raise ValueError(f"{wanted}, not '{text}'") from None


def _items(text: str) -> list[str]:
    if not text.strip().startswith("["):
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        items = json.loads(text)
    except ValueError as error:
        raise ValueError(f"a list of texts; this is not JSON: {error}") from None
    if not all(isinstance(item, str) for item in items):
        raise ValueError("a list of texts")
    return list(items)
