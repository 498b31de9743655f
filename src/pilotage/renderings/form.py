"""What renderings are made from and what they give."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_SAFE = re.compile(r"(https?://|/)[A-Za-z0-9._~/:@%+,=?&\[\]-]+")
_SHA256 = re.compile("[0-9a-f]{64}")


class RenderingError(Exception):
    """Why a pilot cannot be rendered so: one sentence."""


@dataclass(frozen=True, slots=True)
class Relocatable:
    """A Python that runs wherever it is unpacked: a gzipped tar at a path or URL, and its SHA-256 (hex).

    In it is `bin/python3`, or one directory that has that.
    """

    place: str
    sha256: str

    @classmethod
    def parse(cls, text: str) -> Relocatable:
        """From `PLACE#sha256=HEX`. Raises RenderingError."""
        place, mark, digest = text.partition("#sha256=")
        if not mark or not _SHA256.fullmatch(digest):
            raise RenderingError(f"'{text}' lacks its checksum: write PLACE#sha256=HEX (what sha256sum prints)")
        if not _SAFE.fullmatch(place):
            raise RenderingError(f"'{place}' is neither an http or https URL nor a plain absolute path")
        return cls(place, digest)


@dataclass(frozen=True, slots=True)
class Material:
    """What a rendering is made from.

    :ivar script: the pilot script
    :ivar files: what travels beside it, by file name
    :ivar pythons: for machines without a Python, in the order in which they are tried
    """

    script: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    pythons: Sequence[Relocatable] = ()

    def only(self, form: str, *taken: str) -> None:
        """Raises RenderingError for what the rendering `form` would silently leave out."""
        for name in ("files", "pythons"):
            if getattr(self, name) and name not in taken:
                raise RenderingError(f"the rendering '{form}' takes no {_NAMES[name]}")


_NAMES = {"files": "files beside the pilot (the tarball does)", "pythons": "Python to unpack (the shell one does)"}


@dataclass(frozen=True, slots=True)
class Rendering:
    """The bytes, how a file of them is called, and what they are (media type)."""

    data: bytes
    name: str
    media_type: str
