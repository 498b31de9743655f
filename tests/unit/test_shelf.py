"""The toolboxes of a community in their order: who wins, who may import whom, and what stops composing."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.interpreters import interpreters

from pilotage.configuration import Configuration, ConfigurationError, check, compose_pilot, loads, shelf, toolboxes
from pilotage.configuration.toolboxes import Built
from pilotage_node.compose import read_script

DO = "class {0}:\n    def do(self): pass\n"
HERE = "DIRAC.WorkloadManagementSystem.Command"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def put(directory: Path, **files: str) -> Path:
    """A package of these modules, named as the directory."""
    for name, text in files.items():
        path = directory / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
    return directory


def configured(
    own: dict[str, Path], for_all: dict[str, Path] | None = None, commands: list[str] | None = None, **vo: Any
) -> Configuration:
    """A configuration whose VO `mine` has these toolboxes; the embedded LOCAL resource runs its pilots."""
    boxes = [{"name": name, "path": str(path)} for name, path in own.items()]
    settings = {"toolboxes": boxes, **({"pilot": {"commands": commands}} if commands else {}), **vo}
    data: dict[str, Any] = {"vos": {"mine": settings}}
    data["toolboxes"] = [{"name": name, "path": str(path)} for name, path in (for_all or {}).items()]
    return loads(yaml.safe_dump(data), "mine.yaml")


def composed(configuration: Configuration) -> dict[str, str]:
    """The sections of the VO's LOCAL pilot."""
    return dict(read_script(compose_pilot(configuration, "mine", flavour="LOCAL").script).sections)


def refused(configuration: Configuration, directory: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        compose_pilot(configuration, "mine", flavour="LOCAL")
    text = str(caught.value).replace(f"{directory}/", "")
    assert "\n" not in text
    with pytest.raises(ConfigurationError):
        check(configuration)
    return text


def test_the_order_of_toolboxes_decides_who_has_a_command(tmp_path: Path) -> None:
    first = put(tmp_path / "first", RunA=DO.format("RunA"))
    second = put(
        tmp_path / "second", RunA=DO.format("RunA"), RunB=DO.format("RunB"), RunJobAgent=DO.format("RunJobAgent")
    )
    general = put(tmp_path / "general", RunB=DO.format("RunB"), RunC=DO.format("RunC"))
    commands = ["RunA", "RunB", "RunC", "RunJobAgent", "ReportUsage"]
    configuration = configured({"one": first, "two": second}, {"all": general}, commands)
    profile = json.loads(composed(configuration)["profile.json"])
    assert [(command["name"], command["toolbox"]) for command in profile["commands"]] == [
        ("RunA", "one"), ("RunB", "two"), ("RunC", "all"), ("RunJobAgent", "two"), ("ReportUsage", "base"),
    ]  # fmt: skip
    names = [toolbox["name"] for toolbox in shelf.toolboxes_of(configuration, "mine")]
    assert names == ["one", "two", "all", "base", "core"]
    check(configuration)


def test_an_overriding_command_brings_its_base_along(tmp_path: Path) -> None:
    general = put(
        tmp_path / "general",
        ReportUsage="""
        from pilotage_node.toolbox.ReportUsage import ReportUsage as Base
        class ReportUsage(Base):
            files = ("table.txt",)
            def do(self): super().do()
        """,
    )
    (general / "table.txt").write_text("of all\n")
    own = put(
        tmp_path / "own",
        ReportUsage="""
        from general.ReportUsage import ReportUsage as Base
        class ReportUsage(Base):
            timeout = 3
        """,
    )
    sections = composed(configured({"own": own}, {"all": general}, ["RunJobAgent", "ReportUsage"]))
    modules = {name for name in sections if name.startswith(("own/", "general/", "pilotage_node/toolbox/R"))}
    assert modules == {
        "own/ReportUsage.py", "general/ReportUsage.py", "general/table.txt",
        "pilotage_node/toolbox/ReportUsage.py", "pilotage_node/toolbox/RunJobAgent.py",
    }  # fmt: skip
    profile = json.loads(sections["profile.json"])
    assert profile["commands"][1]["files"] == {"table.txt": "general/table.txt"}
    assert "files" not in profile["commands"][0]


def test_a_broken_module_stops_composing_and_is_named(tmp_path: Path) -> None:
    """There is a base command of the same name: it is not taken instead."""
    own = put(tmp_path / "own", RunJobAgent="class RunJobAgent:\n    def do(self)\n        pass\n")
    text = refused(configured({"own": own}), tmp_path)
    assert text.startswith("mine.yaml:")
    assert "the toolbox 'own' cannot be used: own/RunJobAgent.py:2: not valid for Python 3.6: expected ':'" in text


def test_a_mended_module_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "LOOK", 0.0)
    own = put(tmp_path / "own", RunJobAgent="import numpy\n")
    configuration = configured({"own": own})
    assert "own/RunJobAgent.py:1: " in refused(configuration, tmp_path)
    put(own, RunJobAgent=DO.format("RunJobAgent") + "    timeout = 77\n")
    assert "timeout = 77" in composed(configuration)["own/RunJobAgent.py"]
    put(own, RunJobAgent=DO.format("RunJobAgent") + "    timeout = 78\n")
    assert "timeout = 78" in composed(configuration)["own/RunJobAgent.py"]


