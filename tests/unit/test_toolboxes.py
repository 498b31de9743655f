"""Built toolboxes: read from sources alone, compact yet the same program; what cannot travel is refused by line."""

from __future__ import annotations

import ast
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pilotage.configuration import toolboxes
from pilotage.configuration.commands import DEFAULTS
from pilotage.configuration.compaction import compact, parse
from pilotage.configuration.toolboxes import ToolboxError, build
from pilotage_node.command import Command

RUN = '''\
"""Says hello."""
from pilotage_node.command import CONTINUE, Command, Option


class RunHello(Command):
    """Say hello [often].

    More about it.
    """

    options = {
        "times": Option(int, 2, "how often"),
        "names": Option(list, ("a", "b")),
        "pause": Option(float, 1, help="between two [s]"),
        "voice": Option(str, None, "unset: the usual one"),
    }
    wants = ("software",)
    provides = ["greeting"]
    timeout = 20
    on_failure = CONTINUE

    def do(self):
        """Do it."""
        from mytools import helper

        helper.say("hello")  # loudly
'''


def write(directory: Path, **files: str) -> Path:
    """A package `mytools` of these files ({"RunX": source, "sub__helper": source})."""
    root = directory / "mytools"
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py").replace("init.", "__init__.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
    return root


def built(directory: Path, **files: str) -> dict[str, Any]:
    return build(write(directory, **files), "mine", others=(toolboxes.core(), toolboxes.base()))


def refused(directory: Path, text: str) -> str:
    """Why a toolbox with this RunX.py is refused, without the directory's name."""
    with pytest.raises(ToolboxError) as caught:
        built(directory, RunX=text)
    return str(caught.value).replace(f"{directory}/", "")


def test_a_manifest_is_read_from_the_source(tmp_path: Path) -> None:
    toolbox = built(tmp_path, RunHello=RUN, helper="def say(text):\n    print(text)\n", init="")
    assert toolbox["commands"] == {
        "RunHello": {
            "module": "mytools.RunHello",
            "summary": "Say hello [often].",
            "description": "Say hello [often].\n\nMore about it.",
            "options": {
                "times": {"type": "int", "default": 2, "help": "how often"},
                "names": {"type": "list", "default": ["a", "b"], "help": ""},
                "pause": {"type": "float", "default": 1, "help": "between two [s]"},
                "voice": {"type": "str", "default": None, "help": "unset: the usual one"},
            },
            "requires": [],
            "wants": ["software"],
            "provides": ["greeting"],
            "timeout": 20,
            "on_failure": "continue",
            "always": False,
            "background": False,
        }
    }
    assert toolbox["imports"]["mytools/RunHello.py"] == ["mytools", "mytools.helper", "pilotage_node.command"]
    assert json.loads(json.dumps(toolbox)) == toolbox
    text = toolbox["modules"]["mytools/RunHello.py"]
    assert "Say hello" not in text and "how often" not in text and "loudly" not in text and "\n\n" not in text
    assert 'helper.say("hello")\n' in text and '  "pause": Option(float, 1, help="between two [s]"),\n' in text


def test_defaults_are_those_of_the_command_class() -> None:
    for name, value in DEFAULTS.items():
        said = getattr(Command, name)
        assert (list(said) if isinstance(said, tuple) else said) == value


def test_building_twice_gives_the_same_digest_and_any_change_another(tmp_path: Path) -> None:
    first = built(tmp_path / "a", RunHello=RUN, helper="def say(text):\n    print(text)\n")
    assert first == built(tmp_path / "b", RunHello=RUN, helper="# no matter\ndef say(text):\n    print(text)\n")
    assert first["digest"] != built(tmp_path / "c", RunHello=RUN, helper="def say(text):\n    pass\n")["digest"]


def test_a_class_that_has_nothing_but_do_is_a_command(tmp_path: Path) -> None:
    toolbox = built(tmp_path, RunA="class RunA:\n def do(self): pass\n", RunB="class RunB:\n def do(): pass\n")
    assert sorted(toolbox["commands"]) == ["RunA", "RunB"]
    assert toolbox["commands"]["RunB"]["timeout"] == 300


def test_an_overriding_command_inherits_what_its_base_says(tmp_path: Path) -> None:
    text = """
    from pilotage_node.command import Option
    from pilotage_node.toolbox.RunEnvironmentTest import RunEnvironmentTest as Base
    class RunEnvironmentTest(Base):
        options = {**Base.options, "extra": Option(bool, True, "one more")}
        timeout = 7
    """
    base = toolboxes.base()["commands"]["RunEnvironmentTest"]
    mine = built(tmp_path, RunEnvironmentTest=text)["commands"]["RunEnvironmentTest"]
    assert mine["options"] == {**base["options"], "extra": {"type": "bool", "default": True, "help": "one more"}}
    assert (mine["timeout"], mine["provides"]) == (7, base["provides"])


