"""`Operations/.../Pilot` of DIRAC: options and lists of commands, for all VOs and for each.

The order is that of DIRAC's pilots, later wins: `Defaults`, the setup; for a VO then `<VO>/Defaults`, `<VO>/<setup>`,
`<VO>` itself. Options are put over each other one by one. Lists of commands stand by CE type in `Commands`, with
`Defaults` for all other types, and there DIRAC has a trap: a level that has `Commands` replaces *all* lists of the
levels before it. So a VO that gives a list for one type loses the installation's lists for every other type, and pilots
run a list that is built into them. Here a level that has `Commands/Defaults` speaks for all types, as in DIRAC, and one
that has not changes only the types that it names; `as_dirac_does` is for those who want the trap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilotage.configuration.dirac import table
from pilotage.configuration.dirac.cfg import Option, Section
from pilotage.configuration.dirac.notes import Notes, is_identifier, is_name, size

DEFAULTS = "Defaults"
ROWS = {row.dirac: row for row in table.PILOT}

Lists = dict[str, list[str]]
"""Commands by CE type; `Defaults` is for all types that are not there."""
Level = tuple[str, Section]
"""The path of a `Pilot` section, and the section."""


@dataclass(slots=True)
class Pilot:
    """What the levels of the installation, or of one VO, say together."""

    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    lists: Lists = field(default_factory=dict)
    extension: str | None = None
    place: Level | None = None
    """The last level that had lists."""


def read(levels: Iterable[Level], notes: Notes, as_dirac_does: bool) -> Pilot:
    """Put levels over each other, the weakest first."""
    pilot = Pilot()
    for path, section in levels:
        for name, option in section.options():
            at = f"{path}/{name}"
            row = ROWS.get(table.SAME.get(name, name))
            if row:
                _option(pilot, row, notes.value(at, option), at, option, notes)
            elif name == "CommandExtensions":
                pilot.extension = _extension(at, option, notes) or pilot.extension
            elif name != "Commands":
                notes.add(at, option, table.WITHOUT.get(name, "is not known here"))
        commands = section.entries.get("Commands")
        if commands is not None:
            lists = _lists(f"{path}/Commands", commands, notes)
            pilot.lists = _over(pilot.lists, lists, f"{path}/Commands", commands, notes, as_dirac_does)
            pilot.place = (path, section)
        for name, below in section.sections():
            if name != "Commands":
                notes.add(f"{path}/{name}", below, "has no counterpart" + size(below))
    return pilot


def _option(pilot: Pilot, row: table.Row, value: str, path: str, option: Option, notes: Notes) -> None:
    parts = notes.values(path, Option(value))
    if row.dirac == "Version" and len(parts) > 1:
        notes.add(path, option, f"{parts[0]} is installed; that the matcher takes {', '.join(parts[1:])} too is lost")
    made = table.to_option(row, value, parts)
    if made is not None:
        pilot.options.setdefault(row.command, {})[row.option] = made


def _extension(path: str, option: Option, notes: Notes) -> str | None:
    """`LHCb` of `LHCbPilot` or `LHCbDIRAC`: where commands are looked for first."""
    parts = notes.values(path, option)
    if not parts:
        return None
    made = parts[0].removesuffix("Pilot").removesuffix("DIRAC") or parts[0]
    if not is_identifier(made):
        notes.add(path, option, f"'{made}' cannot be an extension")
        return None
    if [made] != parts:
        text = f"the extension is '{made}': commands are looked for in {made}DIRAC.WorkloadManagementSystem.Command"
        notes.add(path, option, text + ("; a VO has one extension" if len(parts) > 1 else ""))
    return made


def _lists(path: str, commands: Option | Section, notes: Notes) -> Lists:
    if isinstance(commands, Option):
        notes.add(path, commands, "a single list is taken for all CE types")
        commands = Section({DEFAULTS: commands}, commands.line, commands.file)
    found: Lists = {}
    for name, entry in commands.entries.items():
        at = f"{path}/{name}"
        if isinstance(entry, Section):
            notes.add(at, entry, "is not a list of commands" + size(entry))
            continue
        if not is_name(name):
            notes.add(at, entry, f"'{name}' cannot be a CE type and is left out")
            continue
        given = notes.values(at, entry)
        for bad in [command for command in given if not is_identifier(command)]:
            notes.add(at, entry, f"'{bad}' cannot be the name of a command and is left out")
        if len(entry.items) > len(given) and "#" not in entry.value:
            notes.add(at, entry, "a command is in the list twice; it is taken once")
        kept = [command for command in given if is_identifier(command)]
        if kept:
            found[name] = kept
        else:
            notes.add(at, entry, "an empty list is left out")
    return found


def _over(low: Lists, high: Lists, path: str, entry: Option | Section, notes: Notes, as_dirac_does: bool) -> Lists:
    """The lists of one level over those of the levels before."""
    if DEFAULTS in high or not high or not low:
        return high or low
    lost = [name for name in low if name not in high]
    if lost:
        notes.add(path, entry, _trap("pilots", lost, as_dirac_does))
    return {DEFAULTS: list(table.CODE_COMMANDS), **high} if as_dirac_does else {**low, **high}


def over_installation(
    vo: str, own: Pilot, installation: Lists, used: Iterable[str], notes: Notes, as_dirac_does: bool
) -> Lists:
    """A VO's own lists; `used` are the CE types that there are. `Defaults` in the result is for all of its pilots."""
    if not own.lists or DEFAULTS in own.lists or own.place is None:
        return own.lists
    known = dict.fromkeys([*installation, *(used if DEFAULTS in installation else ())])
    lost = [name for name in known if name not in own.lists and name != DEFAULTS]
    if lost:
        path, section = own.place
        notes.add(f"{path}/Commands", section.entries["Commands"], _trap(f"{vo}'s pilots", lost, as_dirac_does))
    return {DEFAULTS: list(table.CODE_COMMANDS), **own.lists} if as_dirac_does else own.lists


def _trap(whose: str, lost: list[str], as_dirac_does: bool) -> str:
    names = "all other types" if lost == [DEFAULTS] else ", ".join(name for name in lost if name != DEFAULTS)
    if as_dirac_does:
        return f"as in DIRAC, this makes {whose} for {names} run the list that is built into DIRAC's pilots"
    return (
        f"in DIRAC this makes {whose} for {names} run the list that is built into DIRAC's pilots; here they keep the "
        "lists that they had (import with --as-dirac-does to have it as in DIRAC)"
    )


def flavours(types: Iterable[str], installation: Lists, vos: Mapping[str, Lists]) -> dict[str, str]:
    """The flavour of each CE type. Types that share a flavour of ours but not their lists get one of their own name."""
    groups: dict[str, list[str]] = {}
    for name in types:
        groups.setdefault(table.flavour_of(name) or name, []).append(name)
    levels = [installation, *vos.values()]
    assigned: dict[str, str] = {}
    for flavour, members in groups.items():
        order = {name: n for n, name in enumerate(table.EXPORTED.get(flavour, ()))}
        members.sort(key=lambda name: (name != flavour, order.get(name, len(order)), name))
        first = _signature(members[0], levels)
        for name in members:
            assigned[name] = flavour if _signature(name, levels) == first else name
    return assigned


def _signature(ce_type: str, levels: Iterable[Lists]) -> list[list[str] | None]:
    return [lists.get(ce_type, lists.get(DEFAULTS)) for lists in levels]
