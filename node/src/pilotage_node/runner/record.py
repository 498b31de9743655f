"""The record: one JSON document of the whole run, and the account of the jobs in it."""

import json
import os
import resource
import time

from pilotage_node.runner.link import IDENTITY
from pilotage_node.runner.log import quietly

KEPT = 1000
"""Jobs listed one by one, the last ones; all are in the totals."""
TERMINAL = ("Done", "Failed", "Killed")
FIGURES = ("cpu_user", "cpu_system", "read_mib", "write_mib")


def usage_of(*counted):
    """What the kernel counted (rusage structures, max_rss: the largest): CPU [s], memory and I/O [MiB]."""
    return {
        "cpu_user": round(sum(one.ru_utime for one in counted), 4),
        "cpu_system": round(sum(one.ru_stime for one in counted), 4),
        "max_rss_mib": max([one.ru_maxrss for one in counted] or [0]) >> 10,
        "read_mib": round(sum(one.ru_inblock for one in counted) / 2048.0, 2),
        "write_mib": round(sum(one.ru_oublock for one in counted) / 2048.0, 2),
    }


class Jobs:
    """The account of the jobs whose reports pass through; a report that is repeated counts once."""

    def __init__(self):
        self.listed, self.busy, self.folded = [], [], 0.0
        self.seen, self.names = set(), {}
        self.totals = dict.fromkeys(FIGURES, 0.0)
        self.totals.update(count=0, states={}, wall_seconds=0.0, max_rss_mib=0)

    def granted(self, grants):
        for grant in grants:
            self.names[grant["lease"]] = grant["job"]

    def reported(self, reports, now):
        """The agent's unacknowledged reports, the whole list each time: so only the last list need be remembered."""
        before, self.seen = self.seen, {report["id"] for report in reports}
        for report in reports:
            if report["id"] not in before and report.get("kind") == "job":
                if report["state"] in TERMINAL:
                    self.ended(report, now)
                elif report["state"] == "Returned":
                    self.names.pop(report["lease"], None)

    def ended(self, report, now):
        usage, seconds = report.get("usage") or {}, report.get("wall_seconds") or 0.0
        job = {key: report.get(key) for key in ("lease", "state", "reason", "wall_seconds", "usage")}
        job["job"] = self.names.pop(report["lease"], None)
        self.listed.append(job)
        if len(self.listed) > 2 * KEPT:
            del self.listed[:-KEPT]
        totals = self.totals
        totals["count"] += 1
        totals["wall_seconds"] += seconds
        totals["states"][report["state"]] = totals["states"].get(report["state"], 0) + 1
        totals["max_rss_mib"] = max(totals["max_rss_mib"], usage.get("max_rss_mib") or 0)
        for name in FIGURES:
            totals[name] += usage.get(name) or 0
        self.ran(now - seconds, now)

    def ran(self, start, end):
        """Join the job's time to the disjoint times in which some job ran, oldest first."""
        while self.busy and self.busy[-1][1] >= start:
            first, last = self.busy.pop()
            start, end = min(start, first), max(end, last)
        self.busy.append((start, end))
        if len(self.busy) > 64:
            self.folded += sum(last - first for first, last in self.busy[:32])
            del self.busy[:32]

    def summary(self):
        busy = self.folded + sum(last - first for first, last in self.busy)
        return dict(self.totals, busy_seconds=round(busy, 3), wall_seconds=round(self.totals["wall_seconds"], 3))


class Record:
    """The run so far; ``write`` leaves it beside the log, whole or not at all."""

    def __init__(self, stamp, script, started):
        self.started = started
        self.jobs = Jobs()
        self.final_usage = None
        profile = script.profile
        self.fields = dict.fromkeys(("end", "node", "beat", "exit_code", "reason"))
        self.fields.update(format=1, stamp=stamp, digest=script.digest, commands=[])
        self.fields["profile"] = {name: profile.get(name) for name in IDENTITY}
        self.fields["start"] = time.time() - (time.monotonic() - started)

    def usage(self):
        """Of the runner and all that it waited for."""
        return usage_of(resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))

    def sampled(self, usage):
        """A sample of usage; one that says ``final`` is the pilot's own account."""
        if usage.get("final"):
            self.final_usage = usage
        else:
            self.fields["beat"] = usage

    def document(self):
        return dict(
            self.fields,
            seconds=round(time.monotonic() - self.started, 3),
            usage=self.usage(),
            final_usage=self.final_usage,
            jobs=self.jobs.listed[-KEPT:],
            job_totals=self.jobs.summary(),
        )

    def write(self, log):
        """Leave the record beside the log, whole or not at all: on a full disk the service has every part of it."""
        path = "%s.json" % (log or "")[:-4]
        try:
            with open(path + ".new", "w") as file:
                json.dump(self.document(), file, indent=1, sort_keys=True)
            os.replace(path + ".new", path)
        except OSError:
            quietly(os.unlink, path + ".new")
