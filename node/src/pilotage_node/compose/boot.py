"""The first Python of a pilot script. It runs only there: the composer puts it, compacted, after the sh head.

It must parse under any Python (an old one has to get as far as the version check) and must cost next to nothing.
The composer adds the call: ``start(LINE, r'''SECTIONS''')``, where LINE is the script's line of the call itself.
"""

import os
import sys


class Script:
    """The pilot script as the runner sees it; also the finder and loader of the modules that it carries.

    :ivar path: absolute path of the script; :ivar digest: its SHA-256 in hex, as the head states it
    """

    def __init__(self, path, digest, line, text):
        self.path = path
        self.digest = digest
        self.sections = {}
        self.packages = set()
        for part in text[:-1].split("\n#== ")[1:]:
            name, _, body = part.partition("\n")
            self.sections[name] = (line + 1, body + "\n")
            line += body.count("\n") + 2
            while "/" in name:
                name = name.rpartition("/")[0]
                self.packages.add(name)

    def text_of(self, section):
        """The text of a section; KeyError for one that the script does not have."""
        return self.sections[section][1]

    @property
    def profile(self):
        """The profile, a dict of its own for every caller."""
        import json

        return json.loads(self.text_of("profile.json"))

    def find_spec(self, name, path=None, target=None):
        """Meta path finder: what the script carries comes before what the machine has."""
        name_path = name.replace(".", "/")
        if name_path in self.packages or name_path + ".py" in self.sections:
            # The class of the running module's own spec: importlib.machinery would cost an import.
            return type(sys.__spec__)(name, self, origin=self.path, is_package=name_path in self.packages)
        return None

    def create_module(self, spec):
        """Loader: ordinary modules."""

    def exec_module(self, module):
        """Loader: compiled under the script's own name and line numbers, so that tracebacks are true."""
        name = module.__name__.replace(".", "/")
        section = name + "/__init__.py" if name in self.packages else name + ".py"
        line, text = self.sections.get(section, (0, ""))
        exec(compile("\n" * line + text, self.path, "exec", 0, True), module.__dict__)


def become(file):
    """Make this the interpreter that a pilot wants: new enough, complete, isolated, speaking UTF-8. May not return."""
    unfit = ""
    if sys.version_info < (3, 6):
        unfit = "is Python %s" % sys.version.split()[0]
    else:
        # What finds modules on disk; importing it by name would cost milliseconds.
        find = sys.meta_path[-1].find_spec
        lacking = [n for n in NEEDED if n not in sys.builtin_module_names and find(n) is None]
        unfit = lacking and "lacks the modules " + ", ".join(lacking)
    if unfit:
        sys.stderr.write("pilot: %s %s\n" % (sys.executable, unfit))
        sys.stderr.flush()
    if unfit or not (sys.flags.isolated and sys.flags.no_site):
        if not unfit:  # the head knows how to start it
            os.environ["PILOTAGE_PYTHON"] = sys.executable or ""
        os.execv("/bin/sh", ["sh", file] + sys.argv[1:])
    for name in ("PILOTAGE_TRIED", "PILOTAGE_PYTHON"):
        os.environ.pop(name, None)
    if "PILOTAGE_LC_ALL" in os.environ:
        os.environ["LC_ALL"] = os.environ.pop("PILOTAGE_LC_ALL")
        if not os.environ["LC_ALL"]:
            del os.environ["LC_ALL"]


NEEDED = ("json", "ssl", "_ssl", "_ctypes", "resource")
"""What some machines' Pythons lack."""


def start(line, text):
    """Run the pilot, to the end of the process."""
    file = os.path.abspath(__file__)
    become(file)
    script = Script(file, __doc__.partition("sha256:")[2][:64], line, text)
    if sys.argv[1:] == ["--inspect"]:
        sys.stdout.write(script.text_of("profile.json"))
        return
    sys.meta_path.insert(0, script)
    from pilotage_node.runner import main

    main(script)
