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
    """Make this the interpreter that a pilot wants: new enough, isolated, complete, speaking UTF-8. May not return."""
    unfit = ""
    if sys.version_info < (3, 6):
        unfit = "is Python %s" % sys.version.split()[0]
    else:
        # What finds modules on disk; importing it by name would cost milliseconds.
        find = sys.meta_path[-1].find_spec
        needed = ("json", "http", "socket", "_socket", "select", "subprocess", "resource", "ssl", "_ssl", "hashlib")
        lacking = [n for n in needed if n not in sys.builtin_module_names and find(n) is None]
        unfit = lacking and "lacks the modules " + ", ".join(lacking)
    if unfit:
        sys.stderr.write("pilot: %s %s\n" % (sys.executable, unfit))
        sys.stderr.flush()
        os.execv("/bin/sh", ["sh", file] + sys.argv[1:])
    bare = sys.flags.isolated and sys.flags.no_site
    # Python 3.6 in the C locale takes file names for ASCII; a locale is the only thing that changes its mind.
    narrow = sys.getfilesystemencoding() == "ascii" and os.environ.get("LC_ALL") != "C.UTF-8"
    if narrow:
        os.environ["PILOTAGE_LC_ALL"] = os.environ.get("LC_ALL", "")
        os.environ["LC_ALL"] = "C.UTF-8"
    if sys.executable and (narrow or not bare):
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-X", "utf8", file] + sys.argv[1:])
    os.environ.pop("PILOTAGE_TRIED", None)
    locale = os.environ.pop("PILOTAGE_LC_ALL", None)
    if locale is not None:
        del os.environ["LC_ALL"]
        if locale:
            os.environ["LC_ALL"] = locale


def start(line, text):
    """Run the pilot, to the end of the process."""
    file = os.path.abspath(__file__)
    become(file)
    script = Script(file, __doc__.partition("sha256:")[2][:64], line, text)
    sys.meta_path.insert(0, script)
    from pilotage_node.runner import main

    main(script)
