"""`Resources/Sites` and `Resources/Computing` of DIRAC: sites with resources (its CEs) and queues.

A CE has the options of `Computing/CEDefaults`, `Computing/<CEType>`, the site's `CEs` and its own section, the later
over the earlier; a queue those of its CE and its own. Tags and required tags add up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pilotage.configuration.dirac import table
from pilotage.configuration.dirac.cfg import Option, Section
from pilotage.configuration.dirac.notes import Notes, is_name

MAX_CPU_MINUTES = 86400 * 12.5
"""Where DIRAC caps maxCPUTime, "for some sites have crazy values" (QueueUtilities.py): more is no limit."""
HS06_SI00 = 250
"""SI00 of a core of one HS06."""

_TAGS = ("Tag", "RequiredTag")
_TIMES = ("maxCPUTime", "SI00", "CPUTime")
_ROWS = tuple(row for row in table.RESOURCE if row.dirac not in ("RequiredTag", "CPUTime"))
_KNOWN = {row.dirac for row in table.RESOURCE} | {*table.FIELDS, *_TAGS, *_TIMES}
_KNOWN |= {"CEType", "Queues", "VO", "Platform", "WholeNode", "BatchSystem"}
_UNNAMED = "the names of resources are unique over all sites"

Options = dict[str, tuple[str, Option]]
"""Options by name, each with its path."""


@dataclass(slots=True)
class Sites:
    """What was read: `grids` by grid (the first part of a site's name) and site.

    A resource's `flavour` holds its CE type until flavours are assigned.
    """

    notes: Notes
    vos: dict[str, str]
    """Names of the VOs by their lower-case form; those that only a site names are added."""
    grids: dict[str, dict[str, Any]] = field(default_factory=dict)
    types: dict[str, None] = field(default_factory=dict)
    """The CE types that there are, in order."""
    names: set[str] = field(default_factory=set)


def read(root: Section, vos: dict[str, str], notes: Notes) -> Sites:
    """All sites of a configuration."""
    found = Sites(notes, vos)
    computing = root.section("Resources", "Computing") or Section()
    used: set[str] = set()
    taken: set[str] = set()
    for grid, sites in (root.section("Resources", "Sites") or Section()).sections():
        for name, section in sites.sections():
            path = f"/Resources/Sites/{grid}/{name}"
            site = notes.name(path, section, name, taken)
            taken.add(site)
            resources = _site(found, path, site, section, computing, used)
            found.grids.setdefault(site.partition(".")[0], {})[site] = {"resources": resources} if resources else {}
    for name in used:
        below = computing.section(name)
        if below:
            notes.rest(f"/Resources/Computing/{name}", below, _KNOWN)
    notes.rest("/Resources/Computing", computing, {*used, "DefaultLocalCEType"}, "is not about CEs that there are")
    return found


def _site(
    found: Sites, path: str, site: str, section: Section, computing: Section, used: set[str]
) -> dict[str, dict[str, Any]]:
    ces = section.section("CEs") or Section()
    found.notes.rest(path, section, ("CEs", "VO", "CE"))
    admitted = _vos(found, path, section)
    shared = {name: (f"{path}/CEs/{name}", option) for name, option in ces.options()}
    for name in [name for name in shared if name not in _KNOWN or name == "VO"]:
        found.notes.add(*shared[name], "is not known here")
    listed = section.option("CE")
    for name in found.notes.values(f"{path}/CE", listed) if listed else ():
        if ces.section(name) is None:
            found.notes.add(f"{path}/CE", listed, f"the CE '{name}' has no section in CEs, and is left out")
    resources: dict[str, dict[str, Any]] = {}
    for name, ce in ces.sections():
        at = f"{path}/CEs/{name}"
        kind = ce.option("CEType") or ces.option("CEType")
        ce_type = found.notes.value(f"{at}/CEType", kind) if kind else ""
        if not is_name(ce_type):
            found.notes.add(at, ce, "has no CEType that could be used, and is left out")
            continue
        options: Options = {}
        for general in ("CEDefaults", ce_type):
            below = computing.section(general)
            if below:
                used.add(general)
                options |= {key: (f"/Resources/Computing/{general}/{key}", value) for key, value in below.options()}
        own = {key: (f"{at}/{key}", value) for key, value in ce.options()}
        found.notes.rest(at, ce, _KNOWN)
        for resource, data in _resources(found, at, site, name, ce, ce_type, {**options, **shared, **own}, admitted):
            resources[resource] = data
    return resources


def _resources(
    found: Sites,
    path: str,
    site: str,
    name: str,
    ce: Section,
    ce_type: str,
    options: Options,
    admitted: tuple[str, ...] | None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A CE as one resource, or as one for each set of VOs that its queues admit."""
    notes = found.notes
    groups: dict[tuple[str, ...] | None, dict[str, Any]] = {}
    admitted = _both(admitted, _vos(found, path, ce))
    for queue, section in (ce.section("Queues") or Section()).sections():
        at = f"{path}/Queues/{queue}"
        vos = _both(admitted, _vos(found, at, section))
        if vos == ():
            notes.add(at, section, "admits no VO that its site and CE admit, and is left out")
            continue
        queues = groups.setdefault(vos, {})
        queues[notes.name(at, section, queue, queues)] = _queue(notes, at, section, options, ce_type)
    if not groups:
        notes.add(path, ce, "has no queues that could be used, and is left out")
        return
    found.types.setdefault(ce_type)
    kind = table.CE_TYPES.get(ce_type.lower(), ("", ce_type.lower()))[1]
    batch = options.get("BatchSystem")
    if batch and notes.value(*batch).upper() == "SLURM" and kind in ("ssh", "local"):
        kind = "slurm"
    elif batch:
        notes.add(*batch, "the batch system behind this CE has no counterpart")
    pilot = _pilot(notes, options)
    for number, (vos, queues) in enumerate(sorted(groups.items(), key=lambda item: -len(item[1]))):
        wanted = name if number == 0 else f"{name}-{'-'.join(vos or ['all'])}"
        resource = notes.name(path, ce, wanted, found.names, _UNNAMED)
        if number:
            text = f"its queues {', '.join(queues)} admit other VOs: they are the resource '{resource}'"
            notes.add(path, ce, text)
        found.names.add(resource)
        data: dict[str, Any] = {"type": kind, "flavour": ce_type}
        if vos is not None:
            data["vos"] = list(vos)
        if pilot:
            data["pilot"] = pilot
        data["queues"] = queues
        yield resource, data


def _queue(notes: Notes, path: str, section: Section, ce: Options, ce_type: str) -> dict[str, Any]:
    own = {name: (f"{path}/{name}", option) for name, option in section.options()}
    notes.rest(path, section, _KNOWN)
    both = {**ce, **own}
    data: dict[str, Any] = {}
    directed = table.CE_TYPES.get(ce_type.lower(), ("", ""))[1] not in table.WITHOUT_DIRECTOR
    for name, key in table.FIELDS.items():
        number = _number(notes, both, name)
        if number is not None and (number > 0 or name not in table.ZERO_IS_UNKNOWN):
            data[key] = int(number)
        elif name in ("MaxTotalJobs", "MaxWaitingJobs") and directed:
            data[key] = 1
            notes.add(f"{path}/{name}", section, f"is not set: {key} is 1, as in DIRAC")
    wall, work = times(*(_number(notes, both, name) for name in _TIMES))
    if wall:
        data["wall_seconds"] = wall
    elif work:
        text = "CPU work without SI00 says nothing of time: wall_seconds is not set, the pilot asks the node"
        notes.add(*both["CPUTime"], text)
    pilot = _pilot(notes, own, ce)
    if work:
        row = next(row for row in table.RESOURCE if row.dirac == "CPUTime")
        options = pilot.get("options", {})
        options.setdefault(row.command, {})[row.option] = work
        pilot = {"options": table.in_order(options), **{key: value for key, value in pilot.items() if key != "options"}}
    if pilot:
        data["pilot"] = pilot
    return data


def times(minutes: float | None, si00: float | None, work: float | None) -> tuple[int | None, int | None]:
    """(wall-clock seconds, CPU work in HS06 seconds) of a queue; None is unknown.

    maxCPUTime is in minutes of one core there: they are wall-clock minutes of a busy core. With the core's SI00, DIRAC
    makes CPUTime of it: minutes x 60 x SI00 / 250. Where CPUTime stands alone, SI00 leads back to seconds.
    """
    limited = minutes is not None and 0 < minutes <= MAX_CPU_MINUTES
    wall = round(minutes * 60) if minutes is not None and limited else None
    if minutes is not None and minutes > 0 and si00 is not None and si00 > 0:
        return wall, int(60 * min(minutes, MAX_CPU_MINUTES) * si00 / HS06_SI00) or None
    if work is None or work <= 0:
        return wall, None
    if wall is None and minutes is None and si00 is not None and si00 > 0:
        seconds = round(work * HS06_SI00 / si00)
        wall = seconds if 0 < seconds <= MAX_CPU_MINUTES * 60 else None
    return wall, int(work) or None


def _pilot(notes: Notes, own: Options, above: Options | None = None) -> dict[str, Any]:
    """What a CE, or a queue over its CE, says of pilots."""
    pilot: dict[str, Any] = {}
    options: dict[str, dict[str, Any]] = {}
    for row in _ROWS:
        if row.dirac in own:
            path, option = own[row.dirac]
            made = table.to_option(row, notes.value(path, option), notes.values(path, option))
            if made is not None:
                options.setdefault(row.command, {})[row.option] = made
    tags = {name: _tags(notes, name, own, above) for name in _TAGS}
    if tags["RequiredTag"]:
        row = next(row for row in table.RESOURCE if row.dirac == "RequiredTag")
        options.setdefault(row.command, {})[row.option] = tags["RequiredTag"]
    if options:
        pilot["options"] = table.in_order(options)
    if tags["Tag"]:
        pilot["tags"] = tags["Tag"]
    if "Platform" in own:
        path, option = own["Platform"]
        platform = notes.value(path, option)
        if is_name(platform):
            pilot["platform"] = platform
        elif platform:
            notes.add(path, option, f"'{platform}' cannot be a platform and is left out")
    return pilot


def _tags(notes: Notes, name: str, own: Options, above: Options | None) -> list[str]:
    """The tags of a CE; of a queue those of its CE and its own, empty where it has none of its own."""
    found: list[str] = []
    for options in (above or {}, own):
        given = notes.values(*options[name]) if name in options else []
        if name == "Tag" and "WholeNode" in options:
            path, option = options["WholeNode"]
            if notes.value(path, option).lower() in ("y", "yes", "true", "1"):
                given = [*given, "WholeNode"]
        for tag in [tag for tag in given if not is_name(tag)]:
            notes.add(*options[name], f"'{tag}' cannot be a tag and is left out")
        given = [tag for tag in given if is_name(tag)]
        if options is own and set(given) <= set(found):
            return []
        found += [tag for tag in given if tag not in found]
    return found


def _number(notes: Notes, options: Options, name: str) -> float | None:
    if name not in options:
        return None
    path, option = options[name]
    text = notes.value(path, option)
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 <= number < 2**53:
        notes.add(path, option, f"'{text}' is not a number that could be used, and is left out")
        return None
    return number


def _vos(found: Sites, path: str, section: Section) -> tuple[str, ...] | None:
    """The VOs that a section admits, in the order of all VOs; None: it does not say."""
    option = section.option("VO")
    if option is None:
        return None
    named = found.notes.values(f"{path}/VO", option)
    for name in named:
        if name.lower() not in found.vos:
            made = found.notes.name(f"{path}/VO", option, name, found.vos.values())
            found.vos[name.lower()] = made
            found.notes.add(f"{path}/VO", option, f"the VO '{made}' is not in the Registry; it is added")
    given = {name.lower() for name in named}
    return tuple(vo for key, vo in found.vos.items() if key in given) or None


def _both(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if one is None or other is None:
        return other if one is None else one
    return tuple(vo for vo in one if vo in other)
