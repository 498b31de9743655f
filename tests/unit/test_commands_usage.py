"""The base commands that watch, report and upload, under real /proc and real processes."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from command_channel import answer_calls, finished, pair, ready

from pilotage_node import exitcodes
from pilotage_node.command import CommandFailed
from pilotage_node.runner.record import Record
from pilotage_node.toolbox.ReportUsage import ReportUsage
from pilotage_node.toolbox.RunMonitoringAgent import RunMonitoringAgent
from pilotage_node.toolbox.UploadPilotOutput import UploadPilotOutput

__all__ = ["pair"]

BURN = """
import os
block = bytearray(64 << 20)
while os.times().user < 0.6:
    block[::4096] = b"x" * (len(block) // 4096)
input()
"""


# --- RunMonitoringAgent


def total(usage):
    return usage["cpu_user"] + usage["cpu_system"]


def sampled(runner, enough, seconds=60):
    """Samples as they come, until one satisfies ``enough``."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        message = runner.receive(until - time.monotonic())
        if message and message["op"] == "usage" and enough(message["usage"]):
            return message["usage"]
    pytest.fail(f"no such sample within {seconds} s")


def test_samples_count_the_tree_keep_maxima_and_end_on_drain(pair, monkeypatch):
    channel, runner = pair
    monkeypatch.setattr("pilotage_node.toolbox.RunMonitoringAgent.THRIFT", 0)
    errors = []

    def work():
        try:
            ready(RunMonitoringAgent, channel, interval_seconds=0.05).do()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    first = sampled(runner, lambda usage: True)
    job = subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE)
    try:
        busy = sampled(runner, lambda usage: total(usage) > total(first) + 0.4)
        assert busy["processes"] > first["processes"]
        assert busy["max_rss_mib"] >= first["rss_mib"] + 50
        assert busy["max_cores_busy"] > 0
        assert 0 < busy["min_disk_free_mib"] <= busy["disk_free_mib"]
        assert busy["memory_free_mib"] > 0
    finally:
        job.communicate(b"\n")
    after = sampled(runner, lambda usage: usage["processes"] == first["processes"])
    assert total(after) >= total(busy) - 0.05  # what an ended job used stays in the account
    assert after["max_processes"] >= busy["processes"] and after["max_rss_mib"] >= busy["max_rss_mib"]
    assert after["rss_mib"] < busy["max_rss_mib"]
    runner.send({"op": "drain", "reason": "over"})
    thread.join(30)
    assert not thread.is_alive() and errors == []


def test_a_sample_that_costs_much_is_followed_by_a_long_rest(pair, monkeypatch):
    channel, _ = pair
    command = ready(RunMonitoringAgent, channel, interval_seconds=0.05)
    rests, clock = [], iter((0.0, 0.1))
    monkeypatch.setattr("pilotage_node.toolbox.RunMonitoringAgent.time.process_time", lambda: next(clock))
    monkeypatch.setattr(command, "rest", lambda seconds: rests.append(seconds) or vars(channel).update(draining=True))
    command.do()
    assert rests == [pytest.approx(200.0)]


def test_a_drain_that_came_before_is_heeded(pair):
    channel, runner = pair
    channel.draining = True
    ready(RunMonitoringAgent, channel).do()
    assert runner.receive(5)["op"] == "usage" and runner.receive(0.1) is None


# --- ReportUsage


def usage(user=0.0, system=0.0, rss=1, read=0.0, write=0.0):
    return {"cpu_user": user, "cpu_system": system, "max_rss_mib": rss, "read_mib": read, "write_mib": write}


COMMANDS = [
    {"name": "RunEnvironmentTest", "index": 0, "outcome": "done", "code": 0, "seconds": 0.3, "usage": usage(0.1)},
    {"name": "RunJobAgent", "index": 1, "outcome": "done", "code": 0, "seconds": 99.0, "usage": usage(60, 4, 80)},
    {"name": "NeverRan", "index": 2, "outcome": "skipped", "code": 32, "seconds": None, "usage": None},
]


def record(count, beat):
    """The runner's own record of a pilot of 100 s in which ``count`` jobs ran, all in its last 10 s."""
    now = time.monotonic()
    kept = Record(now - 100, {}, "stamp")
    kept.fields["commands"] = COMMANDS
    if beat:
        kept.fields["beat"] = beat
    ended = {"kind": "job", "state": "Done", "reason": "exit", "wall_seconds": 10.0}
    reports = [dict(ended, lease=f"l{n}", job=100 + n, usage=usage(8, 1, 50 + n)) for n in range(count)]
    kept.jobs.told({"busy_seconds": 10.0 if count else 0, "reports": reports})
    return dict(kept.document(), usage=usage(61.0, 5.0, 80, 3.0, 7.0))


def reported(channel, runner, count, beat=None, jobs_listed=20):
    answer = {"op": "record", "log": "/nowhere", "record": record(count, beat)}
    seen, thread = answer_calls(runner, {"record": lambda message: answer})
    command = ready(ReportUsage, channel, jobs_listed=jobs_listed)
    command.facts.node["cores"] = 2
    command.do()
    finished(channel, thread)
    assert [message["op"] for message in seen] == ["record", "usage"]
    return seen[-1]["usage"]


