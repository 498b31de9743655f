"""What happens in a command's own process: its class is imported and does its work."""

import signal
import sys
from types import SimpleNamespace

from pilotage_node import command, exitcodes
from pilotage_node.runner.channel import Channel, encode

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a command that SIGTERM ended in an orderly way."""
FACT = 1 << 20
"""Most bytes of one fact."""


class Facts:
    """``facts.node``, the facts that the command declared (``wants`` that nobody gave are None), and those it gives.

    :param given: dict to which what it gives is added, too
    """

    def __init__(self, known, provides, given):
        self.__dict__.update(known, _provides=provides, _given=given)

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


def terminate(number, frame):
    raise SystemExit(TERMINATED)


def work(sock, entry, facts, known):
    """Run one command: what the runner gets is its last message, the exit status only matters after SIGTERM.

    :param entry: of the profile's commands: {"name", "module", "options", "provides", ...}, "files" where it has some
    :param facts: what it may know: {name: value}
    :param known: what the Channel shall know
    """
    channel = Channel(sock, **known)
    signal.signal(signal.SIGTERM, terminate)
    code, given = exitcodes.FAILED, {}
    try:
        facts = Facts(facts, entry["provides"], given)
        kind = load(entry["module"], entry["name"])
        attributes = {"options": SimpleNamespace(**entry["options"]), "facts": facts, "pilot": channel}
        if "files" in entry:  # of a script: its modules' loader is the Script
            text_of = sys.modules[entry["module"]].__loader__.text_of
            attributes["read"] = lambda name: text_of(entry["files"][name])
        do(kind, attributes)
        check(given)
        channel.send({"op": "result", "outcome": "done", "code": exitcodes.OK, "message": "", "facts": given})
        return 0
    except command.CommandFailed as failure:
        code, text = failure.code, str(failure.text)
        if code not in range(1, 256):
            code, text = exitcodes.FAILED, "%s (its code %r is no exit code)" % (text, code)
    except SystemExit as leaving:
        if leaving.code == TERMINATED:
            return TERMINATED
        text = "it called sys.exit(%r)" % (leaving.code,)
    except BaseException as error:
        import traceback

        traceback.print_exc()
        text = "%s: %s" % (type(error).__name__, error)
    channel.send({"op": "result", "outcome": "failed", "code": code, "message": text})
    return 0


def check(given):
    """CommandFailed names the fact that cannot be given on."""
    for name in given:
        try:
            wrong = len(encode(given[name])) > FACT and "has more than %d bytes" % FACT
        except (TypeError, ValueError) as error:
            wrong = "cannot be written as JSON: %s" % error
        if wrong:
            raise command.CommandFailed(exitcodes.FAILED, "the fact %s %s" % (name, wrong))


def do(kind, attributes):
    """Call the one function, with or without ``self``."""
    code = getattr(kind.do, "__code__", None)
    if code is not None and not code.co_argcount and not code.co_flags & 4:  # 4: it has *arguments
        return kind.do()
    one = kind()
    for name in attributes:
        setattr(one, name, attributes[name])
    return one.do()
