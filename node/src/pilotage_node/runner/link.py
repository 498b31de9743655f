"""The runner's side of the talk with the service, through the courier: register, sync, transfers, and a new courier
whenever one dies. Whatever was not answered or not acknowledged is said again."""

import os
import time

from pilotage_node import exitcodes, protocol
from pilotage_node.runner import log
from pilotage_node.runner.channel import FAR

IDENTITY = ("vo", "site", "resource", "queue", "flavour", "revision")
"""What of its profile the pilot tells the service."""
SILENCE = 300
"""A courier that answers nothing for so long is replaced [s]."""
COALESCE = 0.2
"""A report waits so long for others to go with it [s]."""
LONGEST = 30.0
"""Longest pause after failures [s]: it doubles from 1 s on, and is spread so that pilots do not come back all at once.
It is well below a lease too, so that an outage shorter than a lease loses none."""
IDLE = {"held": (), "want": None}
"""What a pilot without a job agent has to say of jobs."""
REFUSALS = {409: exitcodes.SECOND_START, 426: exitcodes.PROTOCOL}
"""Answers to the first registration that end the pilot; any other 4xx means that the credentials are refused."""


class Link:
    """reports: not acknowledged, by id; agent: the child that asks for jobs, state: its last message; body: the sync
    request that has no answer yet; waiting: "register" or "sync" while the courier has it; at: when to speak next, but
    never before ``not_before``; lost_at: since when the service is not reached; contact: what commands are told of the
    registration.

    :param runner: its ``identity``, ``text``, ``spawn_courier()``, ``record``, ``ends``
    :param introduction: dict: the registration's body but for ``log`` and the identity; without ``node`` at first
    """

    def __init__(self, runner, introduction):
        self.runner, self.text, self.introduction = runner, runner.text, introduction
        self.contact = None
        self.reports, self.transfers, self.state, self.usage, self.phase = {}, {}, IDLE, {}, "start"
        self.courier = self.waiting = self.body = self.agent = self.lost_at = None
        self.registered = self.final = self.ended = False
        self.at = self.not_before = 0.0
        self.failures = self.sequence = self.count = 0
        self.longest, self.chunk = LONGEST, log.CHUNK

    def due(self):
        """When there is something to do next (monotonic)."""
        if self.ended or self.waiting:
            return FAR
        return max(self.at if self.registered and not self.body else 0.0, self.not_before)

    def idle(self):
        """The service has all there is."""
        return self.ended or not (self.body or self.reports or self.text.waiting)

    def tick(self, now):
        """Do what is due."""
        if now < self.due():
            return
        if not self.courier:
            self.courier = self.runner.spawn_courier()
        else:
            self.waiting = "sync" if self.registered else "register"
            if self.registered:
                self.body = body = self.body or self.compose()
            else:
                first = self.text.chunk(4096) or {"text": ""}
                body = dict(self.introduction, log=first["text"], **self.runner.identity)
            self.courier.limit_at, self.courier.why = now + SILENCE, "it is silent"
            self.courier.send({"op": self.waiting, "body": body})

    def compose(self):
        """A new sync request (see ``pilotage_node.protocol``)."""
        self.sequence += 1
        self.at, state = FAR, self.state
        self.state = dict(state, want=None)  # a wish is told once, or it would be granted twice
        return {
            "protocol": protocol.VERSION,
            "sequence": self.sequence,
            "held": state["held"],
            "reports": list(self.reports.values()),
            "want": state["want"],
            "log": self.text.chunk(self.chunk),
            "beat": {"phase": self.phase, "usage": self.usage},
        }

    def report(self, report):
        """Queue a report; it goes with the next message."""
        self.count += 1
        name = "pilot-%d" % self.count
        self.reports[name] = dict(report, id=name)
        self.at = min(self.at, time.monotonic() + COALESCE)

    def transfer(self, child, message):
        """Pass on a get, put or upload of a command."""
        self.transfers[message["id"]] = child, message
        if self.registered:
            self.courier.send(message)

    def transferred(self, message):
        """Tell who asked for it."""
        child, asked = self.transfers.pop(message["id"], (None, None))
        if child:
            child.send(dict(asked, **message))

    def gone(self, child):
        """A child ended: what it said last is delivered all the same. A new courier is started, later each time."""
        if child is self.courier:
            self.courier, self.waiting, self.registered = None, None, False
            self.put_off()
        elif child is self.agent:
            self.agent, self.state = None, IDLE

    def put_off(self, least=0):
        """Do not speak for a while, longer each time."""
        pause = min(self.longest, 2 ** min(self.failures, 9)) * (1 + os.urandom(1)[0] / 256) / 2
        self.failures += 1
        self.not_before = time.monotonic() + max(pause, least)

    def answered(self, message):
        """The courier brought an answer: {"status", "body"}; status 0 = the service was not reached."""
        now, op, self.waiting, self.courier.limit_at = time.monotonic(), self.waiting, None, FAR
        status, body = message["status"], message["body"]
        self.put_off(message["retry_after"])  # also after an answer that is not understood
        if status == 200:
            if op == "register":
                self.accepted(body, message["seconds"], now)
            else:
                self.synced(body, now)
            self.failures, self.not_before = 0, self.final and now + COALESCE
            if self.lost_at:
                self.text.own("the service is reached again, after %.0f s" % (now - self.lost_at))
                self.lost_at = None
            return
        why = str(body.get("error", status))
        refused = 400 <= status < 500 and status != 429
        if refused and not self.contact:
            code = REFUSALS.get(status, exitcodes.REFUSED)
            self.runner.leaving = code, "the service refuses this pilot: " + why
        elif status == 410:
            self.ended = True
            self.runner.ends.kill(self.runner, exitcodes.KILLED, "the service ended this pilot: " + why)
        elif status == 401:  # the token is too old: register again, the first time at once
            self.registered, self.not_before = False, self.failures > 1 and self.not_before
        elif refused:  # it would be refused again as it is
            self.text.own("the service refuses a %s (%d): %s" % (op, status, why))
            self.body = None if op == "sync" else self.body
            self.chunk = max(4096, self.chunk // 4) if status == 413 else self.chunk
        elif not self.lost_at:
            self.lost_at = now
            self.text.own("the service is not reached (%s); the pilot goes on and tries again" % why)

    def accepted(self, body, seconds, now):
        """Registered, for the first time or anew; ``seconds``: of the round trip."""
        if not self.contact:
            skew = time.time() - seconds / 2 - body["time"]
            self.contact = {"clock_skew": skew, "seconds": seconds}
            self.at = now + body["sync_seconds"]
            self.text.own("registered with the service")
        self.registered = True
        self.longest = max(0.5, min(LONGEST, body["lease_seconds"] / 5))
        self.sequence = max(self.sequence, body["sequence"])
        self.text.acknowledged(body["log_offset"])
        for _, message in self.transfers.values():
            self.courier.send(message)

    def synced(self, body, now):
        """The service took what was said: the agent gets its part, the pilot follows its orders."""
        for name in body["acknowledged"]:
            self.reports.pop(name, None)
        self.text.acknowledged(body["log_offset"])
        sent, self.body, granted = self.body, None, body["granted"]
        pause = 1 if len(self.text.waiting) > self.chunk else body["again_seconds"]
        self.at = 0.0 if self.final else min(self.at, now + pause)
        if self.agent:
            part = {name: body[name] for name in ("hold", "granted", "orders")}
            self.agent.send(dict(part, op="jobs", empty=bool(sent["want"] and not granted)))
        orders = [order["order"] for order in body["orders"] if not order.get("lease")]
        if "kill" in orders and not self.runner.killing:
            self.runner.ends.kill(self.runner, exitcodes.KILLED, "the service orders it")
        elif orders:
            self.runner.ends.drain(self.runner, exitcodes.DRAINED, "the service orders it", "order")
