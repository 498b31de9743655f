"""A DIRAC configuration as files of ours, for `load_files`, and notes of what could not be brought over as it was.

What becomes of what is in docs/howto/import-from-dirac.md; the names are in table.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pilotage.configuration.dirac import operations, sites, table
from pilotage.configuration.dirac.cfg import Option, Section
from pilotage.configuration.dirac.notes import Note, Notes, size
from pilotage.configuration.dirac.operations import DEFAULTS, Level, Lists, Pilot

OPERATOR = "dirac.yaml"
"""The file of what is for all; besides it there are sites/GRID.yaml and, for a VO's own parts, vos/NAME/pilot.yaml."""
HEADER = "# From a DIRAC configuration. What had no counterpart is in the list that the import printed.\n"
WIDTH = 110
"""Columns within which short lists and maps stand in one line."""


@dataclass(frozen=True, slots=True)
class Imported:
    """Our configuration as YAML texts by file name, and the notes in the order of their places."""

    files: dict[str, str]
    notes: list[Note]


def convert(root: Section, *, setup: str | None = None, as_dirac_does: bool = False) -> Imported:
    """Convert a whole configuration of DIRAC, or the part of one that there is.

    :param setup: whose `Operations/<setup>` counts; None: what `DIRAC/Setup` or `DIRAC/DefaultSetup` says
    :param as_dirac_does: a level that has lists of commands wipes all lists of the levels before it (operations.py)
    """
    notes = Notes()
    for line, text in root.remarks:
        notes.found[Note("/", text, root.file, line)] = None
    vos = _registered(root, notes)
    chosen = setup or _setup(root, vos, notes)
    installation, of_vos = _levels(root, vos, chosen, notes)
    read = sites.read(root, vos, notes)
    everybody = operations.read(installation, notes, as_dirac_does)
    _globals(everybody.options, root, chosen, notes)
    own = {vo: operations.read(levels, notes, as_dirac_does) for vo, levels in of_vos.items()}
    lists = {
        vo: operations.over_installation(vo, pilot, everybody.lists, read.types, notes, as_dirac_does)
        for vo, pilot in own.items()
    }
    _elsewhere(root, notes)
    data = _assemble(everybody, own, lists, read, as_dirac_does)
    ordered = sorted(notes.found, key=lambda note: (note.file, note.line))
    return Imported({name: HEADER + as_yaml(content) for name, content in data.items()}, ordered)


def _assemble(
    everybody: Pilot, own: Mapping[str, Pilot], lists: Mapping[str, Lists], read: sites.Sites, as_dirac_does: bool
) -> dict[str, dict[str, Any]]:
    """The data of each file."""
    types = dict.fromkeys([*read.types, *everybody.lists, *(name for each in lists.values() for name in each)])
    if DEFAULTS in everybody.lists and not read.types:
        types |= dict.fromkeys(names[0] for names in table.EXPORTED.values())
    types.pop(DEFAULTS, None)
    assigned = operations.flavours(types, everybody.lists, lists)
    operator: dict[str, Any] = {}
    if everybody.options:
        operator["pilot"] = {"options": table.in_order(everybody.options)}
    flavours = _flavours(assigned, everybody.lists, as_dirac_does)
    if flavours:
        operator["flavours"] = flavours
    if read.vos:
        operator["vos"] = {vo: _vo(vo, own.get(vo), everybody) for vo in read.vos.values()}
    files = {OPERATOR: operator}
    for grid, there in read.grids.items():
        for site in there.values():
            for resource in site.get("resources", {}).values():
                resource["flavour"] = assigned[resource["flavour"]]
        files[f"sites/{grid}.yaml"] = {"sites": there}
    for vo, pilot in own.items():
        parts = _own(pilot, lists[vo], assigned)
        if parts:
            files[f"vos/{vo}/pilot.yaml"] = {"vos": {vo: parts}}
    return files


