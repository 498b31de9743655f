"""The job agent as a process of its own, and the runner's side of its channel with a small matcher behind it.

The agent, its jobs, their limits and their files are real; what is played is the runner and the service.
"""

import hashlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pilotage_node
from pilotage.testing.jobs import Jobs, job, sh
from pilotage.testing.processes import carrying, end, eventually

__all__ = ["NODE", "SOURCES", "Agent", "carrying", "eventually", "job", "sh"]

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
known = dict(profile={"tags": ["here"]}, workdir=given["workdir"], pid=os.getppid())
known.update(started=time.monotonic(), registration={})
options = {name: option.default for name, option in RunJobAgent.options.items()}
entry = {"module": RunJobAgent.__module__, "name": "RunJobAgent", "options": dict(options, **given["options"])}
entry["provides"] = []
try:
    work(socket.socket(fileno=given["fd"]), entry, {"node": given["node"]}, known)
finally:
    processes.kill_tree(os.getpid())  # as the runner does with what a command left
"""
NODE = {"cores": 2, "memory_mib": 4000, "disk_mib": 20000, "gpus": 0, "platform": "x86_64-test", "seconds_left": None}


class Agent(Jobs):
    """A running agent and what its runner knows; the jobs of its service. states: all that it said."""

    def __init__(self, workdir, node=None, options=None, python=None, environment=None, sources=SOURCES):
        super().__init__()
        self.workdir = Path(workdir)
        self.workdir.mkdir(exist_ok=True)
        self.ours, theirs = socket.socketpair()
        given = {"fd": theirs.fileno(), "workdir": str(workdir), "options": options or {}}
        given["node"] = dict(NODE, **node or {})
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
        self.states, self.stored, self.result, self.reached = [], [], None, True
        self.syncs = 0
        self.broken = set()
        self.heard, self.untold = {}, []  # reports that the service, which may be away, does not have yet

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
                self.answer(dict(self.states[-1], want=None))
                sync_at = time.monotonic() + 2

    def take(self, message):
        operation = message["op"]
        if operation == "jobs":
            self.hear(message["reports"])
            if "held" in message:
                self.states.append(message)
                self.answer(message)
        elif operation == "get":
            error = None if message["sha256"] in self.files else "404 no such file"
            if not error:
                path = Path(message["path"])
                path.write_bytes(self.files[message["sha256"]])
                os.chown(path, path.parent.stat().st_uid, -1)  # the courier and the agent are one user
            self.send(dict(message, op="transferred", error=error))
        elif operation == "put":
            data = Path(message["path"]).read_bytes()
            error = "507 no room" if message["name"] in self.broken else None
            self.stored.append((message["token"], message["name"], data))
            digest = hashlib.sha256(data).hexdigest()
            self.send(dict(message, op="transferred", error=error, size=len(data), sha256=digest))
        elif operation == "result":
            self.result = message

    # -- the service

    def hear(self, reports):
        """The runner keeps them; each comes once."""
        for report in reports:
            report["id"] = f"{report['lease']}.{report['state']}"
            assert report["id"] not in self.heard
            self.heard[report["id"]] = report
        self.untold += reports

    def answer(self, state):
        """One synchronisation."""
        self.syncs += 1
        if not self.reached:
            return
        told = super().answer(dict(state, reports=self.untold))
        self.untold = []
        empty = bool(state["want"]) and not told.pop("new")
        self.send(dict(told, op="jobs", empty=empty))

    # -- for tests

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
        return list(carrying(str(self.workdir)))

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.ours.close()
        end(self.processes())
        self.output.close()
        shutil.rmtree(self.workdir, ignore_errors=True)
