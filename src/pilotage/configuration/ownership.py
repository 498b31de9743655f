"""Who may say what: the files below `vos/NAME/` are the VO's own and may set only the VO's own parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pilotage.configuration.directory import dotted
from pilotage.configuration.document import ConfigurationError, Document, PathInData

OWN = ("pilot", "flavours", "owners")
"""What a VO says about itself. Share, engine, extension, minimum_python and toolboxes are the operator's."""


def owner_of(name: str) -> str | None:
    """The VO whose administrators may write the file of that name (relative to the directory), or None."""
    steps = name.split("/")
    return steps[1] if len(steps) > 2 and steps[0] == "vos" else None


def check(vo: str, document: Document, operator: Mapping[str, Any]) -> None:
    """Refuse what a VO's file sets and may not; raises ConfigurationError with all problems.

    :param operator: what everything but the VOs' files says: there are the sites, resources and queues
    """
    problems = [
        ConfigurationError(text, document.where(path)) for path, text in _trespasses(vo, document.data, operator)
    ]
    if problems:
        problems[0].problems = problems
        raise problems[0]


def _trespasses(vo: str, data: Mapping[str, Any], operator: Mapping[str, Any]) -> Iterator[tuple[PathInData, str]]:
    if vo not in _map(operator, "vos"):
        yield (), f"this is a file of the VO '{vo}', which the operator's files do not have"
    for key, value in data.items():
        if key == "vos":
            yield from _in_vos(vo, value, operator)
        elif key == "sites":
            yield from _in_places(vo, value, operator)
        else:
            yield (key,), f"'{key}' is the operator's; a file of the VO '{vo}' sets vos.{vo} and its part of places"


def _in_vos(vo: str, value: Any, operator: Mapping[str, Any]) -> Iterator[tuple[PathInData, str]]:
    for name, part in _items(value):
        path: PathInData = ("vos", name)
        if name != vo:
            yield path, f"a file of the VO '{vo}' sets nothing of the VO '{name}'"
            continue
        theirs = _map(operator, "vos", vo)
        for key, own in _items(part):
            if key not in OWN:
                yield (*path, key), f"'{key}' of a VO is the operator's; the VO's own are {', '.join(OWN)}"
            elif key == "pilot":
                yield from _in_part(vo, (*path, key), own, _map(theirs, key))
            elif key == "flavours":
                for flavour, below in _items(own):
                    yield from _in_part(vo, (*path, key, flavour), below, _map(theirs, key, flavour))


_BELOW = {"sites": "resources", "resources": "queues"}
_WORDS = {"sites": "site", "resources": "resource", "queues": "queue"}


def _in_places(
    vo: str, value: Any, operator: Mapping[str, Any], kind: str = "sites", at: PathInData = ()
) -> Iterator[tuple[PathInData, str]]:
    """What stands under `sites`, `resources` or `queues`: only the VO's part, of places that there are."""
    there = _map(operator, *at, kind)
    for name, place in _items(value):
        path: PathInData = (*at, kind, name)
        if name not in there:
            yield path, f"there is no {_WORDS[kind]} '{name}' in the operator's files"
            continue
        for key, part in _items(place):
            if key == _BELOW.get(kind):
                yield from _in_places(vo, part, operator, key, path)
                continue
            theirs = _map(there, name, "pilot", "vos", vo)
            if key != "pilot":
                yield (*path, key), f"'{key}' of a {_WORDS[kind]} is the operator's; say pilot: {{vos: {{{vo}: ...}}}}"
                continue
            for inner, vos in _items(part):
                if inner != "vos":
                    yield (*path, key, inner), f"what all VOs get here is the operator's; say vos: {{{vo}: ...}}"
                    continue
                for other, own in _items(vos):
                    if other != vo:
                        yield (*path, key, inner, other), f"a file of the VO '{vo}' sets nothing of the VO '{other}'"
                    else:
                        yield from _in_part(vo, (*path, key, inner, other), own, theirs)


def _in_part(vo: str, path: PathInData, part: Any, theirs: Mapping[str, Any]) -> Iterator[tuple[PathInData, str]]:
    """A part of the VO's own, of which the operator may have said something too, and made it final."""
    if isinstance(part, Mapping) and "final" in part:
        yield (*path, "final"), f"only the operator makes values final, not a file of the VO '{vo}'"
    final = theirs.get("final")
    for name in final if isinstance(final, list) else ():
        steps = tuple(str(name).split("."))
        if _has(part, steps):
            yield (*path, *steps), f"'{dotted((*path, *steps))}' is final: the operator set it"


def _has(data: Any, steps: tuple[str, ...]) -> bool:
    for step in steps:
        if not isinstance(data, Mapping) or step not in data:
            return False
        data = data[step]
    return True


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Of a map; what is none is for the schema to refuse."""
    return iter(value.items() if isinstance(value, Mapping) else ())


def _map(data: Any, *steps: str | int) -> Mapping[str, Any]:
    for step in steps:
        data = data.get(step) if isinstance(data, Mapping) else None
    return data if isinstance(data, Mapping) else {}
