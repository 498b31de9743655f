"""The composer: profile + built toolboxes -> pilot script. Concatenation, after checking all that can be checked.

What depends on toolboxes and chosen commands alone is kept (by digest), so that one more pilot costs next to nothing.
"""

import hashlib
import json
import re

from pilotage_node.compose import script

FORMAT = 1
CORE = "core"
ROOTS = ("pilotage_node.runner", "pilotage_node.courier")
"""Where every pilot begins: what these import, and what that imports, is in every script."""

HEAD = "pilotage_node/compose/head.txt"
BOOT = "pilotage_node/compose/boot.py"
NEEDED = ("vo", "site", "resource", "queue", "flavour", "revision", "service", "commands")
KINDS = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,), "list": (list, tuple)}
SHOWN = ("vo", "site", "resource", "queue", "flavour", "revision")
KEPT = 64
TRAITS = ("requires", "wants", "provides", "timeout", "on_failure", "always", "background")
"""Attributes of a command that the runner reads in the profile, so that it need not ask the class."""
PLACES = ("runner", "", "courier", "toolbox", "agent")
"""Folders in the order of a script: as it runs, and what is alike near each other, as gzip likes it."""

OLDEST = "3.6"
"""The Python that the runner needs; head and boot say it, a profile may want a newer one."""

_PYTHON_PATH = re.compile(r"[\w./+@%,~-]+")
_verified = {}
_shelves = {}


class ComposeError(Exception):
    """Why a profile cannot become a pilot: one sentence that names the thing and says what there is instead."""


class Shelf:
    """Toolboxes in their order, the first that has a thing wins; with what was already worked out for them."""

    def __init__(self, toolboxes):
        self.toolboxes = toolboxes
        self.core = [t for t in toolboxes if t["name"] == CORE]
        if not self.core:
            raise ComposeError("the toolbox core is missing: it holds the runner; given: %s" % _names(toolboxes))
        self.modules = {}
        self.imports = {}
        self.files = {}
        for toolbox in toolboxes:
            for path, text in toolbox["modules"].items():
                if self.modules.setdefault(path, text) != text:
                    raise ComposeError(
                        "the module %s is in several toolboxes of %s and differs" % (path, _names(toolboxes))
                    )
                self.imports.setdefault(path, toolbox["imports"].get(path, ()))
            for path, names in toolbox.get("files", {}).items():
                self.files.setdefault(path, names)
        self.bodies = {}

    def find(self, name, flavour):
        """(toolbox, entry) of a command."""
        for toolbox in self.toolboxes:
            if name in toolbox["commands"]:
                return toolbox, toolbox["commands"][name]
        known = sorted({command for toolbox in self.toolboxes for command in toolbox["commands"]})
        raise ComposeError(
            "unknown command %r in flavour %s%s; the toolboxes %s have: %s"
            % (name, flavour, _suggest(name, known), _names(self.toolboxes), ", ".join(known) or "no commands")
        )

    def body(self, modules):
        """The sections of all that these modules (dotted names) need, without profile and provenance."""
        text = self.bodies.get(modules)
        if text is None:
            if len(self.bodies) >= KEPT:
                self.bodies.clear()
            parts = ((path, self.modules[path]) for path in sorted(self.closure(modules), key=_place))
            text = "".join(script.MARK + path + "\n" + part for path, part in parts if part.strip())
            self.bodies[modules] = text
        return text

    def closure(self, modules):
        """The paths of these modules, their packages, their data files, and all that they import, in turn."""
        found, waiting = set(), [(name, "the profile") for name in modules]
        while waiting:
            name, by = waiting.pop()
            base = name.replace(".", "/")
            path = base + ".py" if base + ".py" in self.modules else base + "/__init__.py"
            if path not in self.modules:
                if any(known.startswith(base + "/") for known in self.modules):
                    continue
                raise ComposeError(
                    "%s needs the module %s, which none of the toolboxes %s has" % (by, name, _names(self.toolboxes))
                )
            if path not in found:
                found.add(path)
                found.update(self.files.get(path, ()))
                waiting += [(wanted, path) for wanted in self.imports.get(path, ())]
                if "." in name:
                    waiting.append((name.rpartition(".")[0], path))
        return found


