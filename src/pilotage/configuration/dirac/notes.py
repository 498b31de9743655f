"""What an import or export could not bring over, or brought over otherwise than it stood: nothing is dropped unsaid."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pilotage.configuration.dirac.cfg import Option, Section
from pilotage.configuration.parts import IDENTIFIER, NAME

_COMMENT = re.compile(r"(?:^|\s)#.*$", re.DOTALL)
_NAME, _IDENTIFIER = re.compile(NAME), re.compile(IDENTIFIER)


@dataclass(frozen=True, slots=True)
class Note:
    """One remark: the path in the configuration it is about, where that stands, and a sentence."""

    path: str
    text: str
    file: str = ""
    line: int = 0

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(slots=True)
class Notes:
    """Notes as they are found, each once."""

    found: dict[Note, None] = field(default_factory=dict)

    def add(self, path: str, entry: Option | Section | None, text: str) -> None:
        """A note about an entry of a `.cfg` file."""
        self.found[Note(path, text, entry.file if entry else "", entry.line if entry else 0)] = None

    def rest(self, path: str, section: Section, known: Iterable[str], text: str = "has no counterpart") -> None:
        """A note for each entry of a section that is not among `known`; one for a whole section below."""
        for name, entry in section.entries.items():
            if name not in known:
                self.add(f"{path}/{name}", entry, text + (size(entry) if isinstance(entry, Section) else ""))

    def value(self, path: str, option: Option) -> str:
        """An option's value; what people write as a comment behind it is cut off, and said."""
        cut = _COMMENT.sub("", option.value)
        if cut != option.value:
            dropped = option.value[len(cut) :].strip()
            text = f"what follows '#' is taken as a comment ('{dropped[:40]}'); DIRAC takes it as a part of the value"
            self.add(path, option, text)
        return cut.strip()

    def values(self, path: str, option: Option) -> list[str]:
        """The same as a list, each item once."""
        return list(dict.fromkeys(part for part in map(str.strip, self.value(path, option).split(",")) if part))

    def name(self, path: str, entry: Option | Section, name: str, taken: Iterable[str] = (), why: str = "") -> str:
        """A name as names are here, and one that is not `taken`; another than it was is said (`why` it is taken)."""
        made = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("._-")[:100] or "unnamed"
        number, free = 1, made
        while free in taken:
            number += 1
            free = f"{made[:94]}-{number}"
        if free != name:
            self.add(path, entry, f"'{name}' is called '{free}' here" + (f": {why}" if free != made and why else ""))
        return free


def size(section: Section) -> str:
    """How much a section holds, for the end of a sentence."""
    count = section.size()
    return f" ({count} option{'' if count == 1 else 's'})"


def is_name(text: Any) -> bool:
    """Whether a text can be a name as it is (of a tag, a platform)."""
    return isinstance(text, str) and _NAME.match(text) is not None


def is_identifier(text: str) -> bool:
    """Whether a text can be the name of a command."""
    return _IDENTIFIER.match(text) is not None
