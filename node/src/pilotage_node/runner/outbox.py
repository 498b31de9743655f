"""What the service has not acknowledged: reports of commands, and the job agent's whole state."""

MOST = 200
"""Reports of commands in one message; the rest goes with the next."""


class Outbox:
    """``reports`` by id, oldest first; ``agent`` is the child that asks for jobs, ``state`` its last message."""

    def __init__(self):
        self.reports = {}
        self.count = 0
        self.usage = {}
        self.phase = "start"
        self.agent = None
        self.state = {}
        self.urgent = False

    def add(self, report):
        """Queue a report; gives it an id."""
        self.count += 1
        name = "pilot-%d" % self.count
        self.reports[name] = dict(report, id=name)

    def agent_says(self, child, state):
        """The agent's state replaces the one before."""
        self.agent, self.state = child, state
        self.urgent = self.urgent or bool(state.get("urgent"))

    def agent_ended(self):
        """Its leases are let go; the reports that it could not deliver are delivered all the same."""
        for report in self.state.get("reports") or ():
            self.reports[report["id"]] = report
        self.agent, self.state = None, {}

    def body(self):
        """The outbox's part of a sync request (see ``pilotage_node.protocol``)."""
        self.urgent = False
        return {
            "held": self.state.get("held") or [],
            "reports": list(self.reports.values())[:MOST] + (self.state.get("reports") or []),
            "want": self.state.get("want"),
            "beat": {"phase": self.phase, "usage": self.usage},
        }

    def acknowledged(self, ids):
        for name in ids:
            self.reports.pop(name, None)
