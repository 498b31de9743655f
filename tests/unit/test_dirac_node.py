"""The `dirac` toolbox without a DIRAC: its parts that decide, and its commands on stand-ins of the same interface."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pilotage.configuration import loads
from pilotage.configuration.dirac import cfg as dirac_cfg
from pilotage.configuration.dirac import table
from pilotage.configuration.toolboxes import dirac
from pilotage_node.command import CommandFailed
from pilotage_node.toolboxes.dirac import agentlog, cfg, installing, programs, security, software
from pilotage_node.toolboxes.dirac.ConfigureDIRAC import ConfigureDIRAC
from pilotage_node.toolboxes.dirac.InstallDIRAC import InstallDIRAC
from pilotage_node.toolboxes.dirac.programs import Failed
from pilotage_node.toolboxes.dirac.RunJobAgent import RunJobAgent

ALL = (InstallDIRAC, ConfigureDIRAC, RunJobAgent)


def command(kind: Any, **options: Any) -> Any:
    """A command with its options, without a runner."""
    one = kind()
    assert set(options) <= set(kind.options)
    defaults = {name: option.default for name, option in kind.options.items()}
    one.options = SimpleNamespace(**{**defaults, **options})
    one.facts = SimpleNamespace(node={"cores": 2, "memory_mib": 2048, "gpus": 0, "seconds_left": None}, software=None)
    one.pilot = SimpleNamespace(workdir="/nowhere", started=time.monotonic(), profile={"vo": "v", "tags": ["a", "b"]})
    one.log = lambda text: None
    return one


# -- what composers read, and what the import of DIRAC's configuration promises


@pytest.mark.parametrize("kind", ALL)
def test_every_option_is_explained(kind: Any) -> None:
    path = Path(programs.__file__).parent / (kind.__name__ + ".py")
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    (found,) = [node for node in nodes if node.name == kind.__name__]
    text = ast.get_docstring(found) or ""
    assert "Facts given:" in text and "Exit codes:" in text
    explained = {name for line in re.findall(r"(?m)^    ([a-z0-9_, ]+):", text) for name in line.split(", ")}
    assert set(kind.options) <= explained, set(kind.options) - explained


def test_the_options_that_the_import_writes_are_there() -> None:
    box = dirac()
    assert box is not None
    kinds = {"text": "str", "number": "int", "list": "list", "pairs": "list"}
    for row in (*table.PILOT, *table.GLOBAL, *table.RESOURCE):
        if row.command in (table.INSTALL, table.CONFIGURE, table.AGENT):
            options = box["commands"][row.command]["options"]
            assert row.option in options, f"{row.command}.{row.option} of {row.dirac}"
            assert options[row.option]["type"] == kinds[row.kind], row


def test_the_flavours_of_the_first_proposal_compose_for_dirac() -> None:
    from pilotage.configuration import compose_pilot

    found = loads("vos: {v: {engine: dirac}}\nservice: {url: 'http://127.0.0.1:1'}")
    for flavour in ("CREAM", "CLOUD", "BOINC", "VAC", "LOCAL", "ARC"):
        assert "WorkloadManagement/JobAgent" in compose_pilot(found, "v", flavour=flavour).script


# -- configuration files


def test_what_is_written_is_what_dirac_reads() -> None:
    options = {
        "/DIRAC/Setup": "Test",
        "/DIRAC/Configuration/Servers": ["dips://a:1/x", "dips://b:1/x"],
        "/DIRAC/Security/UseServerCertificate": False,
        "/LocalSite/Site": "DIRAC.A.b",
        "/LocalSite/Empty": "",
    }
    text = cfg.text_of(options)
    read = dirac_cfg.parse(text, "pilot.cfg")
    servers = read.option("DIRAC", "Configuration", "Servers")
    assert servers and servers.items == ["dips://a:1/x", "dips://b:1/x"]
    assert "UseServerCertificate = no" in text and "Empty" not in text


@pytest.mark.parametrize("value", ["a\nb", "a # b", "a { b"])
def test_a_value_that_would_be_read_as_another_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="cannot hold /LocalSite/Site"):
        cfg.text_of({"/LocalSite/Site": value})
    with pytest.raises(ValueError, match="is an option and a section"):
        cfg.text_of({"/A/B": "1", "/A/B/C": "2"})


# -- security files


def test_what_is_wrong_with_authorities_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "ca.pem").touch()
    assert security.authorities("", {security.CA: str(tmp_path / "empty")}, os.listdir) == (
        None,
        [f"no certificate authorities: {tmp_path}/empty is empty"],
    )
    assert "no hashed names" in security.authorities(str(tmp_path / "names"), {}, os.listdir)[1][0]
    assert f"{tmp_path}/none: No such file" in security.authorities(str(tmp_path / "none"), {}, os.listdir)[1][0]
    (tmp_path / "names" / "0a1b2c3d.0").touch()
    assert security.authorities(str(tmp_path / "names"), {}, os.listdir) == (str(tmp_path / "names"), [])
    (note,) = security.voms({security.VOMSES: str(tmp_path / "empty")}, os.listdir)
    assert note.startswith(f"X509_VOMSES: {tmp_path}/empty is empty")


def test_what_is_wrong_with_a_proxy_is_said(tmp_path: Path) -> None:
    proxy = tmp_path / "proxy"
    assert "cannot be read: No such file" in str(security.credential(str(proxy), "proxy"))
    proxy.write_text("-----BEGIN PRIVATE KEY-----\n")
    proxy.chmod(0o644)
    assert "can be read by others (mode 644)" in str(security.credential(str(proxy), "proxy"))
    proxy.chmod(0o600)
    assert "holds no certificate" in str(security.credential(str(proxy), "proxy"))
    proxy.write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n")
    assert security.credential(str(proxy), "proxy") is None


# -- programs with a time limit


def test_a_program_that_hangs_is_left_after_its_time() -> None:
    begin = time.monotonic()
    with pytest.raises(Failed, match=r"did not end within 0.3 s; its last words: error: stale handle"):
        programs.run(["sh", "-c", "echo error: stale handle; exec sleep 100"], 0.3)
    with pytest.raises(Failed, match="did not end"):
        programs.run(["sh", "-c", "while :; do echo y; done"], 0.3)
    assert time.monotonic() - begin < 5


def test_a_program_is_over_though_its_child_holds_its_output() -> None:
    begin = time.monotonic()
    assert programs.run(["sh", "-c", "sleep 20 & echo done"], 10) == "done\n"
    assert time.monotonic() - begin < 5


def test_the_lines_that_say_what_was_wrong() -> None:
    noise = "\n".join(f"Collecting package {number}" for number in range(500))
    text = noise + "\nERROR: No matching distribution found for DIRAC==9.9.9\n" + noise
    assert programs.telling(text) == "ERROR: No matching distribution found for DIRAC==9.9.9"
    with pytest.raises(Failed, match="sh ended with status 7: it printed nothing"):
        programs.run(["sh", "-c", "exit 7"], 5)


# -- installations


def standin(prefix: Path, version: str = "8.0.86") -> Path:
    """What an installation of DIRAC looks like from outside."""
    (prefix / "bin").mkdir(parents=True)
    for name, text in {
        "python": f'test "$1" = -c && echo "PILOTAGE {version} 3.11.4"',
        "dirac-agent": "echo agent",
    }.items():
        (prefix / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (prefix / "bin" / name).chmod(0o755)
    script = prefix / "diracosrc"
    script.write_text(f'echo "welcome"\nexport DIRACOS={prefix}\nexport PATH={prefix}/bin:$PATH\n')
    return script


def test_an_environment_script_is_sourced_and_looked_at(tmp_path: Path) -> None:
    script = standin(tmp_path / "there")
    found = software.of_script(str(script), "here")
    assert (found["version"], found["bin"]) == ("8.0.86", f"{tmp_path}/there/bin")
    assert found["environment"]["DIRACOS"] == f"{tmp_path}/there"
    (tmp_path / "there/bin/python").write_text("#!/bin/sh\necho 'ModuleNotFoundError: No module named DIRAC'\nexit 1\n")
    with pytest.raises(Failed, match="No module named DIRAC"):
        software.of_script(str(script), "here")


def test_sources_are_tried_in_order_and_each_failure_is_told(tmp_path: Path) -> None:
    standin(tmp_path / "cvmfs/two/v8.0.86" / f"{os.uname().sysname}-{os.uname().machine}")
    os.mkfifo(tmp_path / "hangs")
    (tmp_path / "cvmfs/one").mkdir(parents=True)
    one = command(
        InstallDIRAC,
        version="8.0.86",
        preinstalled_environment=str(tmp_path / "hangs"),
        cvmfs_locations=[str(tmp_path / "cvmfs/one"), str(tmp_path / "cvmfs/two")],
        cvmfs_seconds=0.5,
    )
    said: list[str] = []
    one.log = said.append
    begin = time.monotonic()
    one.do()
    assert time.monotonic() - begin < 10, "the script that hangs was left"
    assert one.facts.software["version"] == "8.0.86" and "cvmfs/two" in one.facts.software["origin"]
    assert "preinstalled does not work" in said[0] and "did not end within 0.5 s" in said[0]


def test_when_nothing_works_every_reason_is_in_the_result(tmp_path: Path) -> None:
    standin(tmp_path / "other", "9.1.22")
    one = command(
        InstallDIRAC,
        version="8.0.86",
        preinstalled_environment=str(tmp_path / "other/diracosrc"),
        cvmfs_locations=[str(tmp_path / "none")],
        python=str(tmp_path / "no-python"),
        place=str(tmp_path / "place"),
    )
    with pytest.raises(CommandFailed) as caught:
        one.do()
    for text in (
        "is DIRAC 9.1.22, not 8.0.86",
        f"{tmp_path}/none: sh ended",
        "No such file",
        "no-python cannot be start",
    ):
        assert text in caught.value.text
    assert [path.name for path in (tmp_path / "place").iterdir() if path.suffix != ".lock"] == []


def test_the_diracos_installer_runs_only_with_its_digest_and_what_is_half_made_goes(tmp_path: Path) -> None:
    made = standin(tmp_path / "made")
    installer = tmp_path / "installer.sh"
    installer.write_text(
        f"cp -r {made.parent} diracos\n"
        f"sed -i s={made.parent}=$PWD/diracos=g diracos/diracosrc\n"
        'echo "threads: $OMP_NUM_THREADS" > threads\n'
    )
    # the stand-in of pip: its environment's python takes any words
    (made.parent / "bin/python").write_text('#!/bin/sh\ntest "$1" = -c && echo "PILOTAGE 8.0.86 3"\nexit 0\n')
    digest = hashlib.sha256(installer.read_bytes()).hexdigest()
    other = tmp_path / "other.sh"
    other.write_text("touch /tmp/never-run\n")
    options = {"version": "8.0.86", "sources": ["diracos"], "place": str(tmp_path / "place")}
    one = command(
        InstallDIRAC, diracos_urls=[f"file://{other}", f"file://{installer}"], diracos_sha256=digest, **options
    )
    one.do()
    assert "DIRACOS2 in " in one.facts.software["origin"]
    (directory,) = [path for path in (tmp_path / "place").iterdir() if path.is_dir()]
    assert (directory / "threads").read_text() == "threads: 2\n"

    again = command(InstallDIRAC, diracos_urls=[], diracos_sha256=digest, **options)
    again.do()
    assert again.facts.software["origin"].endswith("(used again)")

    (directory / "diracos/bin/dirac-agent").unlink()
    said: list[str] = []
    again.log = said.append
    with pytest.raises(CommandFailed, match="no URL of the installer"):
        again.do()
    assert "is removed: its files are not those that were installed" in said[0]
    assert not directory.exists()


def test_pilots_of_a_node_install_once(tmp_path: Path) -> None:
    """A second one waits for the first, not longer than its time."""
    place = installing.Place(str(tmp_path))
    with open(tmp_path / "held.lock", "a") as held:
        installing.locked(held, time.monotonic() + 1)
        with (
            open(tmp_path / "held.lock", "a") as second,
            pytest.raises(Failed, match="another pilot has been installing"),
        ):
            installing.locked(second, time.monotonic() + 0.3)

    def stopped(directory: str, seconds: float) -> Any:
        os.makedirs(directory)
        Path(directory, "half").touch()
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        place.installed({"kind": "x"}, stopped, 5, print)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()], "half an installation is worse than none"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"version": "v8.0.86"}, ["DIRAC==8.0.86"]),
        ({"version": "9.1.22"}, ["DIRAC==9.1.22", "mysqlclient", "opensearch-py"]),
        ({"version": "11.0", "project": "LHCb", "packages": []}, ["LHCbDIRAC==11.0"]),
        ({"version": "11.0", "installation": "LHCbDIRAC", "packages": []}, ["LHCbDIRAC==11.0"]),
        (
            {"version": "8.0.86", "extensions": ["WebAppDIRAC", "Grid==1.2"]},
            ["DIRAC==8.0.86", "WebAppDIRAC", "GridDIRAC==1.2"],
        ),
        (
            {"version": "8.0.86", "modules": ["https://x/DIRAC.git:::DIRAC:::integration"]},
            ["DIRAC @ git+https://x/DIRAC.git@integration"],
        ),
    ],
)
def test_what_pip_is_asked_for(options: dict[str, Any], wanted: list[str]) -> None:
    assert command(InstallDIRAC, **options).requirements() == wanted


def test_generic_options_choose_sources() -> None:
    assert command(InstallDIRAC, generic_options=["cvmfsOnly"]).chosen() == ["preinstalled", "cvmfs"]
    assert command(InstallDIRAC, generic_options=["diracInstallOnly"]).chosen() == ["diracos", "pip"]
    with pytest.raises(CommandFailed, match="'apt' is none of"):
        command(InstallDIRAC, sources=["apt"]).chosen()


# -- the configuration


def test_work_is_what_fits_into_the_time_by_the_power_that_is_known() -> None:
    one = command(ConfigureDIRAC, reserve_seconds=100)
    one.answer = {"queue": {"SI00": "5000", "maxCPUTime": "10"}, "platform": "P"}
    assert one.work()["/LocalSite/CPUTimeLeft"] == 10 * 60 * 20
    one.facts.node["seconds_left"] = 1100
    assert one.work()["/LocalSite/CPUTimeLeft"] == 1000 * 20
    assert one.work()["/LocalSite/CPUNormalizationFactor"] == "20.00"
    one.options.cpu_power_hs06 = 8.0
    assert one.work()["/LocalSite/CPUTimeLeft"] == 8000 and one.work()["/LocalSite/Platform"] == "P"


def test_options_of_the_dirac_pilot_have_an_effect_or_are_refused() -> None:
    one = command(ConfigureDIRAC, extra_pilot_options="-o /LocalSite/X=1 -t a,b --requiredTag=c -S Prod")
    assert one.extra() == {
        "/LocalSite/X": "1",
        "/DIRAC/Setup": "Prod",
        "/Resources/Computing/CEDefaults/Tag": ["a", "b"],
        "/Resources/Computing/CEDefaults/RequiredTag": ["c"],
    }
    with pytest.raises(ValueError, match="--pilotUUID has no effect here"):
        command(ConfigureDIRAC, extra_pilot_options="--pilotUUID 7").extra()


# -- the job agent's log (lines of DIRAC 8.0.86 and 9.1.22, shortened)

LOG = """\
2026 UTC WorkloadManagement/JobAgent/WorkloadManagement/JobAgent NOTICE: Loaded agent module WorkloadManagement/JobAgent
2026 UTC WorkloadManagement/JobAgent NOTICE: Starting cycle for module WorkloadManagement/JobAgent
2026 UTC WorkloadManagement/JobAgent INFO: Received JobID=7, JobType=User, Owner=alice, JobGroup=feas_user
2026 UTC None/[7]JobWrapper INFO: Job Wrapper is starting execution phase for job 7
2026 UTC None/[7]JobWrapper INFO: Final job status Done ; Execution Complete
2026 UTC WorkloadManagement/JobAgent/InProcess INFO: Exit status:0
2026 UTC WorkloadManagement/JobAgent INFO: Job being submitted (DIRAC JobID: 7; Task ID: 0)
2026 UTC WorkloadManagement/JobAgent NOTICE: Agent module WorkloadManagement/JobAgent run summary
2026 UTC WorkloadManagement/JobAgent NOTICE: Starting cycle for module WorkloadManagement/JobAgent
2026 UTC WorkloadManagement/JobAgent NOTICE: Job request OK, but no match found No match found ( 1510 : )
"""


def test_the_log_is_followed() -> None:
    seen = agentlog.Follower(False)
    news = [(job.number, job.state) for number, line in enumerate(LOG.splitlines()) for job in seen.feed(line, number)]
    assert news == [("7", "Running"), ("7", "Running"), ("7", "Done")]
    assert seen.ready == 0 and seen.empty == 1 and seen.empty_since == 9 and not seen.asking
    report = agentlog.report_of(seen.jobs["7"])
    assert (report["lease"], report["state"], report["wall_seconds"]) == ("dirac-7", "Done", 2)
    assert report["message"] == "Done; Execution Complete"


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        (["None/[7]JobWrapper INFO: Final job status Failed ; Application Finished With Errors"], "Failed"),
        (["None/[7]JobWrapper INFO: Final job status Killed ; Marked for termination"], "Killed"),
        (["JobAgent WARN: Failure ==> rescheduling (during x)", "JobAgent INFO: Job Rescheduled 7"], "Rescheduled"),
        # a wrapper that was ended from outside: the agent's next words are what counts
        (
            ["InProcess INFO: Exit status: 143", "JobAgent INFO: Job being submitted (DIRAC JobID: 7; Task ID: 0)"],
            "Running",
        ),
        # a job whose wrapper says little (LogLevel of its JDL) is told by its exit status
        (["InProcess INFO: Exit status:0", "JobAgent INFO: Job being submitted (DIRAC JobID: 7; Task ID: 0)"], "Done"),
        (
            ["InProcess INFO: Exit status: 3", "JobAgent INFO: Job being submitted (DIRAC JobID: 7; Task ID: 0)"],
            "Failed",
        ),
    ],
)
def test_how_a_job_ended(lines: list[str], state: str) -> None:
    seen = agentlog.Follower(False)
    for line in [*LOG.splitlines()[:4], *lines]:
        seen.feed(line, 0)
    assert seen.jobs["7"].state == state


def test_what_the_matcher_says_is_told_apart() -> None:
    seen = agentlog.Follower(False)
    seen.feed("JobAgent NOTICE: Failed to get jobs Cannot connect to dips://x:1 ( 1112 : refused)", 1)
    assert seen.refused == (1, "Cannot connect to dips://x:1 ( 1112 : refused)")
    seen.feed("JobAgent NOTICE: Job request OK, but no match found No match found ( 1510 : )", 2)
    assert seen.refused == (0, "") and seen.empty == 2
