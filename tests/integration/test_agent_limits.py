"""Limits of real jobs, and that nothing of a job outlives it."""

import pytest
from tests.integration.agent_harness import Agent, carrying, eventually, sh


@pytest.fixture
def agent(tmp_path):
    one = Agent(tmp_path / "pilot", node={"cores": 4}, options={"grace_seconds": 0.0})
    yield one
    one.close()


DEAF = 'trap "" TERM HUP INT; while :; do sleep 1; done'
HOG = "python3 -c 'import time; a = bytearray(200 << 20); a[::4096] = b\"x\" * len(a[::4096]); time.sleep(60)'"


def ends(report):
    return report["state"], report["reason"]


@pytest.mark.parametrize("isolation", ["none", "required"])
def test_wall_memory_and_cpu(agent, isolation):
    """The memory is used by two children together, the CPU time by a child; the first job is deaf to SIGTERM."""
    spec = {"isolation": isolation, "stdout_mib": 0}
    agent.run(
        sh(DEAF, wall_seconds=2, **spec),
        sh(f"{HOG} & {HOG} & wait", memory_mib=300, **spec),
        sh("sh -c 'while :; do :; done'", cpu_seconds=1, **spec),
        sh("trap 'echo farewell; exit 0' TERM; while :; do sleep 0.1; done", wall_seconds=2, **spec),
    )
    told = [agent.results[f"lease-{n}"] for n in (1, 2, 3, 4)]
    assert [ends(report) for report in told] == [
        ("Failed", "wall_limit"),
        ("Failed", "memory_limit"),
        ("Failed", "cpu_limit"),
        ("Failed", "wall_limit"),
    ]
    assert told[0]["signal"] == 9 and "limit is 2" in told[0]["message"]
    assert told[1]["usage"]["max_rss_mib"] > 300
    assert 1 <= told[2]["usage"]["cpu_user"] + told[2]["usage"]["cpu_system"] < 20
    assert told[3]["exit_code"] == 0 and "farewell" in told[3]["stdout"], "SIGTERM comes first, to the job itself"
    eventually(lambda: agent.processes() == [agent.process.pid])


@pytest.mark.parametrize("isolation", ["none", "required"])
def test_disk(agent, isolation):
    slow = "while :; do head -c 3000000 /dev/zero > $TMPDIR/f$((i=i+1)); sleep 0.1; done"
    fast = "exec head -c 60000000 /dev/zero > big"
    agent.run(sh(slow, disk_mib=10, isolation=isolation), sh(fast, disk_mib=10, isolation=isolation))
    assert [ends(report) for report in agent.results.values()] == [("Failed", "disk_limit")] * 2
    agent.drain()
    agent.wait()
    assert list((agent.workdir / "jobs").iterdir()) == []


def test_a_gigabyte_of_stdout_stays_within_its_cap(agent):
    [report] = agent.run(sh("head -c 1000000000 /dev/zero; echo the end; echo ok >&2", stdout_mib=2))
    assert ends(report) == ("Done", "exit")
    assert report["stdout"].endswith("the end\n") and len(report["stdout"].encode()) <= 4096
    [(_, name, data)] = agent.stored
    assert name == "stdout" and len(data) == 2 << 20


def test_nothing_outlives_its_job(agent, tmp_path):
    """Daemons in sessions of their own, deaf to SIGTERM, one of them without the environment that tells whose it is."""
    mark = tmp_path / "pids"
    deaf = f"sh -c 'echo $$ >> {mark}; {DEAF}'"
    away = f"(setsid {deaf} >/dev/null 2>&1 &)"
    hidden = f"(env -i setsid {deaf} >/dev/null 2>&1 &)"
    agent.queue = [sh("sleep 7")]
    agent.run(sh(f"{away}; {hidden}; {deaf} & sleep 0.5"), sh(away + "; sleep 2"))
    pids = [int(line) for line in mark.read_text().split()]
    assert len(pids) == 4

    def gone():
        agent.until(lambda: True)
        return not any(content(f"/proc/{pid}/cmdline") for pid in pids)

    agent.until(gone)
    assert agent.process.poll() is None


def content(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_the_agent_leaves_no_process_when_it_ends(agent, tmp_path):
    mark = tmp_path / "pids"
    script = f"setsid sh -c 'echo $$ >> {mark}; {DEAF}' & sleep 300"
    agent.queue = [sh(script), sh(script, isolation="preferred")]
    agent.until(lambda: mark.exists())
    agent.drain("signal SIGTERM")
    agent.wait()
    assert [ends(report) for report in agent.results.values()] == [("Failed", "drained")] * 2
    assert agent.processes() == []


@pytest.mark.parametrize("isolation", ["none", "required"])
def test_when_the_runner_dies_everything_ends(agent, isolation):
    agent.queue = [sh(f"setsid sh -c '{DEAF}' & {DEAF}", isolation=isolation)]
    agent.until(lambda: agent.started)
    assert len(carrying(str(agent.workdir))) >= 3
    agent.ours.shutdown(2)
    agent.process.wait(60)
    assert agent.processes() == []
