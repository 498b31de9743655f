"""A DIRAC configuration becomes files of ours; what has no counterpart is listed with its path and line."""

import time
from dataclasses import replace

import pytest
import yaml
from bench.dirac_files import big
from dirac_texts import OPERATIONS, SITE
from dirac_trees import roots
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pilotage.configuration import Configuration, resolve
from pilotage.configuration.dirac import Imported, cfg, convert, export
from pilotage.configuration.dirac.cfg import Section
from pilotage.configuration.dirac.sites import times
from pilotage.configuration.dirac.table import CODE_COMMANDS
from pilotage.configuration.directory import parse_all, together
from pilotage.configuration.loader import load_files


def imported(text: str, **how: object) -> tuple[Configuration, dict[str, str]]:
    """The loaded result of an import, and its notes by path."""
    made = convert(cfg.parse(text, "dirac.cfg"), **how)  # type: ignore[arg-type]
    return load_files(made.files), {note.path: note.text for note in made.notes}


def commands(configuration: Configuration, vo: str, flavour: str) -> list[str]:
    return [command["name"] for command in resolve(configuration, vo, flavour=flavour)["commands"]]


def options(configuration: Configuration, vo: str, resource: str, queue: str | None = None) -> dict[str, object]:
    from pilotage.configuration.resolve import resolve_target, target

    values: dict[str, object] = resolve_target(configuration, target(configuration, vo, resource, queue))[1].values
    return values["options"]  # type: ignore[return-value]


def test_options_follow_the_precedence_of_diracs_pilots() -> None:
    configuration, notes = imported(OPERATIONS + SITE)
    everybody = options(configuration, "biomed", "arc.example.org-biomed")["InstallDIRAC"]
    assert everybody == {"version": "v8.0.2", "project": "DIRAC", "cvmfs_locations": ["/cvmfs/a", "/cvmfs/b"]}
    lhcb = options(configuration, "lhcb", "vac.example.org")["InstallDIRAC"]
    assert lhcb == {**everybody, "version": "v12", "project": "LHCb", "extensions": ["LHCb"]}  # type: ignore[dict-item]
    assert options(configuration, "lhcb", "vac.example.org")["ConfigureDIRAC"] == {
        "setup": "Prod",
        "configuration_servers": [f"dips://{name}.example.org:9135/Configuration/Server" for name in "ab"],
        "shared_area": "/cvmfs/shared",
    }
    assert {name: vo.engine for name, vo in configuration.vos.items()} == {"lhcb": "dirac", "biomed": "dirac"}
    assert configuration.vos["lhcb"].extension == "LHCb"
    assert notes["/Operations/Cert/Pilot"] == "is of another setup (--setup Cert imports it)"
    assert notes["/Operations/Defaults/JobScheduling"] == "is not about pilots (1 option)"
    assert notes["/Operations/Defaults/Pilot/RemoteLogging"] == "pilots log to this service by themselves"


def test_another_setup_on_demand() -> None:
    configuration, _ = imported(OPERATIONS + SITE, setup="Cert")
    assert options(configuration, "biomed", "arc.example.org-biomed")["InstallDIRAC"]["version"] == "v9"  # type: ignore[index]


def test_a_vo_that_sets_one_type_leaves_the_others_as_they_were() -> None:
    """In DIRAC it wipes the whole map; the import says so."""
    configuration, notes = imported(OPERATIONS)
    assert commands(configuration, "lhcb", "HTCONDOR-CE") == ["CheckWorkerNode", "LHCbInstallDIRAC", "LaunchAgent"]
    assert commands(configuration, "lhcb", "ARC") == ["CheckWorkerNode", "InstallDIRAC", "LaunchAgent"]
    assert commands(configuration, "lhcb", "CLOUD") == commands(configuration, "biomed", "CLOUD")
    note = notes["/Operations/lhcb/Pilot/Commands"]
    assert "pilots for AREX, Cloud run the list that is built into DIRAC's pilots" in note
    assert "--as-dirac-does" in note


def test_as_dirac_does() -> None:
    configuration, notes = imported(OPERATIONS, as_dirac_does=True)
    assert commands(configuration, "lhcb", "HTCONDOR-CE") == ["CheckWorkerNode", "LHCbInstallDIRAC", "LaunchAgent"]
    assert commands(configuration, "lhcb", "ARC") == list(CODE_COMMANDS)
    assert commands(configuration, "lhcb", "CLOUD") == list(CODE_COMMANDS)
    assert commands(configuration, "biomed", "CLOUD") == ["InstallDIRAC", "LaunchAgent"]
    assert notes["/Operations/lhcb/Pilot/Commands"].startswith(
        "as in DIRAC, this makes lhcb's pilots for AREX, Cloud run"
    )