def test_toolboxes_that_import_each_other_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "LOOK", 0.0)
    first = put(tmp_path / "first", RunA="import second.helper\n" + DO.format("RunA"), helper="")
    second = put(tmp_path / "second", RunB="\nimport first.helper\n" + DO.format("RunB"), helper="")
    text = refused(configured({"one": first, "two": second}), tmp_path)
    assert (
        "the toolbox 'two' cannot be used: second/RunB.py:2: first.helper is of the toolbox 'one', which comes before "
        "this one; a toolbox imports only from those after it" in text
    )
    put(second, RunB=DO.format("RunB"))
    assert composed(configured({"one": first, "two": second}, None, ["RunA"]))["first/RunA.py"]


def test_the_same_module_in_two_toolboxes_is_refused(tmp_path: Path) -> None:
    first = put(tmp_path / "a" / "tools", RunA="from tools import helper\n" + DO.format("RunA"), helper="X = 1\n")
    second = put(tmp_path / "b" / "tools", RunB="from tools import helper\n" + DO.format("RunB"), helper="X = 2\n")
    text = refused(configured({"one": first, "two": second}), tmp_path)
    assert "the toolbox 'one' cannot be used: a/tools/helper.py:1: this module is also in the toolbox 'two'" in text
    assert "(b/tools/helper.py): rename the package of one" in text


def test_a_toolbox_that_shadows_the_runner_is_refused(tmp_path: Path) -> None:
    own = put(tmp_path / "pilotage_node", RunX=DO.format("RunX"), runner__run="", command="")
    text = refused(configured({"own": own}), tmp_path)
    assert "pilotage_node/RunX.py:1: modules below pilotage_node are the pilot's own, the runner among them" in text
    own = put(tmp_path / "json", RunX=DO.format("RunX"))
    assert "json/RunX.py: the package name json is taken by Python's standard library" in refused(
        configured({"own": own}), tmp_path
    )


def test_an_option_that_only_another_command_has(tmp_path: Path) -> None:
    own = put(tmp_path / "own", RunA=DO.format("RunA"))
    pilot = {"commands": ["RunA", "RunJobAgent"], "options": {"RunA": {"idle_seconds": 5}}}
    text = refused(configured({"own": own}, pilot=pilot), tmp_path)
    assert text.endswith("RunA has no option 'idle_seconds'; it is an option of RunJobAgent")
    assert text.startswith("mine.yaml:")


def test_commands_for_dirac_are_for_vos_whose_jobs_are_in_one(tmp_path: Path) -> None:
    text = refused(configured({}, None, ["InstallDIRAC", "RunJobAgent"]), tmp_path)
    assert "the command 'InstallDIRAC' is of the toolbox 'dirac', which only VOs with engine: dirac have" in text
    found = loads("vos: {mine: {engine: dirac}, other: {}}", "mine.yaml")
    assert [box["name"] for box in shelf.toolboxes_of(found, "mine")] == ["dirac", "base", "core"]
    assert [box["name"] for box in shelf.toolboxes_of(found, "other")] == ["base", "core"]


