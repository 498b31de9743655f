"""Toolboxes of communities: only what is needed travels, data too; the path convention; plans; the minimum Python."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from pilotage.configuration import loads, toolboxes
from pilotage.configuration.toolboxes import ToolboxError, build

DO = "class RunX:\n    def do(self): pass\n"
HERE = "DIRAC.WorkloadManagementSystem.Command"


def write(directory: Path, **files: str) -> Path:
    """A package `mytools` of these files ({"RunX": source, "sub__helper": source})."""
    root = directory / "mytools"
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py").replace("init.", "__init__.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
    return root


def others() -> tuple[toolboxes.Built, toolboxes.Built]:
    return toolboxes.base(), toolboxes.core()


def test_what_no_command_needs_stays_behind(tmp_path: Path) -> None:
    """Neither read as a program nor bundled: tests beside commands may use what they like."""
    more = {"helper": "from mytools import deep\n", "deep": "", "unused": "(\n", "tests__test_x": "import numpy\n"}
    more["scripts__do-it"] = "import numpy\n"
    root = write(tmp_path, RunX="from mytools.helper import deep\n" + DO, **more)
    toolbox = build(root, "mine", others=others())
    assert sorted(toolbox["modules"]) == ["mytools/RunX.py", "mytools/deep.py", "mytools/helper.py"]


def test_data_files_and_dynamic_modules_travel_when_they_are_declared(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        plugins__one="X = 1\n",
        plugins__two="X = 2\n",
        base="""
        class Base:
            files = ("table.txt",)
            modules = ("mytools.plugins.one",)
            def do(self): pass
        """,
        RunX="from mytools.base import Base\nclass RunX(Base):\n    files = ('sub/more.json',)\n",
    )
    (root / "table.txt").write_bytes("é'\\\r\nline two".encode())
    (root / "sub").mkdir()
    (root / "sub" / "more.json").write_text("{}\n")
    (root / "other.txt").write_text("stays\n")
    toolbox = build(root, "mine", others=others())
    assert toolbox["commands"]["RunX"]["files"] == {
        "table.txt": "mytools/table.txt",
        "sub/more.json": "mytools/sub/more.json",
    }
    assert toolbox["files"] == {"mytools/base.py": ["mytools/table.txt"], "mytools/RunX.py": ["mytools/sub/more.json"]}
    assert sorted(toolbox["modules"]) == [
        "mytools/RunX.py", "mytools/base.py", "mytools/plugins/one.py", "mytools/sub/more.json", "mytools/table.txt",
    ]  # fmt: skip
    assert toolbox["modules"]["mytools/table.txt"] == "é'\\\nline two\n"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"\xff", "table.txt:1: not UTF-8"),
        (b"  \n", "table.txt: a data file that is empty"),
        (b"a\n'''\n", "table.txt:2: three single quotes cannot travel"),
        (b"a\n#== b\n", "table.txt:2: a line that begins with '#== ' cannot travel"),
        (b"a\x00", "table.txt:1: a control character cannot travel"),
        (b"a\n" * 600_000, "table.txt: it would travel in every pilot, so it may have at most 1024 KiB"),
    ],
)
def test_data_that_would_break_a_script_is_refused(tmp_path: Path, content: bytes, error: str) -> None:
    root = write(tmp_path, RunX=DO + "    files = ('table.txt',)\n")
    (root / "table.txt").write_bytes(content)
    with pytest.raises(ToolboxError) as caught:
        build(root, "mine", others=others())
    assert str(caught.value).replace(f"{root}/", "").startswith(error)


PLANNED = """
from pilotage_node.command import Command
class RunX(Command):
    '''Text.'''
    def plan(self):
        import socket
        self.log("would do")

    def do(self):
        self.log("does")
