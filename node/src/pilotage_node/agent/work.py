"""The jobs of a pilot, from their lease to their report: begun where there is room, reaped, stopped, given back."""

import os
import select
import signal
import time
from collections import deque

from pilotage_node.agent import limits
from pilotage_node.agent.job import FETCHING, LEASED, RUNNING, STORING, Job, JobFailed
from pilotage_node.agent.room import Questions, fits

FAREWELL = 5.0
"""Seconds from SIGTERM to SIGKILL."""


class Work:
    """``held``: leases by id; ``backlog``: those not begun, in their order; ``running``: jobs by pid; ``ended``: leases
    that are over, never to be begun again; ``reports`` by id; ``dirty``: something changed that can be told;
    ``leaving``: nothing is begun any more; ``trouble``: why this node cannot run jobs, or None.

    :param directory: the pilot's
    :param room: Room
    :param send: function that sends a message to the runner
    :param poll: select.poll object, for the outputs of jobs
    :param hidden: function that gives the paths that isolated jobs must not see
    """

    def __init__(self, directory, room, send, poll, hidden):
        self.directory, self.cache = [os.path.join(directory, name) for name in ("jobs", "cache")]
        for path in (self.directory, self.cache):
            os.makedirs(path, 0o700, exist_ok=True)
        self.room, self.send, self.poll, self.hidden = room, send, poll, hidden
        self.held, self.running, self.backlog, self.reports = {}, {}, deque(), {}
        self.transfers, self.streams, self.ended = {}, {}, set()
        self.begun = self.sent = 0
        self.leaving, self.trouble, self.dirty = False, None, True
        self.watch, self.questions = limits.Watch(self.running, room.total), Questions()
        self.base = {"PATH": os.environ.get("PATH") or "/usr/local/bin:/usr/bin:/bin"}
        self.base["LANG"] = os.environ.get("LANG") or "C"
        self.kinds = []

    def granted(self, grant, now):
        """A lease: new, or told again."""
        if grant["lease"] not in self.held and grant["lease"] not in self.ended:
            self.held[grant["lease"]] = job = Job(grant, self.directory, now)
            self.backlog.append(job)
            self.dirty = True

    def start_jobs(self, now, left, most):
        """Start leased jobs in their order while there is room; the first that does not fit waits for it.

        :param left: seconds for jobs, None when not limited
        :param most: jobs to begin in all, 0 when not limited
        """
        while self.backlog and not 0 < most <= self.begun:
            job = self.backlog[0]
            if not fits(job.need, self.room.total):
                job.fail("start_failed", "it needs more than this pilot has: %s" % job.need)
                self.complete(job)
            elif left is not None and job.spec["wall_seconds"] > left:
                self.give_up(job)
            elif fits(job.need, self.room.free):
                self.prepare(job, now)
            else:
                break

    def prepare(self, job, now):
        """Take room, make the directory, fetch input files."""
        self.backlog.remove(job)
        job.phase = FETCHING
        self.begun += 1
        self.room.take(job.need)
        job.gpus = [self.room.gpus.pop() for _ in range(job.need["gpus"])]
        self.attempt(job, now, lambda: self.transfer(job, job.prepare(self.kinds, self.cache)))
        if job.lease in self.held and not job.waiting:
            self.start(job, now)

    def attempt(self, job, now, step):
        """A step of a job's beginning: a fault of its own ends it, one of the node sends it back."""
        try:
            step()
        except JobFailed as problem:
            job.fail(*problem.args)
            self.complete(job)
        except OSError as error:
            self.give_up(job)
            self.trouble = "a job cannot be started on this node: %s" % error

    def start(self, job, now):
        self.attempt(job, now, lambda: job.start(self.base, self.hidden))
        if job.lease not in self.held:
            return
        job.phase, job.started = RUNNING, time.monotonic()
        self.running[job.pid] = job
        for stream in job.streams:
            self.streams[stream.fd] = stream
            self.poll.register(stream.fd, select.POLLIN)

    def feed(self, descriptor):
        """A job wrote something."""
        stream = self.streams[descriptor]
        if stream.feed() == 0:
            self.close(stream)

    def close(self, stream):
        if stream.fd is not None:
            self.poll.unregister(stream.fd)
            del self.streams[stream.fd]
            stream.close()

    def transfer(self, job, requests):
        for request in requests:
            self.sent += 1
            job.waiting += 1
            self.transfers[self.sent] = job, request
            self.send(dict(request, id=self.sent))

    def transferred(self, message):
        job, request = self.transfers.pop(message["id"])
        job.waiting -= 1
        if self.held.get(job.lease) is not job:
            return
        if message.get("error"):
            text = "%s: %s" % (request["path"][len(self.directory) + 1 :], message["error"])
            job.fail("output_failed" if job.phase == STORING else "input_failed", text)
        elif job.phase == STORING:
            job.outputs.append({"name": request["name"], "sha256": message["sha256"], "size": message["size"]})
        if job.waiting:
            return
        if job.result:
            self.complete(job)
        else:
            self.start(job, time.monotonic())

    def reap(self):
        """Take note of every process that ended: jobs, and orphans of jobs."""
        try:
            while True:
                pid, status, used = os.wait4(-1, os.WNOHANG)
                if not pid:
                    return
                job = self.running.pop(pid, None)
                if job is not None:
                    self.process_ended(job, status, used)
        except ChildProcessError:
            pass

    def process_ended(self, job, status, used):
        try:
            os.killpg(job.pid, signal.SIGKILL)
        except OSError:
            pass
        now = time.monotonic()
        for stream in job.streams:
            self.close(stream)
        job.ended(status, used, now - job.started)
        self.room.starts.append(job.started)
        self.room.take(job.need, 1, ("cores", "memory_mib"))
        self.questions.afresh(now)
        self.watch.stray_until = now + limits.STRAY_SECONDS
        job.phase = STORING
        if job.lease not in self.held:  # lost
            self.forget(job)
            return
        self.transfer(job, job.uploads())
        if not job.waiting:
            self.complete(job)

    def complete(self, job):
        """It is over and its result is known: report it."""
        self.note(job, ".end", **job.report())
        self.drop(job)

    def note(self, job, kind, **report):
        """Report it, until it is acknowledged."""
        name = job.lease + kind
        self.reports[name] = dict(report, id=name, kind="job", lease=job.lease)

    def give_up(self, job):
        """It never started, and goes back."""
        self.note(job, ".back", state="Returned", reason="drained")
        self.drop(job)

    def give_back(self):
        """All that are leased ahead; when leaving also those whose inputs are on their way."""
        while self.backlog:
            self.give_up(self.backlog[-1])
        for job in list(self.held.values()) if self.leaving else ():
            if job.phase == FETCHING:
                self.give_up(job)

    def lost(self, job):
        """The service no longer thinks that we hold it: end it and say nothing more of it."""
        if job.phase == RUNNING:
            self.kill([job])
        self.drop(job)

    def drop(self, job):
        """It is no longer held."""
        del self.held[job.lease]
        self.reports.pop(job.lease + ".run", None)
        self.ended.add(job.lease)
        self.dirty = True
        if job.phase == LEASED:
            self.backlog.remove(job)
        elif job.phase != RUNNING:
            self.forget(job)

    def forget(self, job):
        """Free what it still has of the node."""
        self.room.take(job.need, 1, ("disk_mib", "gpus") if job.phase == STORING else job.need)
        self.room.gpus += job.gpus
        job.clean()

    def stop(self, job, fate, now, number):
        """End a job for a reason of ours, (state, reason, message); what ended by itself before keeps its own."""
        if job.fate or job.phase == STORING:
            return
        job.fate, job.kill_at = fate, now + FAREWELL
        if job.phase == RUNNING:
            limits.signal_trees(self.running, [job], number)
        else:
            job.result = fate + (None, None)
            self.complete(job)

    def look(self, now, since):
        """Limits of the jobs that have run for a while: since then [s]."""
        long = [job for job in self.running.values() if job.started <= since]
        for job in long:
            if not job.told and job.lease in self.held:
                job.told = True
                self.note(job, ".run", state="Running")
        for job, limit in self.watch.look(long, now):
            # memory and disk are shared with others: no time for a farewell
            hurry = limit[0] in ("memory_limit", "disk_limit")
            self.stop(job, ("Failed",) + limit, now, signal.SIGKILL if hurry else signal.SIGTERM)
        self.kill([job for job in long if job.fate and now >= job.kill_at])

    def kill(self, jobs):
        if jobs:
            limits.signal_trees(self.running, jobs, signal.SIGKILL)

    def cut(self):
        """What is still being stored is given up."""
        for job in [job for job in self.held.values() if job.phase == STORING]:
            job.fail("output_failed", "the pilot had to leave before all was stored")
            self.complete(job)
