"""Things that run pilots: one module a type, and the registry of types."""

from __future__ import annotations

from pathlib import Path

from pilotage.configuration.document import ConfigurationError
from pilotage.configuration.schema import Configuration, unknown
from pilotage.configuration.schema import Resource as Settings
from pilotage.resources.base import Resource

__all__ = ["FACTORIES", "TYPES", "Resource", "adapt", "check", "directed", "make", "same"]

TYPES = ("local",)
FACTORIES = ("vac", "boinc")
"""Types whose machines start by themselves and fetch their pilots: there is nothing to send, so they have no module."""


def make(name: str, settings: Settings, data: Path) -> Resource:
    """The resource that a configuration describes; `data` is the directory of this installation.

    Raises ConfigurationError for a type that there is not.
    """
    if settings.type == "local":
        from pilotage.resources.local import LocalResource

        return LocalResource(data / "local" / name, slots=settings.slots, hide=data)
    raise ConfigurationError(unknown("type of resource", settings.type, TYPES))


def same(old: Settings, new: Settings) -> bool:
    """Whether pilots that were sent by the old settings are found again by the new ones."""
    return old.type == new.type


def adapt(resource: Resource, name: str, settings: Settings, data: Path) -> Resource:
    """The resource under changed settings that are the `same`: the object itself where it can be changed, as it may
    know of submissions that no record tells yet; else a new one."""
    if settings.type == "local":
        from pilotage.resources.local import LocalResource

        if isinstance(resource, LocalResource):
            resource.slots = settings.slots
            return resource
    return make(name, settings, data)


def check(configuration: Configuration) -> None:
    """Raises ConfigurationError, with file and line, where a resource is of a type that there is not."""
    known = TYPES + FACTORIES
    for site, name, settings in configuration.resources():
        if settings.type not in known:
            where = configuration.where(("sites", site, "resources", name, "type"))
            raise ConfigurationError(f"resource '{name}': {unknown('type of resource', settings.type, known)}", where)


def directed(configuration: Configuration) -> dict[str, Settings]:
    """The resources that pilots are sent to, by name."""
    return {name: settings for _, name, settings in configuration.resources() if settings.type not in FACTORIES}
