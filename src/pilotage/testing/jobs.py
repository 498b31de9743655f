"""Jobs to hand out to pilots, and what became of them: the matcher of a fake service. No I/O."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

Spec = dict[str, Any]
Grant = dict[str, Any]
Report = dict[str, Any]


def job(**changed: Any) -> Spec:
    """The spec of a job as it is granted (see ``pilotage_node.protocol``): /bin/true, but for what is changed."""
    spec = {
        "command": ["/bin/true"],
        "environment": {},
        "inputs": [],
        "outputs": [],
        "stdout_mib": 1,
        "cores": 1,
        "memory_mib": None,
        "disk_mib": None,
        "gpus": 0,
        "wall_seconds": 600,
        "cpu_seconds": None,
        "isolation": "none",
    }
    unknown = set(changed).difference(spec)
    if unknown:
        raise TypeError(f"a job's spec has no {', '.join(sorted(unknown))}; it has {', '.join(spec)}")
    return dict(spec, **changed)


def sh(script: str, **changed: Any) -> Spec:
    """What ``job`` is given for one that runs a shell script."""
    return dict(changed, command=["/bin/sh", "-c", script])


class Jobs:
    """Hands out jobs in their order as pilots have room for them, one lease a job.

    queue: specs that wait (what differs from ``job()``); leased: grants by lease; holders: whose they are;
    started: leases said to be Running; results: last reports by lease; files: inputs by digest;
    orders: given with every answer; granting, acknowledging: does it?; withheld: leases that it no longer wants held.
    """

    def __init__(self) -> None:
        self.queue: list[Spec] = []
        self.numbers = itertools.count(1)
        self.leased: dict[str, Grant] = {}
        self.holders: dict[str, str] = {}
        self.started: set[str] = set()
        self.results: dict[str, Report] = {}
        self.files: dict[str, bytes] = {}
        self.orders: list[dict[str, Any]] = []
        self.granting = self.acknowledging = True
        self.withheld: set[str] = set()

    def put(self, data: bytes) -> str:
        """Store an input file; its digest."""
        digest = hashlib.sha256(data).hexdigest()
        self.files[digest] = data
        return digest

    def match(self, want: dict[str, Any], holder: str = "") -> list[Grant]:
        """New grants, as many as fit."""
        granted: list[Grant] = []
        room, ahead = want["cores"], want["ahead"]
        while self.queue and (room >= self.queue[0].get("cores", 1) or ahead > 0):
            spec = self.queue.pop(0)
            if room >= spec.get("cores", 1):
                room -= spec.get("cores", 1)
            else:
                ahead -= 1
            number = next(self.numbers)
            grant = {"lease": f"lease-{number}", "job": number, "attempt": 1, "token": f"token-{number}"}
            granted.append(dict(grant, spec=job(**spec)))
        self.leased.update({grant["lease"]: grant for grant in granted})
        self.holders.update({grant["lease"]: holder for grant in granted})
        return granted

    def answer(self, state: dict[str, Any], holder: str = "") -> dict[str, Any]:
        """The matcher's part of the answer to a pilot's state ("held", "reports", "want"); "new": granted just now."""
        for report in state["reports"]:
            if report.get("state") == "Running":
                self.started.add(report["lease"])
            elif "lease" in report:
                self.results.setdefault(report["lease"], report)
                self.leased.pop(report["lease"], None)
        new = self.match(state["want"], holder) if state["want"] and self.granting else []
        theirs = {lease: grant for lease, grant in self.leased.items() if self.holders.get(lease, holder) == holder}
        return {
            "hold": [lease for lease in theirs if lease not in self.withheld],
            "granted": [grant for lease, grant in theirs.items() if lease not in state["held"]],
            "acknowledged": [report["id"] for report in state["reports"]] if self.acknowledging else [],
            "orders": list(self.orders),
            "new": new,
        }
