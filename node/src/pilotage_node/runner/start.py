"""From the command line to a running pilot: arguments, credentials, the working directory, the log."""

import json
import os
import stat

from pilotage_node import exitcodes, processes
from pilotage_node.runner.log import Log, quietly

USAGE = """usage: pilot [--stamp S] [--credentials FILE] [--workdir DIR] [--inspect] [--help]
credentials: JSON with stamp and secret, removed once read; default $PILOTAGE_CREDENTIALS, else credentials.json here
--inspect prints where every command and option comes from"""


class Stop(Exception):
    """The pilot cannot start: (exit code, text)."""


def arguments(words):
    """{"stamp", "credentials", "workdir"} of the command line; Stop when there is nothing to start."""
    found = dict(zip(words[::2], words[1::2]))
    unknown = set(words[::2]) - {"--stamp", "--credentials", "--workdir"}
    if unknown or len(words) % 2:
        helped = unknown == {"--help"}
        raise Stop(exitcodes.OK if helped else exitcodes.USAGE, USAGE if helped else "%s ?\n%s" % (words, USAGE))
    return found


def credentials(path, stamp):
    """Read the credentials and remove the file before anything else runs: {"stamp", "secret"}."""
    try:
        with open(path) as file:
            found = json.load(file)
        quietly(os.unlink, path)
        return {"stamp": stamp or found.get("stamp") or os.urandom(16).hex(), "secret": found["secret"]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Stop(exitcodes.NO_CREDENTIALS, "no credentials in %s: %s" % (path, error))


def remove_tree(path):
    """Remove the working directory, also what a job closed to us; what resists is left. Links are not followed."""
    quietly(os.chmod, path, 0o700)
    for name in quietly(os.listdir, path) or ():
        inside = os.path.join(path, name)
        if stat.S_ISDIR(os.lstat(inside).st_mode):
            remove_tree(inside)
        else:
            quietly(os.unlink, inside)
    quietly(os.rmdir, path)


def start(script, words, **changed):
    """Run a pilot: its exit code.

    :param changed: attributes of the Runner that tests set otherwise
    """
    directory = ""
    beside = os.path.dirname(os.path.abspath(script.path))
    try:
        if words == ["--inspect"]:
            raise Stop(exitcodes.OK, script.text_of("provenance.json"))
        given = arguments(words)
        path = os.environ.pop("PILOTAGE_CREDENTIALS", "") or os.path.join(beside, "credentials.json")
        identity = credentials(given.get("--credentials", path), given.get("--stamp"))
        processes.set_undumpable()
        processes.set_subreaper()
        processes.set_name("pilot-runner")
        name = "pilot-%.8s-%s" % (identity["stamp"].replace("/", "_"), os.urandom(2).hex())
        directory = os.path.join(os.path.abspath(given.get("--workdir", ".")), name)
        os.mkdir(directory, 0o700)
        from pilotage_node.runner.run import Runner

        places = [os.path.join(place, "pilot.log") for place in (beside, os.getcwd(), directory)]
        text = Log(places, int((script.profile.get("log_mib") or 10) * (1 << 20)), identity["secret"])
        runner = Runner(script, identity, directory, text)
        runner.__dict__.update(changed)
        return runner.run()
    except Stop as stop:
        code, text = stop.args
        quietly(os.write, 2 if code else 1, (text + "\n").encode())
        return code
    except OSError as error:
        quietly(os.write, 2, ("the working directory cannot be made: %s\n" % error).encode())
        return exitcodes.DISK
    finally:
        remove_tree(directory)
