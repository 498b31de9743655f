"""The toolboxes of a community, in their order, built: what its pilots are composed of.

Its own, as configured; the operator's for all; then ``dirac`` where its jobs come from a DIRAC, ``base`` and ``core``.
With an `extension`, installed packages of the path convention stand behind those that name toolboxes. Each is built
once for its digest and kept; its source is looked at again at most every LOOK seconds, so that a changed directory is
noticed without a restart. A toolbox that cannot be built stops composing: there is no falling back to another command.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any

from pilotage.configuration import convention, kept, sources, toolboxes
from pilotage.configuration.commands import dotted
from pilotage.configuration.crossing import crossing
from pilotage.configuration.document import ConfigurationError, PathInData
from pilotage.configuration.parts import Toolbox
from pilotage.configuration.schema import VO, Configuration
from pilotage.configuration.sources import Tree
from pilotage.configuration.toolboxes import Built, ToolboxError

__all__ = ["Built", "Source", "sources_of", "toolboxes_of"]

LOOK = 2.0
MOST = 200
"""Shelves kept in memory."""


@dataclass(frozen=True, slots=True)
class Source:
    """A toolbox to build, and where the configuration names it (nowhere: an installed package of the convention)."""

    toolbox: Toolbox
    at: PathInData | None


@dataclass(slots=True)
class _Shelf:
    """What was built of some sources, or why not; when these were last looked at, and how they looked."""

    looked: float
    states: list[Any]
    built: list[Built]
    failure: tuple[Source, ToolboxError] | None


_shelves: OrderedDict[Any, _Shelf] = OrderedDict()
_lock = RLock()


def toolboxes_of(configuration: Configuration, vo: str, plans: bool = False) -> list[Built]:
    """The built toolboxes of a VO, first the one that is asked first; base and core end the list.

    :param plans: with the commands' `plan` methods, for dry runs
    :raises ConfigurationError: one cannot be built; says where it is configured, and the module and line to blame
    """
    community = configuration.vos[vo]
    if not (community.toolboxes or configuration.toolboxes or community.extension):
        return _own(community, plans)
    key = (tuple(community.toolboxes), tuple(configuration.toolboxes), _settings(community), plans)
    with _lock:
        shelf = _shelves.get(key)
        if shelf is None or time.monotonic() - shelf.looked > LOOK:
            found = sources_of(configuration, vo)
            states = [(source.toolbox.name, sources.state(source.toolbox)) for source in found]
            if shelf is None or shelf.states != states:
                shelf = _shelves[key] = _made(found, states, community, plans)
            shelf.looked = time.monotonic()
        _shelves.move_to_end(key)
        while len(_shelves) > MOST:
            _shelves.popitem(last=False)
    if shelf.failure:
        source, error = shelf.failure
        where = configuration.where(source.at) if source.at else None
        raise ConfigurationError(f"the toolbox '{source.toolbox.name}' cannot be used: {error}", where)
    return shelf.built


def sources_of(configuration: Configuration, vo: str) -> list[Source]:
    """The toolboxes of a VO that do not come with Pilotage, in their order."""
    community = configuration.vos[vo]
    found = [Source(toolbox, ("vos", vo, "toolboxes", index)) for index, toolbox in enumerate(community.toolboxes)]
    for_all = [Source(toolbox, ("toolboxes", index)) for index, toolbox in enumerate(configuration.toolboxes)]
    for package in convention.packages(community.extension):
        found += for_all if package == "DIRAC" else []
        if sources.follows_convention(package):
            found.append(Source(Toolbox(name=package, package=package), None))
    return found if community.extension else found + for_all


def _own(community: VO, plans: bool) -> list[Built]:
    own = [toolboxes.dirac(plans)] if community.engine == "dirac" else []
    return [*own, toolboxes.base(plans), toolboxes.core()]


def _settings(community: VO) -> tuple[str, str | None, str]:
    return community.engine, community.extension, community.minimum_python


def _made(found: Sequence[Source], states: list[Any], community: VO, plans: bool) -> _Shelf:
    """Read and build them all, the last first: a toolbox may import from those after it."""
    read: list[tuple[Source, Tree]] = []
    built = _own(community, plans)
    source = None
    try:
        for source in found:
            tree = sources.read(source.toolbox)
            if source.at or source.toolbox.package not in {top for _, other in read for top in _tops(other)}:
                read.append((source, tree))
        wanted = crossing([tree for _, tree in read], community.extension, community.minimum_python)
        for index in range(len(read) - 1, -1, -1):
            source, tree = read[index]
            before = {dotted(path): one.toolbox.name for one, other in reversed(read[:index]) for path in other.files}
            new = _built(source.toolbox.name, tree, built, before, sorted(wanted[index]), community, plans)
            _check_modules(new, tree, built, {one.toolbox.name: other for one, other in read})
            built = [new, *built]
    except ToolboxError as error:
        assert source is not None
        return _Shelf(0.0, states, [], (source, error))
    return _Shelf(0.0, states, built, None)


def _tops(tree: Tree) -> set[str]:
    return {path.partition("/")[0] for path in tree.files}


def _built(
    name: str, tree: Tree, others: Sequence[Built], before: dict[str, str], more: list[str], community: VO, plans: bool
) -> Built:
    """A toolbox built, or as it was kept from when it was built of the same things."""
    _, extension, minimum = _settings(community)
    digests = [other["digest"] for other in others]
    key = kept.digest_of(kept.builder(), name, tree.digest, extension or "", minimum, str(plans), repr(more), *digests)

    def make() -> Built:
        return toolboxes.build(
            tree, name, others=others, before=before, more=more, extension=extension, minimum=minimum, plans=plans
        )

    return dict(kept.keep(key, lambda found: found == toolboxes.sealed(found), make))


def _check_modules(new: Built, tree: Tree, others: Sequence[Built], trees: dict[str, Tree]) -> None:
    """A module of one name in two toolboxes: which one would be imported?"""
    for other in others:
        for path in sorted(new["modules"].keys() & other["modules"].keys()):
            if new["modules"][path] != other["modules"][path]:
                there = trees[other["name"]].places[path] if other["name"] in trees else path
                text = f"this module is also in the toolbox '{other['name']}' ({there}): rename the package of one"
                raise ToolboxError(tree.places[path], 1, text)