def compose(profile, toolboxes):
    """Make the pilot script of a profile.

    :param profile: resolved profile (dict), its commands' options complete or not; not changed
    :param toolboxes: built toolboxes (dicts) in order of preference, the one named "core" among them
    :returns: the script, text; the same bytes for the same input on every machine and Python
    :raises ComposeError: whatever is wrong with the profile or does not fit together
    """
    shelf = _shelf(toolboxes)
    core = shelf.core[0]
    made_of = {
        "format": FORMAT,
        "composer": core["version"],
        "toolboxes": [{key: toolbox[key] for key in ("name", "version", "digest")} for toolbox in shelf.toolboxes],
        "commands": _commands(profile, shelf),
    }
    try:
        known = {key: [script.canonical(item) for item in made_of[key]] for key in ("toolboxes", "commands")}
        whole = script.readable(dict(profile, **made_of), known)
    except (TypeError, ValueError) as error:
        raise ComposeError("the profile is not plain JSON: %s" % error)
    body = shelf.body(ROOTS + tuple(command["module"] for command in made_of["commands"]))
    comments = [script.canonical({key: profile[key] for key in SHOWN})] + known["toolboxes"] + known["commands"]
    sections = script.MARK + script.PROFILE + "\n" + whole + body
    return framed(core, comments, sections, profile.get("python") or (), _minimum(profile))


def framed(core, comments, sections, python=(), minimum=OLDEST):
    """A script: head, boot and digest around its sections. Seeds have this frame, too.

    :param core: the built toolbox of that name; :param comments: what the head shows, a line each
    :param sections: text, each section after its MARK
    """
    head = core["modules"][HEAD].replace("@PYTHONS@", _pythons(python))
    head = head.replace("Python %s or newer" % OLDEST, "Python %s or newer" % minimum)
    head = head.replace("@PROVENANCE@\n", "".join("# %s\n" % comment for comment in comments))
    before, _, after = head.partition("@DIGEST@")
    boot = core["modules"][BOOT].replace(_as_tuple(OLDEST), _as_tuple(minimum))
    line = head.count("\n") + boot.count("\n") + 1
    after = "".join((after, boot, script.OPENING % line, sections, script.CLOSING))
    digest = hashlib.sha256((before + script.ZEROS + after).encode("utf-8")).hexdigest()
    return before + digest + after


def check_traits(name, entry):
    """Refuse attributes of a command that contradict each other. Used where toolboxes are built, too.

    :raises ComposeError: names the command and the attributes
    """
    if entry["always"] and entry["requires"]:
        raise ComposeError(
            "command %s is `always` and so may not require anything (it requires %s); let it want them"
            % (name, ", ".join(entry["requires"]))
        )
    if entry["always"] and entry["background"]:
        raise ComposeError("command %s cannot be both `always` and `background`" % name)
    if entry["background"] and entry["provides"]:
        raise ComposeError(
            "command %s is `background`: what it provides (%s) would come too late"
            % (name, ", ".join(entry["provides"]))
        )
    if "node" in entry["provides"]:
        raise ComposeError("command %s provides `node`, which is the runner's own fact" % name)


def _shelf(toolboxes):
    """The shelf of these toolboxes; each is verified once, and what was verified is what is used."""
    chosen = []
    for toolbox in toolboxes:
        digest = toolbox.get("digest")
        known = _verified.get(digest)
        if known is None:
            if toolbox.get("format") != FORMAT:
                raise ComposeError(
                    "toolbox %s has format %r; this composer reads %d"
                    % (toolbox.get("name"), toolbox.get("format"), FORMAT)
                )
            plain = {key: value for key, value in toolbox.items() if key != "digest"}
            if digest != hashlib.sha256(script.canonical(plain).encode("utf-8")).hexdigest():
                raise ComposeError("toolbox %s is not what its digest says" % toolbox.get("name"))
            if len(_verified) >= KEPT:
                _verified.clear()
                _shelves.clear()
            known = _verified[digest] = toolbox
        chosen.append(known)
    key = tuple(toolbox["digest"] for toolbox in chosen)
    shelf = _shelves.get(key)
    if shelf is None:
        shelf = _shelves[key] = Shelf(chosen)
    return shelf


