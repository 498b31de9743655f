"""The form of a pilot script: how its sections are laid out, what its digest is, how it is read back.

::

    #!/bin/sh
    \""":"
    # digest: sha256:<64 hex digits>
    # ... what it is made of, for people: lines of the profile below ...
    sh head
    \"""
    boot (Python)
    start(<line>, r'''
    #== profile.json
    ...
    #== pilotage_node/runner/main.py
    ...
    ''')

The digest is the SHA-256 of the whole text in UTF-8, with its own 64 digits read as zeros.
"""

import hashlib
import json
import re

PROFILE = "profile.json"
MARK = "#== "
QUOTES = "'" * 3  # spelt so that this module itself can travel in a script: it does, in seeds
OPENING = "start(%d, r" + QUOTES + "\n"
CLOSING = QUOTES + ")\n"
ZEROS = "0" * 64

_CANONICAL = json.JSONEncoder(sort_keys=True, allow_nan=False)
_DIGEST = re.compile(r"^# digest: sha256:([0-9a-f]{64})$", re.MULTILINE)
_OPENING = re.compile(r"^start\((\d+), r'{3}$", re.MULTILINE)


class ScriptError(Exception):
    """A text that is not a pilot script, or not the one that its digest names."""


class ScriptText:
    """What a pilot script holds.

    :ivar digest: SHA-256, hex; :ivar profile: the effective profile, and what the script was made of: ``composer``
        (version), ``toolboxes`` (name, version, digest), and each command's toolbox, module and ``given`` options
    :ivar sections: {name: text} in the script's order, modules under their path
    """

    __slots__ = ("digest", "profile", "sections")

    def __init__(self, digest, profile, sections):
        self.digest = digest
        self.profile = profile
        self.sections = sections

    @property
    def provenance(self):
        """The parts of the profile that say where it comes from (dict)."""
        return {key: self.profile[key] for key in ("format", "composer", "toolboxes", "commands")}


def canonical(value):
    """JSON that is the same on every Python: one line of ASCII, so that it ends neither a comment nor a docstring.

    :raises ValueError, TypeError: for what JSON cannot hold, NaN included
    """
    return _CANONICAL.encode(value)


_keys = {}
"""The JSON of each key: there are few."""


def readable(value, known):
    """The JSON of a dict, one line for each value and each item of a list of dicts; safe in a raw Python string.

    :param known: the JSON of the items of lists, by key, where it was made already
    """
    lines = []
    for key in sorted(value):
        found = value[key]
        if isinstance(found, list) and found and isinstance(found[0], dict):
            text = "[\n  %s]" % ",\n  ".join(known.get(key) or [canonical(item) for item in found])
        else:
            text = canonical(found)
        lines.append("%s: %s" % (_keys.get(key) or _keys.setdefault(key, canonical(key)), text))
    return "{%s}\n" % ",\n ".join(lines).replace("'", "\\u0027")


def digest_of(text):
    """The SHA-256 (hex) of a script text, its digest counted as zeros. Raises ScriptError where there is none."""
    found = _DIGEST.search(text)
    if not found:
        raise ScriptError("this is not a pilot script: it has no digest line")
    plain = text[: found.start(1)] + ZEROS + text[found.end(1) :]
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def read_script(text):
    """Take a pilot script apart, after checking its digest.

    :param text: the script, as text
    :returns: ScriptText
    :raises ScriptError: not a pilot script, damaged, or altered
    """
    digest = digest_of(text)
    stated = _DIGEST.search(text).group(1)
    if digest != stated:
        raise ScriptError(
            "this pilot script was altered: its head says sha256:%s, its text is sha256:%s" % (stated, digest)
        )
    opening = _OPENING.search(text)
    if not opening or not text.endswith("\n" + CLOSING):
        raise ScriptError("this is not a pilot script: it has no sections")
    sections = {}
    for part in text[opening.end() : -len(CLOSING) - 1].split("\n" + MARK)[1:]:
        name, _, body = part.partition("\n")
        sections[name] = body + "\n"
    try:
        return ScriptText(stated, json.loads(sections[PROFILE]), sections)
    except (KeyError, ValueError) as error:
        raise ScriptError("this pilot script cannot be read: %s: %s" % (type(error).__name__, error))