def test_a_wrong_digest_of_an_archive_is_told_with_its_place(tmp_path: Path) -> None:
    path = archive(tmp_path / "own.tar.gz", RunA=DO.format("RunA"))
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    text = f"vos:\n  mine:\n    toolboxes:\n      - {{name: own, path: {path}, sha256: {{}}}}\n"
    with pytest.raises(ConfigurationError, match=f"mine.yaml:4:.* the toolbox 'own' .*: its SHA-256 is {right}, but"):
        shelf.toolboxes_of(loads(text.replace("{}", "ab" * 32), "mine.yaml"), "mine")
    assert shelf.toolboxes_of(loads(text.replace("{}", right), "mine.yaml"), "mine")[0]["commands"]


def archive(path: Path, **modules: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in modules.items():
            entry = tarfile.TarInfo(f"own/{name}.py")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


def test_nothing_is_ever_imported(tmp_path: Path) -> None:
    """A toolbox whose every module writes a file when imported is composed, listed and checked without one."""
    proof = tmp_path / "imported"
    writes = f"open({str(proof)!r}, 'a').write(__name__)\n"
    own = put(tmp_path / "writing", RunA=writes + "import writing.helper\n" + DO.format("RunA"), helper=writes)
    put(own, __init__=writes)
    (own / "__init__.py").write_text(writes)
    configuration = configured({"own": own}, None, ["RunA"])
    assert {"writing/RunA.py", "writing/helper.py", "writing/__init__.py"} <= set(composed(configuration))
    check(configuration)
    assert not proof.exists()
    assert not any(name.startswith("writing") for name in sys.modules)


def test_installed_packages_of_the_extension_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any toolbox configured, by the packages' names alone; a configured one of that name is taken first."""
    folder = "WorkloadManagementSystem__Command__"
    text = f"from {HERE}.RunJobAgent import RunJobAgent as Base\nclass RunJobAgent(Base):\n    timeout = 9\n"
    put(tmp_path / "site" / "AcmeDIRAC", **{f"{folder}RunJobAgent": text}).joinpath("__init__.py").write_text(
        "import no\n"
    )
    put(tmp_path / "site" / "DIRAC", **{f"{folder}RunD": DO.format("RunD")}).joinpath("__init__.py").write_text(
        "import no\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    configuration = configured({}, None, ["RunD", "RunJobAgent"], extension="Acme")
    profile = json.loads(composed(configuration)["profile.json"])
    assert [(command["toolbox"], command["module"]) for command in profile["commands"]] == [
        ("DIRAC", f"{HERE}.RunD"), ("AcmeDIRAC", f"Acme{HERE}.RunJobAgent"),
    ]  # fmt: skip
    mine = put(tmp_path / "mine" / "AcmeDIRAC", **{f"{folder}RunJobAgent": text.replace("9", "10")})
    sections = composed(configured({"acme": mine}, None, ["RunD", "RunJobAgent"], extension="Acme"))
    assert "timeout = 10" in sections["AcmeDIRAC/WorkloadManagementSystem/Command/RunJobAgent.py"]
    assert not {"AcmeDIRAC/__init__.py", "DIRAC/__init__.py"} & set(sections)


def test_the_minimum_python_is_checked_and_stated(tmp_path: Path) -> None:
    own = put(tmp_path / "own", RunA="import dataclasses\n" + DO.format("RunA"))
    assert "dataclasses is not in Python 3.6" in refused(configured({"own": own}, None, ["RunA"]), tmp_path)
    configuration = configured({"own": own}, None, ["RunA"], minimum_python="3.9")
    pilot = compose_pilot(configuration, "mine", flavour="LOCAL")
    assert pilot.profile["minimum_python"] == "3.9"
    assert "no Python 3.9 or newer on this machine" in pilot.script
    assert "sys.version_info < (3, 9)" in pilot.script and "(3, 6)" not in pilot.script.partition("#== ")[0]


def test_built_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    toolboxes._own.cache_clear()
    own = put(tmp_path / "own", RunA=DO.format("RunA"))
    built: list[str] = []
    build = toolboxes.build

    def counting(source: Any, name: str, **more: Any) -> Built:
        built.append(name)
        return build(source, name, **more)

    monkeypatch.setattr(toolboxes, "build", counting)
    first = shelf.toolboxes_of(configured({"own": own}), "mine")
    for _ in range(3):
        shelf._shelves.clear()
        assert shelf.toolboxes_of(configured({"own": own}), "mine") == first
    assert built.count("own") == 1
    shelf._shelves.clear()
    shelf.toolboxes_of(configured({"own": own}, minimum_python="3.8"), "mine")
    put(own, RunA=DO.format("RunA") + "    timeout = 1\n")
    shelf._shelves.clear()
    shelf.toolboxes_of(configured({"own": own}), "mine")
    assert built.count("own") == 3


NAMES = st.sampled_from(["helper", "deep", "tables", "plugins"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    imports=st.dictionaries(NAMES, st.sets(NAMES)),
    wanted=st.sets(NAMES),
    timeout=st.integers(0, 9999),
    data=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip),
)
def test_the_same_toolbox_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    imports: dict[str, set[str]],
    wanted: set[str],
    timeout: int,
    data: str,
) -> None:
    """Whatever is in it, wherever it lies, in whatever order its files were written, as a directory or an archive."""
    there = set(imports)
    modules = {name: "".join(f"import own.{one}\n" for one in sorted(imports[name] & there)) for name in there}
    head = "".join(f"import own.{name}\n" for name in sorted(wanted & there))
    modules["RunA"] = head + DO.format("RunA") + f"    timeout = {timeout}\n    files = ('data.txt',)\n"
    scripts = []
    for order in (sorted(modules), sorted(modules, reverse=True)):
        own = put(tmp_path_factory.mktemp("toolbox") / "own", **{name: modules[name] for name in order})
        (own / "data.txt").write_text(data)
        try:
            built = toolboxes.build(own, "own", others=(toolboxes.base(), toolboxes.core()))
        except toolboxes.ToolboxError as error:
            assert "cannot travel" in str(error) and ("'" * 3 in data or data.startswith("#== "))
            return
        sections = {name for name in built["modules"] if name.endswith(".py")}
        scripts.append(composed(configured({"own": own}, None, ["RunA"])))
        assert sections >= {"own/RunA.py", *(f"own/{name}.py" for name in wanted & there)}
        assert scripts[-1]["own/data.txt"].removesuffix("\n") == data.removesuffix("\n")
    assert scripts[0] == {**scripts[1], "profile.json": scripts[0]["profile.json"]}
    profiles = [json.loads(sections["profile.json"]) for sections in scripts]
    assert profiles[0]["toolboxes"] == profiles[1]["toolboxes"]


COMPOSE = """
import json, sys
from pilotage_node.compose import compose
given = json.load(sys.stdin)
sys.stdout.buffer.write(compose(given["profile"], given["toolboxes"]).encode())
"""


@pytest.mark.parametrize("version", ["3.6", "3.13"])
def test_a_communitys_pilot_is_the_same_bytes_composed_elsewhere(tmp_path: Path, version: str) -> None:
    own = put(tmp_path / "own", RunA=DO.format("RunA") + "    files = ('data.txt',)\n")
    (own / "data.txt").write_text("é \"quoted\" \\ and 'single'")
    configuration = configured({"own": own}, None, ["RunA", "RunJobAgent"], minimum_python="3.7")
    pilot = compose_pilot(configuration, "mine", flavour="LOCAL")
    given = {"profile": pilot.profile, "toolboxes": shelf.toolboxes_of(configuration, "mine")}
    node = str(Path(toolboxes.__file__).parents[3] / "node" / "src")
    told = subprocess.run(
        [interpreters()[version], "-c", COMPOSE],
        input=json.dumps(given).encode(),
        env={"PYTHONPATH": node, "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert told.stdout == pilot.script.encode()
