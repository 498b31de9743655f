"""The `.cfg` syntax of DIRAC's configuration: sections in braces, `NAME = VALUE`, `NAME += VALUE`, comments.

Read as DIRAC's own reader does (the package diraccfg), line by line:

* a value is all that follows the first `=`, without the spaces around it: there are no quotes and no escapes, and a `#`
  after a value is a part of it;
* `NAME += VALUE` appends `, VALUE` to an option that is there already; a list is a value with commas;
* a comment is a line that begins with `#` (or, here, with `//`); it belongs to what follows it;
* an option that is set twice keeps its last value (noted in `remarks`); a section may not be there twice;
* a `/` in a name leads to a section below.

Stricter in one thing: a line that is neither an option nor the name of a section is an error here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pilotage.configuration.document import MAX_DEPTH, ConfigurationError, Location, text_of

_SPECIAL = re.compile(r"[{}=]")


@dataclass(slots=True)
class Option:
    """A value as it stands in the file, and where; `comment` holds the comment lines above it, without `#`."""

    value: str
    line: int = field(default=0, compare=False)
    file: str = field(default="", compare=False)
    comment: list[str] = field(default_factory=list)

    @property
    def items(self) -> list[str]:
        """The value as a list: what is between commas, without empty items."""
        return items(self.value)


@dataclass(slots=True)
class Section:
    """Options and sections by name, in the order of the file."""

    entries: dict[str, Option | Section] = field(default_factory=dict)
    line: int = field(default=0, compare=False)
    file: str = field(default="", compare=False)
    comment: list[str] = field(default_factory=list)
    remarks: list[tuple[int, str]] = field(default_factory=list, compare=False)
    """At the root: (line, sentence) of what DIRAC reads without a word but nobody means."""

    def sections(self) -> Iterator[tuple[str, Section]]:
        """The sections right below, with their names."""
        for name, entry in self.entries.items():
            if isinstance(entry, Section):
                yield name, entry

    def options(self) -> Iterator[tuple[str, Option]]:
        """The options right below, with their names."""
        for name, entry in self.entries.items():
            if isinstance(entry, Option):
                yield name, entry

    def section(self, *path: str) -> Section | None:
        """The section at `path` below, or None."""
        found: Section = self
        for step in path:
            entry = found.entries.get(step)
            if not isinstance(entry, Section):
                return None
            found = entry
        return found

    def option(self, *path: str) -> Option | None:
        """The option at `path` below, or None."""
        parent = self.section(*path[:-1])
        entry = parent.entries.get(path[-1]) if parent else None
        return entry if isinstance(entry, Option) else None

    def make(self, *path: str) -> Section:
        """The section at `path` below, made where it is not there yet."""
        found = self
        for step in path:
            entry = found.entries.get(step)
            if not isinstance(entry, Section):
                entry = found.entries[step] = Section(line=found.line, file=found.file)
            found = entry
        return found

    def put(self, name: str, value: str, like: Option | Section | None = None) -> None:
        """Set an option; `like` gives the place that it is said to come from."""
        self.entries[name] = Option(value, like.line if like else 0, like.file if like else "")

    def size(self) -> int:
        """How many options there are here and below."""
        return sum(entry.size() if isinstance(entry, Section) else 1 for entry in self.entries.values())


def items(value: str) -> list[str]:
    """A value as a list, as DIRAC takes it."""
    return [item for item in map(str.strip, value.split(",")) if item]


def read(path: Path) -> Section:
    """Read a `.cfg` file; raises ConfigurationError with file and line."""
    return parse(text_of(path), str(path))


def parse(text: str, file: str = "<text>") -> Section:
    """The sections and options of a `.cfg` text; `file` names it in errors. Raises ConfigurationError."""
    reader = _Reader(file)
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped:
            reader.take(stripped, number)
    return reader.end()


class _Reader:
    """What has been read so far: the open sections, the comment and the name that wait for what they belong to."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.root = Section(line=1, file=file)
        self.open: list[tuple[str, Section]] = [("", self.root)]
        self.comment: list[str] = []
        self.name = ""
        self.name_line = 0

    def take(self, line: str, number: int) -> None:
        """One line that is not empty, without the spaces around it."""
        if line[0] == "#" or line.startswith("//"):
            self.comment.append(line[1 if line[0] == "#" else 2 :].strip())
            return
        while line:
            found = _SPECIAL.search(line)
            if found is None:
                self._wait(line, number)
                return
            before, sign, line = line[: found.start()].rstrip(), found.group(), line[found.end() :].lstrip()
            if sign == "=":
                self._option(before, line, number)
                return
            if before:
                self._wait(before, number)
            if sign == "{":
                self._begin(number)
            else:
                self._close(number)

    def end(self) -> Section:
        """The root, once all is read."""
        self._nothing_waits()
        if len(self.open) > 1:
            name, section = self.open[-1]
            raise ConfigurationError(
                f"the section '{name}' is opened here and never closed (a '}}' after a value is a part of the value)",
                Location(self.file, section.line, 1),
            )
        return self.root

    def _wait(self, name: str, number: int) -> None:
        self._nothing_waits()
        self.name, self.name_line = name, number

    def _nothing_waits(self) -> None:
        if self.name:
            raise ConfigurationError(
                f"'{_short(self.name)}' is neither an option (NAME = VALUE) nor a section (NAME, then '{{')",
                Location(self.file, self.name_line, 1),
            )

    def _begin(self, number: int) -> None:
        path = [step for step in map(str.strip, self.name.split("/")) if step]
        if not path:
            raise ConfigurationError("a section without a name begins here", Location(self.file, number, 1))
        name, self.name = self.name, ""
        if len(self.open) > MAX_DEPTH:
            raise ConfigurationError(f"is nested deeper than {MAX_DEPTH} sections", Location(self.file, number, 1))
        parent = self.open[-1][1].section(*path[:-1])
        if parent is None:
            raise ConfigurationError(
                f"the section '{name}' has no section to be in", Location(self.file, self.name_line, 1)
            )
        there = parent.entries.get(path[-1])
        if there is not None:
            kind = "a section" if isinstance(there, Section) else "an option"
            raise ConfigurationError(
                f"'{name}' is here already as {kind}, in line {there.line}", Location(self.file, self.name_line, 1)
            )
        section = Section(line=self.name_line, file=self.file, comment=self._comment())
        parent.entries[path[-1]] = section
        self.open.append((name, section))

    def _close(self, number: int) -> None:
        self._nothing_waits()
        if len(self.open) == 1:
            raise ConfigurationError("this '}' closes nothing", Location(self.file, number, 1))
        self.open.pop()

    def _option(self, name: str, value: str, number: int) -> None:
        self._nothing_waits()
        appends = name.endswith("+")
        name = name[:-1].rstrip() if appends else name
        here: Section | None = self.open[-1][1]
        assert here is not None
        if "/" in name:
            *path, name = [step for step in map(str.strip, name.split("/")) if step] or [""]
            here = here.section(*path)
        if not name:
            raise ConfigurationError("a value without a name", Location(self.file, number, 1))
        if here is None:
            self.root.remarks.append((number, f"'{name}' is for a section that is not there; DIRAC leaves it out"))
            return
        there = here.entries.get(name)
        if isinstance(there, Section):
            text = f"'{name}' is a section already, in line {there.line}"
            raise ConfigurationError(text, Location(self.file, number, 1))
        if appends:
            if there is None:
                raise ConfigurationError(
                    f"'{name} +=' appends to an option that is not there yet; the first line needs '{name} ='",
                    Location(self.file, number, 1),
                )
            there.value = f"{there.value}, {value}" if there.value else value
            there.comment += self._comment()
            return
        if there is not None:
            text = f"'{name}' is set again (first in line {there.line}); DIRAC takes the last"
            self.root.remarks.append((number, text))
            there.value, there.line, there.comment = value, number, self._comment()
            return
        here.entries[name] = Option(value, number, self.file, self._comment())

    def _comment(self) -> list[str]:
        comment, self.comment = self.comment, []
        return comment


def write(section: Section) -> str:
    """A `.cfg` text that `parse`, and DIRAC, read as this section.

    Raises ValueError for a name or value that the syntax cannot hold (a line break; braces or `=` in a name).
    """
    lines: list[str] = []
    _write(section, "", lines)
    return "".join(line + "\n" for line in lines)


def _write(section: Section, indent: str, lines: list[str]) -> None:
    for name, entry in section.entries.items():
        _check_name(name)
        lines += [f"{indent}# {comment}".rstrip() for comment in entry.comment]
        if isinstance(entry, Option):
            if entry.value != entry.value.strip() or "\n" in entry.value:
                raise ValueError(f"the value of '{name}' cannot be written: {_short(entry.value)!r}")
            lines.append(f"{indent}{name} = {entry.value}".rstrip())
        else:
            lines += [f"{indent}{name}", indent + "{"]
            _write(entry, indent + "  ", lines)
            lines.append(indent + "}")


def _check_name(name: str) -> None:
    bad = not name or name != name.strip() or name.endswith("+") or name.startswith("#")
    if bad or any(sign in name for sign in "{}=\n/"):
        raise ValueError(f"'{_short(name)}' cannot be a name in a .cfg file")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
