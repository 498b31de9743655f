"""From the command line to a running pilot: arguments, credentials, the working directory, the log."""

import json
import os

from pilotage_node import exitcodes, processes
from pilotage_node.processes import quietly, remove_tree

USAGE = "usage: pilot [--stamp S] [--credentials FILE] [--workdir DIR]; --inspect shows its provenance"


def say(code, text):
    """The last words of a pilot that does not run."""
    quietly(os.write, 2 if code else 1, (text + "\n").encode())
    return code


def start(script, words, **changed):
    """Run a pilot: its exit code.

    :param changed: attributes of the Runner that tests set otherwise
    """
    given = dict(zip(words[::2], words[1::2]))
    if words in (["--inspect"], ["--help"]):
        return say(exitcodes.OK, USAGE if words == ["--help"] else script.text_of("provenance.json"))
    if len(words) % 2 or not {"--stamp", "--credentials", "--workdir"}.issuperset(given):
        return say(exitcodes.USAGE, "%s ? %s" % (words, USAGE))
    while os.open(os.devnull, os.O_RDWR) < 3:  # where the pilot was started without them, no other file may be 0, 1, 2
        pass
    beside = os.path.dirname(os.path.abspath(script.path))
    path = os.environ.pop("PILOTAGE_CREDENTIALS", "") or os.path.join(beside, "credentials.json")
    path = given.get("--credentials", path)
    try:
        with open(path) as file:
            found = json.load(file)
        quietly(os.unlink, path)  # before anything else runs
        stamp, secret = given.get("--stamp") or found.get("stamp") or os.urandom(16).hex(), found["secret"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return say(exitcodes.NO_CREDENTIALS, "no credentials in %s (they serve one start): %s" % (path, error))
    name = "pilot-%.8s-%s" % (stamp.replace("/", "_"), os.urandom(2).hex())
    directory = os.path.join(os.path.abspath(given.get("--workdir", ".")), name)
    try:
        os.mkdir(directory, 0o700)
    except OSError as error:
        return say(exitcodes.DISK, "the working directory cannot be made: %s" % error)
    try:
        processes.set_undumpable()
        processes.set_subreaper()
        processes.set_name("pilot-runner")
        from pilotage_node.runner.run import Runner

        places = [os.path.join(place, "pilot.log") for place in (beside, os.getcwd(), directory)]
        runner = Runner(script, {"stamp": stamp, "secret": secret}, directory, places)
        runner.__dict__.update(changed)
        return runner.run()
    finally:
        remove_tree(directory)
