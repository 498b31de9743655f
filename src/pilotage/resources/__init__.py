"""Things that run pilots: one module a type, and the registry of types."""

from __future__ import annotations

from pathlib import Path

from pilotage.configuration.document import ConfigurationError
from pilotage.configuration.schema import Configuration, unknown
from pilotage.configuration.schema import Resource as Settings
from pilotage.resources.base import Resource

__all__ = ["TYPES", "Resource", "make", "make_all"]

TYPES = ("local",)


def make(name: str, settings: Settings, data: Path) -> Resource:
    """The resource that a configuration describes; `data` is the directory of this installation.

    Raises ConfigurationError for a type that there is not.
    """
    if settings.type == "local":
        from pilotage.resources.local import LocalResource

        return LocalResource(data / "local" / name, slots=settings.slots, hide=data)
    raise ConfigurationError(unknown("type of resource", settings.type, TYPES))


def make_all(configuration: Configuration, data: Path) -> dict[str, Resource]:
    """All configured resources by name. Raises ConfigurationError with file and line."""
    made = {}
    for site, name, settings in configuration.resources():
        try:
            made[name] = make(name, settings, data)
        except ConfigurationError as error:
            where = configuration.where(("sites", site, "resources", name, "type"))
            raise ConfigurationError(f"resource '{name}': {error.text}", where) from None
    return made
