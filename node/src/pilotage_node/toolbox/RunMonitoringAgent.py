"""The command RunMonitoringAgent: what the pilot and its jobs use, while they use it."""

import os
import time

from pilotage_node import facts, processes
from pilotage_node.command import CONTINUE, Command, Option

THRIFT = 2000
"""A sample is followed by at least this many times its own CPU time of rest: never more than 0.05 % of one core."""


class RunMonitoringAgent(Command):
    """Watch what the whole pilot uses, beside the commands that follow, and tell the service with each heartbeat.

    Every sample counts all processes that the pilot started and their descendants, from /proc, with nothing but the
    standard library: CPU time so far (that of ended processes included), mean cores busy since the last sample,
    resident memory (pages shared by processes count in each), number of processes; and of the node: load (one minute),
    memory available, free disk in the working directory. The largest (or smallest) value of each is kept.
    On a node with thousands of processes, where one sample costs more, samples come less often, so that the command
    stays below 0.05 % of one core. It ends when the pilot's other commands have ended.

    Options:
        interval_seconds: time between samples [s]

    Facts given: none. The last sample is part of the pilot's record; ReportUsage uses its maxima.

    Exit codes: none of its own; its failure does not stop the pilot.
    """

    options = {"interval_seconds": Option(float, 10.0, "time between samples [s]")}
    timeout = 0
    on_failure = CONTINUE
    background = True

    def do(self):
        self.furthest = {}
        self.last = self.pilot.started, 0.0
        while not self.pilot.draining:
            before = time.process_time()
            self.tell()
            cost = time.process_time() - before
            self.rest(max(self.options.interval_seconds, THRIFT * cost))
        self.tell()

    def plan(self):
        self.log("would look every %g s at what the pilot and its jobs use" % self.options.interval_seconds)

    def rest(self, seconds):
        """Wait, but not longer than until the runner says that it is over."""
        end = time.monotonic() + seconds
        while not self.pilot.draining and time.monotonic() < end:
            self.pilot.receive(end - time.monotonic())

    def tell(self):
        """Send one sample: CPU in s, memory and disk in MiB; ``max_`` and ``min_`` are the furthest since the start."""
        tree, now = processes.family(self.pilot.pid), time.monotonic()
        user, system = processes.cpu_of(tree)
        then, used = self.last
        self.last = now, user + system
        usage = {
            "cores_busy": round((user + system - used) / max(now - then, 1), 3),
            "rss_mib": sum(process.rss for process in tree) >> 20,
            "processes": len(tree),
            "load": os.getloadavg()[0],
            "memory_free_mib": facts.memory("MemAvailable") or 0,
            "disk_free_mib": facts.disk_mib(self.pilot.workdir),
        }
        for name, value in usage.items():
            key, choose = ("min_" + name, min) if "free" in name else ("max_" + name, max)
            self.furthest[key] = choose(value, self.furthest.get(key, value))
        usage.update(self.furthest, cpu_user=round(user, 2), cpu_system=round(system, 2))
        usage["wall_seconds"] = round(now - self.pilot.started, 1)
        self.pilot.send({"op": "usage", "usage": usage})
