"""One YAML file as plain data, with the place of every key and value kept for errors.

The text is read event by event (PyYAML's C parser where it is there), never by recursion: a file that nests a million
lists, refers to itself, or expands by aliases into gigabytes is refused with its line. Plain scalars follow the core
schema of YAML 1.2, so that `no`, `on` and `12:30` are texts, as people mean them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 10 * 1024 * 1024
MAX_DEPTH = 40
MAX_NODES = 500_000
"""Bounds of one file: bytes, nesting, and nodes once aliases are expanded (a site of 1,500 queues has about 20,000)."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_STR_TAG = "tag:yaml.org,2002:str"

PathInData = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file; line and column count from 1."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class ConfigurationError(Exception):
    """The configuration cannot be used: one sentence, and where.

    `problems` holds every problem found, this one first, when a file has several.
    """

    def __init__(self, text: str, where: Location | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.where = where
        self.problems: list[ConfigurationError] = [self]

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


@dataclass(slots=True)
class Node:
    """A value and its place; `keys` are the places of a map's keys, `size` counts nodes with aliases expanded."""

    line: int
    column: int
    data: Any = None
    children: dict[str | int, Node] = field(default_factory=dict)
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    size: int = 1
    anchor: str | None = None
    pending: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A file's content as dicts, lists and scalars, and the places of its parts."""

    file: str
    data: dict[str, Any]
    root: Node

    def where(self, path: PathInData) -> Location:
        """The place of the key or item at `path`; of its nearest parent where it is absent."""
        node, line, column = self.root, self.root.line, self.root.column
        for step in path:
            if step not in node.children:
                break
            key = node.keys.get(step) if isinstance(step, str) else None
            node = node.children[step]
            line, column = key or (node.line, node.column)
        return Location(self.file, line, column)

    def depth(self, path: PathInData) -> int:
        """How many steps of `path` the file itself says something about."""
        node = self.root
        for number, step in enumerate(path):
            if step not in node.children:
                return number
            node = node.children[step]
        return len(path)


def text_of(path: Path) -> str:
    """The text of a file. Raises ConfigurationError: missing, no plain file, too large, not UTF-8."""
    name = str(path)
    try:
        if not path.is_file() and path.exists():
            raise ConfigurationError("is not a plain file", Location(name))
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", Location(name)) from None
    if len(content) > MAX_BYTES:
        raise ConfigurationError(f"is larger than {MAX_BYTES >> 20} MiB", Location(name))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError("is not UTF-8", _after(content[: error.start], name)) from None
    if "\0" in text:
        raise ConfigurationError("is not a text: it holds NUL bytes", _after(content[: content.index(0)], name))
    return text


def _after(content: bytes, name: str) -> Location:
    """The place behind so much of a file."""
    return Location(name, content.count(b"\n") + 1, len(content) - content.rfind(b"\n"))


def parse(text: str, file: str = "<text>") -> Document:
    """Parse YAML text; `file` names it in errors. An empty text is an empty map."""
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Location(file, mark.line + 1, mark.column + 1) if mark else Location(file)
        began = error.context_mark if error.problem and error.context else None
        more = f" ({error.context}, from line {began.line + 1})" if began else ""
        raise ConfigurationError(f"is not YAML: {error.problem or error.context}{more}", where) from None
    except yaml.reader.ReaderError as error:
        where = Location(file, text.count("\n", 0, error.position) + 1, 1)
        raise ConfigurationError(f"holds a character that YAML forbids: {error.reason}", where) from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"is not YAML: {' '.join(str(error).split())}", Location(file)) from None
    root = builder.root or Node(1, 1)
    if root.data is None:
        root.data = {}
    if not isinstance(root.data, dict):
        raise ConfigurationError("must be a map of keys and values", Location(file, root.line, root.column))
    return Document(file, root.data, root)


def nearest(documents: Sequence[Document], path: PathInData) -> Location:
    """The place of what is at `path` in the document that has most of it, the first of several; there must be one."""
    return max(documents, key=lambda document: document.depth(path)).where(path)


class _Builder:
    """Turns parser events into nodes, with a stack of its own."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.root: Node | None = None
        self.stack: list[Node] = []
        self.anchors: dict[str, Node] = {}
        self.nodes = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            node = self.stack.pop()
            if node.anchor:
                self.anchors[node.anchor] = node
            self._add(node)
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            raise self._error("a second YAML document begins here; one file holds one", event)

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag is not None:
            raise self._error(f"the tag {event.tag} is not allowed", event)
        if self._wants_key():
            raise self._error("a key must be a text, not a list or a map", event)
        if len(self.stack) >= MAX_DEPTH:
            raise self._error(f"is nested deeper than {MAX_DEPTH} levels", event)
        line, column = _place(event)
        self.stack.append(Node(line, column, {} if mapping else [], anchor=event.anchor))

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        if event.tag not in (None, "!", _STR_TAG):
            raise self._error(f"the tag {event.tag} is not allowed", event)
        line, column = _place(event)
        if self._wants_key():
            parent = self.stack[-1]
            if event.value == "<<":
                raise self._error("merge keys (<<) are not supported: what several places share, a layer says", event)
            if event.value in parent.keys:
                first = parent.keys[event.value][0]
                raise self._error(f"the key '{event.value}' is here twice (first in line {first})", event)
            parent.pending = event.value
            parent.keys[event.value] = (line, column)
            return
        plain = event.style is None or event.style == ""
        data = _resolve(event.value) if plain and event.tag is None else event.value
        node = Node(line, column, data)
        if event.anchor:
            self.anchors[event.anchor] = node
        self._add(node)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if self._wants_key():
            raise self._error("an alias cannot be a key (merge keys are not supported either)", event)
        if event.anchor not in self.anchors:
            inside = any(node.anchor == event.anchor for node in self.stack)
            raise self._error(f"the alias *{event.anchor} {'contains itself' if inside else 'is not defined'}", event)
        self._add(self.anchors[event.anchor], event)

    def _add(self, node: Node, event: yaml.Event | None = None) -> None:
        """Put a finished node into its parent."""
        if not self.stack:
            self.root = node
            return
        parent = self.stack[-1]
        parent.size += node.size
        self.nodes = max(self.nodes + 1, parent.size)
        if self.nodes > MAX_NODES:
            line, column = _place(event) if event else (node.line, node.column)
            raise ConfigurationError(f"has more than {MAX_NODES} values", Location(self.file, line, column))
        if isinstance(parent.data, list):
            parent.children[len(parent.data)] = node
            parent.data.append(node.data)
        else:
            key = parent.pending
            assert key is not None
            parent.pending = None
            parent.children[key] = node
            parent.data[key] = node.data

    def _wants_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].data, dict) and self.stack[-1].pending is None

    def _error(self, text: str, event: yaml.Event) -> ConfigurationError:
        return ConfigurationError(text, Location(self.file, *_place(event)))


def _place(event: yaml.Event) -> tuple[int, int]:
    """Line and column of an event, from 1."""
    mark: Any = event.start_mark
    return mark.line + 1, mark.column + 1


def _resolve(text: str) -> Any:
    """A plain scalar's value by the YAML 1.2 core schema; what is not null, bool or number is a text."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.match(text):
        return int(text) if len(text) < 20 and abs(int(text)) < 2**63 else text
    if _FLOAT.match(text):
        return float(text)
    return text
