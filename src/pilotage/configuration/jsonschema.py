"""The JSON Schema of configuration files, for editors, and for the reference page that is made from it.

Descriptions are the docstrings of the models and those below their fields, read from the sources: at run time Python
does not keep the latter.
"""

from __future__ import annotations

import ast
import inspect
from types import ModuleType
from typing import Any

from pilotage.configuration import parts, references, schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def made() -> dict[str, Any]:
    """The schema of one file, JSON-able. A file may say a part of a resource and another file the rest."""
    found = schema.Configuration.model_json_schema()
    found = {"$schema": DIALECT, **found, "title": "Pilotage: a configuration file"}
    said: dict[str, dict[str, str]] = {}
    for module in (references, parts, schema):
        said |= _docstrings(module)
    for name, model in [("Configuration", found), *found["$defs"].items()]:
        for key, field in model["properties"].items():
            field.pop("title", None)
            if isinstance(field.get("default"), dict):
                del field["default"]  # of a part: what its keys say themselves
            text = next((said[base][key] for base in _bases(name) if key in said.get(base, {})), None)
            if text:
                field["description"] = text
    found["$defs"]["Resource"].pop("required", None)
    _closed(found)
    return found


def _bases(name: str) -> list[str]:
    model = getattr(schema, name, None) or getattr(parts, name, None) or getattr(references, name)
    return [base.__name__ for base in model.__mro__]


def _docstrings(module: ModuleType) -> dict[str, dict[str, str]]:
    """For each class of a module: {field: the text below it}."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {}
            for field, below in zip(node.body, node.body[1:], strict=False):
                named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                text = (
                    below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
                )
                if named and isinstance(text, str) and text:
                    found[node.name][field.target.id] = " ".join(text.split())  # type: ignore[attr-defined]
    return found


def _closed(node: Any) -> None:
    """Names that are no names are errors in an editor too."""
    if isinstance(node, dict):
        if "patternProperties" in node:
            node["additionalProperties"] = False
        for value in node.values():
            _closed(value)
    elif isinstance(node, list):
        for value in node:
            _closed(value)
