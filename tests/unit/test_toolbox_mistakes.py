"""What people get wrong when they write commands: told with file and line, before any pilot has it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from pilotage.configuration import sources, toolboxes, uses

HEAD = """\
import helpers.tools
from helpers import tools
from pilotage_node import exitcodes
from pilotage_node.command import Command, CommandFailed, Option
"""
CLASS = """
class RunA(Command):
    options = {{"path": Option(str, "/x")}}
    wants = ("software",)
    def do(self):
        {}
"""

REFUSED = {
    "yield": (CLASS.format("yield 1"), 9, "do() must be a plain function"),
    "async": ("class RunA:\n    async def do(self): pass", 6, "do() must be a plain function"),
    "a constructor": ("class RunA:\n    def do(self): pass\n    def __init__(self, x): pass", 7, "__init__() takes no"),
    "a base that is nowhere": ("class RunA(Comand):\n    def do(self): pass", 5, "Comand, which a class inherits from"),
    "a module as a base": (
        "from pilotage_node.toolbox import RunJobAgent\nclass RunA(RunJobAgent):\n    def do(self): pass",
        6,
        "not from a module: from pilotage_node.toolbox.RunJobAgent import RunJobAgent",
    ),
    "a helper without that name": ("from helpers.tools import nothing\n" + CLASS.format("pass"), 5, "no 'nothing' in"),
    "a package without that name": ("from helpers import nothing\n" + CLASS.format("pass"), 5, "no 'nothing' in"),
    "a union": ("def f(a: int | None): pass\n" + CLASS.format("pass"), 5, "a type written as `X | Y` came with 3.10"),
    "a union as a value": ("X = str | bytes\n" + CLASS.format("pass"), 5, "a type written as `X | Y` came with 3.10"),
    "a generic": ("def f() -> list[int]: pass\n" + CLASS.format("pass"), 5, "the type list[int] came with 3.9"),
    "a generic in a class": ("class X:\n    a: dict[str, int] = {}\n" + CLASS.format("pass"), 6, "the type dict[str"),
}  # fmt: skip

WRONG = {
    "facts.get": ("self.facts.get('software')", "RunA takes self.facts.get: facts are attributes, self.facts.NAME"),
    "facts[]": ("self.facts['software']", "RunA takes self.facts['software']: facts are attributes"),
    "in facts": ("'software' in self.facts", "RunA asks 'software' in self.facts: facts are attributes"),
    "an option of no command": ("self.options.paht", "RunA uses the option paht, which it does not have; it has: path"),
    "options[]": ("self.options['path']", "RunA takes self.options['path']: options are attributes"),
    "a file beside it": ("open(__file__ + '/../table.json')", "has no __file__: declare data in `files`"),
    "a text alone": ("raise CommandFailed('no software')", "CommandFailed(code, text) wants both"),
    "an exit code": ("raise CommandFailed(exitcodes.NOTHING, 'x')", "there is no 'NOTHING' in core:pilotage_node/"),
    "a helper's function": ("tools.hepl()", "there is no 'hepl' in "),
    "a hidden import": ("__import__('helpers.hidden')", "would not travel: say modules = ('helpers.hidden',)"),
}  # fmt: skip

FINE = """
import os
import re
from typing import List, Optional
FLAGS = os.O_RDONLY | os.O_CREAT, re.M | re.I, {1} | set()
def f(a: Optional[List[int]]) -> None:
    found: list[int] = []
    numbers = (n for n in found)
    def each():
        yield from numbers
class Base(Command):
    def __init__(self, size):
        self.size = size
    def do(self, what):
        tools.help(what)
class RunA(Base):
    options = {"path": Option(str, "/x")}
    wants = ("software",)
    modules = ("helpers.hidden",)
    def __init__(self):
        super().__init__(3)
    def do(self):
        __import__("helpers.hidden")
        facts = self.facts
        if facts.software is None:
            raise CommandFailed(exitcodes.ENVIRONMENT, self.options.path)
        raise CommandFailed(*facts.software)
"""


def made(root: Path, text: str) -> sources.Tree:
    files = {
        "RunA.py": HEAD + textwrap.dedent(text),
        "tools.py": "def help(): pass\n",
        "hidden.py": "",
        "__init__.py": "",
    }
    for name, content in files.items():
        (root / "helpers").mkdir(exist_ok=True)
        (root / "helpers" / name).write_text(content)
    return sources.read_path(root / "helpers")


OTHERS = [toolboxes.base(), toolboxes.core()]


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_would_break_a_pilot_is_not_built(tmp_path: Path, what: str) -> None:
    text, line, said = REFUSED[what]
    tree = made(tmp_path, text)
    [error] = toolboxes.problems(tree, "mine", others=OTHERS)
    assert (error.file, error.line) == (str(tmp_path / "helpers" / "RunA.py"), line)
    assert said in error.text
    with pytest.raises(toolboxes.ToolboxError) as refused:
        toolboxes.build(tree, "mine", others=OTHERS)
    assert str(refused.value) == str(error)


@pytest.mark.parametrize("what", list(WRONG))
def test_what_would_fail_in_a_pilot_is_found(tmp_path: Path, what: str) -> None:
    text, said = WRONG[what]
    tree = made(tmp_path, CLASS.format(text))
    built = toolboxes.build(tree, "mine", others=OTHERS)
    [found] = uses.uses(tree, built, OTHERS, "3.6")
    assert (found.file, found.line) == (str(tmp_path / "helpers" / "RunA.py"), 10)
    assert said in found.text


def test_what_only_looks_wrong_is_fine(tmp_path: Path) -> None:
    tree = made(tmp_path, FINE)
    assert not toolboxes.problems(tree, "mine", others=OTHERS)
    assert not uses.uses(tree, toolboxes.build(tree, "mine", others=OTHERS), OTHERS, "3.6")


def test_annotations_that_are_not_evaluated_may_be_newer(tmp_path: Path) -> None:
    """They must stand in the first line, so this is a module of its own."""
    tree = made(tmp_path, "from helpers.late import f\n" + CLASS.format("f(1)"))
    (tmp_path / "helpers" / "late.py").write_text("from __future__ import annotations\ndef f(a: int | None): pass\n")
    tree = sources.read_path(tmp_path / "helpers")
    assert not toolboxes.problems(tree, "mine", others=OTHERS, minimum="3.7")
    [error] = toolboxes.problems(tree, "mine", others=OTHERS, minimum="3.6")
    assert "'from __future__ import annotations' came with 3.7" in error.text
