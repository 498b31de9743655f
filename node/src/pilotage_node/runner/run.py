"""The runner itself: one loop over signals, children and times; the commands in their order."""

import os
import select
import signal
import time

from pilotage_node import exitcodes, facts, processes, protocol
from pilotage_node.runner.channel import FAR
from pilotage_node.runner.child import HANDLED, Child
from pilotage_node.runner.link import IDENTITY, Link
from pilotage_node.runner.log import Log
from pilotage_node.runner.record import Record
from pilotage_node.runner.work import load, work


class Runner:
    """One pilot. The class attributes are limits in seconds.

    failure: (exit code, text) of the first command that fails the pilot; aborted: why further commands are skipped;
    leaving: (exit code, reason) once it must leave; drain_at, end_at: when its time is over, and when all is killed;
    grace_at: until when commands may run, known once it leaves in a hurry; killing: no grace any more; over: nothing is
    waited for any more.
    """

    register_seconds = 120
    grace_seconds = final_seconds = 30
    lost_seconds = 10
    patience_seconds = background_seconds = 5
    hasty_seconds = 3
    failure = aborted = leaving = None
    killing = over = terminated = False
    drain_at = end_at = grace_at = FAR

    def __init__(self, script, identity, directory, logs):
        self.script, self.profile, self.identity, self.directory = script, script.profile, identity, directory
        self.started, self.pid, self.children, self.facts = time.monotonic(), os.getpid(), {}, {}
        self.text = Log(logs, int(self.profile.get("log_mib", 10) * (1 << 20)), identity)
        who = {name: self.profile[name] for name in IDENTITY}
        introduction = {"protocol": protocol.VERSION, "nonce": os.urandom(16).hex(), "digest": script.digest}
        self.link = Link(self, dict(introduction, profile=who))
        self.record = Record(self.started, self.link.introduction, identity["stamp"])

    @property
    def ends(self):
        """The module of that name, which the start of a pilot does not need."""
        from pilotage_node.runner import ends

        return ends

    # -- the run

    def run(self):
        """All of it; the exit code."""
        try:
            try:
                # a signal that was ignored on purpose (nohup, a shell's background) stays so
                heard = [number for number in HANDLED if signal.getsignal(number) != signal.SIG_IGN]
                self.wakeup = processes.listen(signal.SIGCHLD, *heard)
                self.register()
                for index, entry in enumerate(self.profile["commands"] if self.link.registered else ()):
                    self.command(dict(entry, index=index))
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

    def register(self):
        """Look at the node while the courier starts up, then present the pilot to the service."""
        self.link.tick(self.started)
        node = self.facts["node"] = self.link.introduction["node"] = facts.gather_node(self.profile, self.directory)
        if node["seconds_left"]:
            self.drain_at = self.started + node["seconds_left"]
            self.end_at = self.started + self.profile["limits"]["wall_seconds"]
        who = self.link.introduction["profile"]
        place = ", ".join("%s %s" % (name, who[name]) for name in IDENTITY if who[name])
        self.text.own("pilot %s: %s" % (self.identity["stamp"], place))
        self.text.own("on %(hostname)s, %(platform)s, Python %(python)s" % node)
        until = self.started + self.register_seconds
        while not (self.link.registered or self.leaving):
            self.turn(until)
            if time.monotonic() >= until and not self.link.registered:
                why = "the service was not reached within %d s" % self.register_seconds
                self.leaving = self.leaving or (exitcodes.UNREACHABLE, why)

    def command(self, entry):
        """Run one command; a background one is only started."""
        if self.over:
            return
        name = entry["name"]
        if entry["always"]:
            self.ends.stop_background(self)
        else:
            missing = [fact for fact in entry["requires"] if fact not in self.facts]
            code, why = exitcodes.OK, self.aborted or (self.leaving and self.leaving[1])
            if missing and not why:
                code, why = exitcodes.MISSING_FACT, "nobody gave the fact " + ", ".join(missing)
            if why:
                self.ends.note(self, entry, "skipped", code, why)
                return
        known = {
            "profile": self.profile,
            "workdir": self.directory,
            "pid": self.pid,
            "started": self.started,
            "registration": self.link.contact,
        }
        given = {fact: self.facts.get(fact) for fact in ["node", *entry["requires"], *entry["wants"]]}
        self.text.own("%s begins" % name)
        child = self.spawn(name, lambda sock: work(sock, entry, given, known), entry)
        if entry["timeout"]:
            child.limit(child.started + entry["timeout"], "timeout")
        if not entry["background"]:
            self.link.phase = name
            while not child.ended:
                self.turn()

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
        """Signals came in: take note of who ended; leave, the second time at once."""
        for number in os.read(self.wakeup, 4096):
            if number == signal.SIGCHLD:
                continue
            why = "signal " + self.ends.name_of(number)
            if number in (signal.SIGTERM, signal.SIGINT):
                if self.terminated:
                    self.ends.kill(self, exitcodes.KILLED, "a second " + why)
                self.terminated = True
            self.ends.drain(self, exitcodes.DRAINED, why)
        for pid, status, usage in processes.ended():
            if pid in self.children:
                self.ends.finish(self, self.children[pid], status, usage)

    # -- children

    def spawn(self, name, function, entry=None):
        def alone(sock):  # in the child, which must not know the runner's secrets
            self.identity.clear()
            os.chdir(self.directory)
            return function(sock)

        child = Child(name, alone, entry)
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
            link.transferred(message)
        elif op == "result":
            child.result = message
        elif op == "usage":
            link.usage = message["usage"]
            self.record.fields["final_usage" if link.usage.get("final") else "beat"] = link.usage
        elif op == "jobs":
            self.record.jobs.told(message)
            for report in message["reports"]:
                link.report(report)
            if "held" in message:
                link.agent, link.state, link.at = child, message, 0.0
        elif op == "record":
            child.send(dict(message, record=self.record.document(), log=self.text.path))
        elif op == "drain":
            self.ends.drain(self, exitcodes.DRAINED, message["reason"])
        else:
            raise LookupError(op)
