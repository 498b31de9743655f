"""For hosts where a Python must be found or unpacked first: an sh script with the pilot script inside."""

from __future__ import annotations

import re
from importlib import resources

from pilotage.renderings.form import Material, Rendering, RenderingError
from pilotage_node.compose import digest_of

_WORDS = re.compile(r"^for py in (.*)$", re.MULTILINE)
_HELD = re.compile(r"<<'(END_OF_PILOT_[0-9a-f]{16})'[^\n]*\n(.*?\n)\1\n", re.DOTALL)


def render(material: Material) -> Rendering:
    """`bootstrap.sh` with the script in it; it looks for the same Pythons as the script's own head."""
    material.only("shell", "pythons")
    script = material.script
    words, digest = _WORDS.search(script), digest_of(script)
    end = f"END_OF_PILOT_{digest[:16]}"
    if words is None or not script.endswith("\n") or end in script:
        raise RenderingError("this is not a pilot script that an sh script can hold")
    unpacked = "".join(f"[ -n \"$python\" ] || unpack '{one.place}' {one.sha256}\n" for one in material.pythons)
    text = (resources.files("pilotage.renderings") / "bootstrap.sh").read_text("utf-8")
    parts = {"@DIGEST@": digest, "@PYTHONS@": words.group(1), "@UNPACK@\n": unpacked, "@END@": end, "@PILOT@\n": script}
    # The script last: nothing in it is taken for a mark.
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return Rendering(text.encode(), "pilot.sh", "text/x-shellscript; charset=utf-8")


def held(text: str) -> str:
    """The pilot script in such an sh script; any other text as it is."""
    found = _HELD.search(text)
    return found.group(2) if found else text