def levels(**commands: dict[str, str]) -> str:
    """Operations with the Commands of sections; `__` in a name is `/`."""
    root = Section()
    for name, lists in commands.items():
        for ce_type, value in lists.items():
            root.make("Operations", *name.split("__"), "Pilot", "Commands").put(ce_type, value)
    root.make("DIRAC").put("Setup", "Prod")
    root.make("Registry", "VO", "phys")
    return cfg.write(root)


def test_the_default_list_is_for_all_types_that_have_none() -> None:
    configuration, _ = imported(levels(Defaults={"Defaults": "A, B", "Vac": "C"}))
    assert commands(configuration, "phys", "VAC") == ["C"]
    assert commands(configuration, "phys", "HTCONDOR-CE") == ["A", "B"]
    assert commands(configuration, "phys", "CREAM") == ["A", "B"]


def test_the_default_list_of_a_vo_is_for_all_its_types_as_in_dirac() -> None:
    configuration, notes = imported(levels(Defaults={"Vac": "C"}, phys={"Defaults": "V", "AREX": "W"}))
    assert commands(configuration, "phys", "VAC") == ["V"]
    assert commands(configuration, "phys", "ARC") == ["W"]
    assert "/Operations/phys/Pilot/Commands" not in notes


def test_the_setup_falls_into_the_same_trap() -> None:
    both = levels(Defaults={"Vac": "C", "AREX": "D"}, Prod={"AREX": "E"})
    configuration, notes = imported(both)
    assert commands(configuration, "phys", "VAC") == ["C"]
    assert commands(configuration, "phys", "ARC") == ["E"]
    assert "pilots for Vac run the list that is built into" in notes["/Operations/Prod/Pilot/Commands"]
    configuration, _ = imported(both, as_dirac_does=True)
    assert commands(configuration, "phys", "VAC") == list(CODE_COMMANDS)


def test_types_of_one_flavour_with_different_lists_get_flavours_of_their_own() -> None:
    configuration, _ = imported(levels(Defaults={"ARC": "A", "AREX": "B", "ARC6": "A"}))
    assert commands(configuration, "phys", "ARC") == ["A"]
    assert commands(configuration, "phys", "AREX") == ["B"]
    assert "ARC6" not in configuration.flavours


def test_odd_lists() -> None:
    odd = {"AREX": "A, A, no-name, B", "Vac": "", "Cloud": "C # why", "no name": "D"}
    configuration, notes = imported(levels(Defaults=odd))
    assert commands(configuration, "phys", "ARC") == ["A", "B"]
    assert commands(configuration, "phys", "CLOUD") == ["C"]
    assert notes["/Operations/Defaults/Pilot/Commands/Vac"] == "an empty list is left out"
    assert notes["/Operations/Defaults/Pilot/Commands/no name"] == "'no name' cannot be a CE type and is left out"
    assert "'# why'" in notes["/Operations/Defaults/Pilot/Commands/Cloud"]
    made = convert(cfg.parse(levels(Defaults={"AREX": "A, A, no-name, B"})))
    assert {note.text for note in made.notes} >= {
        "'no-name' cannot be the name of a command and is left out",
        "a command is in the list twice; it is taken once",
    }


def test_a_ce_becomes_a_resource_with_its_queues() -> None:
    configuration, notes = imported(OPERATIONS + SITE)
    resource = configuration.resource("arc.example.org")
    assert (resource.type, resource.flavour, resource.vos) == ("arc", "ARC", ["lhcb"])
    assert configuration.site_of("arc.example.org") == "LCG.CERN.ch"
    long = resource.queues["long"]
    assert (long.cores, long.memory_mib, long.max_pilots, long.max_waiting) == (4, 16000, 100, 20)
    assert long.wall_seconds == 86400
    assert long.pilot.tags == ["GPU", "Big"]
    got = options(configuration, "lhcb", "arc.example.org", "long")
    assert got["RunJobAgent"] == {
        "local_ce_type": "Pool",
        "required_tags": ["GPU"],
        "cpu_work_hs06_seconds": 864000,
    }
    assert got["ConfigureDIRAC"]["user_environment"] == ["A=1", "B=x:::y"]  # type: ignore[index]
    assert got["ConfigureDIRAC"]["generic_options"] == ["Other"]  # type: ignore[index]
    assert got["InstallDIRAC"]["generic_options"] == ["diracInstallOnly"]  # type: ignore[index]
    assert options(configuration, "lhcb", "vac.example.org")["RunJobAgent"] == {"local_ce_type": "InProcess"}
    at = "/Resources/Sites/LCG/LCG.CERN.ch"
    assert notes[f"{at}/Mail"] == "has no counterpart"
    assert notes[f"{at}/CEs/arc.example.org/Queues/long/Nonsense"] == "has no counterpart"


