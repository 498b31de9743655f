"""The command contract: what a pilot is composed of.

A command is a class with ``do()`` in a module of its own, named for it. Its attributes are literals, because composers
and services read them from the source (AST) and never import a toolbox.
"""

ABORT = "abort"
CONTINUE = "continue"


class Option:
    """One option of a command: fixed before composing, checked by the composer.

    :param kind: ``int``, ``float``, ``str``, ``bool`` or ``list`` (of str)
    :param default: used where the configuration says nothing; None means "unset"
    :param help: one line for the reference, with the unit in square brackets
    """

    __slots__ = ("default", "help", "kind")

    def __init__(self, kind, default, help=""):
        self.kind = kind
        self.default = default
        self.help = help


class CommandFailed(Exception):
    """Raised by ``do()``: the command could not do its work.

    :param code: an exit code of ``pilotage_node.exitcodes``
    :param text: what was wrong and, where known, what to do; one or two lines
    """

    def __init__(self, code, text):
        Exception.__init__(self, text)
        self.code = code
        self.text = text


class Command:
    """Base of all commands. The runner sets ``options``, ``facts``, ``pilot`` on the instance before ``do()``.

    Two more attributes are read from the source alone: ``files = ("table.json",)``, texts that stand beside the module
    and travel with it (then ``self.read("table.json")`` gives one), and ``modules = ("package.plugin",)``, what is
    imported in a way that the source does not show. A method ``plan(self)`` prints what ``do()`` would do here; it is
    called by dry runs only, does not travel in a pilot, and nothing else may call it.
    """

    options = {}
    requires = ()
    wants = ()
    provides = ()
    timeout = 300
    on_failure = ABORT
    always = False
    background = False
    facts = None
    pilot = None

    def do(self):
        """The command's one function. Returns nothing; raises CommandFailed where it cannot be done."""
        raise NotImplementedError("%s has no do()" % type(self).__name__)

    def log(self, text):
        """Write a line to the pilot's log (standard output of a command is the log)."""
        print(text, flush=True)
