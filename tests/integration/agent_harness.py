"""The job agent as a process of its own, and the runner's side of its channel with a small matcher behind it.

The agent, its jobs, their limits and their files are real; what is played is the runner and the service.
"""

import hashlib
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pilotage_node

SOURCES = str(Path(pilotage_node.__file__).parent.parent)
PATIENCE = 60.0
DRIVER = """
import json, os, signal, socket, sys, time
sys.path.insert(0, sys.argv[1])
given = json.loads(sys.argv[2])
from pilotage_node import processes
from pilotage_node.runner.work import work
from pilotage_node.toolbox.RunJobAgent import RunJobAgent
processes.set_subreaper()
processes.set_undumpable()
processes.set_parent_death_signal(signal.SIGTERM)
os.set_inheritable(given["fd"], False)
known = dict(profile={"tags": ["here"]}, workdir=given["workdir"], service_urls=[], pid=os.getppid())
known.update(started=time.monotonic(), registration={})
options = {name: option.default for name, option in RunJobAgent.options.items()}
entry = {"module": RunJobAgent.__module__, "name": "RunJobAgent", "options": dict(options, **given["options"])}
try:
    work(socket.socket(fileno=given["fd"]), entry, known)
finally:
    processes.kill_tree(os.getpid())  # as the runner does with what a command left
"""
NODE = {"cores": 2, "memory_mib": 4000, "disk_mib": 20000, "gpus": 0, "platform": "x86_64-test", "seconds_left": None}


