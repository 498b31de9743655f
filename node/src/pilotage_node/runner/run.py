"""The runner itself: one loop over signals, children and times; the commands in their order."""

import os
import select
import signal
import time

from pilotage_node import exitcodes, facts, processes, protocol
from pilotage_node.runner.channel import FAR
from pilotage_node.runner.child import HANDLED, Child
from pilotage_node.runner.link import IDENTITY, Link
from pilotage_node.runner.log import Log, quietly
from pilotage_node.runner.work import DEFAULTS, load, work


class Runner:
    """One pilot. The class attributes are limits in seconds.

    failure: (exit code, text) of the first command that fails the pilot; aborted: why further commands are skipped;
    leaving: (exit code, reason) once it must leave; drain_at, end_at: when its time is over, and when all is killed;
    grace_at: until when commands may run, known once it leaves in a hurry; killing: no grace any more; over: nothing is
    waited for any more.
    """

    register_seconds = load_seconds = 120
    grace_seconds = final_seconds = 30
    lost_seconds = 10
    patience_seconds = background_seconds = 5
    hasty_seconds = 3
    failure = aborted = leaving = _record = None
    killing = over = terminated = False
    drain_at = end_at = grace_at = FAR

    def __init__(self, script, identity, directory, logs):
        self.script, self.profile, self.identity, self.directory = script, script.profile, identity, directory
        self.started, self.pid, self.children, self.facts = time.monotonic(), os.getpid(), {}, {}
        self.text = Log(logs, int((self.profile.get("log_mib") or 10) * (1 << 20)), identity)
        wall = (self.profile.get("limits") or {}).get("wall_seconds")
        if wall:
            self.end_at = self.started + wall
            self.drain_at = self.end_at - facts.reserve(wall)
        who = {name: self.profile.get(name) for name in IDENTITY}
        introduction = {"protocol": protocol.VERSION, "nonce": os.urandom(16).hex(), "digest": script.digest}
        self.link = Link(self, dict(introduction, profile=who))

    @property
    def ends(self):
        """The module of that name, which the start of a pilot does not need."""
        from pilotage_node.runner import ends

        return ends

    @property
    def record(self):
        """The record, begun when there is something to note."""
        if self._record is None:
            from pilotage_node.runner.record import Record

            self._record = Record(self.identity["stamp"], self.script, self.started)
            self._record.fields["node"] = self.facts.get("node")
        return self._record

    # -- the run

    def run(self):
        """All of it; the exit code."""
        try:
            try:
                self.listen()
                self.register()
                for index, entry in enumerate(self.profile["commands"] if self.link.registered else ()):
                    self.command(index, entry)
                self.ends.stop_background(self)
            except Exception as error:
                import traceback

                self.text.own(traceback.format_exc())
                self.leaving = self.failure = exitcodes.INTERNAL, repr(error)
            return self.ends.leave(self)
        finally:
            signal.set_wakeup_fd(-1)
            for pid in self.children:
                processes.kill_tree(pid)
            self.children = {}
            self.ends.clear_strays(self)

    def listen(self):
        """Signals become bytes in a pipe; one that was ignored on purpose (nohup, a shell's background) stays so."""
        self.wakeup, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in HANDLED + (signal.SIGCHLD,):
            if number == signal.SIGCHLD or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *ignored: None)

    def register(self):
        """Look at the node while the courier starts up, then present the pilot to the service."""
        self.link.tick(self.started)
        node = self.facts["node"] = self.link.introduction["node"] = facts.gather_node(self.profile, self.directory)
        place = "{flavour} at {site}/{resource}".format(**self.link.introduction["profile"])
        self.text.own("pilot %s: %s" % (self.identity["stamp"], place))
        self.text.own("on {hostname}: {platform}, {cores} cores, {memory_mib} MiB, Python {python}".format(**node))
        until = self.started + self.register_seconds
        while not (self.link.registered or self.leaving):
            self.turn(until)
            if time.monotonic() >= until and not self.link.registered:
                why = "the service was not reached within %d s" % self.register_seconds
                self.leaving = self.leaving or (exitcodes.UNREACHABLE, why)

    def command(self, index, entry):
        """Run one command; a background one is only started."""
        if self.over:
            return
        known = {
            "profile": self.profile,
            "workdir": self.directory,
            "service_urls": self.profile["service"]["urls"],
            "pid": self.pid,
            "started": self.started,
            "registration": self.link.contact,
        }
        child = self.spawn(entry["name"], lambda sock: work(sock, entry, known), index)
        child.limit(child.started + self.load_seconds, "timeout")
        while child.traits is DEFAULTS and not child.ended:
            self.turn()
        if child.traits["always"]:
            self.ends.stop_background(self)
        elif not child.ended:
            missing = [name for name in child.traits["requires"] if name not in self.facts]
            why = self.aborted or (self.leaving and self.leaving[1])
            if why or missing:
                code = exitcodes.OK if why else exitcodes.MISSING_FACT
                why = why or "nobody gave the fact " + ", ".join(missing)
                child.result = {"outcome": "skipped", "code": code, "message": why}
                child.send({"op": "skip"})
        if not (child.result or child.ended):
            self.begin(child)
        while not (child.ended or (child.begun and child.traits["background"])):
            self.turn()

    def begin(self, child):
        """Its time limit counts from now."""
        child.begun, child.limit_at, seconds = True, FAR, child.traits["timeout"]
        if not child.traits["background"]:
            self.link.phase = child.name
        if seconds:
            child.limit(time.monotonic() + seconds, "timeout")
        self.text.own("%s begins" % child.name)
        wanted = ["node", *child.traits["requires"], *child.traits["wants"]]
        child.send({"op": "start", "facts": {name: self.facts.get(name) for name in wanted}})

    # -- the loop

    def turn(self, until=FAR):
        """Wait for the next thing to happen, and let it."""
        now, children = time.monotonic(), list(self.children.values())
        times = [until, self.link.due(), self.drain_at, self.end_at, now + 3600] + [one.limit_at for one in children]
        sources = [source for child in children for source in child.sources] + [self.wakeup]
        full = [child.sock for child in children if child.unsent]
        ready, room, _ = select.select(sources, full, [], max(0, min(times) - now))
        for child in children:
            if child.sock in room:
                child.send()
            if child.sock in ready:
                self.hear(child)
            if child.output in ready:
                self.text.add(child.name, child.printed())
        if self.wakeup in ready:
            self.signalled()
        now = time.monotonic()
        for child in list(self.children.values()):
            if now >= child.limit_at:
                self.ends.escalate(self, child)
        if self.link.lost_at and not self.killing:
            self.end_at = min(self.end_at, max(self.grace_at, self.link.lost_at) + self.lost_seconds)
        if now >= self.end_at:
            self.ends.kill(self, exitcodes.OUT_OF_TIME, "no time is left")
        elif now >= self.drain_at:
            self.ends.drain(self, exitcodes.OUT_OF_TIME, "the pilot's time is over")
        self.link.tick(now)

    def signalled(self):
        """Signals came in: leave, the second time at once."""
        for number in os.read(self.wakeup, 4096):
            if number == signal.SIGCHLD:
                self.reap()
                continue
            why = "signal " + self.ends.name_of(number)
            if number in (signal.SIGTERM, signal.SIGINT):
                if self.terminated:
                    self.ends.kill(self, exitcodes.KILLED, "a second " + why)
                self.terminated = True
            self.ends.drain(self, exitcodes.DRAINED, why)

    def reap(self):
        """Take note of every process that ended: children, and strays that became ours."""
        ended = quietly(os.wait4, -1, os.WNOHANG)
        while ended and ended[0]:
            if ended[0] in self.children:
                self.ends.finish(self, self.children[ended[0]], *ended[1:])
            ended = quietly(os.wait4, -1, os.WNOHANG)

    # -- children

    def spawn(self, name, function, index=None):
        def alone(sock):  # in the child, which must not know the runner's secrets
            self.identity.clear()
            os.chdir(self.directory)
            return function(sock)

        child = Child(name, alone, index)
        self.children[child.pid] = child
        return child

    def spawn_courier(self):
        known = self.profile, dict(self.identity)
        return self.spawn("pilot-courier", lambda sock: load("pilotage_node.courier", "main")(sock, *known))

    def hear(self, child):
        """Take the messages that came in."""
        try:
            for message in child.received():
                self.take(child, message["op"], message)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self.text.own("%s said what is not understood: %s: %s" % (child.name, type(error).__name__, error))

    def take(self, child, op, message):
        """What a child says."""
        link = self.link
        if op in ("get", "put", "upload"):
            link.transfer(child, message)
        elif op == "answer":
            link.answered(message)
        elif op == "transferred":
            if message["id"] in link.transfers:
                asker, name, _ = link.transfers.pop(message["id"])
                asker.send(dict(message, id=name))
        elif op in ("traits", "result"):
            setattr(child, op, message)
        elif op == "report":
            link.report(message["report"])
        elif op == "usage":
            link.usage = message["usage"]
            self.record.sampled(link.usage)
        elif op == "jobs":
            self.record.jobs.reported(message.get("reports") or (), time.monotonic())
            link.agent, link.state = child, message
            link.at = 0.0 if message.get("urgent") else link.at
        elif op == "record":
            child.send(dict(message, record=self.record.document(), log=self.text.path))
        elif op == "drain":
            self.ends.drain(self, exitcodes.DRAINED, message.get("reason") or child.name)
        else:
            raise LookupError(op)