def _commands(profile, shelf):
    """The profile's commands made complete: all options, which of them were ``given``, and where each comes from."""
    lacking = [key for key in NEEDED if key not in profile]
    if lacking:
        raise ComposeError("the profile lacks: %s" % ", ".join(lacking))
    flavour = profile["flavour"]
    if not profile["commands"]:
        raise ComposeError("flavour %s has no commands" % flavour)
    complete, facts = [], {"node"}
    for command in profile["commands"]:
        toolbox, entry = shelf.find(command["name"], flavour)
        check_traits(command["name"], entry)
        _check_facts(command["name"], entry, facts, flavour, shelf)
        facts.update(entry["provides"])
        options, given = _options(command, entry, flavour)
        origin = {trait: entry[trait] for trait in TRAITS}
        origin.update(name=command["name"], toolbox=toolbox["name"], module=entry["module"])
        if entry.get("files"):
            origin["files"] = entry["files"]
        complete.append(dict(origin, options=options, given=given))
    return complete


def _check_facts(name, entry, facts, flavour, shelf):
    """Every required fact must come from a command before this one."""
    for fact in entry["requires"]:
        if fact not in facts:
            givers = sorted({n for t in shelf.toolboxes for n, e in t["commands"].items() if fact in e["provides"]})
            raise ComposeError(
                "command %s in flavour %s requires the fact %r, which none before it provides; commands that do: %s"
                % (name, flavour, fact, ", ".join(givers) or "none")
            )


def _options(command, entry, flavour):
    """All options of a command with their values, and the names of those that the profile sets."""
    where = "command %s in flavour %s" % (command["name"], flavour)
    given = command.get("options") or {}
    known = entry["options"]
    for name, value in given.items():
        if name not in known:
            raise ComposeError(
                "unknown option %r of %s%s; it has: %s"
                % (name, where, _suggest(name, known), ", ".join(sorted(known)) or "no options")
            )
        kind, default = known[name]["type"], known[name]["default"]
        if value is None and default is None:
            continue
        good = isinstance(value, KINDS[kind]) and (kind == "bool" or not isinstance(value, bool))
        if not good or (kind == "list" and not all(isinstance(item, str) for item in value)):
            wanted = "list of str" if kind == "list" else kind
            raise ComposeError(
                "option %r of %s must be %s, not %s" % (name, where, wanted, json.dumps(value, default=repr))
            )
    options = {name: given.get(name, option["default"]) for name, option in known.items()}
    return options, sorted(name for name in given if given[name] != known[name]["default"])


def _pythons(paths):
    """The configured Pythons, as further words of the head's loop."""
    for path in paths:
        if not isinstance(path, str) or not _PYTHON_PATH.fullmatch(path):
            raise ComposeError(
                "the profile's python %r is not a plain path (letters, digits and ./+@%%,~- only)" % (path,)
            )
    return "".join(" " + path for path in paths)


def _minimum(profile):
    """The oldest Python that may run this pilot, like "3.9"."""
    minimum = profile.get("minimum_python") or OLDEST
    if not isinstance(minimum, str) or not re.match(r"3\.([6-9]|[1-9][0-9])\Z", minimum):
        raise ComposeError(
            "the profile's minimum_python %r is not a version from %s on, like '3.9'" % (minimum, OLDEST)
        )
    return minimum


def _as_tuple(version):
    """As boot compares it: ``(3, 6)``."""
    return "(%s)" % version.replace(".", ", ")


def _suggest(name, known):
    """A hint at the name that was probably meant, or nothing."""
    import difflib

    near = difflib.get_close_matches(str(name), list(known), 1)
    return " (did you mean %s?)" % near[0] if near else ""


def _place(path):
    """Where a module stands in a script; a package comes after its modules."""
    folder = path.partition("/")[2].rpartition("/")[0]
    return PLACES.index(folder) if folder in PLACES else len(PLACES), path.replace("__init__", "~")


def _names(toolboxes):
    return ", ".join(str(toolbox.get("name")) for toolbox in toolboxes)
