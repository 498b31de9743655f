"""The path convention: a command ``RunX`` of a community with the extension ``LHCb`` is in the module
``LHCbDIRAC.WorkloadManagementSystem.Command.RunX``, else in ``DIRAC.WorkloadManagementSystem.Command.RunX``.

In a package of such a name only the modules of that folder are commands. What it has at its top, and on the way to
the folder, are packages of a much larger software: their ``__init__.py`` travel only where something is taken from
them by name. Where no toolbox has ``DIRAC....RunX``, an import of it leads to the command RunX of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

FOLDER = "WorkloadManagementSystem/Command/"
DIRAC = "DIRAC.WorkloadManagementSystem.Command"

_PACKAGE = re.compile(r"[A-Za-z]\w*DIRAC|DIRAC")


def is_package(name: str) -> bool:
    """Whether a top-level package's name is that of the convention."""
    return bool(_PACKAGE.fullmatch(name))


def packages(extension: str | None) -> list[str]:
    """The packages in which a community's commands are looked up, in this order; none without an extension."""
    return [f"{extension}DIRAC", "DIRAC"] if extension else []


def follows(path: str, paths: Iterable[str]) -> bool:
    """Whether a module is in a package that keeps to the convention: of such a name, with such a folder."""
    top = path.partition("/")[0]
    return is_package(top) and any(one.startswith(f"{top}/{FOLDER}") for one in paths)


def is_command(path: str) -> bool:
    """Whether a module of such a package is a command."""
    rest = path.partition("/")[2]
    return rest.startswith(FOLDER) and "/" not in rest[len(FOLDER) :] and rest[len(FOLDER)].isupper()


def command_of(name: str) -> str:
    """The command that ``DIRAC.WorkloadManagementSystem.Command.RunX`` means; "" for any other name."""
    package, _, command = name.rpartition(".")
    return command if package == DIRAC else ""
