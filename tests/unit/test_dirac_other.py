"""pilot.json, export, and the commands of the CLI for DIRAC's configuration."""

import json
from pathlib import Path

import pytest
import typer
from dirac_texts import OPERATIONS, SITE
from test_dirac_import import commands, options
from typer.testing import CliRunner

from pilotage.cli.dirac import export_dirac, import_dirac
from pilotage.cli.errors import CliError
from pilotage.configuration import load
from pilotage.configuration.dirac import cfg, convert, export, pilotjson, table
from pilotage.configuration.document import ConfigurationError, Location
from pilotage.configuration.loader import load_files

app = typer.Typer()
app.command("import")(import_dirac)
app.command("export-dirac")(export_dirac)

CES = {
    "arc.example.org": {
        "Site": "LCG.CERN.ch",
        "GridCEType": "AREX",
        "LocalCEType": "Pool",
        "long": {"LocalCEType": "X"},
    },
    "vac.example.org": {"Site": "VAC.Here.uk", "GridCEType": "Vac"},
}
NEW = {
    "timestamp": "2026-01-01T00:00:00",
    "Defaults": {"Pilot": {"Version": "v8", "Commands": {"AREX": "CheckWorkerNode, LaunchAgent"}}},
    "lhcb": {"Pilot": {"Version": "v11", "Commands": {"Vac": ["ConfigureBasics", "LaunchAgent"]}}},
    "CEs": CES,
    "GenericPilotDNs": ["/CN=pilot"],
    "DefaultSetup": "Prod",
    "ConfigurationServers": ["dips://a:9135/x", "dips://b:9135/x"],
}
OLD = {
    "Setups": {
        "Prod": {"Version": "v9", "Commands": {"AREX": ["CheckWorkerNode", "LaunchAgent"]}, "NagiosProbes": "a, b"},
        "Cert": {"Version": "v10"},
        "Defaults": {"Version": "v8", "ConfigurationServer": "dips://a:9135/x", "Logging": {"Type": "MQ"}},
    },
    "CEs": CES,
    "DefaultSetup": "Prod",
}


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False, standalone_mode=True)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words: object) -> str:
    with pytest.raises(CliError) as caught:
        CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    return str(caught.value)


def test_pilot_json_of_the_new_schema() -> None:
    made = convert(pilotjson.parse(json.dumps(NEW, indent=1), "pilot.json"))
    configuration = load_files(made.files)
    assert commands(configuration, "lhcb", "ARC") == ["CheckWorkerNode", "LaunchAgent"]
    assert commands(configuration, "lhcb", "VAC") == ["ConfigureBasics", "LaunchAgent"]
    assert options(configuration, "lhcb", "arc.example.org")["InstallDIRAC"] == {"version": "v11"}
    assert options(configuration, "lhcb", "arc.example.org")["RunJobAgent"] == {"local_ce_type": "X"}
    assert options(configuration, "lhcb", "vac.example.org")["ConfigureDIRAC"] == {
        "configuration_servers": ["dips://a:9135/x", "dips://b:9135/x"],
        "setup": "Prod",
    }
    assert list(configuration.resource("vac.example.org").queues) == ["default"]
    notes = {note.path: note for note in made.notes}
    assert notes["/GenericPilotDNs"].line == 1 + json.dumps(NEW, indent=1).split("\n").index(' "GenericPilotDNs": [')
    assert "'lhcb' is taken for a VO" in notes["/Operations/lhcb"].text
    assert any("it gets one, 'default'" in note.text for note in made.notes)


def test_pilot_json_of_the_old_schema() -> None:
    made = convert(pilotjson.parse(json.dumps(OLD), "pilot.json"))
    configuration = load_files({**made.files, "more.yaml": "vos: {phys: {engine: dirac}}"})
    got = options(configuration, "phys", "vac.example.org")
    assert got["InstallDIRAC"] == {"version": "v9"}
    assert got["NagiosProbes"] == {"probes": ["a", "b"]}
    assert got["ConfigureDIRAC"] == {"setup": "Prod", "configuration_servers": ["dips://a:9135/x"]}
    assert commands(configuration, "phys", "ARC") == ["CheckWorkerNode", "LaunchAgent"]
    paths = {note.path for note in made.notes}
    assert {"/Operations/Cert/Pilot", "/Operations/Defaults/Pilot/Logging"} <= paths