def test_building_imports_nothing(tmp_path: Path) -> None:
    proof = tmp_path / "imported"
    built(
        tmp_path,
        RunX=f"open({str(proof)!r}, 'w')\nclass RunX:\n def do(self): pass\n",
        init=f"open({str(proof)!r})\n",
    )
    assert not proof.exists()
    assert "mytools" not in sys.modules


BASE = "from pilotage_node.command import Command\n"
DO = "class RunX:\n    def do(self): pass\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("class RunY:\n    def do(self): pass\n", "mytools/RunX.py:1: a command's module is named for its class"),
        ("class RunX:\n    pass\n", "mytools/RunX.py:1: command RunX has no do()"),
        (BASE + "class RunX(Command):\n    pass\n", "mytools/RunX.py:2: command RunX has no do()"),
        ("class RunX:\n    def do(self, a): pass\n", "mytools/RunX.py:2: do() takes no arguments but self"),
        ("import time\n" + DO + "    timeout = time.time()\n", "mytools/RunX.py:4: timeout must be a literal"),
        (DO + "    timeout = -1\n", "mytools/RunX.py:3: timeout must be seconds"),
        (DO + '    requires = ("software")\n', "mytools/RunX.py:3: requires must be a tuple of fact names"),
        (DO + "    always = 1\n", "mytools/RunX.py:3: always must be True or False"),
        (DO + '    on_failure = "explode"\n', "mytools/RunX.py:3: on_failure must be ABORT or CONTINUE"),
        (DO + '    always = True\n    requires = ("a",)\n', "mytools/RunX.py:1: command RunX is `always`"),
        (DO + '    background = True\n    provides = ("a",)\n', "mytools/RunX.py:1: command RunX is `background`"),
        (DO + "    options = dict(a=1)\n", "mytools/RunX.py:3: options must be written as"),
        (DO + '    options = {\n        "a": Option(int, "x")}\n', "mytools/RunX.py:4: option a: the default 'x' is"),
        (DO + '    options = {"a": Option(int, True)}\n', "mytools/RunX.py:3: option a: the default True is"),
        (DO + '    options = {"a": Option(dict, {})}\n', "mytools/RunX.py:3: option a: Option(type, default"),
        (DO + '    options = {"a": Option(list, [1])}\n', "mytools/RunX.py:3: option a: the default [1] is"),
        ("import requests\n" + DO, "mytools/RunX.py:1: requests is not in Python's standard library"),
        ("\nfrom numpy import array\n" + DO, "mytools/RunX.py:2: numpy is not in Python's standard library"),
        ("import dataclasses\n" + DO, "mytools/RunX.py:1: dataclasses is not in Python 3.6"),
        ("import imp\n" + DO, "mytools/RunX.py:1: imp is no longer in newer versions of Python"),
        ("from importlib import metadata\n" + DO, "mytools/RunX.py:1: importlib.metadata is not in Python 3.6"),
        ("import pilotage_node.nowhere\n" + DO, "mytools/RunX.py:1: there is no module pilotage_node.nowhere"),
        ("from . import RunX\nfrom .gone import x\n" + DO, "mytools/RunX.py:2: there is no module mytools.gone"),
        ("\nfrom . import helpers\n" + DO, "mytools/RunX.py:2: there is no module mytools.helpers, and mytools has no"),
        (DO + "    files = ['a.json']\n", "mytools/RunX.py:3: there is no file a.json beside this module"),
        (DO + '    files = ("../a.json",)\n', "mytools/RunX.py:3: files must be a tuple like"),
        (DO + '    files = ("RunX.py",)\n', "mytools/RunX.py:3: files must be a tuple like"),
        (DO + '    modules = ("mytools.gone",)\n', "mytools/RunX.py:3: modules: there is no module mytools.gone"),
        (
            "class RunX:\n    def do(self):\n        self.read('a.json')\n",
            "mytools/RunX.py:3: self.read(): 'a.json' is not in this command's files",
        ),
        (
            "class RunX:\n    def plan(self): pass\n    def do(self):\n        self.plan()\n",
            "mytools/RunX.py:4: plan() is for dry runs and does not travel",
        ),
        ("from ..up import x\n" + DO, "mytools/RunX.py:1: this relative import leads out of the package"),
        ("x = '''a'''\n" + DO, "mytools/RunX.py:1: three single quotes"),
        ('x = """\n#== a\n"""\n' + DO, "mytools/RunX.py:2: a line that begins with '#== '"),
        ("x = " + "1 + " * 900 + "1\n" + DO, "mytools/RunX.py:1: this module is nested too deeply"),
        ("x = " + "-" * 90_000 + "1\n" + DO, "mytools/RunX.py:1: "),
        ("x = (\n" + DO, "mytools/RunX.py:1: not valid for Python 3.6"),
        ("\nif (a := 1): pass\n" + DO, "mytools/RunX.py:2: not valid for Python 3.6"),
        ("def f(a, /): pass\n" + DO, "mytools/RunX.py:1: not valid for Python 3.6"),
        ("match 1:\n    case 1: pass\n" + DO, "mytools/RunX.py:3: not valid for Python 3.6"),
        ("a = 1\nb = f'{a=}'\n" + DO, "mytools/RunX.py:2: not valid for Python 3.6"),
        ("from __future__ import annotations\n" + DO, "mytools/RunX.py:1: not valid for Python 3.6"),
        ("@(lambda f: f)\ndef g(): pass\n" + DO, "mytools/RunX.py:1: not valid for Python 3.6: a decorator"),
        ("def g(a):\n    return 1, *a\n" + DO, "mytools/RunX.py:2: not valid for Python 3.6: unpacking"),
        (
            "for a in b:\n    try: pass\n    finally:\n        continue\n" + DO,
            "mytools/RunX.py:4: not valid for Python 3.6: 'continue' in 'finally'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_travel_is_refused_with_file_and_line(tmp_path: Path, text: str, error: str) -> None:
    assert refused(tmp_path, text).startswith(error)


def test_other_refusals(tmp_path: Path) -> None:
    with pytest.raises(ToolboxError, match="no such directory"):
        build(tmp_path / "nowhere", "x")
    with pytest.raises(ToolboxError, match="no such package"):
        build("nowhere_at_all.commands", "x")
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "RunX.py").write_text(DO)
    with pytest.raises(ToolboxError, match="taken by Python's standard library"):
        build(tmp_path / "json", "x")
    root = write(tmp_path, RunX=DO)
    (root / "RunZ.py").write_bytes(b"# \xff\n")
    with pytest.raises(ToolboxError, match=r"RunZ.py:1: not UTF-8"):
        build(root, "x")
    (root / "RunZ.py").unlink()
    (root / "Not-a-name.py").write_text("")
    with pytest.raises(ToolboxError, match="not a module name"):
        build(root, "x")
    (root / "Not-a-name.py").unlink()
    (root / "Link.py").symlink_to("/etc/hostname")
    with pytest.raises(ToolboxError, match="leads out of the toolbox"):
        build(root, "x")


