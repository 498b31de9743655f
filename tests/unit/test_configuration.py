"""Configuration: files, errors with their place, layers, profiles, composing."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.configuration import ConfigurationError, check, compose_pilot, load, loads, resolve
from pilotage.configuration.document import MAX_BYTES, parse
from pilotage.configuration.resolve import commands_of, merge

FULL = """\
service: {url: "https://pilots.example.org:8443", lease_seconds: 60}
pilot:
  tags: [everywhere]
  options: {RunEnvironmentTest: {min_disk_mib: 1000}}
flavours:
  LOCAL: {limits: {cores: 8}}
  SHORT:
    commands: [RunJobAgent, ReportUsage]
vos:
  demo: {}
  phys:
    share: 2
    owners: {ann: 3.0}
    pilot:
      options: {RunJobAgent: {idle_seconds: 7}}
      limits: {cores: 4, wall_seconds: 3600}
sites:
  NORTH:
    pilot: {tags: [north], platform: x86_64-el9}
    resources:
      ce1.north.example.org:
        type: local
        flavour: LOCAL
        pilot: {python: [/opt/python3]}
        queues:
          long:
            cores: 16
            memory_mib: 32000
            wall_seconds: 172800
            pilot: {options: {RunEnvironmentTest: {min_disk_mib: 9}}}
          short: {cores: 2, max_pilots: 3, max_waiting: 1}
      ce2:
        type: local
        flavour: SHORT
        vos: [phys]
        queues: {only: {}}
