"""A community's pilot on the local resource: an own command, an overridden one, a helper, a data file, a plugin."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tests.allinone import AllInOne, eventually
from tests.interpreters import interpreters

from pilotage.configuration import compose_pilot, loads

SOURCES = {
    "acme/__init__.py": "",
    "acme/CheckSoftware.py": '''
        """Is our software there?"""
        import importlib
        import json

        from acme.helper import shown
        from pilotage_node.command import Command, Option


        class CheckSoftware(Command):
            """Check that our software is there."""

            options = {"path": Option(str, "/nowhere", "where it is")}
            files = ("tables/software.json",)
            modules = ("acme.plugins.first",)
            provides = ("software",)

            def do(self):
                table = json.loads(self.read("tables/software.json"))
                plugin = importlib.import_module("acme.plugins." + table["plugin"])
                self.facts.software = plugin.find(self.options.path)
                self.log(shown("software", self.facts.software, table["name"]))
        ''',
    "acme/tables/software.json": '{"name": "w\\u00f6rk, \\"quoted\\"",\n "plugin": "first"}',
    "acme/plugins/first.py": "def find(path):\n    return path + '/1.2'\n",
    "acme/plugins/second.py": "import numpy\n",
    "acme/helper.py": "def shown(what, *values):\n    return what + ': ' + ' | '.join(values)\n",
    "acme/RunEnvironmentTest.py": """
        from pilotage_node.toolbox.RunEnvironmentTest import RunEnvironmentTest as Base


        class RunEnvironmentTest(Base):
            requires = ("software",)

            def do(self):
                self.log("before the base command, with %s" % self.facts.software)
                super().do()
                self.log("after the base command")
        """,
    "acme/SayIt.py": "class SayIt:\n    def do():\n        print('said without a self')\n",
}


def lay(root: Path) -> Path:
    for name, text in SOURCES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
    return root


def configuration(toolbox: dict[str, Any], **vo: Any) -> dict[str, Any]:
    options = {"RunJobAgent": {"idle_seconds": 2}, "CheckSoftware": {"path": "/opt/vo"}}
    commands = ["CheckSoftware", "SayIt", "RunEnvironmentTest", "RunJobAgent", "UploadPilotOutput"]
    pilot = {"commands": commands, "options": {**options, "RunEnvironmentTest": {"min_disk_mib": 64}}}
    return {"service": {"sync_seconds": 1}, "vos": {"acme": {"toolboxes": [toolbox], "pilot": pilot, **vo}}}


def packed(root: Path, path: Path) -> dict[str, Any]:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(root / "acme", "acme")
    return {"name": "acme", "path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.mark.parametrize("version", ["3.6", "3.11"])
def test_a_communitys_pilot_runs_on_the_local_resource(tmp_path: Path, version: str) -> None:
    root = lay(tmp_path / "toolbox")
    toolbox = {"name": "acme", "path": str(root / "acme")} if version == "3.6" else packed(root, tmp_path / "a.tar.gz")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(interpreters()[version])
    one = AllInOne(tmp_path, configuration(toolbox))
    one.environment["PATH"] = f"{tmp_path}/bin:{os.environ['PATH']}"
    try:
        one.start()
        [identity] = one.submit({"command": ["echo", "hello"]})
        [job] = one.wait([identity])
        assert (job["state"], job["stdout"]) == ("Done", "hello\n"), one.log()

        def ended() -> list[dict[str, Any]]:
            return [pilot for pilot in one.pilots() if pilot["stamp"] == job["pilot"] and pilot["state"] == "Done"]

        [pilot] = eventually(ended, "the pilot has ended")
        log = one.client().get(f"/pilots/{pilot['stamp']}/log").text
    finally:
        one.stop()
    assert pilot["node"]["python"].startswith(version + "."), pilot["node"]
    told = [
        'software: /opt/vo/1.2 | wörk, "quoted"',
        "said without a self",
        "before the base command, with /opt/vo/1.2",
        "write test",
        "after the base command",
        "pilot.log uploaded",
    ]
    places = [log.find(text) for text in told]
    assert -1 not in places and places == sorted(places), log


def test_only_what_is_needed_is_in_the_script(tmp_path: Path) -> None:
    import yaml

    root = lay(tmp_path)
    data = configuration({"name": "acme", "path": str(root / "acme")})
    text = compose_pilot(loads(yaml.safe_dump(data)), "acme", flavour="LOCAL").script
    assert "#== acme/plugins/first.py\n" in text and "numpy" not in text and "acme/plugins/second" not in text


def test_a_pilot_is_not_run_by_a_python_older_than_its_community_wants(tmp_path: Path) -> None:
    import yaml

    root = lay(tmp_path)
    data = configuration({"name": "acme", "path": str(root / "acme")}, minimum_python="3.8")
    pilot = tmp_path / "pilot"
    pilot.write_text(compose_pilot(loads(yaml.safe_dump(data)), "acme", flavour="LOCAL").script, "utf-8")

    def run(*versions: str) -> subprocess.CompletedProcess[str]:
        """With these interpreters alone on the PATH, the first as python3."""
        directory = tmp_path / "-".join(versions)
        directory.mkdir()
        for number, version in enumerate(versions):
            (directory / ("python3" if not number else f"python{version}")).symlink_to(interpreters()[version])
        command = ["/bin/sh", str(pilot), "--inspect"]
        return subprocess.run(command, env={"PATH": str(directory)}, capture_output=True, text=True, timeout=60)

    newer = run("3.6", "3.9")
    assert "python3 is Python 3.6" in newer.stderr and newer.returncode == 0, newer.stderr
    assert '"minimum_python": "3.8"' in newer.stdout
    alone = run("3.6")
    if alone.returncode:  # a machine with CVMFS or a platform-python has another one
        assert alone.returncode == 2 and "pilot: no Python 3.8 or newer on this machine" in alone.stderr, alone.stderr


def test_the_service_never_imports_a_toolbox(tmp_path: Path) -> None:
    """It checks, composes, lists and hands out a pilot whose modules would write a file when imported."""
    proof = tmp_path / "imported"
    root = tmp_path / "writing"
    root.mkdir()
    writes = f"open({str(proof)!r}, 'a').write(__name__)\n"
    (root / "__init__.py").write_text(writes)
    (root / "helper.py").write_text(writes)
    (root / "RunA.py").write_text(writes + "import writing.helper\nclass RunA:\n    def do(self): pass\n")
    local = {"type": "local", "flavour": "LOCAL", "slots": 0, "queues": {"default": {}}}
    pilot = {"commands": ["RunA", "RunJobAgent"]}
    data = {
        "vos": {"demo": {"toolboxes": [{"name": "own", "path": str(root)}], "pilot": pilot}},
        "sites": {"LOCAL": {"resources": {"local": local}}},
    }
    one = AllInOne(tmp_path, data)
    try:
        one.start()
        flavours = {flavour["name"]: flavour for flavour in one.client().get("/flavours").json()["flavours"]}
        assert [command["name"] for command in flavours["LOCAL"]["commands"]] == ["RunA", "RunJobAgent"]
        one.cli("generate", "--flavour", "LOCAL", "--bundle", str(tmp_path / "bundle"))
        assert "#== writing/RunA.py\n" in (tmp_path / "bundle" / "pilot").read_text()
        assert not proof.exists(), proof.read_text()
        subprocess.run(["sh", "pilot"], cwd=tmp_path / "bundle", timeout=200, check=False)
        assert proof.exists(), "the pilot does import it"
    finally:
        one.stop()