FINE = '''
"""Docstring with "quotes"."""
# comment

x = 1
"""attribute docstring"""


class Empty(Exception):
    """Only this."""


class A:
    "short"
    y = """kept

    # not a comment
      """   # a comment

    def f(self):
        # nothing else
        """Gone."""

    def g(self, a, b):
        """Gone, étrangement."""
        z = a + \\
            b

        return [
            # in a list

            z,  # why
        ]


if x:
    """string in an if"""
else:
    "and in an else"
w = "a#b" 'c\\'' "d"; v = f"{x}#{w!r:>{x}}"
u = 1 \\

t = {a for a in "é#"}
'''


def test_compaction_keeps_the_program() -> None:
    text = compact(FINE, "fine.py", parse(FINE, "fine.py"))
    assert "docstring" not in text and "Gone" not in text and "comment\n" not in text.replace("# not a comment", "")
    assert 'y = """kept\n\n    # not a comment\n      """\n' in text
    assert "class Empty(Exception):\n pass\n" in text
    spaces: list[dict[str, Any]] = [{}, {}]
    for source, space in zip((FINE, text), spaces, strict=True):
        exec(compile(source, "fine.py", "exec"), space)
        assert space["A"]().g(1, 2) == [3]
    assert spaces[0]["A"].y == spaces[1]["A"].y
    assert spaces[0]["v"] == spaces[1]["v"]


def test_a_cache_that_cannot_be_written_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    toolboxes._own.cache_clear()
    assert toolboxes.base()["commands"]


def test_the_nodes_own_toolboxes() -> None:
    base, core = toolboxes.base(), toolboxes.core()
    assert toolboxes.base() is base, "cached"
    assert {"RunEnvironmentTest", "RunMonitoringAgent", "RunJobAgent", "ReportUsage", "UploadPilotOutput"} <= set(
        base["commands"]
    )
    assert core["commands"] == {}
    assert not any(path.startswith("pilotage_node/toolbox") for path in core["modules"])
    for path, text in {**base["modules"], **core["modules"]}.items():
        if path.endswith(".py"):
            ast.parse(text)
        assert "'''" not in text
    for entry in base["commands"].values():
        assert entry["summary"], entry["module"]