def _flavours(assigned: Mapping[str, str], lists: Lists, as_dirac_does: bool) -> dict[str, Any]:
    """The flavours that DIRAC says something of, and those that there are not without it."""
    found: dict[str, Any] = {}
    for ce_type, flavour in sorted(assigned.items(), key=lambda item: (item[1], item[0])):
        commands = lists.get(ce_type, lists.get(DEFAULTS))
        if commands is None and (as_dirac_does or flavour not in table.EXPORTED):
            commands = list(table.CODE_COMMANDS)
        if commands:
            found[flavour] = {"engines": {"dirac": {"commands": commands}}}
    return found


def _vo(name: str, own: Pilot | None, everybody: Pilot) -> dict[str, Any]:
    extension = (own.extension if own else None) or everybody.extension
    return {"engine": "dirac", "extension": extension} if extension else {"engine": "dirac"}


def _own(pilot: Pilot, lists: Lists, assigned: Mapping[str, str]) -> dict[str, Any]:
    """What a VO itself says of its pilots."""
    plain: dict[str, Any] = {}
    if DEFAULTS in lists:
        plain["commands"] = lists[DEFAULTS]
    if pilot.options:
        plain["options"] = table.in_order(pilot.options)
    named = sorted((assigned[name], commands) for name, commands in lists.items() if name != DEFAULTS)
    flavours = {flavour: {"commands": commands} for flavour, commands in named}
    return {key: value for key, value in (("pilot", plain), ("flavours", flavours)) if value}


def _registered(root: Section, notes: Notes) -> dict[str, str]:
    """The VOs that are known, by their names in lower case."""
    found: dict[str, str] = {}

    def add(path: str, entry: Option | Section, name: str) -> None:
        if name and name.lower() not in found:
            found[name.lower()] = notes.name(path, entry, name, found.values())

    registry = root.section("Registry") or Section()
    for name, section in (registry.section("VO") or Section()).sections():
        add(f"/Registry/VO/{name}", section, name)
        notes.rest(f"/Registry/VO/{name}", section, (), "has no counterpart: members come from tokens")
    for name, group in (registry.section("Groups") or Section()).sections():
        path = f"/Registry/Groups/{name}"
        of = group.option("VO") or group.option("VOMSVO")
        if of:
            add(f"{path}/VO", of, notes.value(f"{path}/VO", of))
        text = "a group has no counterpart: shares are of VOs and of owners within a VO"
        notes.rest(path, group, ("VO", "VOMSVO"), text)
    single = root.option("DIRAC", "VirtualOrganization")
    if single:
        add("/DIRAC/VirtualOrganization", single, notes.value("/DIRAC/VirtualOrganization", single))
    notes.rest("/Registry", registry, ("VO", "Groups"), "has no counterpart: users and hosts have tokens here")
    return found


def _setup(root: Section, vos: Mapping[str, str], notes: Notes) -> str | None:
    """The setup that this configuration is used with."""
    for name in ("Setup", "DefaultSetup"):
        option = root.option("DIRAC", name)
        if option and notes.value(f"/DIRAC/{name}", option):
            return notes.value(f"/DIRAC/{name}", option)
    named = [name for name, _ in (root.section("DIRAC", "Setups") or Section()).sections()]
    return named[0] if len(named) == 1 else None


