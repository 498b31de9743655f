"""The script itself: what a batch system or a person starts."""

from __future__ import annotations

from pilotage.renderings.form import Material, Rendering


def render(material: Material) -> Rendering:
    """The pilot script, unchanged: `sh pilot` runs it wherever there is a Python."""
    material.only("plain")
    return Rendering(material.script.encode(), "pilot", "text/x-shellscript; charset=utf-8")
