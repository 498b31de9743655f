"""The job agent: asks for jobs, runs them side by side within their limits, and reports them.

One thread, events from the runner, from ended processes and from a clock that ticks.

It talks to the service only through the runner. What it says is always its whole state (leases held, reports not
acknowledged, its wish), so that a message lost or repeated does no harm; while one is under way, news are collected.
The runner ends every process that is left when the agent has ended, however that was, and delivers its last reports.
"""

import os
import select
import signal
import time
from collections import deque

from pilotage_node import exitcodes
from pilotage_node.agent import isolation
from pilotage_node.agent.job import FAREWELL, KINDS, STRAY, Job, JobFailed, trees
from pilotage_node.command import CommandFailed
from pilotage_node.processes import ended, listen, quietly
from pilotage_node.protocol import AHEAD

NEVER = float("inf")
TICK = 1
"""Seconds between looks at limits; also the most that a result waits to be told."""
LONGEST_PAUSE = 3
"""Seconds between questions of a pilot without work, which doubles up to here: what a new job waits for an idle one."""


def ahead(starts, now):
    """Jobs to lease ahead: at most one second of the throughput measured over the last endings, at most as many as were
    measured. ``starts``: when the jobs started that ended last."""
    return min(len(starts), int(len(starts) / max(now - starts[0], 0.001))) if starts else 0


