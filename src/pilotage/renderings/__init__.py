"""Renderings: the forms in which one and the same pilot script is handed to a resource, a person, a machine.

Each is a module with one function, `render(material) -> Rendering`, and a line in RENDERINGS.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from pilotage.renderings import plain, shell, tarball
from pilotage.renderings.form import Material, Relocatable, Rendering, RenderingError

__all__ = ["RENDERINGS", "Material", "Relocatable", "Rendering", "RenderingError", "render"]

RENDERINGS: dict[str, Callable[[Material], Rendering]] = {
    "plain": plain.render,
    "shell": shell.render,
    "tarball": tarball.render,
}


def render(name: str, material: Material) -> Rendering:
    """The pilot in the form of that name. Raises RenderingError: no such form, or it cannot hold what is given."""
    if name not in RENDERINGS:
        near = get_close_matches(name, RENDERINGS, 1)
        meant = f"; did you mean '{near[0]}'?" if near else f" (there are: {', '.join(RENDERINGS)})"
        raise RenderingError(f"unknown rendering '{name}'{meant}")
    return RENDERINGS[name](material)