def test_a_cfg_goes_before_a_pilot_json() -> None:
    whole = pilotjson.together(cfg.parse(OPERATIONS, "dirac.cfg"), pilotjson.parse(json.dumps(NEW), "pilot.json"))
    made = convert(whole)
    configuration = load_files(made.files)
    assert commands(configuration, "lhcb", "ARC") == ["CheckWorkerNode", "InstallDIRAC", "LaunchAgent"]
    assert [name for _, name, _ in configuration.resources()] == ["arc.example.org", "vac.example.org"]
    line = OPERATIONS.split("\n").index("      Version = v8.0.1") + 1
    differs = [note for note in made.notes if "/Operations/Defaults/Pilot/Version: the pilot.json" in note.text]
    assert [(note.file, note.line) for note in differs] == [("dirac.cfg", line)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": \n}', "pilot.json:2:1: is not JSON: Expecting value"),
        ("[]", "pilot.json:1:1: is not a pilot.json: it must be a JSON object"),
        ("[" * 100000, "pilot.json:1:1: is not a pilot.json: it is nested too deeply"),
        ('{"CEs": {\n"x": {}}}', "pilot.json:2:1: is not a pilot.json: CEs/x must be an object with a Site"),
        ('{"CEs": 3}', "pilot.json:1:2: is not a pilot.json: CEs must be an object"),
        ('{"Setups": {"Prod": 3}}', "pilot.json:1:1: is not a pilot.json: Setups/Prod must be an object"),
        ('{"A": {"b": [[1]]}}', "pilot.json:1:1: is not a pilot.json: A/b must be a list of texts"),
    ],
)
def test_a_pilot_json_that_is_none(text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        pilotjson.parse(text, "pilot.json")
    file_and_line, _, words = sentence.partition(": ")
    assert str(caught.value).startswith(file_and_line.rpartition(":")[0] + ":")
    assert words in str(caught.value)


def test_export_lists_what_dirac_has_no_place_for() -> None:
    data = {
        "service": {"url": "https://x.example.org"},
        "pilot": {"tags": ["a"], "options": {"InstallDIRAC": {"version": "v8"}, "RunJobAgent": {"idle_seconds": 3}}},
        "flavours": {"ARC": {"engines": {"dirac": {"commands": {"append": ["X"]}}}, "log_mib": 3}},
        "vos": {"demo": {"share": 2.0, "engine": "builtin"}},
        "sites": {
            "NORTH": {
                "resources": {
                    "ce": {
                        "type": "local",
                        "flavour": "ARC",
                        "slots": 4,
                        "pilot": {"options": {"ConfigureDIRAC": {"generic_options": ["a,b"]}}},
                        "queues": {"q": {"wall_seconds": 90, "disk_mib": 5}},
                    }
                }
            }
        },
    }
    exported = export(data, lambda path: Location("x.yaml", len(path)))
    root = cfg.parse(exported.text)
    queue = root.section("Resources", "Sites", "NORTH", "NORTH", "CEs", "ce", "Queues", "q")
    assert queue is not None
    assert {name: option.value for name, option in queue.options()} == {"maxCPUTime": "1.5"}
    notes = {note.path: note.text for note in exported.notes}
    assert notes == {
        "service.url": "has no counterpart in DIRAC",
        "pilot.tags": "has no counterpart in DIRAC",
        "pilot.options.RunJobAgent.idle_seconds": "has no counterpart in DIRAC",
        "flavours.ARC.log_mib": "has no counterpart in DIRAC",
        "flavours.ARC.engines.dirac.commands": (
            "an edit of a list has no counterpart in DIRAC: write the list that is meant"
        ),
        "vos.demo.share": "has no counterpart in DIRAC",
        "vos.demo.engine": "the jobs of this VO are not in DIRAC",
        "sites.NORTH.resources.ce.type": "DIRAC tells types by the flavour: this becomes AREX",
        "sites.NORTH.resources.ce.slots": "has no counterpart in DIRAC",
        "sites.NORTH.resources.ce.pilot.options.ConfigureDIRAC.generic_options": (
            "has no counterpart in DIRAC: an item with a comma"
        ),
        "sites.NORTH.resources.ce.queues.q.disk_mib": "has no counterpart in DIRAC",
    }
    assert (exported.notes[0].file, exported.notes[0].line) == ("x.yaml", 2)


def test_the_command_imports_into_a_directory(tmp_path: Path) -> None:
    source = tmp_path / "dirac.cfg"
    source.write_text(OPERATIONS + SITE)
    told = run("import", source, "--out", tmp_path / "out")
    assert "1 sites, 4 resources, 5 queues, 2 VOs\n" in told
    assert f"{source}:" in told
    assert "/Nonsense: has no counterpart\n" in told
    assert "MaxTotalJobs: is not set: max_pilots is 1, as in DIRAC (and 1 more like it)\n" in told
    configuration = load(tmp_path / "out")
    assert list(configuration.vos) == ["lhcb", "biomed"]
    (tmp_path / "other.cfg").write_text(run("export-dirac", tmp_path / "out"))
    run("import", tmp_path / "other.cfg", "--out", tmp_path / "again")
    for name in ("dirac.yaml", "sites/LCG.yaml", "vos/lhcb/pilot.yaml"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "out" / name).read_text()


def test_json_for_programs(tmp_path: Path) -> None:
    (tmp_path / "dirac.cfg").write_text(OPERATIONS)
    told = json.loads(run("import", tmp_path / "dirac.cfg", "--json"))
    assert set(told["files"]) == {"dirac.yaml", "vos/lhcb/pilot.yaml"}
    assert {"path": "/Operations/Defaults/JobScheduling", "text": "is not about pilots (1 option)"}.items() <= next(
        note for note in told["notes"] if note["path"].endswith("JobScheduling")
    ).items()
    (tmp_path / "x.yaml").write_text("pilot: {options: {InstallDIRAC: {version: v8}}, tags: [a]}\n")
    told = json.loads(run("export-dirac", tmp_path / "x.yaml", "--json"))
    assert "Version = v8" in told["text"]
    assert [(note["path"], note["line"]) for note in told["notes"]] == [("pilot.tags", 1)]


def test_the_command_with_a_pilot_json_alone_writes_nothing_unasked(tmp_path: Path) -> None:
    (tmp_path / "pilot.json").write_text(json.dumps(NEW))
    told = run("import", "--pilot-json", tmp_path / "pilot.json")
    assert told.startswith("2 sites, 2 resources, 2 queues, 1 VOs\n")
    assert "nothing was written; give --out DIR" in told
    assert [path.name for path in tmp_path.iterdir()] == ["pilot.json"]


def test_what_is_wrong_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    bad = tmp_path / "dirac.cfg"
    bad.write_text("A\n{\n")
    assert f"{bad}:1:1: the section 'A' is opened here" in refused("import", bad, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "give a .cfg file, --pilot-json FILE, or both" in refused("import")
    bad.write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "is there already and not an empty directory" in refused("import", bad, "--out", tmp_path / "full")
    (tmp_path / "x.yaml").write_text("pilot: {tags: [a]}")
    assert "is there already" in refused("export-dirac", tmp_path / "x.yaml", "--out", bad)


def test_the_page_tells_of_every_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "import-from-dirac.md").read_text()
    for row in (*table.PILOT, *table.GLOBAL, *table.RESOURCE):
        assert f"| `{row.dirac}` | `{row.command}.{row.option}` |" in page
        assert row.text in page
    for name in table.FIELDS:
        assert f"`{name}`" in page
