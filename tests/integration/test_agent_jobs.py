"""The job agent runs real jobs: files in and out, environments, ends and their reasons; also under Python 3.6."""

import json
import time

import pytest
from tests.integration.agent_harness import Agent, sh
from tests.interpreters import interpreters


@pytest.fixture(params=["this", "3.6"])
def agent(request, tmp_path):
    python = None if request.param == "this" else [interpreters()["3.6"]]
    one = Agent(tmp_path / "pilot", python=python, environment={"PATH": "/usr/bin:/bin", "PILOTAGE_SECRET": "hidden"})
    yield one
    one.close()


def test_jobs_end_as_they_end(agent):
    reports = agent.run(
        sh("echo out; echo err >&2"),
        sh("exit 3"),
        sh("kill -SEGV $$"),
        {"command": ["/no/such"]},
        {"command": ["nonesuch"]},
    )
    told = {r["lease"]: (r["state"], r["reason"], r.get("exit_code"), r.get("signal")) for r in reports}
    assert told == {
        "lease-1": ("Done", "exit", 0, None),
        "lease-2": ("Failed", "exit", 3, None),
        "lease-3": ("Failed", "signal", None, 11),
        "lease-4": ("Failed", "start_failed", None, None),
        "lease-5": ("Failed", "start_failed", None, None),
    }
    first = agent.results["lease-1"]
    assert (first["stdout"], first["stderr"], first["isolation"], first["outputs"]) == ("out\n", "err\n", None, [])
    assert "No such file" in agent.results["lease-5"]["message"]
    agent.drain()
    assert agent.wait() == 0
    assert list((agent.workdir / "jobs").iterdir()) == []


def test_a_job_sees_a_clean_place(agent):
    script = "pwd; ls -A; ls /proc/self/fd; ps -o pid=,sid= -p $$; env"
    [report] = agent.run(sh(script, environment={"MINE": "yes", "PILOTAGE_LEASE": "forged", "NAME": "Zoë"}, cores=2))
    lines = report["stdout"].splitlines()
    here = str(agent.workdir / "jobs" / report["lease"])
    assert lines[0] == here
    assert lines[1:5] == ["0", "1", "2", "3"], "an empty directory, and descriptors 0-2 (3 is of ls)"
    pid, session = lines[5].split()
    assert pid == session
    environment = dict(line.split("=", 1) for line in lines[6:])
    assert environment["HOME"] == here and environment["MINE"] == "yes" and environment["NAME"] == "Zoë"
    assert environment["PILOTAGE_LEASE"] == report["lease"] and environment["PILOTAGE_JOB"] == "1"
    assert environment["OMP_NUM_THREADS"] == environment["PILOTAGE_CORES"] == "2"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert "PILOTAGE_SECRET" not in environment


def test_files_go_in_and_out(agent):
    script = agent.put(b"#!/bin/sh\ncat in/data.txt > out-1; mkdir sub; echo two > sub/out-2; ln -s /etc/fstab out-3\n")
    data = agent.put("größe\n".encode())
    [report] = agent.run(
        {
            "command": ["./run"],
            "inputs": [
                {"name": "run", "sha256": script, "size": 1, "executable": True},
                {"name": "in/data.txt", "sha256": data, "size": 8, "executable": False},
            ],
            "outputs": ["out-*", "sub/*"],
        }
    )
    assert report["state"] == "Done", report
    assert sorted(agent.stored) == [("token-1", "out-1", "größe\n".encode()), ("token-1", "sub/out-2", b"two\n")]
    assert [(item["name"], item["size"]) for item in report["outputs"]] == [("out-1", 8), ("sub/out-2", 4)]
    assert report["outputs"][0]["sha256"] == data


