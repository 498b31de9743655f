"""JSON as compact text in a column, and back."""

import json
from typing import Any

_encode = json.JSONEncoder(separators=(",", ":")).encode


def dump(value: Any) -> str | None:
    """Compact JSON text; None for None. ASCII only: what no database can hold stays an escape."""
    return None if value is None else _encode(value)


def load(text: str | None) -> Any:
    """The value of some JSON text; None for None."""
    return None if text is None else json.loads(text)


def plain(text: str | None) -> str | None:
    """Text from outside that any database can hold: without NUL and lone surrogates, which a payload may well print."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
