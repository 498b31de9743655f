"""The job agent's loop: one thread, events from the runner, from ended processes and from a clock that ticks.

It talks to the service only through the runner. What it says is always its whole state (leases held, reports not
acknowledged, its wish), so that a message lost or repeated does no harm; while one is under way, news are collected.
"""

import os
import select
import signal
import time

from pilotage_node import exitcodes, processes
from pilotage_node.agent import isolation, limits
from pilotage_node.agent.files import remove
from pilotage_node.agent.job import spawn
from pilotage_node.agent.room import Room
from pilotage_node.agent.work import FAREWELL, Work
from pilotage_node.command import CommandFailed

TICK = 1.0
"""Seconds between looks at limits; also the most that a result waits to be told."""
SURPLUS = 5.0
"""Seconds after which a job leased ahead in vain goes back."""
LAST_WORDS = 2.0
"""Seconds from killing the jobs to leaving without what is not acknowledged."""


class Agent:
    """``reason``: why it leaves; ``kill_at``: when its jobs are killed then, None when they may end by themselves;
    ``asked``: a message is under way, ``asked_for``: its WANT; ``flush``: what changed is told now.

    :param command: the RunJobAgent: its pilot, options, facts, log
    """

    def __init__(self, command):
        self.pilot, self.options, self.log = command.pilot, command.options, command.log
        node, now = command.facts.node, time.monotonic()
        left = node.get("seconds_left")
        self.until = None if left is None else self.pilot.started + left - self.options.reserve_seconds
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        room = Room(node, gpus.split(",") if gpus else [str(number) for number in range(node["gpus"] or 0)])
        self.poll = select.poll()
        self.work = Work(self.pilot.workdir, room, self.pilot.send, self.poll, self.hidden)
        self.reason, self.code, self.kill_at = None, exitcodes.OK, None
        self.asked, self.asked_for, self.flush = False, None, False
        self.tick_at, self.reached_at = 0.0, now
        self.traits = {"tags": self.pilot.profile.get("tags") or [], "platform": node.get("platform")}

    # -- the run

    def run(self):
        """Until it is over; see ``agent.run``."""
        alone = False
        try:
            self.begin()
            self.receive()
            while not self.over(time.monotonic()):
                self.turn()
        except EOFError:  # the runner is gone: nothing can be told any more
            alone = True
        finally:
            limits.kill_everything(10)
            os.chdir(self.pilot.workdir)
        if alone:
            remove(self.work.directory)
            os._exit(exitcodes.KILLED)
        self.log("%d jobs were begun" % self.work.begun)
        if self.code:
            raise CommandFailed(self.code, self.reason)

    def begin(self):
        import resource

        os.umask(0o022)
        # dumps would fill the disk
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        processes.set_subreaper()
        null = os.open("/dev/null", os.O_WRONLY)
        run = lambda line, directory: spawn(line, self.work.base, directory, null, null)  # noqa: E731
        self.traits["isolation"] = self.work.kinds = isolation.find(self.work.directory, self.hidden(), run)
        os.close(null)
        self.log("isolation that works here: %s" % (", ".join(self.work.kinds) or "none"))
        self.wake, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *ignored: None)
        processes.set_parent_death_signal(signal.SIGTERM)
        for descriptor in (self.wake, self.pilot.fileno()):
            self.poll.register(descriptor, select.POLLIN)

    def hidden(self):
        return isolation.hidden_paths(self.pilot.workdir, self.options.hide)

    def over(self, now):
        """Is nothing left to do, or to wait for?"""
        if self.kill_at is not None and now >= self.kill_at + LAST_WORDS:
            return True
        waiting = self.work.reports and now - self.reached_at < self.options.patience_seconds
        return self.reason is not None and not self.work.held and not waiting

    def turn(self):
        """Wait for the next thing to happen, and let it."""
        child = False
        for descriptor, _ in self.poll.poll(max(0, self.tick_at - time.monotonic()) * 1000):
            if descriptor in self.work.streams:
                self.work.feed(descriptor)
            elif descriptor == self.wake:
                child = True
                if signal.SIGTERM in os.read(self.wake, 4096):
                    self.check_runner()
                    self.leave("told by a signal", time.monotonic(), grace=FAREWELL / 2)
            else:
                self.receive()
        if child:
            self.work.reap()
        now = time.monotonic()
        if now >= self.tick_at:
            self.tick(now)
        self.work.start_jobs(now, self.seconds_left(now), self.options.max_jobs)
        if self.reason is None and self.work.trouble:
            self.leave(self.work.trouble, now, None, exitcodes.DISK)
        self.tell(now)

    def check_runner(self):
        if os.getppid() != self.pilot.pid:
            raise EOFError("the runner is gone")

    # -- the runner, and the service behind it

    def receive(self):
        message = self.pilot.receive(0)
        while message is not None:
            now = time.monotonic()
            if message["op"] == "jobs":
                self.asked = False
                if message.get("reached"):
                    self.synced(message, now)
            elif message["op"] == "transferred":
                self.work.transferred(message)
            elif message["op"] == "drain":
                reason = message.get("reason") or ""
                self.leave(reason, now, {"order": None, "kill": 0.0}.get(reason, self.options.grace_seconds))
            message = self.pilot.receive(0)

    def synced(self, message, now):
        """The service's answer to our state."""
        self.reached_at = now
        work = self.work
        for name in message["acknowledged"]:
            work.dirty |= work.reports.pop(name, None) is not None
        for grant in message["granted"]:
            work.granted(grant, now)
        hold = set(message["hold"]).union(grant["lease"] for grant in message["granted"])
        for lease in [lease for lease in work.held if lease not in hold]:
            self.log("the lease %s is lost" % lease)
            work.lost(work.held[lease])
        for order in message["orders"]:
            job = work.held.get(order.get("lease"))
            if job and order["order"] == "kill":
                work.stop(job, ("Killed", "killed", order.get("reason") or "killed on order"), now, signal.SIGTERM)
        if message["granted"]:
            work.questions.afresh(now)
        elif message["empty"] and self.asked_for:
            work.questions.empty(now)
        if self.reason is not None:
            work.give_back()

    def tell(self, now):
        """Send our state when it is urgent and nothing is under way, or when it changed and a second has passed."""
        if self.asked:
            return
        work = self.work
        ahead = work.room.ahead(now)
        want = self.want(ahead, now)
        results = work.reports and (self.flush or self.reason is not None or 2 * len(work.backlog) <= ahead)
        urgent = bool(results or (want and want["cores"] and now >= work.questions.at))
        if urgent or (work.dirty and self.flush):
            state = {"op": "jobs", "held": list(work.held), "reports": list(work.reports.values())}
            self.pilot.send(dict(state, want=want, urgent=urgent))
            self.asked, self.asked_for, work.dirty = urgent, want, False
        self.flush = False

    def want(self, ahead, now):
        """WANT of the protocol, or None."""
        left, most = self.seconds_left(now), self.options.max_jobs
        leased = len(self.work.backlog)
        if self.reason is not None or (left is not None and left < 1) or (most and self.work.begun + leased >= most):
            return None
        want = self.work.room.wish(0 if most else ahead, leased)
        return want and dict(self.traits, seconds_left=left and int(left), **want)

    def seconds_left(self, now):
        """For jobs [s]; None when not limited."""
        return None if self.until is None else self.until - now

    # -- the clock

    def tick(self, now):
        self.tick_at, self.flush = now + TICK, True
        self.check_runner()
        self.work.look(now, now - TICK)
        self.consider(now)

    def consider(self, now):
        """Is it time to leave, or to go on with it?"""
        left, work = self.seconds_left(now), self.work
        empty = work.questions.empty_since
        if left is not None and left <= 0 and self.kill_at is None:
            self.leave("the time is up", now, self.options.grace_seconds)
        if self.reason is not None:
            self.press(now)
        elif work.backlog and now - work.backlog[0].since > SURPLUS:
            work.room.starts.clear()  # jobs are longer than was measured
            work.give_back()
        elif work.held:
            pass
        elif 0 < self.options.max_jobs <= work.begun:
            self.leave("it ran as many jobs as it may", now)
        elif empty is not None and now - empty >= self.options.idle_seconds:
            self.leave("there is no work", now, None, exitcodes.OK if work.begun else exitcodes.NO_WORK)
        elif now - self.reached_at >= self.options.patience_seconds:
            self.leave("the service is not reached", now, None, exitcodes.UNREACHABLE)

    def leave(self, reason, now, grace=None, code=exitcodes.OK):
        """Stop asking, give back what was not started. Running jobs end by themselves, or have their grace [s]."""
        if self.reason is None:
            self.reason, self.code, self.work.leaving = reason, code, True
            self.log("the job agent leaves: %s" % reason)
        if grace is not None:
            self.kill_at = min(now + grace, self.kill_at or now + grace)
        self.work.give_back()
        self.press(now)

    def press(self, now):
        """Keep to the times of leaving: SIGTERM, SIGKILL, and then without the rest."""
        if self.kill_at is None:
            return
        self.tick_at = min(self.tick_at, now + 0.2)
        if now >= self.kill_at - FAREWELL:
            for job in list(self.work.running.values()):
                fate = ("Killed", "drained", "the pilot had to leave: %s" % self.reason)
                self.work.stop(job, fate, now, signal.SIGTERM)
        if now >= self.kill_at:
            self.work.kill(list(self.work.running.values()))
            self.work.cut()
