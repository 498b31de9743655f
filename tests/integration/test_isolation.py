"""Isolated jobs: a hostile payload tries what it can, and gets nothing. With each kind of isolation, root or not."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.integration.agent_harness import SOURCES, Agent, eventually, sh

NOBODY = 65534
TOOLS = ["sh", "mount", "umount", "mkdir", "cat", "ls", "sleep", "readlink", "setpriv", "unshare", "python3", "true"]
HOSTILE = r'''
import ctypes, json, os, signal, stat, subprocess, sys
given = json.loads(sys.argv[1])
mark = given["mark"][::-1].encode()  # told backwards: its own arguments must not be what it finds
found = {}

def attempt(name, function):
    """What the attempt brought: None when it failed, as it should."""
    try:
        found[name] = repr(function())[:200] or "done"
    except Exception as error:
        found[name] = None

def read(path):
    with open(path, "rb") as file:
        return file.read()

def search_proc():
    hits = []
    for pid in os.listdir("/proc"):
        for file in ("environ", "cmdline", "maps", "mountinfo"):
            try:
                if mark in read("/proc/%s/%s" % (pid, file)):
                    hits.append("%s/%s" % (pid, file))
            except OSError:
                pass
    assert hits
    return hits

def ptrace(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ptrace(0x4206, pid, 0, 0) == 0  # PTRACE_SEIZE, which does not stop it
    return "attached"

def write(path):
    with open(path, "a") as file:
        file.write("x")

def through(path):
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if os.path.exists("/proc/%s/%s" % (pid, path))] or 1 / 0

def uncover(path):
    shell = "umount -l '%s'; cat '%s'; mount --bind / /tmp; cat /tmp'%s'" % (os.path.dirname(path), path, path)
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell]
    out = subprocess.run(inside, stdout=subprocess.PIPE).stdout
    assert mark in out
    return out

def descriptors():
    open_ones = {name: os.path.realpath("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")}
    own = ("/proc/", "libffi.so")  # the listing itself; new versions of what is below ctypes keep themselves open
    kept = [path for name, path in open_ones.items() if name not in "012" and not any(o in path for o in own)]
    return kept or 1 / 0

attempt("descriptors", descriptors)
for pid in given["pids"]:
    attempt("proc %d" % pid, lambda: read("/proc/%d/environ" % pid))
    attempt("signal %d" % pid, lambda: os.kill(pid, 0))
    attempt("ptrace %d" % pid, lambda: ptrace(pid))
attempt("search", search_proc)
for path in given["secrets"]:
    attempt("read " + path, lambda: read(path))
    attempt("root " + path, lambda: through("root" + path))
    attempt("cwd " + path, lambda: through("cwd/../../" + os.path.basename(path)))
    attempt("uncover " + path, lambda: uncover(path))
for path in given["places"]:
    attempt("list " + path, lambda: os.listdir(path) != ["jobs"] and os.listdir(path) or 1 / 0)
    attempt("write " + path, lambda: write(path + "/pilotage-was-here") if os.listdir(path)[1:] else 1 / 0)
if not given["isolated"]:
    attempt_harm = lambda name, function: None
else:
    attempt_harm = attempt
for path in ("/etc/pilotage-was-here", "/usr/pilotage-was-here"):
    attempt_harm("write " + path, lambda: write(path))
for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"):
    attempt_harm("write " + path, lambda: open(path, "a").close() or "open")
attempt_harm("others in /tmp", lambda: [name for name in os.listdir("/tmp") if name not in given["above"]] or 1 / 0)
attempt_harm("device", lambda: os.mknod("disk", stat.S_IFBLK | 0o600, os.makedev(254, 0)))
disks = [name for name in os.listdir("/dev") if name.startswith(("sd", "vd", "nvme"))]
attempt_harm("disks", lambda: [open("/dev/" + name) for name in disks][0])
attempt_harm("terminal", lambda: open("/dev/tty"))
attempt_harm("mount", lambda: subprocess.check_output(["mount", "--bind", "/", "/tmp"], stderr=subprocess.DEVNULL))
attempt("own environment", lambda: [name for name in os.environ if "SECRET" in name] or 1 / 0)
if os.fork() == 0:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    subprocess.run(["sleep", "987654"])
    os._exit(0)
with open("mine", "w") as file:
    file.write(str(os.getpid()))
with open(os.path.join(os.environ["TMPDIR"], "temporary"), "w") as file:
    file.write("x")
with open("found.json", "w") as file:
    json.dump(found, file)
'''


@pytest.fixture(params=["bwrap", "unshare", "bwrap, not root"])
def isolated(request):
    """An agent with one kind of isolation, in a directory that only its isolation hides (not below /tmp)."""
    home = Path(tempfile.mkdtemp(prefix="pilotage-test-", dir="/opt" if os.getuid() == 0 else Path.home()))
    python, sources = [sys.executable], SOURCES
    if request.param != "bwrap" and os.getuid() == 0:
        # another user, with a Python and sources that it can read
        python = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "/usr/bin/python3"]
        sources = str(home / "sources")
        shutil.copytree(Path(SOURCES) / "pilotage_node", Path(sources) / "pilotage_node")
    tools = home / "bin"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name, path="/usr/bin:/bin:/usr/local/bin"))
    if "bwrap" in request.param:
        (tools / "bwrap").symlink_to(shutil.which("bwrap"))
    for path in (home, *home.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    (home / "pilot").mkdir()
    (home / "hidden").mkdir()
    (home / "hidden" / "key").write_text("the-mark-of-the-pilot")
    (home / "pilot" / "credentials").write_text("the-mark-of-the-pilot")
    for path in (home, *(home / name for name in ("pilot", "hidden", "pilot/credentials", "hidden/key"))):
        if python[0] == "setpriv":
            os.chown(path, NOBODY, NOBODY)
    environment = {"PATH": str(tools), "PILOTAGE_SECRET": "the-mark-of-the-pilot", "HOME": str(home)}
    options = {"hide": [str(home / "hidden")]}
    settings = {"options": options, "python": python, "environment": environment, "sources": sources}
    agent = Agent(home / "pilot", node={"cores": 3}, **settings)
    agent.kind = request.param.partition(",")[0]
    yield agent
    agent.close()
    shutil.rmtree(home)


def sleepers():
    return subprocess.run(["pgrep", "-f", "sleep 98765[4]"], stdout=subprocess.PIPE).stdout.split()


def test_a_hostile_payload_finds_nothing(isolated, tmp_path):
    agent = isolated
    Path("/tmp/pilotage-test-of-others").touch()
    agent.queue = [sh("echo the-mark-of-the-pilot > data; sleep 600")]
    agent.until(lambda: agent.started)
    home = agent.workdir.parent
    other = agent.workdir / "jobs" / "lease-1" / "data"
    assert other.read_text() == "the-mark-of-the-pilot\n"
    secrets = [str(path) for path in (agent.workdir / "credentials", other, home / "hidden" / "key")]
    given = {
        "mark": "the-mark-of-the-pilot"[::-1],
        "pids": [agent.process.pid, os.getpid(), *agent.processes()],
        "secrets": secrets,
        "places": [str(agent.workdir), str(home / "hidden"), str(agent.workdir / "jobs" / "lease-1")],
        "above": [],
        "isolated": True,
    }
    script = {"name": "hostile.py", "sha256": agent.put(HOSTILE.encode()), "size": 1, "executable": False}
    agent.run(
        {
            "command": ["/usr/bin/python3", "hostile.py", json.dumps(given)],
            "inputs": [script],
            "outputs": ["found.json", "mine"],
            "isolation": "required",
        }
    )
    report = agent.results["lease-2"]
    assert (report["state"], report.get("isolation")) == ("Done", agent.kind), (report, agent.log())
    [found] = [json.loads(data) for _, name, data in agent.stored if name == "found.json"]
    assert len(found) > 25
    assert {name: what for name, what in found.items() if what is not None} == {}
    eventually(lambda: not sleepers())
    assert not Path("/etc/pilotage-was-here").exists() and not Path("/usr/pilotage-was-here").exists()
    Path("/tmp/pilotage-test-of-others").unlink()


def test_the_same_payload_without_isolation_is_heard(isolated):
    """That the test can fail: without isolation most of it is found."""
    agent = isolated
    agent.queue = [sh("sleep 600", isolation="none")]
    agent.until(lambda: agent.started)
    given = {
        "mark": "the-mark-of-the-pilot"[::-1],
        "pids": [agent.process.pid],
        "secrets": [str(agent.workdir / "credentials")],
        "places": [str(agent.workdir)],
        "above": [],
        "isolated": False,
    }
    script = {"name": "hostile.py", "sha256": agent.put(HOSTILE.encode()), "size": 1, "executable": False}
    arguments = ["/usr/bin/python3", "hostile.py", json.dumps(given)]
    agent.run({"command": arguments, "inputs": [script], "outputs": ["found.json"]})
    assert agent.results["lease-2"]["state"] == "Done", agent.results["lease-2"]
    [found] = [json.loads(data) for _, name, data in agent.stored if name == "found.json"]
    heard = {name.split()[0] for name, what in found.items() if what is not None}
    assert {"signal", "read", "list"} <= heard, agent.results["lease-2"]
    eventually(lambda: not sleepers())


def test_isolated_jobs_end_as_they_end(isolated):
    agent = isolated
    busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
    spec = {"isolation": "preferred"}
    agent.run(sh("echo out; echo x > /tmp/x; pwd; exit 3", **spec), sh("kill -SEGV $$", **spec), sh(busy, **spec))
    one, two, three = (agent.results[f"lease-{n}"] for n in (1, 2, 3))
    assert (one["exit_code"], one["isolation"]) == (3, agent.kind)
    assert one["stdout"].splitlines() == ["out", str(agent.workdir / "jobs" / "lease-1")]
    assert (two["reason"], two["signal"]) == ("signal", 11)
    assert three["usage"]["cpu_user"] > 0.05, "what is used inside is counted"
    agent.drain()
    agent.wait()
    assert list((agent.workdir / "jobs").iterdir()) == []


def test_where_nothing_works_it_is_told(tmp_path):
    agent = Agent(tmp_path / "pilot", environment={"PATH": str(tmp_path)})
    try:
        agent.run(
            {"command": ["/bin/true"], "isolation": "required"},
            {"command": ["/bin/true"], "isolation": "preferred"},
        )
        assert agent.states[0]["want"]["isolation"] == []
        one, two = agent.results["lease-1"], agent.results["lease-2"]
        assert (one["state"], one["reason"]) == ("Failed", "isolation_missing")
        assert (two["state"], two["isolation"]) == ("Done", None)
    finally:
        agent.close()