def test_what_fails_with_files_is_told(agent):
    good = agent.put(b"x")
    file = {"sha256": good, "size": 1, "executable": False}
    agent.broken.add("broken")
    touched = sh("touch started; echo > broken", outputs=["broken"])
    reports = agent.run(
        sh("exit 0", inputs=[dict(file, name="a"), dict(file, name="b", sha256="0" * 64)]),
        *[sh("exit 0", inputs=[dict(file, name=name)]) for name in ("../a", "/tmp/pilotage-evil", "a/../../b", "")],
        sh("echo > there", outputs=["there", "nothing*"]),
        sh("exit 4", outputs=["nothing*"]),
        touched,
        sh("exit 0", outputs=["../*"]),
    )
    told = {report["lease"]: report for report in reports}
    reasons = [told[f"lease-{n}"]["reason"] for n in range(1, 10)]
    assert reasons == ["input_failed"] * 5 + ["output_missing", "exit", "output_failed", "output_missing"]
    assert all(report["state"] == "Failed" for report in reports)
    assert "404" in told["lease-1"]["message"] and "nothing*" in told["lease-6"]["message"]
    assert told["lease-7"]["exit_code"] == 4
    assert [item["name"] for item in told["lease-6"]["outputs"]] == ["there"], "what is there is stored all the same"
    assert "507" in told["lease-8"]["message"]
    assert agent.process.poll() is None


def test_long_outputs_are_stored(agent):
    [report] = agent.run(sh("seq 1 5000; seq 1 3 >&2"))
    assert report["stdout"].startswith("1\n2\n") and report["stdout"].endswith("\n5000\n")
    assert report["stderr"] == "1\n2\n3\n"
    [(_, name, data)] = agent.stored
    assert name == "stdout" and data.split() == [b"%d" % n for n in range(1, 5001)]


def test_many_short_jobs_are_leased_ahead_and_told_in_batches(agent):
    agent.run(*[{} for _ in range(400)])
    assert len({report["lease"] for report in agent.results.values()}) == 400
    assert agent.syncs < 100, "in batches"
    assert max(state["want"]["ahead"] for state in agent.states if state["want"]) > 20
    assert all(len(state["held"]) <= 64 + 2 for state in agent.states)
    assert agent.states[0]["want"]["ahead"] == 0
    assert agent.states[0]["want"]["tags"] == ["here"]


def test_jobs_run_side_by_side_as_many_as_fit(agent):
    stamp = "date +%s.%N; sleep 0.7; date +%s.%N"
    reports = agent.run(*[sh(stamp) for _ in range(4)], sh(stamp, memory_mib=3000), sh(stamp, memory_mib=3000))
    times = {r["lease"]: [float(text) for text in r["stdout"].split()] for r in reports}
    beside = max(sum(a < end and b > begin for a, b in times.values()) for begin, end in times.values())
    assert beside >= 2, "at least one ran beside another"
    (begin, end), (other_begin, other_end) = times["lease-5"], times["lease-6"]
    assert end <= other_begin or other_end <= begin, "two times 3000 MiB do not fit into 4000"


def test_usage_is_the_kernels(agent):
    [report] = agent.run(
        sh("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; head -c 5000000 /dev/urandom > f; sync f")
    )
    usage = report["usage"]
    assert usage["cpu_user"] + usage["cpu_system"] > 0.05
    assert report["wall_seconds"] >= usage["cpu_user"]
    assert usage["write_mib"] >= 0 and usage["max_rss_mib"] > 0
    json.dumps(report)


def test_running_is_told_of_jobs_that_last(agent):
    begun = time.monotonic()
    agent.queue = [sh("sleep 4"), sh("exit 0")]
    agent.until(lambda: "lease-1" in agent.started)
    assert "lease-1" not in agent.results or time.monotonic() - begun > 4
    agent.until(lambda: len(agent.results) == 2)
    assert "lease-2" not in agent.started


def test_gpus_are_assigned(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "3,5"}
    agent = Agent(tmp_path / "pilot", node={"gpus": 2}, environment=environment)
    try:
        show = "echo $CUDA_VISIBLE_DEVICES; sleep 0.5"
        reports = agent.run(sh(show, gpus=1), sh(show, gpus=1), sh(show, gpus=2), sh(show))
        told = {report["lease"]: report["stdout"].strip() for report in reports}
        assert {told["lease-1"], told["lease-2"]} == {"3", "5"}
        assert set(told["lease-3"].split(",")) == {"3", "5"} and told["lease-4"] == ""
    finally:
        agent.close()