"""


def test_plans_travel_only_for_dry_runs(tmp_path: Path) -> None:
    more = "from mytools.RunX import RunX\nclass RunZ(RunX):\n    def plan(self):\n        pass\n"
    root = write(tmp_path, RunX=PLANNED, RunZ=more)
    plain, dry = build(root, "mine", others=others()), build(root, "mine", others=others(), plans=True)
    assert "plan" not in plain["modules"]["mytools/RunX.py"] and "does" in plain["modules"]["mytools/RunX.py"]
    assert "would do" in dry["modules"]["mytools/RunX.py"] and dry["digest"] != plain["digest"]
    assert plain["modules"]["mytools/RunZ.py"] == "from mytools.RunX import RunX\nclass RunZ(RunX):\n pass\n"


def test_every_base_command_has_a_plan_that_costs_no_pilot_anything() -> None:
    for name, entry in toolboxes.base(plans=True)["commands"].items():
        path = entry["module"].replace(".", "/") + ".py"
        assert "def plan(self)" in toolboxes.base(plans=True)["modules"][path], name
        assert "plan" not in toolboxes.base()["modules"][path], name


def test_the_minimum_python_of_a_community_is_what_counts(tmp_path: Path) -> None:
    """Newer syntax and newer modules are fine from the version on that has them."""
    root = write(tmp_path, RunX="import dataclasses\nimport graphlib\nif (a := 1): pass\n" + DO)
    wrong = [
        ("3.6", ":3: not valid for Python 3.6"),
        ("3.7", ":3: not valid"),
        ("3.8", ":2: graphlib is not in Python 3.8"),
    ]
    for minimum, error in wrong:
        with pytest.raises(ToolboxError, match=error):
            build(root, "mine", others=others(), minimum=minimum)
    assert build(root, "mine", others=others(), minimum="3.9")["commands"]


def convention(directory: Path, package: str, **modules: str) -> None:
    """A package as the path convention wants it, with what such packages have besides."""
    folder = directory / "code" / package / "WorkloadManagementSystem" / "Command"
    folder.mkdir(parents=True)
    (directory / "code" / package / "__init__.py").write_text("import nothing_of_ours\n")
    (directory / "code" / package / "Service.py").write_text("import suds\nclass Handler: pass\n")
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


def test_the_path_convention(tmp_path: Path) -> None:
    """The extension's first, then DIRAC's; what neither has is ours; the rest of those packages is not looked at."""
    convention(
        tmp_path,
        "LHCbDIRAC",
        RunX=f"from {HERE}.RunX import RunX as Base\nclass RunX(Base):\n    timeout = 5\n",
        ReportUsage=f"from {HERE}.ReportUsage import ReportUsage as Base\nclass ReportUsage(Base):\n    pass\n",
        RunJobAgent=f"from {HERE} import RunJobAgent as m\nclass RunJobAgent(m.RunJobAgent):\n    pass\n",
    )
    plain = "class RunX:\n    wants = ('a',)\n    def do(): pass\n"
    convention(tmp_path, "DIRAC", RunX=plain, RunY=DO.replace("RunX", "RunY"))
    base = toolboxes.base()["commands"]
    toolbox = build(tmp_path / "code", "lhcb", others=others(), extension="LHCb")
    commands = toolbox["commands"]
    assert {name: entry["module"].partition(".")[0] for name, entry in commands.items()} == {
        "RunX": "LHCbDIRAC", "RunY": "DIRAC", "ReportUsage": "LHCbDIRAC", "RunJobAgent": "LHCbDIRAC",
    }  # fmt: skip
    assert (commands["RunX"]["timeout"], commands["RunX"]["wants"]) == (5, ["a"])
    assert commands["ReportUsage"]["options"] == base["ReportUsage"]["options"]
    assert commands["RunJobAgent"]["options"] == base["RunJobAgent"]["options"]
    alias = toolbox["modules"]["DIRAC/WorkloadManagementSystem/Command/ReportUsage.py"]
    assert alias == "from pilotage_node.toolbox.ReportUsage import ReportUsage\n"
    assert [path for path in toolbox["modules"] if "__init__" in path or "Service" in path] == []
    with pytest.raises(ToolboxError, match=r"command RunX is also in .*; a toolbox has one of a name"):
        build(tmp_path / "code", "lhcb", others=others())


def test_an_import_by_the_convention_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path, RunX=f"\nfrom {HERE}.RunNothing import RunNothing\n" + DO)
    with pytest.raises(ToolboxError, match=rf"RunX.py:2: there is no module {HERE}.RunNothing, and no such command"):
        build(root, "mine", others=others())


def test_modules_below_the_pilots_own_package_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "pilotage_node"
    (root / "runner").mkdir(parents=True)
    (root / "RunX.py").write_text(DO)
    (root / "runner" / "run.py").write_text("")
    with pytest.raises(ToolboxError, match=r"RunX.py:1: modules below pilotage_node are the pilot's own, the runner"):
        build(root, "mine", others=others())


def test_a_class_reexported_by_a_helper_is_still_known(tmp_path: Path) -> None:
    """Contracts are followed through packages that only pass names on, as far as it goes in a circle."""
    root = write(
        tmp_path,
        sub__init="from mytools.sub.deep import Base\n",
        sub__deep="from pilotage_node.toolbox.ReportUsage import ReportUsage as Base\n",
        RunX="from mytools.sub import Base\nclass RunX(Base):\n    pass\n",
        RunY="from mytools.RunY import RunY as Base\nclass RunY(Base):\n    def do(self): pass\n",
    )
    with pytest.raises(ToolboxError, match=r"RunY.py:2: class RunY inherits from itself"):
        build(root, "mine", others=others())
    (root / "RunY.py").unlink()
    assert build(root, "mine", others=others())["commands"]["RunX"]["always"] is True


def test_the_example_of_the_page_is_a_toolbox(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "toolboxes.md").read_text()
    for block in re.findall(r"```yaml\n(.*?)```", page, re.S):
        assert loads(block).vos["myvo"].toolboxes
    blocks = [textwrap.dedent(block) for block in re.findall(r"^ *```python\n(.*?)```", page, re.S | re.M)]
    assert len(blocks) == 3
    root = write(
        tmp_path,
        CheckSoftware=blocks[0],
        RunEnvironmentTest="from pilotage_node.command import Option\n" + blocks[1],
        WatchLoad=blocks[2],
        helper="def version_of(path): pass\n",
        plugins__el9="",
    )
    (root / "releases.json").write_text("[]")
    found = build(root, "mine", others=others())
    assert sorted(found["commands"]) == ["CheckSoftware", "RunEnvironmentTest", "WatchLoad"]
    assert {"mytools/releases.json", "mytools/plugins/el9.py"} <= set(found["modules"])
    assert "more" in found["commands"]["RunEnvironmentTest"]["options"]
