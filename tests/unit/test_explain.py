"""Why a pilot is as it is, and which pilots differ between two configurations; the JSON Schema of the files."""

from __future__ import annotations

import json
from importlib import resources

import jsonschema
import pytest
import yaml

from pilotage.configuration import ConfigurationError, load, load_files, loads
from pilotage.configuration import differences as differing
from pilotage.configuration.explain import COMMAND, Explained, explain
from pilotage.configuration.resolve import target
from pilotage.configuration.schema import Configuration, schema_json

FILES = {
    "operator.yaml": """\
pilot: {tags: [all]}
flavours:
  LOCAL: {commands: {remove: [ReportUsage]}}
vos: {phys: {minimum_python: '3.9'}, bio: {}}
sites:
  S:
    pilot: {platform: el9}
    resources:
      r:
        type: local
        flavour: LOCAL
        pilot:
          limits: {cores: 8, gpus: 1}
          vos: {phys: {tags: {append: [r-phys]}}}
        queues:
          q: {cores: 4, memory_mib: 1000, pilot: {limits: {memory_mib: 500}, options: {RunJobAgent: {idle_seconds: 3}}}}
          p: {}
""",
    "vos/phys/x.yaml": """\
vos:
  phys:
    pilot:
      commands: [{replace: {RunMonitoringAgent: ReportUsage}}]
""",
}


def explained(configuration: Configuration, vo: str = "phys", queue: str = "q") -> dict[str, Explained]:
    return {row.path: row for row in explain(configuration, target(configuration, vo, "r", queue))}


def test_every_value_and_command_is_told_with_its_layer_and_line() -> None:
    configuration = load_files(FILES)
    rows = explained(configuration)
    told = {path: (row.value, row.layer, str(row.where)) for path, row in rows.items()}
    assert told["engine"] == ("builtin", "built-in defaults", "None")
    assert told["minimum_python"] == ("3.9", "VO phys", "operator.yaml:4:14")
    assert told["commands[1]"] == ("ReportUsage", "VO phys", "vos/phys/x.yaml:4:29")
    assert told["commands[2]"][:2] == ("RunJobAgent", "built-in flavour LOCAL")
    assert told["commands[2]"][2].startswith("defaults.yaml:")
    assert told["options.RunJobAgent.idle_seconds"] == (3, "queue q of r", "operator.yaml:16:102")
    assert told["options.RunEnvironmentTest.min_disk_mib"][:2] == (512, "built-in flavour LOCAL")
    assert told["options.ReportUsage.jobs_listed"] == (20, COMMAND, "None")
    assert told["limits.cores"] == (4, "queue q of r", "operator.yaml:16:15")
    assert told["limits.memory_mib"] == (500, "queue q of r", "operator.yaml:16:60")
    assert told["limits.gpus"] == (1, "resource r", "operator.yaml:13:30")
    assert told["limits.disk_mib"] == (None, "nobody", "None")
    assert told["tags[0]"] == ("all", "all pilots", "operator.yaml:1:16")
    assert told["tags[1]"] == ("r-phys", "resource r for VO phys", "operator.yaml:14:40")
    assert told["platform"] == ("el9", "site S", "operator.yaml:7:13")
    assert told["python"] == ([], "nobody", "None")
    assert told["log_mib"][:2] == (10, "built-in defaults")
    json.dumps([row.plain() for row in rows.values()])
    assert rows["platform"].plain() == {
        "path": "platform",
        "value": "el9",
        "layer": "site S",
        "where": "operator.yaml:7:13",
    }


def test_every_line_that_is_told_says_that_value() -> None:
    """Where a file sets a value, the value (or the edit that brings it) stands at that place."""
    lines = {name: text.splitlines() for name, text in FILES.items()}
    defaults = (resources.files("pilotage.configuration") / "defaults.yaml").read_text("utf-8")
    lines["defaults.yaml"] = defaults.splitlines()
    rows = explained(load_files(FILES))
    for row in rows.values():
        if row.where:
            assert str(row.value) in lines[row.where.file][row.where.line - 1][row.where.column - 1 :], row
    assert sum(row.where is not None for row in rows.values()) > 12


def test_a_pilot_that_does_not_compose_is_explained_as_far_as_it_goes() -> None:
    configuration = loads("vos: {phys: {pilot: {commands: [RunNothingKnown], options: {RunNothingKnown: {a: 1}}}}}")
    rows = {row.path: row.value for row in explain(configuration, target(configuration, "phys", "local"))}
    assert rows["commands[0]"] == "RunNothingKnown" and rows["options.RunNothingKnown.a"] == 1


def test_a_pilot_that_cannot_be_is_an_error_with_its_place() -> None:
    configuration = loads("vos: {phys: {pilot: {commands: {remove: [RunX]}}}}", "f.yaml")
    with pytest.raises(ConfigurationError, match=r"f.yaml:1:42: remove: there is no 'RunX'"):
        explain(configuration, target(configuration, "phys", "local"))


def test_what_the_command_line_says_is_told() -> None:
    configuration = load()
    extra = [(("--set",), {"options": {"RunEnvironmentTest": {"min_disk_mib": 7}}})]
    rows = explain(configuration, target(configuration, "demo", "local"), extra)
    assert Explained("options.RunEnvironmentTest.min_disk_mib", 7, "command line (--set)", None)[:3] in [
        row[:3] for row in rows
    ]