class Agent:
    """A running agent and what its runner knows.

    queue: specs that wait; results: last reports by lease; started: leases said to be Running; states: all it said.
    """

    def __init__(self, workdir, node=None, options=None, python=None, environment=None, sources=SOURCES):
        self.workdir = Path(workdir)
        self.workdir.mkdir(exist_ok=True)
        self.ours, theirs = socket.socketpair()
        given = {"fd": theirs.fileno(), "workdir": str(workdir), "options": options or {}}
        self.node = dict(NODE, **node or {})
        self.output = open(self.workdir.parent / (self.workdir.name + ".log"), "w+b")
        self.process = subprocess.Popen(
            [*(python or [sys.executable]), "-I", "-S", "-c", DRIVER, sources, json.dumps(given)],
            pass_fds=[theirs.fileno()],
            stdout=self.output,
            stderr=self.output,
            env=environment,
            start_new_session=True,
        )
        theirs.close()
        self.buffer = b""
        self.queue, self.files, self.states, self.orders = [], {}, [], []
        self.results, self.started, self.leased, self.stored, self.result = {}, set(), {}, [], None
        self.numbers = itertools.count(1)
        self.reached, self.granting, self.acknowledging, self.withheld = True, True, True, set()
        self.syncs, self.begun = 0, False
        self.broken = set()

    # -- messages

    def send(self, message):
        try:
            self.ours.sendall(json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            pass  # it has ended

    def receive(self, seconds):
        """The next message of the agent, or None."""
        until = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.ours], [], [], left)[0]:
                return None
            data = self.ours.recv(1 << 18)
            if not data:
                raise EOFError(self.log())
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def log(self):
        self.output.flush()
        self.output.seek(0)
        return self.output.read().decode(errors="replace")

    def until(self, what, seconds=PATIENCE):
        """Play the runner until ``what()`` is true."""
        limit, sync_at = time.monotonic() + seconds, time.monotonic() + 2
        while not what():
            assert time.monotonic() < limit, (list(self.results.values())[-3:], self.log())
            message = self.receive(0.05)
            if message is not None:
                self.take(message)
            if time.monotonic() > sync_at and self.states and self.result is None:
                self.answer(self.states[-1])
                sync_at = time.monotonic() + 2

    def take(self, message):
        operation = message["op"]
        if not self.begun:  # the command has told what it is
            self.begun = True
            self.send({"op": "start", "facts": {"node": self.node}})
        elif operation == "jobs":
            self.states.append(message)
            if message["urgent"]:
                self.answer(message)
        elif operation == "get":
            error = None if message["sha256"] in self.files else "404 no such file"
            if not error:
                path = Path(message["path"])
                path.write_bytes(self.files[message["sha256"]])
                os.chown(path, path.parent.stat().st_uid, -1)  # the courier and the agent are one user
            self.send({"op": "transferred", "id": message["id"], "error": error})
        elif operation == "put":
            data = Path(message["path"]).read_bytes()
            error = "507 no room" if message["name"] in self.broken else None
            self.stored.append((message["token"], message["name"], data))
            digest = hashlib.sha256(data).hexdigest()
            self.send({"op": "transferred", "id": message["id"], "error": error, "size": len(data), "sha256": digest})
        elif operation == "result":
            self.result = message

    # -- the service

    def answer(self, state):
        """One synchronisation."""
        self.syncs += 1
        if not self.reached:
            self.send({"op": "jobs", "reached": False, "again_seconds": 0.5})
            return
        for report in state["reports"]:
            if report["state"] == "Running":
                self.started.add(report["lease"])
            else:
                self.results.setdefault(report["lease"], report)
                self.leased.pop(report["lease"], None)
        granted = self.match(state["want"]) if state["want"] and self.granting else []
        unknown = [grant for lease, grant in self.leased.items() if lease not in state["held"]]
        self.send(
            {
                "op": "jobs",
                "hold": [lease for lease in self.leased if lease not in self.withheld],
                "granted": unknown,
                "acknowledged": [report["id"] for report in state["reports"]] if self.acknowledging else [],
                "orders": self.orders,
                "empty": bool(state["want"]) and not granted,
                "again_seconds": 10,
                "reached": True,
            }
        )

    def match(self, want):
        granted, room, ahead = [], want["cores"], want["ahead"]
        while self.queue and (room >= self.queue[0].get("cores", 1) or ahead > 0):
            spec = self.queue.pop(0)
            if room >= spec.get("cores", 1):
                room -= spec.get("cores", 1)
            else:
                ahead -= 1
            number = next(self.numbers)
            grant = {"lease": f"lease-{number}", "job": number, "attempt": 1, "token": f"token-{number}"}
            granted.append(dict(grant, spec=job(**spec)))
        self.leased.update({grant["lease"]: grant for grant in granted})
        return granted

    # -- for tests

    def put(self, data):
        """Store an input file; its digest."""
        digest = hashlib.sha256(data).hexdigest()
        self.files[digest] = data
        return digest

    def run(self, *specs, seconds=PATIENCE):
        """Run jobs to their ends; the last reports in order."""
        already = len(self.results)
        self.queue.extend(specs)
        self.until(lambda: len(self.results) >= already + len(specs), seconds)
        return list(self.results.values())[already:]

    def drain(self, reason="order"):
        self.send({"op": "drain", "reason": reason})

    def wait(self, seconds=PATIENCE):
        """Until it ended; its exit code."""
        self.until(lambda: self.result is not None, seconds)
        self.process.wait(PATIENCE)
        return self.result["code"]

    def processes(self):
        """Live processes of its jobs, and itself."""
        return carrying(str(self.workdir))

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.ours.close()
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.output.close()
        shutil.rmtree(self.workdir, ignore_errors=True)


def carrying(mark):
    """Pids of live processes that name ``mark`` in command line, environment or working directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            text += os.readlink(entry / "cwd").encode()
        except OSError:
            continue
        if state != "Z" and mark.encode() in text:
            found.append(int(entry.name))
    return found


def job(**changed):
    """A job's spec as it is granted."""
    spec = {
        "command": ["/bin/true"],
        "environment": {},
        "inputs": [],
        "outputs": [],
        "stdout_mib": 1,
        "cores": 1,
        "memory_mib": None,
        "disk_mib": None,
        "gpus": 0,
        "wall_seconds": 600,
        "cpu_seconds": None,
        "isolation": "none",
    }
    assert set(changed) <= set(spec)
    return dict(spec, **changed)


def sh(script, **changed):
    """A job that runs a shell script."""
    return dict(changed, command=["/bin/sh", "-c", script])


def eventually(what, seconds=PATIENCE):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, what
        time.sleep(0.05)