def _levels(
    root: Section, vos: dict[str, str], setup: str | None, notes: Notes
) -> tuple[list[Level], dict[str, list[Level]]]:
    """The `Pilot` sections for all VOs and for each VO, the weakest first. Unknown names are taken for VOs."""
    everything = root.section("Operations") or Section()
    setups = {name for name, _ in (root.section("DIRAC", "Setups") or Section()).sections()} | {setup}
    common: dict[str, Level] = {}
    of_vos: dict[str, dict[str, Level]] = {}
    for name, section in everything.sections():
        path = f"/Operations/{name}"
        inner = {key: below for key, below in section.sections() if key != "Pilot" and "Pilot" in below.entries}
        pilot = section.section("Pilot")
        if name == DEFAULTS or (name in setups and name.lower() not in vos):
            notes.rest(path, section, ("Pilot",), "is not about pilots")
            if pilot and name in (DEFAULTS, setup):
                common[name] = (f"{path}/Pilot", pilot)
            elif pilot:
                notes.add(f"{path}/Pilot", pilot, f"is of another setup (--setup {name} imports it)")
            continue
        if name.lower() not in vos:
            if not (pilot or inner):
                notes.add(path, section, "is not about pilots" + size(section))
                continue
            vos[name.lower()] = notes.name(path, section, name, vos.values())
            notes.add(path, section, f"'{name}' is taken for a VO; where it is a setup, say --setup {name}")
        levels = of_vos.setdefault(vos[name.lower()], {})
        for key, below in inner.items():
            at = f"{path}/{key}"
            deeper = below.section("Pilot")
            notes.rest(at, below, ("Pilot",), "is not about pilots")
            if deeper and key in (DEFAULTS, setup):
                levels["0" if key == DEFAULTS else "1"] = (f"{at}/Pilot", deeper)
            elif deeper:
                notes.add(f"{at}/Pilot", deeper, f"is of another setup (--setup {key} imports it)")
        notes.rest(path, section, ("Pilot", *inner), "is not about pilots")
        if pilot:
            levels["2"] = (f"{path}/Pilot", pilot)
    notes.rest("/Operations", everything, [name for name, _ in everything.sections()], "is not about pilots")
    ordered = [common[name] for name in (DEFAULTS, setup) if name in common]
    return ordered, {vo: [levels[key] for key in sorted(levels)] for vo, levels in of_vos.items()}


def _globals(options: dict[str, dict[str, Any]], root: Section, setup: str | None, notes: Notes) -> None:
    """Options that stand once in the configuration; what a Pilot section says is nearer, and stays."""
    for row in table.GLOBAL:
        option = root.option(*row.dirac.split("/"))
        path = f"/{row.dirac}"
        if row.option == "setup":
            made: Any = setup
        elif option:
            made = table.to_option(row, notes.value(path, option), notes.values(path, option))
        else:
            made = None
        if made is not None:
            options.setdefault(row.command, {}).setdefault(row.option, made)


def _elsewhere(root: Section, notes: Notes) -> None:
    """Notes for what is outside of the parts that are read."""
    notes.rest("", root, ("DIRAC", "Registry", "Operations", "Resources", "Systems"), "is not about pilots")
    systems = root.section("Systems") or Section()
    notes.rest("/Systems", systems, (), "is not about pilots")
    _directors("/Systems", systems, notes)
    dirac = root.section("DIRAC") or Section()
    notes.rest("/DIRAC", dirac, ("Setup", "DefaultSetup", "Setups", "VirtualOrganization", "Configuration"))
    notes.rest("/DIRAC/Configuration", dirac.section("Configuration") or Section(), ("Servers",))
    notes.rest("/Resources", root.section("Resources") or Section(), ("Sites", "Computing"), "is not about pilots")


def _directors(path: str, section: Section, notes: Notes) -> None:
    """DIRAC's directors by name: what they serve is what this import looks for in the sites."""
    for name, below in section.sections():
        module = below.option("Module")
        if name.startswith("SiteDirector") or (module and module.value == "SiteDirector"):
            text = "a director has no settings of its own here: every resource has one, for all VOs that it admits"
            notes.add(f"{path}/{name}", below, text)
        else:
            _directors(f"{path}/{name}", below, notes)


_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
"""Texts that our files would take for a number (YAML 1.2), some of which PyYAML (1.1) leaves bare: 1e5, 08."""


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Short lists and maps of scalars in one line, all else in blocks; no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _inline(values: Iterable[Any], limit: int) -> bool:
    """Whether these are scalars that are short enough together."""
    length = 0
    for value in values:
        if isinstance(value, dict | list):
            return False
        length += len(str(value)) + 2
    return length < limit


def _map(dumper: Any, data: dict[str, Any]) -> Any:
    flow = _inline(data.values(), WIDTH - 20 - sum(len(key) + 2 for key in data))
    return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=flow)


def _list(dumper: Any, data: list[Any]) -> Any:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=_inline(data, WIDTH))


def _text(dumper: Any, data: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="'" if _NUMBER.fullmatch(data) else None)


_Dumper.add_representer(dict, _map)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(str, _text)


def as_yaml(data: dict[str, Any]) -> str:
    """Data as YAML for people."""
    made: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=WIDTH + 10, allow_unicode=True)
    return made
