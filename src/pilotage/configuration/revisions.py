"""What a revision may hold, and what becomes of files that somebody hands in: decisions over {name: text}."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pilotage.configuration import differences
from pilotage.configuration.directory import check_name
from pilotage.configuration.document import ConfigurationError, nearest
from pilotage.configuration.explain import explain
from pilotage.configuration.loader import load_files
from pilotage.configuration.ownership import owner_of
from pilotage.configuration.resolve import target
from pilotage.configuration.schema import Configuration

MAX_FILES = 2_000
MAX_BYTES = 20 << 20
"""Bounds of what is handed in, as UTF-8."""

STORES = ("database", "objects")
"""Keys of `service` that say where the revisions themselves are: no revision can."""

LONG = 20_000
"""Lines of a file above which no comparison is made: it could take minutes."""


def bounded(files: Mapping[str, str]) -> None:
    """Raises ConfigurationError: too many files, too many bytes, or a name that is not that of a file below a
    directory."""
    if len(files) > MAX_FILES:
        raise ConfigurationError(f"there are {len(files)} files; a revision has at most {MAX_FILES}")
    if sum(len(text.encode("utf-8", "replace")) for text in files.values()) > MAX_BYTES:
        raise ConfigurationError(f"the files are larger than {MAX_BYTES >> 20} MiB together")
    for name in files:
        check_name(name)


def with_own(current: Mapping[str, str], given: Mapping[str, str], vo: str) -> dict[str, str]:
    """The current files, with those below `vos/VO/` replaced by the given ones, which must change nothing else.

    Others may be among the given ones where they are as they are: so what `pilotage config export` wrote can be handed
    in as it is. Raises ConfigurationError for a file that is not the VO's and differs, and where there is none of its
    own: a VO that wants nothing any more hands in an empty file.
    """
    for name, text in given.items():
        if owner_of(name) != vo and current.get(name) != text:
            what = "is not as it is now" if name in current else "is not there"
            raise ConfigurationError(
                f"{name} {what}, and is not yours: an administrator of the VO {vo} changes files below vos/{vo}/ only"
            )
    if not any(owner_of(name) == vo for name in given):
        raise ConfigurationError(f"there is no file below vos/{vo}/, and others are not yours to change")
    return own_of(given, current, vo)


def own_of(given: Mapping[str, str], current: Mapping[str, str], vo: str) -> dict[str, str]:
    """The current files, but for those below `vos/VO/`, which are as in the given ones."""
    theirs = {name: text for name, text in current.items() if owner_of(name) != vo}
    return theirs | {name: text for name, text in given.items() if owner_of(name) == vo}


def loaded(files: Mapping[str, str], below: Configuration | None = None) -> Configuration:
    """The configuration of a revision's files. Raises ConfigurationError for what is wrong in them, and for stores."""
    configuration = load_files(files, below)
    if files:
        level = configuration.levels[-1]
        for key in STORES:
            if key in (level.data.get("service") or {}):
                where = nearest(level.documents, ("service", key))
                text = f"service.{key} cannot be in a revision: say it at the start, with `pilotage up --service FILE`"
                raise ConfigurationError(text, where)
    return configuration


def changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[tuple[str, str, str | None]]:
    """(name, "added" | "removed" | "changed", unified diff) of each file that is not the same; None for the diff of a
    file that is too long."""
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        what = "added" if before is None else "removed" if after is None else "changed"
        left, right = (before or "").splitlines(), (after or "").splitlines()
        if max(len(left), len(right)) > LONG:
            yield name, what, None
        else:
            yield name, what, "\n".join(difflib.unified_diff(left, right, f"a/{name}", f"b/{name}", lineterm=""))


def differing(old: Configuration, new: Configuration) -> list[dict[str, Any]]:
    """Which pilots differ, as plain data: [{resource, queue, vo, kind, changes: [{path, old, new}]}]; see
    differences.py."""
    return [found.plain() for found in differences.pilots(old, new)]


def explained(
    configuration: Configuration,
    vo: str,
    resource: str | None = None,
    queue: str | None = None,
    flavour: str | None = None,
) -> list[dict[str, Any]]:
    """Who set what of a pilot, as plain data: [{path, value, layer, where: "file:line:column" or None}]; see
    explain.py. Raises ConfigurationError for a name that there is not."""
    return [row.plain() for row in explain(configuration, target(configuration, vo, resource, queue, flavour))]
