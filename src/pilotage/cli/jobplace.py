"""Where in a job file a job's key stands: what the service refuses is told with the line that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yaml import Node

STEP = re.compile(r"[^.\[\]]+")


def place(file: Path, index: int, field: str) -> str:
    """FILE:LINE of a field (such as ``inputs[0].name``) of the job number ``index`` in the file; FILE alone where the
    field stands nowhere in it (it was an option of the command line)."""
    import yaml

    root = yaml.compose(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    chain: list[Any] = next((chain for n, chain in enumerate(_jobs(root, [])) if n == index), [])
    line = _line(chain, STEP.findall(field))
    return f"{file}:{line}" if line else str(file)


def _jobs(node: Node | None, above: list[Any]) -> Iterator[list[Any]]:
    """For each job, in the order of `jobfile.read`, the mappings that make it up, the nearest first."""
    chain = [node, *above]
    keys = _keys(node)
    if "jobs" in keys:
        for child in keys["jobs"][1].value:
            yield from _jobs(child, chain)
    elif "array" in keys:
        array = keys["array"][1]
        for _ in range(len(array.value) if isinstance(array.value, list) else int(array.value)):
            yield chain
    else:
        yield chain


def _line(chain: list[Any], steps: list[str]) -> int | None:
    """The line of the deepest part of the path that is there."""
    if not steps:
        return int(chain[0].start_mark.line) + 1 if chain else None
    for mapping in chain:
        pair = _keys(mapping).get(steps[0])
        if pair is None:
            continue
        key, node = pair
        line = int(key.start_mark.line) + 1
        for step in steps[1:]:
            if isinstance(node.value, list) and step.isdigit() and int(step) < len(node.value):
                node = node.value[int(step)]
                if isinstance(node, tuple):
                    break
            elif step in _keys(node):
                node = _keys(node)[step][1]
            else:
                break
            line = int(node.start_mark.line) + 1
        return line
    return None


def _keys(node: Any) -> dict[str, tuple[Any, Any]]:
    """A mapping's keys: {name: (key node, value node)}."""
    pairs = node.value if isinstance(getattr(node, "value", None), list) else []
    return {pair[0].value: pair for pair in pairs if isinstance(pair, tuple) and isinstance(pair[0].value, str)}
