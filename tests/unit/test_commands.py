"""The base commands: what composers read of them, and RunEnvironmentTest under limits that fail."""

import ast
import os
import socket
from pathlib import Path

import pytest
from command_channel import pair, ready

from pilotage_node import exitcodes, facts
from pilotage_node.command import CommandFailed
from pilotage_node.toolbox.ReportUsage import ReportUsage
from pilotage_node.toolbox.RunEnvironmentTest import RunEnvironmentTest
from pilotage_node.toolbox.RunMonitoringAgent import RunMonitoringAgent
from pilotage_node.toolbox.UploadPilotOutput import UploadPilotOutput

TOOLBOX = Path(facts.__file__).parent / "toolbox"
ALL = (RunEnvironmentTest, RunMonitoringAgent, ReportUsage, UploadPilotOutput)
__all__ = ["pair"]


# --- what composers read


@pytest.mark.parametrize("kind", ALL)
def test_attributes_are_literals_and_the_docstring_is_a_reference(kind):
    tree = ast.parse((TOOLBOX / (kind.__name__ + ".py")).read_text())
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__]
    for node in found.body:
        if not isinstance(node, ast.Assign):
            continue
        if node.targets[0].id == "options":
            for option in node.value.values:
                assert isinstance(option.args[0], ast.Name)
                assert ast.literal_eval(option.args[2])
                ast.literal_eval(option.args[1])
        elif not (isinstance(node.value, ast.Name) and node.value.id in ("ABORT", "CONTINUE")):
            ast.literal_eval(node.value)
    text = ast.get_docstring(found)
    assert "Options:" in text and "Facts given:" in text and "Exit codes:" in text
    for name in kind.options:
        assert f"\n    {name}: " in text, f"the docstring does not explain {name}"


# --- RunEnvironmentTest


def test_a_fit_node_passes_and_every_finding_is_printed(pair, capsys):
    channel, _ = pair
    ready(RunEnvironmentTest, channel, min_disk_mib=1).do()
    printed = capsys.readouterr().out
    for what in ("python", "system", "machine", "host", "cores", "memory_mib", "disk_mib", "write test"):
        assert f"\n{what} " in "\n" + printed
    assert "clock skew       +0.2 s" in printed and "answered in 15 ms" in printed
    assert os.listdir(channel.workdir) == []  # the written file is gone
    assert "<-" not in printed


@pytest.mark.parametrize(
    ("limit", "code", "text"),
    [
        ({"min_python": "4.0"}, exitcodes.ENVIRONMENT, "at least 4.0 wanted"),
        ({"systems": ["Plan9"]}, exitcodes.ENVIRONMENT, "one of Plan9 wanted"),
        ({"machines": ["vax", "pdp11"]}, exitcodes.ENVIRONMENT, "one of vax, pdp11 wanted"),
        ({"min_cores": 100000}, exitcodes.ENVIRONMENT, "at least 100000"),
        ({"min_memory_mib": 1 << 40}, exitcodes.MEMORY, "memory_mib: "),
        ({"min_disk_mib": 1 << 40}, exitcodes.DISK, "disk_mib: "),
        ({"max_clock_skew_seconds": 0.1}, exitcodes.CLOCK, "clock skew: +0.2 s, but at most 0.1 s wanted"),
        ({"endpoints": ["127.0.0.1:1"]}, exitcodes.CONNECTIVITY, "endpoint: 127.0.0.1:1, but it failed: "),
        ({"endpoints": ["nonsense"]}, exitcodes.CONNECTIVITY, "endpoint: nonsense, but it failed: "),
        ({"endpoints": ["127.0.0.1:70000"]}, exitcodes.CONNECTIVITY, "70000, but it failed: "),
    ],
)
def test_each_limit_fails_with_its_code(pair, limit, code, text):
    channel, _ = pair
    with pytest.raises(CommandFailed) as failure:
        ready(RunEnvironmentTest, channel, **dict({"min_disk_mib": 1}, **limit)).do()
    assert failure.value.code == code
    assert text in failure.value.text
    assert ";" not in failure.value.text  # only this limit


def test_all_failures_are_named_in_one(pair, capsys):
    channel, _ = pair
    with pytest.raises(CommandFailed) as failure:
        ready(RunEnvironmentTest, channel, min_memory_mib=1 << 40, min_disk_mib=1 << 40, endpoints=["[::1]:1"]).do()
    assert failure.value.code == exitcodes.MEMORY  # of the first
    for what in ("memory_mib: ", "disk_mib: ", "endpoint: [::1]:1"):
        assert what in failure.value.text
    assert capsys.readouterr().out.count("<-") == 3


def test_a_figure_that_is_unknown_fails_its_limit(pair):
    channel, _ = pair
    command = ready(RunEnvironmentTest, channel, min_disk_mib=1)
    command.facts.node["memory_mib"] = None
    with pytest.raises(CommandFailed, match=r"memory_mib: None"):
        command.do()


def test_an_endpoint_that_answers_passes(pair, capsys):
    channel, _ = pair
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"127.0.0.1:{server.getsockname()[1]}"
        ready(RunEnvironmentTest, channel, min_disk_mib=1, endpoints=[endpoint]).do()
    assert endpoint in capsys.readouterr().out


def test_a_full_disk_fails_the_write_test(pair):
    channel, _ = pair
    os.symlink("/dev/full", os.path.join(channel.workdir, "write-test"))
    with pytest.raises(CommandFailed) as failure:
        ready(RunEnvironmentTest, channel, min_disk_mib=1).do()
    assert failure.value.code == exitcodes.DISK
    assert "No space left on device" in failure.value.text
    assert os.listdir(channel.workdir) == []


@pytest.mark.skipif(not os.path.exists("/sys"), reason="needs a place where not even root can write")
def test_a_directory_that_cannot_be_written_fails_the_write_test(pair):
    channel, _ = pair
    command = ready(RunEnvironmentTest, channel, min_disk_mib=1)
    channel.workdir = "/sys"
    with pytest.raises(CommandFailed, match=r"write test: /sys, but it failed: ") as failure:
        command.do()
    assert failure.value.code == exitcodes.DISK


def test_a_directory_that_is_gone_fails_the_write_test(pair):
    channel, _ = pair
    command = ready(RunEnvironmentTest, channel, min_disk_mib=1)
    channel.workdir = os.path.join(channel.workdir, "gone")
    with pytest.raises(CommandFailed) as failure:
        command.do()
    assert failure.value.code == exitcodes.DISK
