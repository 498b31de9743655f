"""The Configuration System: what resources, VOs and pilots there are, and which pilot each resource gets."""

from pilotage.configuration.document import ConfigurationError, Location
from pilotage.configuration.loader import load, load_files, loads
from pilotage.configuration.pilots import ComposedPilot, check, compose_pilot
from pilotage.configuration.resolve import resolve
from pilotage.configuration.schema import Configuration

__all__ = [
    "ComposedPilot",
    "Configuration",
    "ConfigurationError",
    "Location",
    "check",
    "compose_pilot",
    "load",
    "load_files",
    "loads",
    "resolve",
]
