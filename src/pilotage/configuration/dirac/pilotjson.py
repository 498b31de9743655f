"""`pilot.json`, the file from which DIRAC's pilots take their configuration, as the `.cfg` sections it was made of.

The new schema has the whole `Operations` tree at its top, the old one (which has `Setups`) only the `Pilot` sections of
setups, VOs and `Defaults`. Both have the CEs with their types, and little of queues: no limits, no times.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pilotage.configuration.dirac.cfg import Option, Section, items
from pilotage.configuration.document import ConfigurationError, Document, Location, PathInData, text_of
from pilotage.configuration.document import parse as parse_yaml

_OWN = ("timestamp", "CEs", "GenericPilotDNs", "DefaultSetup", "ConfigurationServers", "PreferredURLPatterns", "Setups")
_NO_QUEUES = "the CE has no queues in pilot.json: it gets one, 'default'"


def read(path: Path) -> Section:
    """Read a pilot.json; raises ConfigurationError with file and line."""
    return parse(text_of(path), str(path))


def parse(text: str, file: str = "<text>") -> Section:
    """The sections of a pilot.json text; what it lacks of a `.cfg` is noted in the root's `remarks`."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"is not JSON: {error.msg}", Location(file, error.lineno, error.colno)) from None
    except RecursionError:
        raise ConfigurationError("is not a pilot.json: it is nested too deeply", Location(file, 1, 1)) from None
    if not isinstance(data, dict):
        raise ConfigurationError("is not a pilot.json: it must be a JSON object", Location(file, 1, 1))
    return _Converter(file, text).convert(data)


class _Converter:
    """JSON to sections; lines are found by reading the text as YAML too, of which JSON is a part."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.document: Document | None
        try:
            self.document = parse_yaml(text, file)
        except ConfigurationError:
            self.document = None  # the few JSON texts that YAML does not read have no line numbers

    def convert(self, data: dict[str, Any]) -> Section:
        root = Section(line=1, file=self.file)
        old = data.get("Setups")
        if isinstance(old, dict):
            for name, pilot in old.items():
                path: PathInData = ("Setups", name)
                if not isinstance(pilot, dict):
                    raise self._error(path, "must be an object")
                root.make("Operations", name).entries["Pilot"] = self._section(path, pilot)
                if name != "Defaults":
                    root.make("DIRAC", "Setups", name)
        for name, value in data.items():
            if name in _OWN:
                continue
            if isinstance(value, dict):
                root.make("Operations").entries[name] = self._section((name,), value)
            else:
                root.make("Operations").entries[name] = self._option((name,), value)
        if "DefaultSetup" in data:
            root.make("DIRAC").entries["Setup"] = self._option(("DefaultSetup",), data["DefaultSetup"])
        if "ConfigurationServers" in data:
            servers = self._option(("ConfigurationServers",), data["ConfigurationServers"])
            root.make("DIRAC", "Configuration").entries["Servers"] = servers
        for name in ("GenericPilotDNs", "PreferredURLPatterns"):
            if data.get(name):
                root.entries[name] = self._option((name,), data[name])
        self._ces(root, data.get("CEs", {}))
        return root

    def _ces(self, root: Section, ces: Any) -> None:
        if not isinstance(ces, dict):
            raise self._error(("CEs",), "must be an object")
        for name, ce in ces.items():
            path: PathInData = ("CEs", name)
            if not isinstance(ce, dict) or not isinstance(ce.get("Site"), str):
                raise self._error(path, "must be an object with a Site")
            site = ce["Site"]
            section = root.make("Resources", "Sites", site.partition(".")[0] or "SITES", site, "CEs", name)
            section.line = self._line(path)
            queues = Section(line=section.line, file=self.file)
            for key, value in ce.items():
                if isinstance(value, dict):
                    queues.entries[key] = self._section((*path, key), value)
                elif key == "Queue":
                    queues.entries[str(value)] = Section(line=self._line((*path, key)), file=self.file)
                elif key != "Site":
                    section.entries["CEType" if key == "GridCEType" else key] = self._option((*path, key), value)
            if not queues.entries:
                queues.entries["default"] = Section(line=section.line, file=self.file)
                root.remarks.append((section.line, f"{name}: {_NO_QUEUES}"))
            section.entries["Queues"] = queues

    def _section(self, path: PathInData, data: dict[str, Any]) -> Section:
        section = Section(line=self._line(path), file=self.file)
        for name, value in data.items():
            at = (*path, name)
            section.entries[name] = self._section(at, value) if isinstance(value, dict) else self._option(at, value)
        return section

    def _option(self, path: PathInData, value: Any) -> Option:
        if isinstance(value, list):
            if any(isinstance(item, list | dict) for item in value):
                raise self._error(path, "must be a list of texts")
            value = ", ".join(str(item).strip() for item in value)
        return Option("" if value is None else " ".join(str(value).split("\n")).strip(), self._line(path), self.file)

    def _line(self, path: PathInData) -> int:
        return self.document.where(path).line if self.document else 1

    def _error(self, path: PathInData, text: str) -> ConfigurationError:
        name = "/".join(str(step) for step in path)
        return ConfigurationError(f"is not a pilot.json: {name} {text}", Location(self.file, self._line(path), 1))


def together(cfg: Section, pilot: Section) -> Section:
    """A `.cfg` and a pilot.json as one: where both say something and differ, the `.cfg` is taken, which is remarked."""
    root = Section(dict(cfg.entries), cfg.line, cfg.file, cfg.comment, list(cfg.remarks))
    _add(root, pilot, "", root.remarks)
    return root


def _add(to: Section, other: Section, path: str, remarks: list[tuple[int, str]]) -> None:
    for name, entry in other.entries.items():
        there, at = to.entries.get(name), f"{path}/{name}"
        if there is None:
            if not at.endswith("/Queues/default"):  # only there because pilot.json says so little of queues
                to.entries[name] = entry
        elif isinstance(there, Section) and isinstance(entry, Section):
            copy = Section(dict(there.entries), there.line, there.file, there.comment)
            to.entries[name] = copy
            _add(copy, entry, at, remarks)
        elif isinstance(there, Section) or isinstance(entry, Section) or there.items != items(entry.value):
            remarks.append((there.line, f"{at}: the pilot.json (line {entry.line}) differs; this is taken"))
