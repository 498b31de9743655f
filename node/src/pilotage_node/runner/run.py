"""The runner itself: one loop over signals, children and times; the commands in their order."""

import os
import select
import signal
import time

from pilotage_node import exitcodes, facts, processes, protocol
from pilotage_node.runner.children import HANDLED, Child
from pilotage_node.runner.link import IDENTITY, Link
from pilotage_node.runner.log import quietly
from pilotage_node.runner.outbox import Outbox
from pilotage_node.runner.work import UNKNOWN, load, work


class Runner:
    """One pilot. The class attributes are limits in seconds."""

    register_seconds = 120
    load_seconds = 120
    grace_seconds = 30
    patience_seconds = 5
    background_seconds = 5
    final_seconds = 30
    hasty_seconds = 5
    courier_main = None

    def __init__(self, script, credentials, directory, text):
        self.started = time.monotonic()
        self.script, self._record = script, None
        self.profile, self.directory, self.text = script.profile, directory, text
        self.credentials, self.pid = dict(credentials), os.getpid()
        self.poll, self.handlers = select.poll(), {}
        self.children, self.facts = {}, {}
        self.failure = self.leaving = self.aborted = None
        self.killing = self.over = self.terminated = False
        self.outbox = Outbox()
        wall = (self.profile.get("limits") or {}).get("wall_seconds")
        self.drain_at = self.started + wall - facts.reserve(wall) if wall else None
        self.end_at = self.started + wall if wall else None
        introduction = dict(credentials, protocol=protocol.VERSION, nonce=os.urandom(16).hex(), digest=script.digest)
        introduction["profile"] = {name: self.profile.get(name) for name in IDENTITY}
        self.link = Link(introduction, self.outbox, text, self)

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

            self._record = Record(self.credentials["stamp"], self.script, self.started)
            self._record.fields["node"] = self.facts.get("node")
        return self._record

    # -- the run

    def run(self):
        """All of it; the exit code."""
        try:
            self.listen()
            return self.pilot()
        except Exception as error:
            import traceback

            self.text.own(traceback.format_exc())
            self.leaving = self.failure = exitcodes.INTERNAL, "%s: %s" % (type(error).__name__, error)
            return self.ends.leave(self) if self.link.registered else self.ends.close(self, *self.failure)
        finally:
            signal.set_wakeup_fd(-1)
            for pid in self.children:
                processes.kill_tree(pid)
            self.children = {}
            self.ends.clear_strays(self)

    def listen(self):
        """Signals become bytes in a pipe; one that was ignored on purpose (nohup, a shell's background) stays so."""
        self.wakeup = os.pipe()
        for end in self.wakeup:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self.wakeup[1])
        for number in HANDLED + (signal.SIGCHLD,):
            if number == signal.SIGCHLD or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *ignored: None)
        self.watch(self.wakeup[0], self.signalled)

    def pilot(self):
        self.link.tick(self.started)  # the courier starts up while the node is looked at
        node = facts.gather_node(self.profile, self.directory)
        self.facts["node"] = self.link.introduction["node"] = node
        place = "{flavour} at {site}/{resource}".format(**self.link.introduction["profile"])
        self.text.own("pilot %s: %s" % (self.credentials["stamp"], place))
        self.text.own("on {hostname}: {platform}, {cores} cores, {memory_mib} MiB, Python {python}".format(**node))
        until = self.started + self.register_seconds
        unreached = exitcodes.UNREACHABLE, "the service was not reached within %d s" % self.register_seconds
        while not self.link.registered:
            self.turn(until)
            refusal = self.link.refusal or self.leaving or (time.monotonic() >= until and unreached)
            if refusal:
                return self.ends.close(self, *refusal)
        for index, entry in enumerate(self.profile["commands"]):
            self.command(index, entry)
        self.ends.stop_background(self)
        return self.ends.leave(self)

    def command(self, index, entry):
        """Run one command; a background one is only started."""
        known = {
            "profile": self.profile,
            "workdir": self.directory,
            "service_urls": self.profile["service"]["urls"],
            "pid": self.pid,
            "started": self.started,
            "registration": self.link.contact,
        }
        child = self.spawn(entry["name"], lambda sock: work(sock, entry, known), signal.SIGTERM, signal.SIG_DFL)
        child.index = index
        child.limit(child.started + self.load_seconds, "timeout")
        while not (child.traits or child.ended):
            self.turn()
        declared = child.traits or UNKNOWN
        if declared["always"]:
            self.ends.stop_background(self)
        missing = [name for name in declared["requires"] if name not in self.facts]
        if child.ended or declared["always"]:
            pass
        elif self.aborted or self.leaving:
            child.result = {"outcome": "skipped", "code": exitcodes.OK, "message": self.aborted or self.leaving[1]}
        elif missing:
            why = "nobody gave the fact " + ", ".join(missing)
            child.result = {"outcome": "skipped", "code": exitcodes.MISSING_FACT, "message": why}
        if child.result:
            self.send(child, {"op": "skip"})
        elif not child.ended:
            self.begin(child, declared)
        while not child.ended and not (declared["background"] and child.begun):
            self.turn()

    def begin(self, child, declared):
        child.begun, child.limit_at = True, None
        if not declared["background"]:
            self.outbox.phase = child.name
        limits = (declared["timeout"], "timeout"), (self.killing and self.hasty_seconds, "killed")
        for seconds, why in limits:
            if seconds:
                child.limit(time.monotonic() + seconds, why)
        self.text.own("%s begins" % child.name)
        wanted = ["node"] + declared["requires"] + declared["wants"]
        self.send(child, {"op": "start", "facts": {name: self.facts.get(name) for name in wanted}})

    # -- the loop

    def watch(self, descriptor, handler, events=select.POLLIN):
        self.handlers[descriptor] = handler
        self.poll.register(descriptor, events)

    def forget(self, descriptor):
        if self.handlers.pop(descriptor, None):
            self.poll.unregister(descriptor)

    def turn(self, until=None):
        """Wait for the next thing to happen, and let it."""
        times = [self.link.due(), until, self.drain_at, self.end_at, time.monotonic() + 3600]
        times += [child.limit_at for child in self.children.values()]
        wait = min(at for at in times if at is not None) - time.monotonic()
        for descriptor, events in self.poll.poll(max(0, int(wait * 1000 + 1))):
            if descriptor in self.handlers:
                self.handlers[descriptor](events)
        now = time.monotonic()
        for child in list(self.children.values()):
            if child.limit_at and now >= child.limit_at:
                self.ends.escalate(self, child)
        if self.drain_at and now >= self.drain_at:
            self.ends.drain(self, exitcodes.OUT_OF_TIME, "the pilot's time is over")
        if self.end_at and now >= self.end_at:
            self.ends.kill(self, exitcodes.OUT_OF_TIME, "the pilot's time is over")
        self.link.tick(now)

    def signalled(self, events):
        for number in os.read(self.wakeup[0], 4096):
            if number == signal.SIGCHLD:
                self.reap()
                continue
            why = "signal " + signal.Signals(number).name
            if number in (signal.SIGTERM, signal.SIGINT):
                if self.terminated:
                    self.ends.kill(self, exitcodes.KILLED, "a second " + why)
                self.terminated = True
            self.ends.drain(self, exitcodes.DRAINED, why)

    def commands(self):
        return [child for child in self.children.values() if child is not self.link.courier]

    # -- children

    def spawn(self, name, function, death_signal, signals):
        child = Child(name, function, self.release, death_signal, signals)
        self.children[child.pid] = child
        self.watch(child.sock.fileno(), lambda events: self.talk(child, events))
        self.watch(child.output, lambda events: self.listen_to(child))
        return child

    def spawn_courier(self):
        profile, credentials = self.profile, dict(self.credentials)

        def courier(sock):
            return (self.courier_main or load("pilotage_node.courier", "main"))(sock, profile, credentials)

        return self.spawn("pilot-courier", courier, signal.SIGKILL, signal.SIG_IGN)

    def release(self):
        """In a child: let go of all that is the runner's, its secrets first."""
        self.credentials.clear()
        self.link.introduction.clear()
        self.text.secret = " "
        for child in self.children.values():
            child.close()
        for descriptor in self.wakeup + ((self.text.file,) if self.text.path else ()):
            os.close(descriptor)
        os.chdir(self.directory)

    def send(self, child, message):
        if not child.ended:
            child.send(message)
            self.await_room(child)

    def await_room(self, child):
        """Hear of the child's socket when it can be written too, where something is left to send."""
        descriptor = child.sock.fileno()
        if descriptor in self.handlers:
            self.poll.modify(descriptor, select.POLLIN | (select.POLLOUT if child.unsent else 0))

    def talk(self, child, events):
        """A child's socket is ready."""
        if events & select.POLLOUT:
            self.send(child, None)
        if events & ~select.POLLOUT and not self.hear(child):
            self.forget(child.sock.fileno())

    def hear(self, child):
        """Take the messages that came in; False when there will be no more."""
        try:
            messages = child.received()
            for message in messages or ():
                getattr(self, "on_" + message["op"])(child, message)
            return messages is not None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self.text.own("%s said what is not understood: %s: %s" % (child.name, type(error).__name__, error))
            return True

    def listen_to(self, child):
        """A child printed something; False when there will be no more."""
        lines = child.printed()
        if lines:
            self.text.output(child.name, lines)
        if lines is None:
            self.forget(child.output)
        return lines is not None

    def reap(self):
        """Take note of every process that ended: children, and strays that became ours."""
        while True:
            pid, status, usage = quietly(os.wait4, -1, os.WNOHANG) or (0, 0, 0)
            if pid == 0:
                return
            if pid in self.children:
                self.ends.finish(self, self.children[pid], status, usage)

    # -- what children say

    def on_class(self, child, message):
        child.traits = message["traits"]

    def on_result(self, child, message):
        child.result = message

    def on_report(self, child, message):
        self.report(message["report"])

    def on_usage(self, child, message):
        self.record.sampled(message["usage"])
        self.outbox.usage = message["usage"]

    def on_jobs(self, child, message):
        self.outbox.agent_says(child, message)
        self.record.jobs.reported(message.get("reports") or [], time.monotonic())

    def on_record(self, child, message):
        self.send(child, dict(message, record=self.record.document(), log=self.text.path))

    def on_drain(self, child, message):
        self.ends.drain(self, exitcodes.DRAINED, message.get("reason") or child.name)

    def on_get(self, child, message):
        self.link.transfer(child, message)

    on_put = on_upload = on_get

    def on_transferred(self, child, message):
        self.link.transferred(message)

    def on_answer(self, child, message):
        try:
            self.link.answered(message, time.monotonic())
        except Exception:
            self.link.schedule.failed(time.monotonic())
            raise

    # -- what the service says

    def report(self, report):
        self.outbox.add(report)
        self.link.schedule.reported(time.monotonic())

    def synced(self, sent, answer):
        """A sync was taken: the agent gets its part, the pilot follows its orders."""
        part = {name: answer.get(name) or [] for name in ("hold", "granted", "acknowledged", "orders")}
        if part["granted"]:
            self.record.jobs.granted(part["granted"])
        ours = [order["order"] for order in part["orders"] if not order.get("lease")]
        part["orders"] = [order for order in part["orders"] if order.get("lease")]
        self.to_agent(part, bool(sent["want"]) and not part["granted"], answer.get("again_seconds", 10), True)
        if "kill" in ours and not self.killing:
            self.ends.kill(self, exitcodes.KILLED, "the service orders it")
        elif ours:
            self.ends.drain(self, exitcodes.DRAINED, "the service orders it")

    def missed(self, pause):
        self.to_agent({"hold": [], "granted": [], "acknowledged": [], "orders": []}, False, pause, False)

    def to_agent(self, part, empty, again, reached):
        if self.link.agent and self.link.agent is self.outbox.agent:
            self.send(self.link.agent, dict(part, op="jobs", empty=empty, again_seconds=again, reached=reached))

    def gone(self, text):
        """The service ended this pilot: nothing that it says or does counts any more."""
        if not self.over:
            self.over = True
            self.ends.kill(self, exitcodes.KILLED, text)
