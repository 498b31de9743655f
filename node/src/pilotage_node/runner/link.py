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
MOST = 200
"""Reports of commands in one message; the rest goes with the next."""
REFUSALS = {409: exitcodes.SECOND_START, 426: exitcodes.PROTOCOL}
"""Answers to the first registration that end the pilot; any other 4xx means that the credentials are refused."""


class Link:
    """reports: not acknowledged, by id; agent: the child that asks for jobs, state: its last message; body: the sync
    request that has no answer yet, asker: the agent whose state it tells; waiting: "register" or "sync" while the
    courier has it; at: when to speak next, but never before ``not_before``; lost_at: since when the service is not
    reached; contact: what commands are told of the registration.

    :param runner: its ``identity``, ``text``, ``spawn_courier()``, ``record``, ``ends``
    :param introduction: dict: the registration's body but for ``log`` and the identity; without ``node`` at first
    """

    def __init__(self, runner, introduction):
        self.runner, self.text, self.introduction = runner, runner.text, introduction
        self.contact = {"reached": False, "clock_skew": None, "seconds": None}
        self.reports, self.transfers, self.state, self.usage, self.phase = {}, {}, {}, {}, "start"
        self.courier = self.waiting = self.body = self.agent = self.asker = self.lost_at = None
        self.registered = self.final = self.ended = False
        self.at = self.not_before = self.asked = 0.0
        self.deaths = self.failures = self.sequence = self.count = 0
        self.longest, self.chunk = LONGEST, log.CHUNK

    def due(self):
        """When there is something to do next (monotonic)."""
        if self.ended:
            return FAR
        if self.waiting:
            return self.asked + SILENCE
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
        elif self.waiting:
            self.asked = now
            self.courier.limit(now, "it is silent")
        else:
            self.waiting, self.asked = "sync" if self.registered else "register", now
            if self.registered:
                self.body = body = self.body or self.compose()
            else:
                first = self.text.chunk(4096) or {"text": ""}
                body = dict(self.introduction, log=first["text"], **self.runner.identity)
            self.count += 1
            self.courier.send({"op": self.waiting, "id": self.count, "body": body})

    def compose(self):
        """A new sync request (see ``pilotage_node.protocol``)."""
        self.sequence += 1
        self.at, self.asker = FAR, self.agent
        return {
            "protocol": protocol.VERSION,
            "sequence": self.sequence,
            "held": self.state.get("held") or [],
            "reports": list(self.reports.values())[:MOST] + (self.state.get("reports") or []),
            "want": self.state.get("want"),
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
        self.count += 1
        self.transfers[self.count] = child, message["id"], dict(message, id=self.count)
        if self.registered:
            self.courier.send(self.transfers[self.count][2])

    def gone(self, child):
        """A child ended: what it said last is delivered all the same. A new courier is started, later each time."""
        if child is self.courier:
            self.courier, self.waiting, self.registered = None, None, False
            self.not_before = max(self.not_before, time.monotonic() + min(LONGEST, self.deaths))
            self.deaths += 1
        elif child is self.agent:
            self.reports.update((report["id"], report) for report in self.state.get("reports") or ())
            self.agent, self.state = None, {}

    def answered(self, message):
        """The courier brought an answer: {"status", "body"}; status 0 = the service was not reached."""
        now, op, self.waiting = time.monotonic(), self.waiting, None
        status, body, failures = message["status"], message.get("body") or {}, self.failures
        pause = min(self.longest, 2 ** min(failures, 9)) * (1 + int.from_bytes(os.urandom(1), "big") / 256.0) / 2
        pause = max(pause, message.get("retry_after") or body.get("retry_after") or 0)
        self.failures, self.not_before = failures + 1, now + pause  # also after an answer that is not understood
        if status == 200:
            if op == "register":
                self.accepted(body, message.get("seconds") or now - self.asked, now)
            else:
                self.synced(body, now)
            self.failures, self.not_before = 0, self.final and now + COALESCE
            if self.lost_at:
                self.text.own("the service is reached again, after %.0f s" % (now - self.lost_at))
                self.lost_at = None
            return
        why = body.get("error") or "status %d" % status
        refused = 400 <= status < 500 and status != 429
        if refused and not self.contact["reached"]:
            code = REFUSALS.get(status, exitcodes.REFUSED)
            self.runner.leaving = code, "the service refuses this pilot: " + why
        elif status == 410:
            self.ended = True
            self.runner.ends.kill(self.runner, exitcodes.KILLED, "the service ended this pilot: " + why)
        elif status == 401:  # the token is too old: register again, the first time at once
            self.registered, self.not_before = False, failures and now + pause
        elif refused:  # it would be refused again as it is
            self.text.own("the service refuses a %s (%d): %s" % (op, status, why))
            self.body = None if op == "sync" else self.body
            self.chunk = max(4096, self.chunk // 4) if status == 413 else self.chunk
        elif not self.lost_at:
            self.lost_at = now
            self.text.own("the service is not reached (%s); the pilot goes on and tries again" % why)
        self.tell_agent({}, pause, False, False)

    def accepted(self, body, seconds, now):
        """Registered, for the first time or anew; ``seconds``: of the round trip."""
        if not self.contact["reached"]:
            skew = time.time() - seconds / 2 - body["time"] if "time" in body else None
            self.contact = {"reached": True, "clock_skew": skew, "seconds": seconds}
            self.at = now + body.get("sync_seconds", 10)
            self.text.own("registered with the service")
        self.registered = True
        self.longest = max(0.5, min(LONGEST, body.get("lease_seconds", 120) / 5))
        self.sequence = max(self.sequence, body.get("sequence") or 0)
        self.text.acknowledged(body.get("log_offset") or 0)
        for _, _, message in self.transfers.values():
            self.courier.send(message)

    def synced(self, body, now):
        """The service took what was said: the agent gets its part, the pilot follows its orders."""
        done, again = body.get("acknowledged") or (), body.get("again_seconds", 10)
        for name in done:
            self.reports.pop(name, None)
        self.text.acknowledged(body.get("log_offset") or 0)
        sent, self.body, self.deaths = self.body, None, 0
        more = len(self.text.waiting) > self.chunk or (self.reports and done)
        self.at = 0.0 if self.final else min(self.at, now + (1 if more else again))
        if body.get("granted"):
            self.runner.record.jobs.granted(body["granted"])
        self.tell_agent(body, again, bool(sent["want"]) and not body.get("granted"), True)
        orders = [order["order"] for order in body.get("orders") or () if not order.get("lease")]
        if "kill" in orders and not self.runner.killing:
            self.runner.ends.kill(self.runner, exitcodes.KILLED, "the service orders it")
        elif orders:
            self.runner.ends.drain(self.runner, exitcodes.DRAINED, "the service orders it", "order")

    def tell_agent(self, body, again, empty, reached):
        """What the job agent gets after a sync that told its state."""
        if self.asker and self.asker is self.agent:
            part = {name: body.get(name) or [] for name in ("hold", "granted", "acknowledged", "orders")}
            part["orders"] = [order for order in part["orders"] if order.get("lease")]
            self.agent.send(dict(part, op="jobs", empty=empty, again_seconds=again, reached=reached))