def test_usage_is_added_up_printed_and_sent(pair, capsys):
    beat = {"max_rss_mib": 300, "max_processes": 9, "cpu_user": 1.0}
    sent = reported(*pair, 5, beat)
    assert sent["final"] is True
    assert sent["wall_seconds"] == pytest.approx(100, abs=0.5) and sent["empty_seconds"] == pytest.approx(90, abs=0.5)
    assert sent["efficiency"] == pytest.approx(45.0 / 200.0, rel=0.01)
    assert sent["cpu_user"] >= 61.0 and sent["cpu_system"] >= 5.0
    assert (sent["max_rss_mib"], sent["read_mib"], sent["write_mib"]) == (80, 3.0, 7.0)
    assert sent["monitored"] == beat
    assert sent["jobs"]["count"] == 5 and sent["jobs"]["cpu_user"] == 40.0 and sent["jobs"]["max_rss_mib"] == 54
    printed = capsys.readouterr().out
    for text in (
        "RunEnvironmentTest",
        "RunJobAgent",
        "NeverRan",
        "job 100",
        "job 104",
        "all 5 jobs",
        "the whole pilot",
    ):
        assert text in printed
    assert re.search(r"jobs: 5 Done; empty for 90\.\d s of 100\.\d s; efficiency 22\.\d% of 2 cores", printed)
    assert len({len(line) for line in printed.splitlines() if line[:5] in ("comma", "RunEn", "job 1", "all 5")}) == 1


def test_only_the_last_jobs_have_a_line(pair, capsys):
    assert reported(*pair, 30, jobs_listed=2)["jobs"]["count"] == 30
    printed = capsys.readouterr().out
    assert "all 30 jobs" in printed and "job 129" in printed and "job 127" not in printed


def test_a_pilot_without_jobs_was_empty_all_the_time(pair, capsys):
    sent = reported(*pair, 0)
    assert sent["empty_seconds"] == sent["wall_seconds"] and sent["efficiency"] == 0.0
    assert "jobs: none; empty for 100." in capsys.readouterr().out


def test_living_descendants_are_in_the_account(pair):
    job = subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while float(Path(f"/proc/{job.pid}/stat").read_text().rsplit(")", 1)[1].split()[11]) < 40:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        sent = reported(*pair, 0)
    finally:
        job.communicate(b"\n")
    assert sent["cpu_user"] + sent["cpu_system"] >= 66.0 + 0.4


# --- UploadPilotOutput


def uploading(channel, runner, error_of, log):
    def upload(message):
        return {
            "op": "transferred",
            "error": error_of(message["name"]),
            "size": os.path.getsize(message["path"]),
            "sha256": "",
        }

    answers = {
        "record": lambda message: {"op": "record", "record": {"outcome": "é", "n": [1]}, "log": str(log)},
        "upload": upload,
    }
    return answer_calls(runner, answers)


def test_log_and_record_are_uploaded(pair, tmp_path, capsys):
    channel, runner = pair
    log = tmp_path / "the.log"
    log.write_text("hello\n")
    seen, thread = uploading(channel, runner, lambda name: None, log)
    ready(UploadPilotOutput, channel).do()
    finished(channel, thread)
    assert [(m["op"], m.get("name")) for m in seen] == [
        ("record", None),
        ("upload", "pilot.log"),
        ("upload", "pilot.json"),
    ]
    assert json.loads(Path(seen[2]["path"]).read_text()) == {"outcome": "é", "n": [1]}
    assert "pilot.log uploaded, 6 bytes" in capsys.readouterr().out


def test_what_was_not_taken_is_named_and_the_other_goes_out(pair, tmp_path):
    channel, runner = pair
    log = tmp_path / "the.log"
    log.write_text("hello\n")
    refused = {"pilot.log": "pilot.log: refused: 413 too large"}
    seen, thread = uploading(channel, runner, refused.get, log)
    with pytest.raises(CommandFailed, match=r"pilot\.log: refused: 413 too large") as failure:
        ready(UploadPilotOutput, channel).do()
    finished(channel, thread)
    assert failure.value.code == exitcodes.CONNECTIVITY and "pilot.json" not in failure.value.text
    assert seen[-1]["name"] == "pilot.json"
    assert UploadPilotOutput.on_failure == "continue" and UploadPilotOutput.always


def test_a_full_disk_still_sends_the_log(pair, tmp_path):
    channel, runner = pair
    log = tmp_path / "the.log"
    log.write_text("hello\n")
    os.symlink("/dev/full", tmp_path / "pilot.json")
    seen, thread = uploading(channel, runner, lambda name: None, log)
    with pytest.raises(CommandFailed, match=r"pilot\.json: \[Errno 28\] No space left") as failure:
        ready(UploadPilotOutput, channel).do()
    finished(channel, thread)
    assert failure.value.code == exitcodes.CONNECTIVITY
    assert [m.get("name") for m in seen] == [None, "pilot.log"]


def test_no_answer_is_a_failure_in_bounded_time(pair):
    channel, runner = pair
    answers = {"record": lambda message: {"op": "record", "record": {}, "log": "/nowhere"}, "upload": lambda m: None}
    _, thread = answer_calls(runner, answers)
    with pytest.raises(CommandFailed, match=r"pilot\.log: no answer in time"):
        ready(UploadPilotOutput, channel, transfer_seconds=0.1).do()
    finished(channel, thread)