def test_a_machine_of_a_site_without_a_resource() -> None:
    configuration = load_files({"a.yaml": "sites: {S: {pilot: {tags: [s], vos: {demo: {platform: el9}}}}}"})
    rows = explain(configuration, target(configuration, "demo", flavour="VAC", site="S"))
    told = {row.path: (row.value, row.layer) for row in rows}
    assert told["tags[0]"] == ("s", "site S") and told["platform"] == ("el9", "site S for VO demo")
    assert ("options.RunJobAgent.idle_seconds", COMMAND) in {(row.path, row.layer) for row in rows}


# --- differences


def changed(name: str, old: str, new: str) -> dict[tuple[str, str, str], list[tuple[object, ...]]]:
    before = load_files(FILES)
    after = load_files({**FILES, name: FILES[name].replace(old, new)})
    assert before.revision != after.revision
    found = differing.pilots(before, after)
    json.dumps([one.plain() for one in found])
    return {one[:3]: [one.kind, *map(tuple, one.changes)] for one in found}


def test_only_the_pilots_that_differ_are_told_and_in_what() -> None:
    assert changed("vos/phys/x.yaml", "[{replace: {RunMonitoringAgent: ReportUsage}}]", "{prepend: [ReportUsage]}") == {
        ("r", queue, "phys"): [
            "changed",
            (
                "commands",
                ["RunEnvironmentTest", "ReportUsage", "RunJobAgent", "UploadPilotOutput"],
                ["ReportUsage", "RunEnvironmentTest", "RunMonitoringAgent", "RunJobAgent", "UploadPilotOutput"],
            ),
        ]
        for queue in ("q", "p")
    }
    assert changed("operator.yaml", "idle_seconds: 3", "idle_seconds: 4") == {
        ("r", "q", vo): ["changed", ("options.RunJobAgent.idle_seconds", 3, 4)] for vo in ("phys", "bio")
    }
    assert changed("operator.yaml", "limits: {memory_mib: 500}", "limits: {memory_mib: 600}") == {
        ("r", "q", vo): ["changed", ("limits.memory_mib", 500, 600)] for vo in ("phys", "bio")
    }


def test_what_makes_no_difference_to_pilots_is_not_told() -> None:
    assert changed("operator.yaml", "p: {}", "p: {max_pilots: 3}\nservice: {lease_seconds: 7, url: 'https://b'}") == {}
    assert changed("operator.yaml", "limits: {memory_mib: 500}", "limits: {memory_mib: 500, disk_mib: null}") == {}


def test_pilots_that_appear_or_vanish_or_break() -> None:
    assert changed("operator.yaml", "p: {}", "new: {}") == {
        **{("r", "p", vo): ["vanished"] for vo in ("phys", "bio")},
        **{("r", "new", vo): ["appeared"] for vo in ("phys", "bio")},
    }
    found = changed("operator.yaml", "remove: [ReportUsage]", "remove: [RunMonitoringAgent]")
    assert set(found) == {("r", queue, vo) for queue in "qp" for vo in ("phys", "bio")}
    problems = [change for change in found["r", "q", "phys"][1:] if change[0] == "problem"]
    assert "there is no 'RunMonitoringAgent'" in str(problems)


# --- the schema


def check(text: str) -> None:
    jsonschema.Draft202012Validator(schema_json()).validate(yaml.safe_load(text))


def test_the_json_schema_takes_what_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(schema_json())
    check((resources.files("pilotage.configuration") / "defaults.yaml").read_text("utf-8"))
    for text in FILES.values():
        check(text)
    check("pilot: {tags: [], commands: {insert: {before: A, do: [B]}}, python: [{append: [/x]}, {prepend: [/y]}]}")
    check("sites: {S: {resources: {r: {pilot: {vos: {phys: {tags: [x]}}}}}}}")  # the rest is in another file


@pytest.mark.parametrize(
    "text",
    [
        "servce: {}",
        "vos: {'../x': {}}",
        "vos: {a: {engine: condor}}",
        "pilot: {commands: {apend: [X]}}",
        "pilot: {commands: [a b]}",
        "pilot: {options: {idle_seconds: 3}}",
        "flavours: {F: {engines: {condor: {}}}}",
        "service: {lease_seconds: 0}",
        "toolboxes: [{path: /a}]",
    ],
)
def test_the_json_schema_refuses_what_loading_refuses(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(text)
    with pytest.raises(ConfigurationError):
        loads(text)


def test_every_key_of_the_schema_is_described() -> None:
    """Keys that say it all themselves apart; the reference page is made of these."""
    plain = {"cores", "gpus", "env", "file", "command", "url", "endpoint", "region"}
    parts = {name: part["properties"] for name, part in schema_json()["$defs"].items()}
    parts["top"] = schema_json()["properties"]
    assert [
        f"{name}.{key}"
        for name, properties in parts.items()
        for key, field in properties.items()
        if "description" not in field and "$ref" not in str(field) and key not in plain and name != "Retention"
    ] == []
