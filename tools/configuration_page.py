"""The reference page of configuration files, from the JSON Schema that the models give."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pilotage.configuration.schema import schema_json

INTRODUCTION = """\
# Configuration files: every key

How files and layers come together is told in [configuration](../configuration.md). `pilotage config schema` prints the
same as a JSON Schema, for editors. A key that is not here is refused with file and line. Seconds are real numbers where
the type is "number"; a "value" is a text, a number, true, false, null or a list of texts.
"""

LAYER = "PilotPart"


def page(note: str) -> str:
    """The whole page: the top, then each part, in the order in which they are met."""
    schema = schema_json()
    lines = [note, INTRODUCTION, "## The top of a file\n", *_table(schema["properties"])]
    layer = schema["$defs"][LAYER]["properties"]
    for name in _used(schema, schema["$defs"], set()):
        part = schema["$defs"][name]
        lines += [f"## {name}\n", " ".join(part.get("description", "").split()) + "\n"]
        properties = part["properties"]
        if name != LAYER and properties.keys() >= layer.keys():
            lines.append(f"It has every key of [{LAYER}](#{LAYER.lower()}), and:\n")
            properties = {key: field for key, field in properties.items() if key not in layer}
        lines += _table(properties)
    return "\n".join(lines).rstrip() + "\n"


def _used(node: Any, parts: dict[str, Any], seen: set[str]) -> Iterator[str]:
    """Names of the parts that a node refers to, and those that these refer to."""
    if isinstance(node, list):
        for item in node:
            yield from _used(item, parts, seen)
    elif isinstance(node, dict):
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            if name not in seen:
                seen.add(name)
                yield name
                yield from _used(parts[name], parts, seen)
        for key, value in node.items():
            if key != "$defs":
                yield from _used(value, parts, seen)


def _table(properties: dict[str, Any]) -> list[str]:
    lines = ["| key | type | default | what it is |", "|---|---|---|---|"]
    for key, field in properties.items():
        default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        text = field.get("description", "").replace("|", "\\|")
        lines.append(f"| `{key}` | {_type(field)} | {default} | {text} |")
    return [*lines, ""]


def _type(field: dict[str, Any]) -> str:
    if field.get("anyOf", [{}])[0] == {"type": "null"}:
        return "value"
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(dict.fromkeys(_type(choice) for choice in field[key]))
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "anything")
    if kind == "array":
        return f"list of {_type(field['items'])}"
    if kind == "object":
        inner = next(iter(field.get("patternProperties", {}).values()), field.get("additionalProperties"))
        return f"by name: {_type(inner)}" if isinstance(inner, dict) else "map"
    return {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(kind, kind)
