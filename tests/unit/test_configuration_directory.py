"""Directories of files: which count, how they come together, their bounds, and who may say what in them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pilotage.configuration import ConfigurationError, load, load_files, loads, resolve
from pilotage.configuration import directory as directories
from pilotage.configuration.document import MAX_BYTES

FILES = {
    "operator.yaml": "vos:\n  phys: {share: 2}\n  bio: {}\n",
    "sites/north.yaml": (
        "sites:\n  NORTH:\n    resources:\n      ce:\n        type: local\n        flavour: LOCAL\n"
        "        queues: {long: {cores: 4}, short: {}}\n"
    ),
    "sites/south.yaml": "sites: {SOUTH: {resources: {ce2: {type: local, flavour: ARC, queues: {q: {}}}}}}\n",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    return root


def refused(files: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_files({**FILES, **files})
    return [str(problem) for problem in caught.value.problems]


def test_a_directory_is_one_configuration(tmp_path: Path) -> None:
    configuration = load(write(tmp_path, FILES))
    assert list(configuration.vos) == ["phys", "bio"]
    assert [(site, name) for site, name, _ in configuration.resources()] == [("NORTH", "ce"), ("SOUTH", "ce2")]
    assert configuration.files == FILES
    assert configuration.revision == load_files(FILES).revision


def test_how_things_are_spread_over_files_does_not_matter() -> None:
    whole = "vos: {phys: {share: 2}, bio: {}}\n" + FILES["sites/north.yaml"]
    parts = {
        "a.yaml": "sites: {NORTH: {resources: {ce: {type: local, queues: {long: {cores: 4}}}}}}\n",
        "z/b.yaml": "sites: {NORTH: {resources: {ce: {flavour: LOCAL, queues: {short: {}}}}}}\nvos: {bio: {}}\n",
        "c.yaml": "vos: {phys: {share: 2}}\n",
    }
    assert load_files(parts).revision == loads(whole).revision


def test_errors_name_the_file_in_the_directory(tmp_path: Path) -> None:
    write(tmp_path, {**FILES, "sites/north.yaml": FILES["sites/north.yaml"].replace("cores: 4", "cores: four")})
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/sites/north.yaml:7:25: ")
    assert refused({"x.yaml": "sites: {EAST: {resources: {ce3: {type: local, queues: {q: {}}}}}}"})[0].startswith(
        "x.yaml:1:28: sites.EAST.resources.ce3 lacks 'flavour'"
    )


def test_the_same_thing_in_two_files_is_an_error_that_names_both() -> None:
    assert refused({"x.yaml": "vos: {phys: {share: 3}}\nsites: {NORTH: {resources: {ce: {flavour: ARC}}}}\n"}) == [
        "x.yaml:1:14: 'vos.phys.share' is set in operator.yaml:2:10 already; say it in one of the two",
        "x.yaml:2:34: 'sites.NORTH.resources.ce.flavour' is set in sites/north.yaml:6:9 already; "
        "say it in one of the two",
    ]
    (told,) = refused({"a.yaml": "pilot: {tags: [x]}", "b.yaml": "pilot: {tags: [x]}"})
    assert told.startswith("b.yaml:1:9: 'pilot.tags' is set in a.yaml:1:9 already")
    (told,) = refused({"a.yaml": "pilot: {tags: [x]}", "b.yaml": "pilot: {tags: {append: [y]}}"})
    assert told.startswith("b.yaml:1:9: 'pilot.tags' is set in a.yaml:1:9 already")


def test_which_files_count(tmp_path: Path) -> None:
    write(
        tmp_path, {**FILES, ".git/config.yaml": "- no", "sites/.hidden.yaml": "- no", "README.md": "- no", "x.yml~": ""}
    )
    assert load(tmp_path).files == FILES
    (tmp_path / "sites" / "east.yml").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"sites/east.yml: is not read; name it east.yaml"):
        load(tmp_path)


def test_a_directory_as_kubernetes_mounts_it(tmp_path: Path) -> None:
    """Every file is a link into a hidden directory, which a new one replaces at one stroke."""
    write(tmp_path / "..2024_01", {"all.yaml": "vos: {phys: {}}\n"})
    (tmp_path / "..data").symlink_to("..2024_01")
    (tmp_path / "all.yaml").symlink_to("..data/all.yaml")
    assert list(load(tmp_path).vos) == ["phys"]


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigurationError, match=r"pipe\.yaml: is not a plain file"):
        load(tmp_path)
    with pytest.raises(ConfigurationError, match=r"pipe\.yaml: is not a plain file"):
        load(tmp_path / "pipe.yaml")
    (tmp_path / "pipe.yaml").unlink()
    (tmp_path / "gone.yaml").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=r"gone\.yaml: cannot be read: No such file"):
        load(tmp_path)


def test_a_directory_without_files_is_refused(tmp_path: Path) -> None:
    """An empty checkout: the defaults in place of all sites would be no help to anybody."""
    (tmp_path / "README.md").write_text("to be written")
    with pytest.raises(ConfigurationError, match=f"{tmp_path}: there is no .yaml file in it"):
        load(tmp_path)
    (tmp_path / "a.yaml").write_text("# to be written")
    with pytest.raises(ConfigurationError, match=f"{tmp_path}: says nothing"):
        load(tmp_path)


def test_what_would_be_waited_for_in_vain_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "site", FILES)
    for name in ("b.yml", "b.YAML", "b.Yml"):
        (tmp_path / "site" / name).write_text("vos: {}")
        with pytest.raises(ConfigurationError, match=f"{name}: is not read; name it b.yaml"):
            load(tmp_path / "site")
        (tmp_path / "site" / name).unlink()
    (tmp_path / "site" / "more").symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match="site/more: is a link to a directory"):
        load(tmp_path / "site")
    (tmp_path / "site" / "more").rename(tmp_path / "site" / ".more")
    assert set(load(tmp_path / "site").files) == set(FILES)


# --- bounds: bad input is refused at once, whatever its size


def test_a_file_of_50_mb(tmp_path: Path) -> None:
    with (tmp_path / "big.yaml").open("wb") as file:
        file.truncate(50 * 1024 * 1024)
    for path in (tmp_path, tmp_path / "big.yaml"):
        with pytest.raises(ConfigurationError, match=r"big.yaml: is larger than 10 MiB"):
            load(path)
    with pytest.raises(ConfigurationError, match=r"a.yaml: the files hold more than 10 MiB together"):
        load_files({"a.yaml": "#" * (50 * 1024 * 1024)})


def test_many_files_have_the_bounds_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = "# " + "x" * (MAX_BYTES // 2)
    write(tmp_path, {"a.yaml": half, "b.yaml": half})
    with pytest.raises(ConfigurationError, match="holds more than 10 MiB"):
        load(tmp_path)
    with pytest.raises(ConfigurationError, match=r"b\.yaml: the files hold more than 10 MiB together"):
        load_files({"a.yaml": half, "b.yaml": half})
    monkeypatch.setattr(directories, "MAX_FILES", 2)
    with pytest.raises(ConfigurationError, match="more than 2 files"):
        load_files({f"{letter}.yaml": "" for letter in "abc"})
    for letter in "abc":
        (tmp_path / f"{letter}.yaml").write_text("")
    with pytest.raises(ConfigurationError, match="holds more than 2 files"):
        load(tmp_path)


def test_a_directory_that_is_none_of_ours_is_left_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "MAX_ENTRIES", 10)
    for number in range(11):
        (tmp_path / f"{number}.txt").write_text("")
    with pytest.raises(ConfigurationError, match="holds more than 10 files and directories"):
        load(tmp_path)


def test_bombs_are_refused_at_once_wherever_they_are() -> None:
    """Nine levels of ten aliases each would be a billion values."""
    lines = ["l0: &l0 [1]"] + [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    started = time.process_time()
    assert refused({"bomb.yaml": "\n".join(lines)})[0].startswith("bomb.yaml:7:")
    small = "pilot: {options: {RunX: {a: &a [" + "x, " * 60_000 + "], b: *a, c: *a, d: *a}}}"
    assert (
        "the files hold more than 500000 values together"
        in refused({"a.yaml": small, "b.yaml": small, "c.yaml": small})[0]
    )
    nested = {"deep.yaml": "pilot: " + "{options: " * 50 + "}" * 50}
    assert "nested deeper than 40" in refused(nested)[0]
    assert time.process_time() - started < 20


def test_a_file_that_is_something_else_entirely_is_told_briefly() -> None:
    assert len(refused({"x.yaml": "\n".join(f"key{n}: 1" for n in range(5000))})) <= 1000


@pytest.mark.parametrize(
    "name", ["", "a", "a.yml", "/a.yaml", "../a.yaml", "a/../b.yaml", "a//b.yaml", "./a.yaml", ".a.yaml", "a\\b.yaml",
             "a\n.yaml", "vos/.phys/a.yaml", "a\x00.yaml", "x" * 600 + ".yaml"]
)  # fmt: skip
def test_names_that_could_be_read_in_two_ways(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the name of a configuration file"):
        load_files({name: ""})


# --- who may say what


def test_a_vo_says_its_own_parts_in_its_own_files() -> None:
    configuration = load_files(
        {
            **FILES,
            "vos/phys/pilot.yaml": (
                "vos: {phys: {owners: {ann: 2}, pilot: {tags: [p]}, flavours: {LOCAL: {log_mib: 3}}}}\n"
                "sites: {NORTH: {pilot: {vos: {phys: {tags: {append: [n]}}}}, resources: {ce: {\n"
                "  pilot: {vos: {phys: {tags: {append: [r]}}}},\n"
                "  queues: {long: {pilot: {vos: {phys: {tags: {append: [q]}}}}}}}}}}\n"
            ),
        }
    )
    phys = resolve(configuration, "phys", "ce", "long")
    assert (phys["tags"], phys["log_mib"]) == (["p", "n", "r", "q"], 3)
    assert resolve(configuration, "phys", "ce", "short")["tags"] == ["p", "n", "r"]
    bio = resolve(configuration, "bio", "ce", "long")
    assert (bio["tags"], bio["log_mib"]) == ([], 10)
    assert (configuration.vos["phys"].share, configuration.vos["phys"].owners) == (2, {"ann": 2})


@pytest.mark.parametrize(
    "text, place, sentence",
    [
        ("vos: {phys: {share: 100}}", "1:14", "'share' of a VO is the operator's; the VO's own are pilot,"),
        ("vos:\n  phys:\n    toolboxes: []", "3:5", "'toolboxes' of a VO is the operator's"),
        ("vos: {phys: {engine: dirac}}", "1:14", "'engine' of a VO is the operator's"),
        ("vos: {bio: {pilot: {tags: [x]}}}", "1:7", "a file of the VO 'phys' sets nothing of the VO 'bio'"),
        ("vos: {new: {}}", "1:7", "sets nothing of the VO 'new'"),
        ("pilot: {tags: [x]}", "1:1", "'pilot' is the operator's; a file of the VO 'phys' sets vos.phys and its part"),
        ("service: {lease_seconds: 1}", "1:1", "'service' is the operator's"),
        ("toolboxes: []", "1:1", "'toolboxes' is the operator's"),
        ("flavours: {LOCAL: {log_mib: 1}}", "1:1", "'flavours' is the operator's"),
        ("sites: {EAST: {}}", "1:9", "there is no site 'EAST' in the operator's files"),
        ("sites: {NORTH: {pilot: {tags: [x]}}}", "1:25", "what all VOs get here is the operator's; say vos: {phys"),
        ("sites: {NORTH: {pilot: {vos: {bio: {}}}}}", "1:31", "sets nothing of the VO 'bio'"),
        ("sites: {NORTH: {resources: {new: {}}}}", "1:29", "there is no resource 'new' in the operator's files"),
        ("sites: {NORTH: {resources: {ce: {slots: 9}}}}", "1:34", "'slots' of a resource is the operator's"),
        ("sites: {NORTH: {resources: {ce: {vos: [phys]}}}}", "1:34", "'vos' of a resource is the operator's"),
        ("sites: {NORTH: {resources: {ce: {queues: {new: {}}}}}}", "1:43", "there is no queue 'new'"),
        ("sites: {NORTH: {resources: {ce: {queues: {long: {cores: 9}}}}}}", "1:50", "'cores' of a queue is"),
        ("vos: {phys: {pilot: {final: [tags]}}}", "1:22", "only the operator makes values final"),
    ],
)  # fmt: skip
def test_a_vos_file_that_says_more_is_refused(text: str, place: str, sentence: str) -> None:
    (told,) = refused({"vos/phys/x.yaml": text})
    assert told.startswith(f"vos/phys/x.yaml:{place}: ") and sentence in told


def test_a_vo_cannot_set_what_the_operator_made_final_in_the_vos_own_part() -> None:
    operator = "vos: {phys: {pilot: {options: {RunX: {a: 1}}, final: [options.RunX]}}, bio: {}}\n"
    (told,) = refused({"operator.yaml": operator, "vos/phys/x.yaml": "vos: {phys: {pilot: {options: {RunX: {b: 2}}}}}"})
    assert told.startswith("vos/phys/x.yaml:1:32: 'vos.phys.pilot.options.RunX' is final")
    (told,) = refused({"p.yaml": "pilot: {final: [tags]}", "vos/phys/x.yaml": "vos: {phys: {pilot: {tags: [x]}}}"})
    assert told == "vos/phys/x.yaml:1:22: 'tags' is final (made so in p.yaml:1:17): no later layer may set it"


def test_a_vo_cannot_set_again_what_the_operator_set() -> None:
    text = {
        "operator.yaml": "vos: {phys: {pilot: {log_mib: 3}}}",
        "vos/phys/x.yaml": "vos: {phys: {pilot: {log_mib: 5}}}",
    }
    (told,) = refused(text)
    assert told.startswith("vos/phys/x.yaml:1:22: 'vos.phys.pilot.log_mib' is set in operator.yaml:1:22 already")


def test_a_file_of_a_vo_that_is_not_there() -> None:
    (told,) = refused({"vos/chem/x.yaml": "vos: {chem: {pilot: {}}}"})
    assert told == "vos/chem/x.yaml:1:1: this is a file of the VO 'chem', which the operator's files do not have"
    load_files({**FILES, "vos/all.yaml": "vos: {chem: {}}"})  # directly in vos/: the operator's


def test_a_vos_file_may_build_on_the_embedded_site() -> None:
    place = "sites: {LOCAL: {resources: {local: {pilot: {vos: {demo: {tags: [x]}}}}}}}"
    configuration = load_files({"vos/demo/x.yaml": place})
    assert resolve(configuration, "demo", "local")["tags"] == ["x"]


def test_what_is_loaded_over_another_configuration() -> None:
    """`up --service FILE`: the revision's files say the rest."""
    below = loads("service: {lease_seconds: 9, url: 'https://a'}\nvos: {phys: {}}\n", "service.yaml")
    above = load_files({"a.yaml": "service: {lease_seconds: 8}\n"}, below)
    assert (above.service.lease_seconds, above.service.url, list(above.vos)) == (8, "https://a", ["phys"])
    assert above.files == {"a.yaml": "service: {lease_seconds: 8}\n"}
    assert str(above.where(("service", "url"))) == "service.yaml:1:29"
    assert above.revision != load_files({"a.yaml": "service: {lease_seconds: 8}\n"}).revision
    with pytest.raises(ConfigurationError, match=r"a.yaml:1:\d+: .*unknown VO 'x'"):
        load_files(
            {"a.yaml": "sites: {S: {resources: {r: {type: l, flavour: LOCAL, vos: [x], queues: {q: {}}}}}}"}, below
        )
