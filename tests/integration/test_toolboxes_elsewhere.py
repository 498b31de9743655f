"""Built toolboxes are the same whichever Python of a server builds them, and are built once."""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path

import pytest
from tests.interpreters import interpreters

from pilotage.configuration import toolboxes
from pilotage.configuration.toolboxes import build

HELLO = """\
from mytools import helper
from pilotage_node.command import Command, Option


class RunHello(Command):
    '''Say hello.'''

    options = {"times": Option(int, 2, "how often")}

    def do(self):
        helper.say("hello")  # loudly

    def plan(self):
        print(f'{self.options.times!r:>{8}} é')  # a comment
"""


def under(version: str, program: str) -> str:
    """What a program prints that uses the builder alone, under a Python that has no libraries."""
    root = Path(toolboxes.__file__).parents[2]
    bare = f"""import sys, types
for name in ("pilotage", "pilotage.configuration"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [{str(root)!r} + "/" + name.replace(".", "/")]
"""
    told = subprocess.run(
        [interpreters()[version], "-c", bare + program],
        env={"PYTHONPATH": f"{root.parent / 'node' / 'src'}", "XDG_CACHE_HOME": "/proc/nowhere"},
        capture_output=True,
        text=True,
    )
    assert told.stderr == "", f"{version}: {told.stderr}"
    return told.stdout


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_module_of_the_node_is_the_same_program_after_compaction(version: str) -> None:
    """Under each Python that a server may have: the same text, so the same digest."""
    program = "from pilotage.configuration import toolboxes as t\nprint(t.base()['digest'], t.core()['digest'])"
    assert under(version, program).split() == [toolboxes.base()["digest"], toolboxes.core()["digest"]]


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_a_communitys_toolbox_is_the_same_whichever_server_builds_it(tmp_path: Path, version: str) -> None:
    root = tmp_path / "mytools"
    root.mkdir()
    (root / "__init__.py").touch()
    (root / "helper.py").write_text("def say(text):\n    print(text)\n")
    (root / "RunHello.py").write_text(HELLO)
    toolbox = build(root, "mine", others=(toolboxes.base(), toolboxes.core()))
    program = f"""
from pilotage.configuration import toolboxes as t
from pathlib import Path
print(t.build(Path({str(root)!r}), "mine", others=(t.base(), t.core()))["digest"])
"""
    assert under(version, program).strip() == toolbox["digest"]


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_newer_f_strings_are_refused_where_this_python_reads_them(version: str) -> None:
    """Python 3.11 finds them by itself; 3.12 and newer read them and must be told."""
    program = textwrap.dedent("""
        from pilotage.configuration.compaction import parse, ToolboxError
        for text in ("f'{a=}'", "f'{a = !s:>5}'",
                     'f"{"a"}"', "f'{1 + ord(chr(92) + \\\\'a\\\\')}'", 'f"{1 # x\\n}"', 'f"{f"{1}"}"'):
            try:
                parse(text, "x.py")
                print("accepted", text)
            except ToolboxError as error:
                assert str(error).startswith("x.py:1: not valid for Python 3.6"), error
        parse('f"{1:{2}} {dict(a=1)!r} {chr(39)} {{a=}}"', "x.py")
    """)
    assert under(version, program) == ""


def test_the_nodes_own_toolboxes_are_kept_on_disk(tmp_path: Path) -> None:
    program = f"""import os, pathlib
os.environ["XDG_CACHE_HOME"] = {str(tmp_path)!r}
directory = pathlib.Path({str(tmp_path)!r}, "pilotage", "toolboxes")
from pilotage.configuration import toolboxes
built, toolboxes.build = toolboxes.build, lambda *_, **__: print("built") or built(*_, **__)
for text in (None, None, "nonsense", "[]", '{{"of": 1}}', "altered"):
    kept = [*directory.glob("*")]
    if text == "altered":
        text = kept[0].read_text().replace("import os", "import so")
    if text:
        kept[0].write_text(text)
    toolboxes._own.cache_clear()
    print(text and text[:9], toolboxes.base()["name"], len([*directory.glob("*.json")]), len(os.listdir(directory)))
"""
    told = re.sub("(built\n)+", "BUILT ", under("3.11", program))  # one build for each toolbox
    same = "base 1 1\n"
    assert told.splitlines(keepends=True)[:5] == [
        f"BUILT None {same}", f"None {same}", f"BUILT nonsense {same}", f"BUILT [] {same}", f'BUILT {{"of": 1}} {same}',
    ]  # fmt: skip
    assert told.splitlines()[5].startswith("BUILT ")
