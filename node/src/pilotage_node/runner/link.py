"""The runner's side of the talk with the service, through the courier: register, sync, transfers, and a new courier
whenever one dies. Whatever was not answered is said again."""

import os
import time

from pilotage_node import protocol
from pilotage_node.runner import log, schedule

IDENTITY = ("vo", "site", "resource", "queue", "flavour", "revision")
"""What of its profile the pilot tells the service."""
SILENCE = 300
"""A courier that answers nothing for so long is replaced [s]."""


def spread():
    return int.from_bytes(os.urandom(2), "big") / 65536.0


class Link:
    """:param introduction: dict: the registration's body but for ``log``; it lacks ``node`` until that is known
    :param events: the Runner: ``spawn_courier()``, ``send(child, message)``, ``synced(body, answer)``,
        ``missed(pause)``, ``gone(text)``
    """

    def __init__(self, introduction, outbox, text, events):
        self.introduction, self.outbox, self.text, self.events = introduction, outbox, text, events
        self.schedule = schedule.Schedule(spread)
        self.contact = {"reached": False, "clock_skew": None, "seconds": None}
        self.courier = self.refusal = self.waiting = self.body = self.agent = self.lost_at = None
        self.registered = self.final = False
        self.spawn_at = self.asked = 0.0
        self.deaths = self.sequence = self.count = 0
        self.transfers = {}
        self.chunk = log.CHUNK

    def due(self):
        """When there is something to do next (monotonic)."""
        if self.courier is None:
            return self.spawn_at
        if self.waiting:
            return self.asked + SILENCE
        return self.schedule.due(self.body or not self.registered or self.outbox.urgent or self.final)

    def idle(self):
        """The service has all there is."""
        return not (self.body or self.outbox.reports or self.text.waiting)

    def tick(self, now):
        """Do what is due."""
        if self.due() > now:
            return
        if self.courier is None:
            self.courier = self.events.spawn_courier()
        elif self.waiting:
            self.asked = now
            self.courier.limit(now, "it is silent")
        elif self.registered:
            self.body = self.body or self.compose()
            self.ask("sync", self.body, now)
        else:
            first = self.text.chunk(4096) or {"text": ""}
            self.ask("register", dict(self.introduction, log=first["text"]), now)

    def compose(self):
        """A new sync request."""
        self.sequence += 1
        self.schedule.report_at = None
        self.agent = self.outbox.agent
        log_part = self.text.chunk(self.chunk)
        return dict(self.outbox.body(), protocol=protocol.VERSION, sequence=self.sequence, log=log_part)

    def ask(self, op, body, now):
        self.count += 1
        self.waiting, self.asked = (op, self.count), now
        self.events.send(self.courier, {"op": op, "id": self.count, "body": body})

    def courier_ended(self, now):
        """A new one is started at once, and later each time."""
        self.courier = self.waiting = None
        self.registered = False
        self.spawn_at = now + min(30, self.deaths)
        self.deaths += 1

    def transfer(self, child, message):
        """Pass on a get, put or upload of a command."""
        self.count += 1
        self.transfers[self.count] = child, message["id"], dict(message, id=self.count)
        if self.registered:
            self.events.send(self.courier, self.transfers[self.count][2])

    def transferred(self, message):
        if message["id"] in self.transfers:
            child, name, _ = self.transfers.pop(message["id"])
            self.events.send(child, dict(message, id=name))

    def answered(self, message, now):
        """The courier brought an answer: {"id", "status", "body"}; status 0 = the service was not reached."""
        if not self.waiting or message["id"] != self.waiting[1]:
            return
        op, self.waiting = self.waiting[0], None
        status, body = message["status"], message.get("body") or {}
        if status == 200:
            if self.lost_at:
                self.text.own("the service is reached again, after %.0f s" % (now - self.lost_at))
                self.lost_at = None
            if op == "register":
                self.accepted(body, message.get("seconds") or now - self.asked, now)
            else:
                self.synced(body, now)
            return
        from pilotage_node.runner import trouble

        trouble.met(self, op, message, body, now)

    def accepted(self, body, seconds, now):
        """Registered, for the first time or anew; ``seconds``: of the round trip."""
        if not self.contact["reached"]:
            skew = time.time() - seconds / 2 - body["time"] if "time" in body else None
            self.contact = {"reached": True, "clock_skew": skew, "seconds": seconds}
            self.schedule.answered(now, body.get("sync_seconds", 10))
            self.text.own("registered with the service")
        self.registered = True
        self.sequence = max(self.sequence, body.get("sequence") or 0)
        self.text.acknowledged(body.get("log_offset") or 0)
        for _, _, message in self.transfers.values():
            self.events.send(self.courier, message)

    def synced(self, body, now):
        sent, self.body = self.body, None
        self.deaths = 0
        self.outbox.acknowledged(body.get("acknowledged") or ())
        self.text.acknowledged(body.get("log_offset") or 0)
        more = len(self.text.waiting) > self.chunk or (self.outbox.reports and body.get("acknowledged"))
        self.schedule.answered(now, 1 if more else body.get("again_seconds", 10))
        if self.final:
            self.schedule.not_before = now + schedule.COALESCE
        self.events.synced(sent, body)
