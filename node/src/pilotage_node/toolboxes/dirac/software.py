"""An installation of DIRAC: found, looked at, and told to later commands as the fact ``software``.

software = {"environment": what must be set for its programs ({NAME: text}), "bin": the directory of dirac-agent,
            "python": its interpreter, "version": DIRAC's, "origin": where it comes from, in words}
"""

import os

from pilotage_node.toolboxes.dirac import programs
from pilotage_node.toolboxes.dirac.programs import Failed

AGENT = "dirac-agent"
LOOK_SECONDS = 60
"""For a look at an installation: importing DIRAC takes 0.3 s, on a cold network file system a hundred times that."""

SOURCED = """
. "$1" 1>&2 || exit 1
agent=$(command -v dirac-agent) || { echo "no dirac-agent in the PATH that $1 sets" >&2; exit 1; }
printf 'PILOTAGE%s\\0' "$agent"
exec env -0
"""
"""Prints the environment that a script leaves. The script's own output goes elsewhere."""

VERSION = "import DIRAC, sys; print('PILOTAGE', DIRAC.version, sys.version.split()[0])"
SHELL_OWN = ("_", "SHLVL", "PWD", "OLDPWD", "BASH_ENV")


def of_script(script, origin, seconds=LOOK_SECONDS):
    """The software that a script such as `diracosrc` or `bashrc` sets up.

    :raises Failed: there is no such script, it fails, hangs, or DIRAC cannot be started by what it sets
    """
    text = programs.run(["bash", "-c", SOURCED, "bash", script], seconds)
    _, mark, rest = text.partition("PILOTAGE")
    if not mark:
        raise Failed("%s sets no environment" % script)
    agent, *fields = rest.split("\0")
    found = dict(field.split("=", 1) for field in fields if "=" in field)
    before = programs.environment()
    new = {name: found[name] for name in found if found[name] != before.get(name) and name not in SHELL_OWN}
    return looked_at(os.path.dirname(agent), new, origin, seconds)


def of_prefix(prefix, origin, more=(), seconds=LOOK_SECONDS):
    """The software whose programs are in PREFIX/bin."""
    directory = os.path.join(prefix, "bin")
    path = directory + os.pathsep + os.environ.get("PATH", os.defpath)
    return looked_at(directory, dict({"PATH": path}, **dict(more)), origin, seconds)


def looked_at(directory, environment, origin, seconds):
    """The software, once DIRAC was imported by its own interpreter. :raises Failed: it cannot be"""
    agent, python = os.path.join(directory, AGENT), os.path.join(directory, "python")
    words = ["sh", "-c", 'test -x "$1" || { echo "$1 cannot be executed: not found" >&2; exit 1; }; exec "$2" -c "$3"']
    text = programs.run(words + ["sh", agent, python, VERSION], seconds, environment)
    for line in text.splitlines():
        if line.startswith("PILOTAGE "):
            version = line.split()[1]
            break
    else:
        raise Failed("%s does not say which DIRAC it has: %s" % (python, programs.telling(text)))
    return {"environment": environment, "bin": directory, "python": python, "version": version, "origin": origin}


def discover(script, seconds=LOOK_SECONDS):
    """The image's own installation, for pilots that install nothing: of a script, else of the environment as it is.

    :param script: the script to source; "": $DIRACOS/diracosrc, then what is in the PATH, then the usual places
    :raises Failed: there is none, with everything that was tried
    """
    if script:
        return of_script(script, script, seconds)
    problems, scripts = [], [os.path.join(os.environ["DIRACOS"], "diracosrc")] if "DIRACOS" in os.environ else []
    for place in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if os.path.isfile(os.path.join(place, AGENT)):
            scripts.append(place)
    scripts += ["/opt/dirac/diracosrc", "/opt/diracos/diracosrc", "/opt/dirac/bashrc"]
    for found in scripts:
        try:
            if os.path.isdir(found):
                return looked_at(found, {}, "PATH", seconds)
            if os.path.isfile(found):
                return of_script(found, found, seconds)
            problems.append("%s: not found" % found)
        except Failed as problem:
            problems.append("%s: %s" % (found, problem))
    raise Failed("no DIRAC is installed here (%s)" % "; ".join(problems))