def test_notes_name_file_and_line() -> None:
    made = convert(cfg.parse(OPERATIONS + SITE, "dirac.cfg"))
    lines = (OPERATIONS + SITE).split("\n")
    for note in made.notes:
        assert note.file == "dirac.cfg"
        assert 1 <= note.line <= len(lines)
    nonsense = next(note for note in made.notes if note.path.endswith("/Nonsense"))
    assert lines[nonsense.line - 1].strip() == "Nonsense = 1"


def test_queues_for_other_vos_are_a_resource_of_their_own() -> None:
    configuration, notes = imported(OPERATIONS + SITE)
    assert list(configuration.resource("arc.example.org").queues) == ["long", "short"]
    other = configuration.resource("arc.example.org-biomed")
    assert (other.vos, list(other.queues)) == (["biomed"], ["med"])
    assert (
        "they are the resource 'arc.example.org-biomed'"
        in notes["/Resources/Sites/LCG/LCG.CERN.ch/CEs/arc.example.org"]
    )


def test_what_is_not_set_is_what_dirac_takes() -> None:
    """Without limits DIRAC has one pilot at a time; not for machines that start pilots themselves."""
    configuration, notes = imported(OPERATIONS + SITE)
    short = configuration.resource("arc.example.org").queues["short"]
    assert (short.max_pilots, short.max_waiting, short.cores, short.wall_seconds) == (1, 1, None, None)
    vac = configuration.resource("vac.example.org").queues["default"]
    assert (vac.max_pilots, vac.max_waiting) == (None, None)
    at = "/Resources/Sites/LCG/LCG.CERN.ch/CEs/arc.example.org/Queues/short"
    assert notes[f"{at}/MaxTotalJobs"] == "is not set: max_pilots is 1, as in DIRAC"
    assert "wall_seconds is not set" in notes[f"{at}/CPUTime"]


def test_a_type_that_we_do_not_know_keeps_its_name_and_diracs_list() -> None:
    configuration, _ = imported(OPERATIONS + SITE)
    fog = configuration.resource("fog.example.org")
    assert (fog.type, fog.flavour, fog.vos) == ("fog", "Fog", None)
    assert commands(configuration, "biomed", "Fog") == list(CODE_COMMANDS)


def test_ces_that_cannot_be_used_are_listed() -> None:
    configuration, notes = imported(OPERATIONS + SITE)
    names = [name for _, name, _ in configuration.resources()]
    assert names == ["arc.example.org", "arc.example.org-biomed", "fog.example.org", "vac.example.org"]
    at = "/Resources/Sites/LCG/LCG.CERN.ch/CEs"
    assert notes[f"{at}/bare.example.org"] == "has no queues that could be used, and is left out"
    assert notes[f"{at}/untyped.example.org"] == "has no CEType that could be used, and is left out"


@pytest.mark.parametrize(
    ("given_", "wall", "work"),
    [
        ((1440, 2500, None), 86400, 864000),  # minutes x 60 x SI00 / 250, as DIRAC reckons
        ((1440, None, None), 86400, None),
        ((1440, None, 5000), 86400, 5000),
        ((None, 2500, 864000), 86400, 864000),
        ((None, None, 5000), None, 5000),
        ((None, 0, 5000), None, 5000),
        ((0, 2500, None), None, None),
        ((999999999, 2500, None), None, 648000000),  # crazy values are capped, and no limit of time
        ((None, None, None), None, None),
    ],
)
def test_times(given_: tuple[float | None, ...], wall: int | None, work: int | None) -> None:
    assert times(*given_) == (wall, work)  # type: ignore[arg-type]


def test_names_that_cannot_be_and_names_that_are_there_twice() -> None:
    root = Section()
    for site in ("LCG.A.ch", "LCG.B.ch"):
        ce = root.make("Resources", "Sites", "LCG", site, "CEs", "ce.example.org:9619")
        ce.put("CEType", "AREX")
        ce.make("Queues", "a b").put("MaxTotalJobs", "3")
        ce.make("Queues", "a_b")
    made = convert(root)
    configuration = load_files(made.files)
    assert [name for _, name, _ in configuration.resources()] == ["ce.example.org_9619", "ce.example.org_9619-2"]
    queues = configuration.resource("ce.example.org_9619").queues
    assert (list(queues), queues["a_b"].max_pilots) == (["a_b", "a_b-2"], 3)
    assert "'a b' is called 'a_b' here" in {note.text for note in made.notes}


