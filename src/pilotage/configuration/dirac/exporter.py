"""Our configuration as a DIRAC configuration: the `Pilot` sections, and sites and VOs as far as DIRAC has such things.

The inverse of importer.py: what an import made comes out so that importing it again gives the same. What DIRAC has no
place for is noted with its path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pilotage.configuration.dirac import table
from pilotage.configuration.dirac.cfg import Section, write
from pilotage.configuration.dirac.notes import Note
from pilotage.configuration.document import Location, PathInData

_GLOBAL = {(row.command, row.option): row for row in table.GLOBAL}
_PILOT = {(row.command, row.option): row for row in table.PILOT}
_RESOURCE = {(row.command, row.option): row for row in table.RESOURCE}
_FIELDS = {field: name for name, field in table.FIELDS.items()}
_NONE = "has no counterpart in DIRAC"


@dataclass(frozen=True, slots=True)
class Exported:
    """A `.cfg` text, and what is not in it."""

    text: str
    notes: list[Note]


def export(data: Mapping[str, Any], where: Callable[[PathInData], Location | None] = lambda path: None) -> Exported:
    """Export what files say (not the embedded defaults: DIRAC has its own).

    :param data: the files' content as one map; it is a valid configuration
    :param where: finds the place of a path, for the notes
    """
    exporter = _Exporter(where, [*data.get("flavours", {})])
    exporter.run(data)
    return Exported(write(exporter.root), exporter.notes)


class _Exporter:
    def __init__(self, where: Callable[[PathInData], Location | None], flavours: list[str]) -> None:
        self.root = Section()
        self.notes: list[Note] = []
        self.where = where
        self.flavours = flavours

    def run(self, data: Mapping[str, Any]) -> None:
        for name, value in data.items():
            if name not in ("pilot", "flavours", "vos", "sites"):
                self.note((name,), value)
        self.common(data.get("pilot", {}))
        for name, flavour in data.get("flavours", {}).items():
            self.flavour(name, flavour)
        for name, vo in data.get("vos", {}).items():
            self.vo(name, vo)
        for name, site in data.get("sites", {}).items():
            self.site(name, site)

    def note(self, path: PathInData, value: Any = None, text: str = _NONE) -> None:
        """Something stays behind; a map is noted by what is in it."""
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                self.note((*path, key), inner, text)
            return
        place = self.where(path)
        file, line = (place.file, place.line) if place else ("", 0)
        self.notes.append(Note(".".join(str(step) for step in path), text, file, line))

    def common(self, pilot: Mapping[str, Any]) -> None:
        """The part for all pilots."""
        for key, value in pilot.items():
            if key != "options":
                self.note(("pilot", key), value)
        for command, options in pilot.get("options", {}).items():
            for option, value in options.items():
                row = _GLOBAL.get((command, option))
                path = ("pilot", "options", command, option)
                if row is None:
                    self.option(self.root.make("Operations", "Defaults", "Pilot"), _PILOT, path, value)
                    continue
                *above, name = row.dirac.split("/")
                made = self.value(row, path, value)
                if made is not None:
                    self.root.make(*above).put(name, made)

    def flavour(self, name: str, flavour: Mapping[str, Any]) -> None:
        """The commands of a flavour for engine dirac are a list in `Commands`."""
        path: PathInData = ("flavours", name)
        engines = flavour.get("engines", {})
        for key, value in flavour.items():
            if key not in ("engines", "commands") or (key == "commands" and "commands" in engines.get("dirac", {})):
                self.note((*path, key), value)
        for engine, part in engines.items():
            for key, value in part.items():
                if (engine, key) != ("dirac", "commands"):
                    self.note((*path, "engines", engine, key), value)
        at: PathInData = (*path, "engines", "dirac", "commands")
        commands = engines.get("dirac", {}).get("commands")
        if commands is None and "commands" in flavour:
            at, commands = (*path, "commands"), flavour["commands"]
        if commands is not None:
            self.commands(self.root.make("Operations", "Defaults", "Pilot"), self.ce_type(name), at, commands)

    def commands(self, pilot: Section, ce_type: str, path: PathInData, commands: Any) -> None:
        if not isinstance(commands, list) or not all(isinstance(command, str) for command in commands):
            self.note(path, None, "an edit of a list has no counterpart in DIRAC: write the list that is meant")
        elif commands:
            pilot.make("Commands").put(ce_type, ", ".join(commands))
        else:
            self.note(path, None, "an empty list has no counterpart in DIRAC")

    def vo(self, name: str, vo: Mapping[str, Any]) -> None:
        path: PathInData = ("vos", name)
        self.root.make("Registry", "VO", name)
        for key, value in vo.items():
            if key == "engine" and value != "dirac":
                self.note((*path, key), None, "the jobs of this VO are not in DIRAC")
            elif key == "extension" and value:
                self.root.make("Operations", name, "Pilot").put("CommandExtensions", value)
            elif key not in ("engine", "extension", "pilot", "flavours"):
                self.note((*path, key), value)
        plain = vo.get("pilot", {})
        for key, value in plain.items():
            at = (*path, "pilot", key)
            if key == "commands":
                self.commands(self.root.make("Operations", name, "Pilot"), "Defaults", at, value)
            elif key == "options":
                for command, options in value.items():
                    for option, inner in options.items():
                        pilot = self.root.make("Operations", name, "Pilot")
                        self.option(pilot, _PILOT, (*at, command, option), inner)
            else:
                self.note(at, value)
        for flavour, part in vo.get("flavours", {}).items():
            for key, value in part.items():
                at = (*path, "flavours", flavour, key)
                if key == "commands":
                    pilot = self.root.make("Operations", name, "Pilot")
                    self.commands(pilot, self.ce_type(flavour), at, value)
                else:
                    self.note(at, value)

    def site(self, name: str, site: Mapping[str, Any]) -> None:
        path: PathInData = ("sites", name)
        section = self.root.make("Resources", "Sites", name.partition(".")[0], name)
        self.note_but(path, site, ("resources",))
        for resource, content in site.get("resources", {}).items():
            self.resource((*path, "resources", resource), section.make("CEs", resource), content)

    def resource(self, path: PathInData, ce: Section, resource: Mapping[str, Any]) -> None:
        ce_type = self.ce_type(resource["flavour"])
        ce.put("CEType", ce_type)
        expected = table.CE_TYPES.get(ce_type.lower(), ("", ce_type.lower()))[1]
        if resource["type"] == "slurm" and expected in ("ssh", "local"):
            ce.put("BatchSystem", "SLURM")
        elif resource["type"] != expected:
            self.note((*path, "type"), None, f"DIRAC tells types by the flavour: this becomes {ce_type}")
        if resource.get("vos") is not None:
            ce.put("VO", ", ".join(resource["vos"]))
        self.place((*path, "pilot"), ce, resource.get("pilot", {}))
        self.note_but(path, resource, ("type", "flavour", "vos", "pilot", "queues"))
        for name, queue in resource["queues"].items():
            at = (*path, "queues", name)
            section = ce.make("Queues", name)
            for key, value in queue.items():
                if key in _FIELDS and value is not None:
                    section.put(_FIELDS[key], str(value))
                elif key == "wall_seconds" and value is not None:
                    section.put("maxCPUTime", repr(value / 60).removesuffix(".0"))
                elif key != "pilot" and value is not None:
                    self.note((*at, key), value)
            self.place((*at, "pilot"), section, queue.get("pilot", {}))

    def place(self, path: PathInData, section: Section, pilot: Mapping[str, Any]) -> None:
        """What a CE or queue says of pilots."""
        for key, value in pilot.items():
            at = (*path, key)
            if key == "platform" and value is not None:
                section.put("Platform", value)
            elif key == "tags" and isinstance(value, list) and all(isinstance(tag, str) for tag in value):
                section.put("Tag", ", ".join(value))
            elif key == "options":
                for command, options in value.items():
                    for option, inner in options.items():
                        self.option(section, _RESOURCE, (*at, command, option), inner)
            else:
                self.note(at, value)

    def option(self, section: Section, rows: Mapping[tuple[str, str], table.Row], path: PathInData, value: Any) -> None:
        """One option of a command, by the table; two of ours may make one list of DIRAC's."""
        row = rows.get((str(path[-2]), str(path[-1])))
        if row is None:
            self.note(path)
            return
        made = self.value(row, path, value)
        if made is not None:
            there = section.option(row.dirac)
            section.put(row.dirac, f"{there.value}, {made}" if there else made)

    def value(self, row: table.Row, path: PathInData, value: Any) -> str | None:
        try:
            made = table.to_value(row, value)
        except ValueError as error:
            self.note(path, None, f"{_NONE}: {error}")
            return None
        if not made or made != made.strip() or "\n" in made or "#" in made:
            self.note(path, None, "this value cannot be written in a .cfg file")
            return None
        return made

    def note_but(self, path: PathInData, data: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key, value in data.items():
            if key not in known and value is not None:
                self.note((*path, key), value)

    def ce_type(self, flavour: str) -> str:
        """The CE type that an import makes this flavour of."""
        own = (name for name in table.EXPORTED.get(flavour, ()) if name == flavour or name not in self.flavours)
        return next(own, flavour)