"""


def test_the_defaults_alone_are_a_whole_configuration():
    configuration = load()
    assert list(configuration.vos) == ["demo"]
    assert [(site, name, r.type) for site, name, r in configuration.resources()] == [("LOCAL", "local", "local")]
    profile = resolve(configuration, "demo", "local")
    assert (profile["site"], profile["queue"], profile["flavour"]) == ("LOCAL", "default", "LOCAL")
    assert [command["name"] for command in profile["commands"]] == [
        "RunEnvironmentTest",
        "RunMonitoringAgent",
        "RunJobAgent",
        "ReportUsage",
        "UploadPilotOutput",
    ]
    assert profile["limits"] == {
        "cores": None,
        "memory_mib": None,
        "disk_mib": None,
        "gpus": None,
        "wall_seconds": 86400,
    }
    json.dumps(profile)


def test_layers_later_wins():
    configuration = loads(FULL)
    profile = resolve(configuration, "phys", "ce1.north.example.org", "long")
    options = {command["name"]: command["options"] for command in profile["commands"]}
    assert options["RunEnvironmentTest"] == {"min_disk_mib": 9}
    assert options["RunJobAgent"] == {"idle_seconds": 7}
    assert profile["limits"] == {"cores": 4, "memory_mib": 32000, "disk_mib": None, "gpus": None, "wall_seconds": 3600}
    assert (profile["tags"], profile["platform"], profile["python"]) == (["north"], "x86_64-el9", ["/opt/python3"])
    assert profile["service"]["urls"] == ["https://pilots.example.org:8443"]
    demo = resolve(configuration, "demo", "ce1.north.example.org", "short")
    assert demo["limits"]["cores"] == 2
    assert {c["name"]: c["options"] for c in demo["commands"]}["RunEnvironmentTest"] == {"min_disk_mib": 1000}, (
        "what the file says of all pilots wins over what is built in for the flavour"
    )
    assert configuration.service.lease_seconds == 60
    assert configuration.service.sync_seconds == 10
    assert configuration.vos["phys"].owners == {"ann": 3.0}


PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")


def test_the_flavours_on_the_page_are_those_that_are_built_in():
    told = {}
    for row in re.findall(r"^\| (`[A-Z].*?) \| .*? \| (Run.*?) \| .* \|$", PAGE, re.MULTILINE):
        told.update({flavour: row[1].split(", ") for flavour in re.findall(r"`(.*?)`", row[0])})
    configuration = load()
    assert told == {flavour: commands_of(configuration, flavour) for flavour in configuration.flavours}


def test_a_pilot_by_flavour_alone():
    profile = resolve(loads(FULL), "phys", flavour="SHORT")
    assert (profile["site"], profile["resource"], profile["queue"]) == ("", "", "")
    assert [command["name"] for command in profile["commands"]] == ["RunJobAgent", "ReportUsage"]


@pytest.mark.parametrize(
    "names, flavour, text",
    [
        (("dem",), "LOCAL", "unknown VO 'dem'; did you mean 'demo'?"),
        (("demo",), "LOCALE", "unknown flavour 'LOCALE'; did you mean 'LOCAL'?"),
        (("demo",), None, "which pilot? Name a resource or a flavour"),
        (("demo", "ce3"), None, "unknown resource 'ce3'; did you mean 'ce2'?"),
        (("demo", "ce2"), None, "the resource 'ce2' does not admit the VO 'demo'"),
        (("phys", "ce1.north.example.org"), None, "has several queues, name one: long, short"),
        (("phys", "ce2", "onyl"), None, "unknown queue of 'ce2' 'onyl'; did you mean 'only'?"),
    ],
)
def test_unknown_names_are_clear_errors(names, flavour, text):
    with pytest.raises(ConfigurationError) as caught:
        resolve(loads(FULL), *names, flavour=flavour)
    assert text in str(caught.value)


RESOURCE = "sites: {A: {resources: {r: {type: local, flavour: LOCAL, queues: {q: %s}}}}}"


@pytest.mark.parametrize(
    "text, line, column, sentence",
    [
        ("a: [", 2, 1, "is not YAML"),
        ("service:\n\turl: x", 2, 1, "is not YAML"),
        ("a: \x00", 1, 1, "a character that YAML forbids"),
        ("- 1", 1, 1, "must be a map"),
        ("pilot: {}\n---\nvos: {}", 2, 1, "a second YAML document"),
        ("vos:\n  demo: {}\n  demo: {}", 3, 3, "the key 'demo' is here twice (first in line 2)"),
        ("servce: {}", 1, 1, "unknown key 'servce'; did you mean 'service'?"),
        (RESOURCE % "{core: 1}", 1, 71, "unknown key 'core'; did you mean 'cores'? (in sites.A.resources.r.queues.q)"),
        (RESOURCE % "{cores: two}", 1, 71, 'queues.q.cores must be a whole number, not "two"'),
        (RESOURCE % "{cores: '2'}", 1, 71, 'queues.q.cores must be a whole number, not "2"'),
        (RESOURCE % "{cores: true}", 1, 71, "must be a whole number, not true"),
        (RESOURCE % "{cores: 0}", 1, 71, "cores cannot be 0: it must be greater than 0"),
        (RESOURCE % "null", 1, 67, "must be a map of keys and values, not null (an empty map is {})"),
        ("vos: {demo: {share: 0}}", 1, 14, "vos.demo.share cannot be 0"),
        ("vos: {demo: {share: .inf}}", 1, 14, "must be a number"),
        ("service: {url: ftp://x}", 1, 11, 'service.url must be an http or https URL, not "ftp://x"'),
        ("sites: {'../x': {}}", 1, 9, "'../x' cannot be a name"),
        ("sites: {A: {resources: {r: {type: local, flavour: LOCAL, queues: {}}}}}", 1, 58, "queues is empty"),
        ("sites: {A: {resources: {r: {type: local, queues: {q: {}}}}}}", 1, 25, "lacks 'flavour'"),
        (
            "sites: {A: {resources: {r: {type: local, flavour: LOACL, queues: {q: {}}}}}}",
            1,
            42,
            "unknown flavour 'LOACL'",
        ),
        (
            "sites: {A: {resources: {r: {type: local, flavour: LOCAL, vos: [dmo], queues: {q: {}}}}}}",
            1,
            64,
            "unknown VO 'dmo'",
        ),
        ("vos: {demo: {pilot: {options: {RunX: {a: {b: 1}}}}}}", 1, 39, "an option is a text, a number"),
        (
            "service: !!python/object:os.system {}",
            1,
            10,
            "the tag tag:yaml.org,2002:python/object:os.system is not allowed",
        ),
        ("service: {database: {url: mysql://x/y}}", 1, 22, "a database is postgresql://USER@HOST/NAME"),
        ("service: {database: {url: 'sqlite:///relative'}}", 1, 22, "a file with an absolute path"),
        ("service:\n  database: {url: 'postgresql://me:hush@h/d'}", 2, 14, "a password is not written here"),
        ("service: {database: {url: 'postgresql://h/d?password=hush'}}", 1, 22, "a password is not written here"),
        (
            "service: {database: {password: hush}}",
            1,
            22,
            "password must be a map of keys and values, not what is there",
        ),
        ("service: {database: {password: {env: A, file: /b}}}", 1, 22, "one of the three"),
        ("service: {database: {password: {env: A}}}", 1, 22, "only a PostgreSQL database (url) has a password"),
        ("service: {objects: {url: relative}}", 1, 21, "s3://BUCKET/PREFIX or a directory's absolute path"),
        ("service: {objects: {url: /d, region: x}}", 1, 30, "for an object store on S3"),
        ("service: {objects: {url: 's3://b', endpoint: 'http://x'}}", 1, 36, "needs allow_http: true"),
        ("service: {objects: {url: 's3://b', access_key_id: {env: A}}}", 1, 11, "belong together"),
        (
            "pilot: {commands: {apend: [RunX]}}",
            1,
            20,
            "unknown key 'apend'; did you mean 'append'? (in pilot.commands)",
        ),
        ("pilot: {commands: {}}", 1, 9, "an edit of a list says remove, replace, insert, prepend or append"),
        ("pilot: {commands: 3}", 1, 9, "pilot.commands must be a list, not 3"),
        ("pilot: {commands: [RunX, {append: [RunY]}]}", 1, 20, 'must be a map of keys and values, not "RunX"'),
        ("pilot: {commands: {append: ['a b']}}", 1, 9, "append.0: 'a b' is not the name of a command"),
        ("pilot: {tags: {replace: {x: 'a b'}}}", 1, 9, "replace.x: 'a b' is not a name"),
        ("pilot:\n  commands: {insert: {do: [RunX]}}", 2, 14, "an insert says where: {before: NAME, do: [...]}"),
        ("pilot:\n  commands: {insert: [{after: RunX, do: []}]}", 2, 37, "insert[0].do is empty"),
        ("pilot: {options: {idle_seconds: 5}}", 1, 19, "under 'options' stand commands, and under each of them its"),
        ("pilot: {RunX: {a: 5}}", 1, 9, "the options of a command stand under options: {RunX: ...}"),
        (RESOURCE % "{options: {RunX: {a: 1}}}", 1, 71, "what is said about pilots stands under 'pilot'"),
        ("pilot: {tags: [1]}", 1, 16, "pilot.tags[0] must be a text, not 1 (put it in quotes)"),
        ("pilot: {final: [comands]}", 1, 17, "there is no 'comands' in what is said about a pilot"),
        ("pilot: {final: [limits.core]}", 1, 17, "there is no limit 'core'"),
        ("pilot: {final: [commands.RunX]}", 1, 17, "'commands.RunX' leads nowhere; a path is like commands"),
        ("vos: {a: {minimum_python: 3.9}}", 1, 11, "minimum_python must be a text, not 3.9 (put it in quotes)"),
        ("vos: {a: {minimum_python: '2.7'}}", 1, 11, "must be a version of Python from 3.6 on, like '3.9'"),
        ("vos: {a: {engine: condor}}", 1, 11, "vos.a.engine cannot be \"condor\": it must be 'builtin' or 'dirac'"),
        ("flavours: {LOCAL: {engines: {condor: {}}}}", 1, 30, "'condor' is none of 'builtin' or 'dirac'"),
        ("vos: {a: {flavours: {LOCALE: {}}}}", 1, 22, "unknown flavour 'LOCALE'; did you mean 'LOCAL'?"),
        ("sites: {A: {pilot: {vos: {b: {}}}}}", 1, 27, "unknown VO 'b' (there are: demo)"),
        ("service: {published: [VACC]}", 1, 23, "unknown flavour 'VACC'; did you mean 'VAC'?"),
        ("toolboxes: [{name: x}]", 1, 13, "a toolbox is at one of path, package, entry_point; 'x' has none of them"),
        ("toolboxes: [{name: x, path: /a, package: b}]", 1, 13, "'x' has path and package"),
        ("toolboxes: [{name: x, path: a}]", 1, 13, "the path of a toolbox is absolute, not 'a'"),
        ("toolboxes: [{name: x, path: /a.whl}]", 1, 13, "the toolbox 'x' is a file and needs its sha256"),
        ("toolboxes: [{name: x, path: /a, sha256: %s}]" % ("a" * 64), 1, 13, "sha256 is for toolboxes that are files"),
        ("toolboxes: [{name: x, path: /a.zip, sha256: abc}]", 1, 37, "must be 64 hex digits in lower case"),
        ("toolboxes: [{name: base, path: /a}]", 1, 13, "'base' is the name of a toolbox of Pilotage's own"),
        (
            "toolboxes: [{name: x, path: /a}]\nvos: {a: {toolboxes: [{name: x, package: b}]}}",
            2,
            23,
            "the toolbox 'x' is there twice",
        ),
        ("pilot: &a {tags: [*a]}", 1, 19, "the alias *a contains itself"),
        ("pilot: *a", 1, 8, "the alias *a is not defined"),
        ("pilot: &a {}\nvos: {a: {<<: *a}}", 2, 11, "merge keys (<<) are not supported"),
        ("vos:\n  a: {}\n  b:{}\n", 4, 1, "(while scanning a simple key, from line 3)"),
        (
            "pilot: {options: {RunJobAgent.idle_seconds: 4}}",
            1,
            19,
            "pilot.options: 'RunJobAgent.idle_seconds' is not a Python name, as commands and options have; "
            "write RunJobAgent: {idle_seconds: ...}",
        ),
        ("pilot: {python: [python3]}", 1, 18, "pilot.python[0] must be an absolute path"),
        ("pilot: {python: {append: [/my python]}}", 1, 9, "append.0: '/my python' is not an absolute path"),
        (
            "sites: {A: {resources: {r: {type: local, flavour: LOCAL, queues: {q: {}}, vos: [a, a]}}}}\nvos: {a: {}}",
            1,
            84,
            "the VO 'a' is in the list twice",
        ),
        ("? [a]\n: 1", 1, 3, "a key must be a text"),
        ("[" * 100_000, 1, 41, "nested deeper than 40"),
    ],
)
def test_errors_name_the_place(text, line, column, sentence):
    with pytest.raises(ConfigurationError) as caught:
        loads(text, "f.yaml")
    assert sentence in str(caught.value)
    assert (caught.value.where.line, caught.value.where.column) == (line, column)
    assert "\n" not in str(caught.value)


def test_all_problems_are_told_in_the_order_of_the_file():
    with pytest.raises(ConfigurationError) as caught:
        loads("vos: {demo: {shares: 1}}\nservice: {urls: []}\n")
    assert [problem.where.line for problem in caught.value.problems] == [1, 2]


def test_a_name_is_used_once_over_all_sites():
    one = "resources: {r: {type: local, flavour: LOCAL, queues: {q: {}}}}"
    with pytest.raises(ConfigurationError, match="the resource 'r' is in site 'A' too"):
        loads(f"sites:\n  A: {{{one}}}\n  B: {{{one}}}\n")


def test_an_alias_bomb_is_refused_at_once():
    lines = ["l0: &l0 [1]"] + [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ConfigurationError, match="more than 500000 values"):
        parse("\n".join(lines))


def test_aliases_work_and_errors_in_them_are_found():
    configuration = loads("flavours:\n  A: &a {commands: [RunJobAgent]}\n  B: *a\n")
    assert configuration.flavours["B"].commands == ["RunJobAgent"]
    with pytest.raises(ConfigurationError, match="unknown key 'command'"):
        loads("flavours:\n  A: &a {command: [RunJobAgent]}\n  B: *a\n")


def test_numbers_that_no_computer_word_holds_are_texts():
    for number in ("9223372036854775808", "-9223372036854775809", "9" * 30):
        with pytest.raises(ConfigurationError, match="wall_seconds must be a whole number"):
            loads(RESOURCE % f"{{wall_seconds: {number}}}")


def test_plain_words_are_texts():
    configuration = loads("vos: {on: {}, no: {}, 12: {owners: {yes: 2}}}\npilot: {tags: [no, 1e, 'x']}")
    assert list(configuration.vos) == ["on", "no", "12"]
    assert configuration.vos["12"].owners == {"yes": 2.0}
    assert configuration.pilot.tags == ["no", "1e", "x"]


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        load(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes("service: {}\n# caf\xe9\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"latin.yaml:2:6: is not UTF-8"):
        load(tmp_path / "latin.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigurationError, match="larger than 10 MiB"):
        load(tmp_path / "big.yaml")
    (tmp_path / "nul.yaml").write_bytes(b"service: {}\nvos:\0")
    with pytest.raises(ConfigurationError, match=r"nul.yaml:2:5: is not a text"):
        load(tmp_path / "nul.yaml")
    for text in (b"", b"# to be written\n", b"null\n"):  # a lost file: what runs is not to become the defaults
        (tmp_path / "empty.yaml").write_bytes(text)
        with pytest.raises(ConfigurationError, match=r"empty.yaml: says nothing"):
            load(tmp_path / "empty.yaml")


def test_a_secret_is_read_from_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "key").write_text("hush\n")
    monkeypatch.setenv("MY_SECRET", "hush too")
    objects = f"{{url: 's3://b', access_key_id: {{env: MY_SECRET}}, secret_access_key: {{file: {tmp_path}/key}}}}"
    found = loads(f"service: {{objects: {objects}}}").service.objects
    assert found.access_key_id and found.access_key_id.read() == "hush too"
    assert found.secret_access_key and found.secret_access_key.read() == "hush"
    (tmp_path / "key").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"key is not UTF-8$"):
        found.secret_access_key.read()
    (tmp_path / "key").unlink()
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        found.secret_access_key.read()
    monkeypatch.delenv("MY_SECRET")
    with pytest.raises(ValueError, match="the environment variable MY_SECRET is not set"):
        found.access_key_id.read()


def test_the_revision_is_of_the_content():
    assert load().revision == loads("").revision == loads("# only a comment").revision
    assert load().revision != loads("service: {lease_seconds: 7}").revision
    assert (
        loads("service: {lease_seconds: 7, sync_seconds: 3}").revision
        == loads("service: {sync_seconds: 3, lease_seconds: 7}").revision
    )


def test_a_file_replaces_the_embedded_vos_and_sites():
    configuration = loads(FULL)
    assert "local" not in [name for _, name, _ in configuration.resources()]
    assert "LOCAL" in loads("vos: {mine: {}}").sites


def test_pilots_compose_and_are_kept():
    configuration = load()
    first = compose_pilot(configuration, "demo", "local", "default", ["https://s:1"], ["PEM"])
    again = compose_pilot(load(), "demo", "local", "default", ["https://s:1"], ["PEM"])
    assert again is first
    assert first.profile["service"] == {"urls": ["https://s:1"], "trust": ["PEM"]}
    assert first.profile["commands"][0]["options"]["min_disk_mib"] == 512
    assert len(first.profile["commands"][0]["options"]) > 1
    assert first.digest in first.script
    assert compose_pilot(configuration, "demo", "local", "default", ["https://s:2"], []).digest != first.digest
    check(configuration)


@pytest.mark.parametrize(
    "part, line, sentence",
    [
        (
            "commands: [RunEnvironmentTest, RunJobAgnet]",
            4,
            "unknown command 'RunJobAgnet'; did you mean 'RunJobAgent'?",
        ),
        ("commands: [RunJobAgent, RunJobAgent]", 4, "the command 'RunJobAgent' is in the list twice"),
        ("commands: []", 4, "no layer gives the pilot of flavour 'LOCAL' any commands"),
        ("options: {RunEnviromentTest: {min_disk_mib: 1}}", 4, "did you mean 'RunEnvironmentTest'?"),
        ("options: {RunEnvironmentTest: {min_disk: 1}}", 4, "unknown option of RunEnvironmentTest 'min_disk'"),
        ("options: {RunEnvironmentTest: {min_disk_mib: lots}}", 4, "min_disk_mib must be a whole number, not 'lots'"),
        ("options: {RunEnvironmentTest: {min_disk_mib: 1.5}}", 4, "must be a whole number, not 1.5"),
        ("options: {RunEnvironmentTest: {min_disk_mib: true}}", 4, "must be a whole number, not True"),
        ("options: {RunEnvironmentTest: {min_disk_mib: null}}", 4, "must be a whole number, not None"),
    ],
)
def test_what_does_not_compose_names_file_and_line(part, line, sentence):
    configuration = loads(f"vos:\n  demo:\n    pilot:\n      {part}\n", "mine.yaml")
    with pytest.raises(ConfigurationError) as caught:
        check(configuration)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(f"mine.yaml:{line}:")


scalars = st.one_of(st.none(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=3))


def shaped(depth: int):
    """Layers of one shape, as the schema has it: what is a map in one is a map in all."""
    more = {"map": shaped(depth - 1), "other": shaped(depth - 1)} if depth else {}
    return st.fixed_dictionaries({}, optional={"value": scalars, "list": scalars, **more})


layers = st.lists(shaped(2), min_size=3, max_size=4)


@given(layers)
def test_merging_is_associative_and_knows_the_origins(parts):
    sources = [((number,), part) for number, part in enumerate(parts)]
    whole = merge(sources).values
    assert merge([((), merge(sources[:2]).values), *sources[2:]]).values == whole
    assert merge([sources[0], ((), merge(sources[1:]).values)]).values == whole
    merged = merge(sources)
    for path, origin in merged.origins.items():
        value, source = merged.values, parts
        for step in path:
            value = value[step]
        for step in origin:
            source = source[step]
        assert isinstance(value, dict) or source == value