def test_values_that_yaml_could_take_for_something_else() -> None:
    for value in ("1e5", "08", "no", "null", "12:30", "0x1F", "1.", "+1", "~", "2024-01-01", "{a", "a: b", "'", "é"):
        root = Section()
        root.make("Operations", "Defaults", "Pilot").put("Project", value)
        configuration = load_files(convert(root).files)
        assert configuration.pilot.options == {"InstallDIRAC": {"project": value}}, value


def test_an_empty_configuration_is_one() -> None:
    made = convert(cfg.parse(""))
    assert load_files(made.files).vos == load_files({}).vos
    assert made.notes == []


def test_files_are_where_their_owners_may_write() -> None:
    made = convert(cfg.parse(OPERATIONS + SITE))
    assert sorted(made.files) == ["dirac.yaml", "sites/LCG.yaml", "vos/lhcb/pilot.yaml"]
    assert yaml.safe_load(made.files["vos/lhcb/pilot.yaml"])["vos"]["lhcb"].keys() == {"pilot", "flavours"}
    assert "tags: [GPU]\n" in made.files["sites/LCG.yaml"]  # short lists stand in one line


QUICK = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
"""Without shrinking: a configuration takes so long to make and import that it would outlast the test's time limit."""


def again(made: Imported) -> Imported:
    """What an import of the export of an import gives."""
    return convert(cfg.parse(export(together(parse_all(made.files))).text))


def test_export_gives_back_what_was_imported() -> None:
    made = convert(cfg.parse(OPERATIONS + SITE))
    assert again(made).files == made.files
    exported = export(together(parse_all(made.files)))
    assert exported.notes == []
    root = cfg.parse(exported.text)
    option = root.option("Operations", "lhcb", "Pilot", "Commands", "HTCondorCE")
    assert option is not None
    assert option.value == "CheckWorkerNode, LHCbInstallDIRAC, LaunchAgent"


@QUICK
@given(roots, st.booleans())
def test_import_of_export_of_import_is_import(root: Section, as_dirac_does: bool) -> None:
    made = convert(cfg.parse(cfg.write(root), "x.cfg"), as_dirac_does=as_dirac_does)
    load_files(made.files)
    assert again(made).files == made.files


def test_every_option_comes_over_or_is_noted() -> None:
    """An option with another value that makes no difference must be noted (or lie in a section that is).

    Those that stand in several places are left out: one may be put over another.
    """
    text = OPERATIONS + SITE
    parsed = cfg.parse(text, "x.cfg")
    made = convert(parsed)
    noted = {note.path for note in made.notes}
    names = [line.partition("=")[0].strip() for line in text.split("\n") if "=" in line]

    def check(section: Section, path: str) -> None:
        for name, entry in list(section.entries.items()):
            at = f"{path}/{name}"
            if any(at == note or at.startswith(f"{note}/") for note in noted):
                continue
            if isinstance(entry, Section):
                check(entry, at)
            elif entry.value.strip() and name not in SILENT and names.count(name) == 1:
                section.entries[name] = replace(entry, value="Marker9")
                changed = convert(parsed)
                section.entries[name] = entry
                assert changed.files != made.files or changed.notes != made.notes, at

    check(parsed, "")


# The servers may be said in two ways, the same ones in both.
SILENT = (
    "Servers",
    "ConfigurationServer",
    "Setup",
    "VO",
    "SI00",
    "CPUTime",
    "maxCPUTime",
    "WholeNode",
    "Tag",
    "RequiredTag",
    "CommandExtensions",
)
"""Options of which what another one says can be the same or more."""


def test_a_big_configuration_is_imported_and_validated_quickly() -> None:
    """The bar is 2 s on a quiet machine (`python -m bench dirac_import`); this has room for a busy one."""
    text = big()
    started = time.perf_counter()
    made = convert(cfg.parse(text, "dirac.cfg"))
    configuration = load_files(made.files)
    taken = time.perf_counter() - started
    assert len(configuration.sites) == 200
    assert sum(len(resource.queues) for _, _, resource in configuration.resources()) == 1500
    assert (
        resolve(configuration, "lhcb", "ce0.site000.example.org", "queue-0")["commands"][2]["name"] == "LHCBConfigure"
    )
    assert taken < 10
