"""DIRAC's configuration (`.cfg`, pilot.json) to ours and back."""

from pilotage.configuration.dirac.exporter import Exported, export
from pilotage.configuration.dirac.importer import Imported, convert
from pilotage.configuration.dirac.notes import Note

__all__ = ["Exported", "Imported", "Note", "convert", "export"]
