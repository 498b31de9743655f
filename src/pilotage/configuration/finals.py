"""Finds what a configuration says against a value that it made final, before any pilot is asked for.

`resolve` refuses it for one pilot; here all parts that can meet in a pilot are compared, pair by pair: every part has
a rank in the order of layers and a scope (the flavour, VO, place it is for), and two meet where their scopes agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pilotage.configuration.document import ConfigurationError, PathInData
from pilotage.configuration.layers import EMPTY, FinalError
from pilotage.configuration.schema import Configuration


class _Part(NamedTuple):
    rank: int
    scope: dict[str, str]
    path: PathInData
    data: Mapping[str, Any]


def problems(configuration: Configuration) -> list[ConfigurationError]:
    """Each setting of a value that a weaker layer made final, naming both places; none where nothing is final."""
    parts = [part for part in _parts(configuration) if part.data]
    at_site: dict[str | None, list[_Part]] = {}
    for part in parts:
        at_site.setdefault(part.scope.get("site"), []).append(part)
    found = []
    for final in parts:
        if not final.data.get("final"):
            continue
        stack = EMPTY.over((final.path, {"final": final.data["final"]}))
        site = final.scope.get("site")
        for part in parts if site is None else at_site[site]:  # what is stronger than a site's is of the site
            if part.rank > final.rank and _meet(configuration, final.scope, part.scope):
                try:
                    stack.over((part.path, part.data))
                except FinalError as error:
                    found.append(told(configuration, error))
    return found


def options(configuration: Configuration) -> Iterator[tuple[PathInData, str, str | None]]:
    """(place, command, option or None for all of them) of each final path that names a command's options."""
    for part in _parts(configuration):
        for index, path in enumerate(part.data.get("final", ())):
            steps = [*path.split("."), None]
            if steps[0] == "options" and steps[1]:
                yield (*part.path, "final", index), steps[1], steps[2]


def told(configuration: Configuration, error: FinalError) -> ConfigurationError:
    """The error as a sentence that names both places."""
    text = f"{error} (made so in {configuration.where(error.final)}): no later layer may set it"
    return ConfigurationError(text, configuration.where(error.path))


def _meet(configuration: Configuration, one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether there can be a pilot to which both scopes apply."""
    if any(other.get(key, value) != value for key, value in one.items()):
        return False
    both = {**one, **other}
    if "resource" in both and "vo" in both:
        return both["vo"] in configuration.vos_of(configuration.resource(both["resource"]))
    return True


def _parts(configuration: Configuration) -> Iterator[_Part]:
    for number, level in enumerate(configuration.levels):
        yield _Part(3 * number, {}, (number, "pilot"), level.data.get("pilot", {}))
        for flavour, part in level.data.get("flavours", {}).items():
            path: PathInData = (number, "flavours", flavour)
            plain = {key: value for key, value in part.items() if key != "engines"}
            yield _Part(3 * number + 1, {"flavour": flavour}, path, plain)
            for engine, inner in part.get("engines", {}).items():
                scope = {"flavour": flavour, "engine": engine}
                yield _Part(3 * number + 2, scope, (*path, "engines", engine), inner)
    rank = 3 * len(configuration.levels)
    for vo, settings in configuration.vos.items():
        scope = {"vo": vo, "engine": settings.engine}
        yield _Part(rank, scope, ("vos", vo, "pilot"), configuration.said("vos", vo, "pilot"))
        for flavour in settings.flavours:
            path = ("vos", vo, "flavours", flavour)
            yield _Part(rank + 1, {**scope, "flavour": flavour}, path, configuration.said(*path))
    for path, _ in configuration.places():
        yield from _of_place(configuration, rank + len(path), path)


def _of_place(configuration: Configuration, rank: int, path: PathInData) -> Iterator[_Part]:
    """Of a site, resource or queue: deeper places have longer paths, and so higher ranks."""
    scope = {
        kind[:-1]: str(name) for kind, name in zip(path[0:-1:2], path[1:-1:2], strict=True) if isinstance(kind, str)
    }
    if "resource" in scope:
        scope["flavour"] = configuration.resource(scope["resource"]).flavour
    part = configuration.said(*path)
    yield _Part(rank, scope, path, {key: value for key, value in part.items() if key != "vos"})
    for vo, inner in part.get("vos", {}).items():
        above = {**scope, "vo": vo, "engine": configuration.vos[vo].engine}
        yield _Part(rank + 1, above, (*path, "vos", vo), inner)
