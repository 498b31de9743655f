"""What happens in a command's own process: its class is imported, tells what it is, and does its work."""

import signal
import sys

from pilotage_node import command, exitcodes
from pilotage_node.runner.channel import Channel


class Options:
    """A command's options as attributes."""

    def __init__(self, values):
        self.__dict__.update(values)


class Facts:
    """``facts.node``, the facts that the command declared (``wants`` that nobody gave are None), and those it gives."""

    def __init__(self, known, provides):
        self.__dict__.update(known, _provides=provides, _given={})

    def __getattr__(self, name):
        raise AttributeError("the fact %s is not in this command's requires or wants" % name)

    def __setattr__(self, name, value):
        if name not in self._provides:
            raise AttributeError("the fact %s is not in this command's provides" % name)
        self.__dict__[name] = self._given[name] = value


def load(module, name):
    """The attribute ``name`` of a module, imported now."""
    __import__(module)
    return getattr(sys.modules[module], name)


def traits(kind):
    """The contract's attributes of a command class; a class that has nothing but ``do`` has their defaults."""
    found = {name: getattr(kind, name, getattr(command.Command, name)) for name in TRAITS}
    found.update((name, list(found[name])) for name in TRAITS[:3])
    return found


TRAITS = ("requires", "wants", "provides", "timeout", "on_failure", "always", "background")
UNKNOWN = traits(object)
"""What is assumed of a class that could not be imported."""


def terminate(number, frame):
    raise SystemExit(128 + number)


def work(sock, entry, known):
    """Run one command: what the runner gets is its last message, the exit status only matters after SIGTERM.

    :param entry: of the profile's commands: {"name", "module", "options"}
    :param known: what the Channel shall know
    """
    channel = Channel(sock, **known)
    signal.signal(signal.SIGTERM, terminate)
    result = {"op": "result", "outcome": "failed", "code": exitcodes.FAILED}
    try:
        kind = load(entry["module"], entry["name"])
        declared = traits(kind)
        channel.send({"op": "class", "traits": declared})
        begin = channel.receive()
        if begin["op"] != "start":
            return 0
        facts = Facts(begin["facts"], declared["provides"])
        do(kind, Options(entry.get("options") or {}), facts, channel)
        channel.send({"op": "result", "outcome": "done", "code": exitcodes.OK, "message": "", "facts": facts._given})
        return 0
    except command.CommandFailed as failure:
        result.update(code=failure.code, message=str(failure.text))
    except SystemExit as leaving:
        if leaving.code == 128 + signal.SIGTERM:
            return leaving.code
        result.update(message="it called sys.exit(%r)" % (leaving.code,))
    except BaseException as error:
        import traceback

        traceback.print_exc()
        result.update(message="%s: %s" % (type(error).__name__, error))
    channel.send(result)
    return 0


def do(kind, options, facts, channel):
    """Call the one function, with or without ``self``."""
    code = getattr(kind.do, "__code__", None)
    if code is not None and not code.co_argcount and not code.co_flags & 4:  # 4: it has *arguments
        return kind.do()
    one = kind()
    one.options, one.facts, one.pilot = options, facts, channel
    return one.do()