class Agent:
    """The jobs of this pilot, from their leases to their reports, and when it leaves.

    jobs: by lease, in their order, each begun once it has a life; running: those with a process, by pid;
    over: leases that are, never to be begun again; reports: not told yet; told: leases held when we spoke last;
    asked: that has no answer yet; reason: why it leaves; kill_at: when its jobs are killed then; until:
    the end of the time for jobs; empty_since: of answers; ask_at: not before; busy_seconds: in which any job ran.

    :param command: the RunJobAgent: its pilot, options, facts, log
    """

    def __init__(self, command):
        self.pilot, self.options, self.log = command.pilot, command.options, command.log
        self.node = node = command.facts.node
        left, gpus = node["seconds_left"], node["gpus"] or 0
        names = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.until = NEVER if left is None else self.pilot.started + left - self.options.reserve_seconds
        self.gpus = (names.split(",") if names else [str(number) for number in range(gpus)])[:gpus]
        self.total = dict({kind: node[kind] or 0 for kind in KINDS}, gpus=len(self.gpus))
        self.jobs, self.running = {}, {}
        self.over, self.reports, self.starts = set(), [], deque(maxlen=AHEAD)
        self.tick_at = self.scan_at = self.ask_at = self.busy_seconds = 0
        self.empty_since = self.kill_at = NEVER
        self.reached_at = self.counted_at = time.monotonic()
        self.reason = self.code = self.asked = self.told = None
        self.directory, self.cache = [os.path.join(self.pilot.workdir, name) for name in ("jobs", "cache")]

    # -- the run

    def run(self):
        """Until it is over.

        :raises CommandFailed: NO_WORK, DISK or UNREACHABLE; :raises EOFError: the runner is gone
        """
        for path in (self.directory, self.cache):
            os.mkdir(path, 0o700)
        self.kinds = isolation.find(os.path.join(self.directory, "probe"), self.cache, self.options.hide)
        self.log("isolation that works here: %s" % (self.kinds or "none"))
        self.wake = listen(signal.SIGCHLD, signal.SIGTERM)
        self.handlers = {self.wake: self.signalled, self.pilot.fileno(): self.receive}
        self.receive()
        while not self.reason or (self.jobs and time.monotonic() < self.kill_at + FAREWELL):
            self.turn()
        self.say(None)
        if self.code:
            raise CommandFailed(self.code, self.reason)

    def turn(self):
        """Wait for the next thing to happen, and let it."""
        wait = max(0, self.tick_at - time.monotonic())
        for descriptor in select.select(self.handlers, (), (), wait)[0]:
            if descriptor in self.handlers and self.handlers[descriptor]() is False:
                del self.handlers[descriptor]
        now = time.monotonic()
        ticks = now >= self.tick_at
        if ticks:
            self.look(now)
            self.consider(now)
            self.tick_at = now + TICK
        self.begin_jobs()
        self.tell(now, ticks)

    def signalled(self):
        """Take note of every process that ended: jobs, and orphans of jobs."""
        if signal.SIGTERM in os.read(self.wake, 4096):
            self.leave("told by a signal", FAREWELL / 2)
        for pid, status, used in ended():
            if pid in self.running:
                self.count()
                job = self.running.pop(pid)
                job.ended(status, used)
                next(job.life, None)

    # -- the runner, and the service behind it

    def receive(self):
        message = self.pilot.receive(0)
        while message:
            getattr(self, "on_" + message["op"])(message)
            message = self.pilot.receive(0)

    def on_drain(self, message):
        reason = message["reason"]
        self.leave(reason, NEVER if reason == "order" else self.options.grace_seconds)

    def on_jobs(self, message):
        """The service's answer to our state."""
        self.asked, self.reached_at = False, time.monotonic()
        now = self.reached_at
        lost = set(self.jobs).difference(message["hold"])
        for grant in message["granted"]:  # new, or told again
            lease = grant["lease"]
            lost.discard(lease)
            if lease not in self.jobs and lease not in self.over:
                self.jobs[lease] = Job(grant, self.directory, self.total, now)
            self.ask_at, self.empty_since = 0, NEVER
        if message["empty"]:
            self.empty_since = min(self.empty_since, now)
            self.ask_at = now + min(max(1, now - self.empty_since), LONGEST_PAUSE)
        for lease in lost:
            self.stop(self.jobs[lease], 0, "Failed", "lost", "the lease was lost")
        for order in message["orders"]:
            job = self.jobs.get(order.get("lease"))
            if job:
                self.stop(job, FAREWELL, "Killed", "killed", order.get("reason") or "on order")
        if self.reason:
            self.give_back(self.waiting())

    def tell(self, now, ticks):
        """Tell results when there is little left to do or a second has passed; ask for jobs where there is room. While
        there is no answer the runner is handed results only, so that they are safe."""
        want = self.want(now)
        more = len(self.waiting())
        soon = ticks or self.reason or not more or (want and want["ahead"] >= more)
        asking = want and want["cores"] and now >= self.ask_at
        if not self.asked and (asking or (self.reports and soon) or (ticks and self.told != list(self.jobs))):
            self.say(want)
        elif self.reports and ticks:
            self.hand_over()

    def say(self, want):
        self.asked, self.told = True, list(self.jobs)
        self.hand_over(held=self.told, want=want)

    def hand_over(self, **state):
        self.count()
        state.update(op="jobs", reports=self.reports, busy_seconds=round(self.busy_seconds, 3))
        self.pilot.send(state)
        self.reports = []

    def count(self):
        """Account for the time since the last count; to be called before the first job starts and any ends."""
        now = time.monotonic()
        self.busy_seconds += now - self.counted_at if self.running else 0
        self.counted_at = now

    def want(self, now):
        """WANT of the protocol, or None. The first that is leased and not begun waits for room: it is kept for it."""
        left = self.until - now
        more = len(self.waiting())
        want = dict.fromkeys(KINDS, 0) if more else self.free()
        want["ahead"] = max(0, ahead(self.starts, now) - more)
        if self.reason or left < 1 or not (want["cores"] or want["ahead"]):
            return None
        want.update(tags=self.pilot.profile.get("tags") or [], platform=self.node["platform"], isolation=self.kinds)
        return dict(want, total=self.total, seconds_left=None if left == NEVER else int(left))

    # -- jobs

    def busy(self):
        """Jobs that have their part of the node: begun, and their process, if any, has not ended."""
        return [job for job in self.jobs.values() if job.life and "state" not in job.report]

    def waiting(self):
        """Jobs that are leased and not begun."""
        return [job for job in self.jobs.values() if not job.life]

    def free(self):
        jobs = self.busy()
        return {kind: self.total[kind] - sum(job.need[kind] for job in jobs) for kind in KINDS}

    def begin_jobs(self):
        """Begin leased jobs in their order while there is room; the first that does not fit waits for it."""
        for job in self.waiting():
            free = self.free()
            if self.reason or any(job.need[kind] > free[kind] for kind in KINDS):
                break
            used = [gpu for other in self.busy() for gpu in other.gpus]
            job.gpus = [gpu for gpu in self.gpus if gpu not in used][: job.need["gpus"]]
            job.life = self.life(job)
            next(job.life, None)

    def life(self, job):
        """The steps of a job, from its start to its report; it goes on when something that it waits for happened."""
        try:
            self.transfer(job, job.prepare(self.kinds, self.cache))
            while job.waiting:
                yield
            if "state" not in job.report:
                job.start(self.options.hide)
                self.count()
                self.running[job.pid] = job
                self.handlers.update((stream.fd, stream.feed) for stream in job.streams)
                yield
                for stream in job.streams:
                    self.handlers.pop(stream.fd, None)
                self.starts.append(job.started)
                self.ask_at, self.empty_since = 0, NEVER
                self.transfer(job, job.uploads())
                while job.waiting:
                    yield
        except JobFailed as problem:
            job.end("Failed", *problem.args)
        except OSError as error:  # the node's fault: it goes back
            return self.leave("no job can be started on this node: %s" % error, code=exitcodes.DISK)
        self.done(job)

    def transfer(self, job, requests):
        for request in requests:
            job.waiting += 1
            self.pilot.send(dict(request, id=request["path"], lease=job.lease, token=job.token))

    def on_transferred(self, message):
        """What was asked for, with "error", or "size" and "sha256"."""
        job = self.jobs.get(message["lease"])
        if job:
            job.waiting -= 1
            if message["error"]:
                job.end("Failed", "output_failed" if job.pid else "input_failed", message["error"])
            elif job.pid:
                job.report["outputs"].append({key: message[key] for key in ("name", "sha256", "size")})
            next(job.life, None)

    def done(self, job):
        """It is over and its report is known: it is no longer held."""
        self.over.add(job.lease)
        self.jobs.pop(job.lease, None)
        self.reports.append(job.report)
        job.clean()

    def give_back(self, jobs):
        """Those of them that were never started."""
        for job in jobs:
            if not job.pid:
                self.stop(job, 0, "Returned", "drained", "")

    def stop(self, job, farewell, *fate):
        """End a job for a reason of ours; what ended by itself before keeps its own.

        :param farewell: seconds from SIGTERM to SIGKILL; 0: SIGKILL at once
        :param fate: state, reason, message
        """
        if job.fate or "state" in job.report:
            return
        job.fate, job.kill_at = fate, time.monotonic() + farewell
        if job.pid:
            self.signal(job, signal.SIGTERM if farewell else signal.SIGKILL)
        else:
            job.end(*fate)
            self.done(job)

    def signal(self, job, number):
        """To all processes of a running job."""
        for process in trees(self.running).get(job.pid, ()):
            # the outer process of an isolated job would take the others with it before they have heard
            if number == signal.SIGKILL or process.pid != job.pid or not job.isolation:
                quietly(os.kill, process.pid, number)

    # -- the clock

    def look(self, now):
        """What jobs use, against their limits; what is left of jobs that are over. At most 2 % of the time."""
        if now >= self.scan_at:
            found = trees(self.running)
            for process in found.get(STRAY, ()):
                quietly(os.kill, process.pid, signal.SIGKILL)
            for pid, job in self.running.items():
                job.measure(found.get(pid, ()))
            self.scan_at = now + 50 * (time.monotonic() - now)
        for job in list(self.running.values()):
            if now >= job.started + TICK and not job.told:
                job.told = True
                self.reports.append({"kind": "job", "lease": job.lease, "state": "Running"})
            limit = job.exceeded(now)
            if limit:
                self.stop(job, *limit)
            if job.fate and now >= min(job.kill_at, self.kill_at):
                self.signal(job, signal.SIGKILL)

    def consider(self, now):
        """Is it time to leave, or to go on with it?"""
        if now >= self.until:
            self.leave("the time is up", self.options.grace_seconds)
        elif any(now - job.since > FAREWELL for job in self.waiting()):
            self.starts.clear()  # jobs are longer than was measured
            self.give_back(self.waiting())
        elif not self.jobs and now - self.empty_since >= self.options.idle_seconds:
            self.leave("there is no work", code=exitcodes.OK if self.over else exitcodes.NO_WORK)
        elif not self.jobs and now - self.reached_at >= self.options.patience_seconds:
            self.leave("the service is not reached", code=exitcodes.UNREACHABLE)
        if now >= self.kill_at - FAREWELL:
            for job in list(self.jobs.values()):
                self.stop(job, max(0, self.kill_at - now), "Failed", "drained", "the pilot leaves: %s" % self.reason)

    def leave(self, reason, grace=NEVER, code=exitcodes.OK):
        """Stop asking, give back what was not started. Running jobs end by themselves, or have their grace [s]."""
        if not self.reason:
            self.reason, self.code = reason, code
            self.log("the job agent leaves: %s" % reason)
        self.kill_at, self.tick_at = min(self.kill_at, time.monotonic() + grace), 0
        self.give_back(list(self.jobs.values()))
