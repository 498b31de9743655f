"""Layers: their order, VOs in places, engines, edits, and final values; what merging itself is: test_merging.py."""

from __future__ import annotations

from typing import Any

import pytest

from pilotage.configuration import ConfigurationError, load, load_files, loads, resolve
from pilotage.configuration.resolve import Target, commands_of, resolve_target, target


def names(profile: dict[str, Any]) -> list[str]:
    return [command["name"] for command in profile["commands"]]


def refused(text: str, **named: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        configuration = loads(text, "f.yaml")
        resolve(configuration, named.pop("vo", "phys"), **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


EVERY_LAYER = """\
pilot: {options: {RunX: {all: pilot}}}
flavours:
  F:
    commands: [RunX]
    options: {RunX: {all: flavour, b: flavour}}
    engines:
      dirac: {options: {RunX: {all: engine, c: engine}}}
      builtin: {options: {RunX: {never: true}}}
vos:
  phys:
    engine: dirac
    pilot: {options: {RunX: {all: vo, d: vo}}}
    flavours:
      F: {options: {RunX: {all: vo-flavour, e: vo-flavour}}}
      LOCAL: {options: {RunX: {never: true}}}
  other: {pilot: {options: {RunX: {never: true}}}}
sites:
  S:
    pilot:
      options: {RunX: {all: site, f: site}}
      vos: {phys: {options: {RunX: {all: site-vo, g: site-vo}}}, other: {options: {RunX: {never: true}}}}
    resources:
      r:
        type: local
        flavour: F
        pilot:
          options: {RunX: {all: resource, h: resource}}
          vos: {phys: {options: {RunX: {all: resource-vo, i: resource-vo}}}}
        queues:
          q:
            pilot:
              options: {RunX: {all: queue, j: queue}}
              vos: {phys: {options: {RunX: {all: queue-vo, k: queue-vo}}}}
"""
ORDER = ["pilot", "flavour", "engine", "vo", "vo-flavour", "site", "site-vo", "resource", "resource-vo", "queue"]


def test_every_layer_in_its_order() -> None:
    """Each sets `all` and an option of its own: the last wins, and every one is there."""
    configuration = loads(EVERY_LAYER)
    options = resolve(configuration, "phys", "r", "q")["commands"][0]["options"]
    assert options == {"all": "queue-vo"} | dict(zip("bcdefghijk", [*ORDER[1:], "queue-vo"], strict=True))


@pytest.mark.parametrize("without", range(len(ORDER)))
def test_the_strongest_that_is_there_wins(without: int) -> None:
    """With the layers from the top taken away one by one, the next one counts."""
    text = EVERY_LAYER.replace("all: queue-vo, ", "")
    for layer in ORDER[without + 1 :]:
        text = text.replace(f"all: {layer},", "")
    options = resolve(loads(text), "phys", "r", "q")["commands"][0]["options"]
    assert options["all"] == ORDER[without]


def test_the_command_line_is_above_all() -> None:
    configuration = loads(EVERY_LAYER)
    chosen = target(configuration, "phys", "r", "q")
    profile, merged = resolve_target(configuration, chosen, [(("--set",), {"options": {"RunX": {"all": "line"}}})])
    assert profile["commands"][0]["options"]["all"] == "line"
    assert str(configuration.where(merged.origin(("options", "RunX", "all")))) == "--set"
    assert resolve(configuration, "phys", "r", "q")["commands"][0]["options"]["all"] == "queue-vo", "nothing is kept"


def test_a_vo_that_changes_one_flavour_leaves_every_other_as_it_was() -> None:
    """In DIRAC, a VO that sets the commands of one type of resources loses those of all the others."""
    before, after = load(), loads("vos: {phys: {flavours: {CREAM: {commands: {append: [ReportUsage]}}}}}")
    assert names(resolve(after, "phys", flavour="CREAM")) == ["RunEnvironmentTest", "RunJobAgent", "ReportUsage"]
    for flavour in before.flavours:
        if flavour != "CREAM":
            assert names(resolve(after, "phys", flavour=flavour)) == names(resolve(before, "demo", flavour=flavour))


def test_a_vo_says_what_it_gets_in_one_place_only() -> None:
    files = "sites: {LOCAL: {resources: {local: {type: local, flavour: LOCAL, pilot: {vos: {phys: {tags: [x]}}}, %s}}}}"
    text = "vos: {phys: {}, bio: {}}\n" + files % "queues: {q: {}, p: {pilot: {vos: {phys: {tags: {append: [y]}}}}}}"
    configuration = loads(text)
    tags = {(vo, q): resolve(configuration, vo, "local", q)["tags"] for vo in ("phys", "bio") for q in "qp"}
    assert tags == {("phys", "q"): ["x"], ("phys", "p"): ["x", "y"], ("bio", "q"): [], ("bio", "p"): []}


PROPOSAL = {
    "CREAM": ["RunEnvironmentTest", "InstallDIRAC", "ConfigureDIRAC", "RunJobAgent"],
    "CLOUD": [
        "RunEnvironmentTest",
        "InstallDIRAC",
        "ConfigureDIRAC",
        "RunMonitoringAgent",
        "RunJobAgent",
        "UploadPilotOutput",
    ],
    "BOINC": ["ConfigureDIRAC", "RunJobAgent", "UploadPilotOutput"],
    "VAC": ["ConfigureDIRAC", "RunMonitoringAgent", "RunJobAgent", "UploadPilotOutput"],
}


def test_the_table_of_the_proposal_is_built_in() -> None:
    configuration = loads("vos: {lhcb: {engine: dirac}, demo: {}}")
    for flavour, commands in PROPOSAL.items():
        assert names(resolve(configuration, "lhcb", flavour=flavour)) == commands
    for flavour in configuration.flavours:
        dirac, builtin = (names(resolve(configuration, vo, flavour=flavour)) for vo in ("lhcb", "demo"))
        assert [name for name in dirac if not name.endswith("DIRAC")] == (builtin), (
            "both engines differ in what is DIRAC's only"
        )
        assert commands_of(configuration, flavour) == builtin
        assert commands_of(configuration, flavour, "dirac") == dirac
    assert {"ARC", "HTCONDOR-CE", "SSH", "SLURM", "KUBERNETES", "LOCAL"} <= set(configuration.flavours)


def test_the_profile_tells_engine_and_python() -> None:
    configuration = loads("vos: {a: {engine: dirac, minimum_python: '3.9'}, b: {}}")
    told = [resolve(configuration, vo, flavour="LOCAL") for vo in "ab"]
    assert [(p["engine"], p["minimum_python"]) for p in told] == [("dirac", "3.9"), ("builtin", "3.6")]


def test_what_a_file_says_of_a_flavour_wins_for_every_engine() -> None:
    """The embedded part for an engine must not stand over the file's plain one."""
    configuration = loads("flavours: {CREAM: {commands: [RunJobAgent]}}\nvos: {a: {engine: dirac}, b: {}}")
    assert [names(resolve(configuration, vo, flavour="CREAM")) for vo in "ab"] == [["RunJobAgent"]] * 2
    edited = loads("flavours: {CREAM: {commands: {append: [ReportUsage]}}}\nvos: {a: {engine: dirac}}")
    assert names(resolve(edited, "a", flavour="CREAM")) == [*PROPOSAL["CREAM"], "ReportUsage"]


def test_edits_of_several_layers_come_one_after_the_other() -> None:
    text = (
        "flavours: {F: {commands: [RunA, RunB]}}\n"
        "vos: {phys: {pilot: {commands: {insert: {before: RunB, do: [RunC]}}},\n"
        "             flavours: {F: {commands: [{replace: {RunC: RunD}}, {remove: [RunA], prepend: [RunE]}]}}}}\n"
    )
    configuration = loads(text)
    profile, merged = resolve_target(configuration, Target("phys", "F"))
    assert names(profile) == ["RunE", "RunD", "RunB"]
    places = [configuration.where(merged.origin(("commands", index))) for index in range(3)]
    lines = text.splitlines()
    said = [lines[place.line - 1][place.column - 1 :].partition("]")[0] for place in places if place]
    assert said == ["RunE", "RunC: RunD}}, {remove: [RunA", "RunB"]


def test_tags_and_interpreters_can_be_edited_where_nobody_gave_a_list() -> None:
    profile = resolve(
        loads("vos: {phys: {pilot: {tags: {append: [x]}, python: {prepend: [/opt/py]}}}}"), "phys", "local"
    )
    assert (profile["tags"], profile["python"]) == (["x"], ["/opt/py"])


@pytest.mark.parametrize(
    "part, line, sentence",
    [
        (
            "commands: {remove: [RunJobAgnet]}",
            3,
            "remove: there is no 'RunJobAgnet' in the list that the layers before",
        ),
        ("commands: {append: [RunJobAgent]}", 3, "'RunJobAgent' would be in the list twice"),
        ("commands: {insert: {before: RunX, do: [RunY]}}", 3, "insert before: there is no 'RunX'"),
        ("tags: {remove: [x]}", 3, "remove: there is no 'x' in the list that the layers before give (it has: nothing)"),
    ],
)
def test_an_edit_that_cannot_be_names_file_and_line(part: str, line: int, sentence: str) -> None:
    told = refused(f"vos:\n  phys:\n    pilot: {{{part}}}\n", resource="local")
    assert told.startswith(f"f.yaml:{line}:") and sentence in told


# --- final


@pytest.mark.parametrize(
    "final, part",
    [
        ("log_mib", "log_mib: 5"),
        ("commands", "commands: [RunJobAgent]"),
        ("commands", "commands: {remove: [ReportUsage]}"),
        ("tags", "tags: []"),
        ("limits.cores", "limits: {cores: 3, gpus: 1}"),
        ("limits", "limits: {cores: 3}"),
        ("options", "options: {RunJobAgent: {idle_seconds: 3}}"),
        ("options.RunJobAgent", "options: {RunJobAgent: {idle_seconds: 3}}"),
        ("options.RunJobAgent.idle_seconds", "options: {RunJobAgent: {idle_seconds: 3}}"),
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        "flavours: {{LOCAL: {{{part}}}}}\nvos: {{phys: {{}}}}",
        "flavours: {{LOCAL: {{engines: {{builtin: {{{part}}}}}}}}}\nvos: {{phys: {{}}}}",
        "#\nvos: {{phys: {{pilot: {{{part}}}}}}}",
        "#\nvos: {{phys: {{flavours: {{LOCAL: {{{part}}}}}}}}}",
    ],
)
def test_what_is_final_cannot_be_set_by_a_later_layer(final: str, part: str, place: str) -> None:
    told = refused(f"pilot:\n  log_mib: 7\n  final: [{final}]\n{place.format(part=part)}\n", resource="local")
    assert f"'{final}' is final (made so in f.yaml:3:11): no later layer may set it" in told
    assert told.startswith(("f.yaml:4:", "f.yaml:5:"))


SITE = """\
flavours: {{LOCAL: {{{flavour}}}}}
vos: {{phys: {{{vo}}}, bio: {{}}}}
sites:
  S:
    pilot: {{{site}}}
    resources:
      r: {{type: local, flavour: LOCAL, vos: [{admits}], queues: {{q: {{pilot: {{{queue}}}}}}}}}
      other: {{type: local, flavour: ARC, queues: {{q: {{}}}}}}
"""


def site(**parts: str) -> str:
    return SITE.format(**{"flavour": "", "vo": "", "site": "", "queue": "", "admits": "phys", **parts})


def test_final_holds_in_places_and_for_one_vo_too() -> None:
    final = "log_mib: 7, final: [log_mib]"
    assert refused(site(vo=f"pilot: {{{final}}}", queue="log_mib: 5")).startswith("f.yaml:7:")
    assert refused(site(site=final, queue="vos: {phys: {log_mib: 5}}")).startswith("f.yaml:7:")
    assert refused(site(site=f"vos: {{phys: {{{final}}}}}", queue="log_mib: 5")).startswith("f.yaml:7:")
    assert refused(site(site=f"{final}, vos: {{phys: {{log_mib: 5}}}}")).startswith("f.yaml:5:")
    assert refused(site(flavour=final, queue="log_mib: 5")).startswith("f.yaml:7:")


def test_final_does_not_hold_for_pilots_it_is_not_for() -> None:
    final = "log_mib: 7, final: [log_mib]"
    loads(site(queue=final, vo="pilot: {log_mib: 5}"))  # the final one is the later layer
    loads(site(site=f"vos: {{bio: {{{final}}}}}", queue="vos: {phys: {log_mib: 5}}"))
    loads(site(vo=f"pilot: {{{final}}}", queue="log_mib: 5", admits="bio"))
    loads(site(flavour="log_mib: 5").replace("flavours: {", f"flavours: {{ARC: {{{final}}}, "))
    loads(site(vo=f"flavours: {{ARC: {{{final}}}}}", queue="log_mib: 5"))


def test_final_in_one_part_lets_the_part_itself_set_the_value() -> None:
    configuration = loads("pilot: {log_mib: 7, final: [log_mib]}\n")
    assert resolve(configuration, "demo", "local")["log_mib"] == 7
    with pytest.raises(ConfigurationError, match="--set: 'log_mib' is final"):
        resolve_target(configuration, target(configuration, "demo", "local"), [(("--set",), {"log_mib": 3})])


def test_the_operator_may_make_final_what_is_built_in_for_a_flavour() -> None:
    """LOCAL sets min_disk_mib in the embedded defaults, which are no later layer than any file."""
    configuration = loads(
        "pilot: {options: {RunEnvironmentTest: {min_disk_mib: 9}}, final: [options.RunEnvironmentTest]}"
    )
    assert resolve(configuration, "demo", "local")["commands"][0]["options"] == {"min_disk_mib": 9}


def test_all_changes_of_final_values_are_told() -> None:
    with pytest.raises(ConfigurationError) as caught:
        loads("pilot: {final: [log_mib]}\nvos:\n  a: {pilot: {log_mib: 1}}\n  b: {pilot: {log_mib: 1}}\n")
    assert [problem.where.line for problem in caught.value.problems if problem.where] == [3, 4]


def test_a_service_file_may_make_final_what_is_said_over_it() -> None:
    below = load_files({"service.yaml": "pilot: {log_mib: 7, final: [log_mib]}\nservice: {lease_seconds: 9}\n"})
    above = load_files({"a.yaml": "pilot: {tags: [x]}\n"}, below)
    profile = resolve(above, "demo", "local")
    assert (profile["log_mib"], profile["tags"], above.service.lease_seconds) == (7, ["x"], 9)
    with pytest.raises(ConfigurationError, match=r"a.yaml:1:9: 'log_mib' is final \(made so in service.yaml:1:29\)"):
        load_files({"a.yaml": "pilot: {log_mib: 8}\n"}, below)
