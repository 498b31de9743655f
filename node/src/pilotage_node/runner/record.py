"""The record: one JSON document of the whole run, and the account of the jobs in it."""

import json
import os
import resource
import time
from collections import deque

from pilotage_node.runner.link import IDENTITY
from pilotage_node.runner.log import quietly

KEPT = 1000
"""Jobs listed one by one, the last ones; all are in the totals. Also the most busy times kept apart."""
FIGURES = ("cpu_user", "cpu_system", "read_mib", "write_mib")


def usage_of(*counted):
    """What the kernel counted (rusage structures, max_rss: the largest): CPU [s], memory and I/O [MiB]."""
    usage = {"max_rss_mib": max([one.ru_maxrss for one in counted], default=0) >> 10}
    for name, field, unit in zip(FIGURES, ("utime", "stime", "inblock", "oublock"), (1, 1, 2048, 2048)):
        usage[name] = round(sum(getattr(one, "ru_" + field) for one in counted) / unit, 4)
    return usage


class Jobs:
    """The account of the jobs whose reports pass through; a report that is repeated counts once."""

    def __init__(self):
        self.listed, self.busy, self.folded, self.seen, self.names = deque(maxlen=KEPT), [], 0.0, set(), {}
        self.totals = dict.fromkeys(FIGURES + ("count", "wall_seconds", "max_rss_mib"), 0)
        self.totals["states"] = {}

    def granted(self, grants):
        self.names.update((grant["lease"], grant["job"]) for grant in grants)

    def reported(self, reports, now):
        """The agent's unacknowledged reports, the whole list each time: so only the last list need be remembered.

        ``ended``, the end of the job by the monotonic clock where the agent tells it, is for us alone: it is taken out.
        """
        before, self.seen = self.seen, {report["id"] for report in reports}
        for report in reports:
            end = report.pop("ended", None) or now
            if report["id"] not in before and report.get("kind") == "job" and report["state"] != "Running":
                job = self.names.pop(report["lease"], None)
                if report["state"] != "Returned":
                    self.ended(report, job, end)

    def ended(self, report, job, end):
        usage, seconds, totals = report.get("usage") or {}, report.get("wall_seconds") or 0.0, self.totals
        kept = {key: report.get(key) for key in ("lease", "state", "reason", "wall_seconds", "usage")}
        self.listed.append(dict(kept, job=job))
        totals["count"] += 1
        totals["wall_seconds"] += seconds
        totals["states"][report["state"]] = totals["states"].get(report["state"], 0) + 1
        totals["max_rss_mib"] = max(totals["max_rss_mib"], usage.get("max_rss_mib") or 0)
        for name in FIGURES:
            totals[name] += usage.get(name) or 0
        self.ran(end - seconds, end)

    def ran(self, start, end):
        """Join the job's time to the disjoint times in which some job ran, in their order."""
        later = []
        while self.busy and self.busy[-1][1] >= start:
            first, last = self.busy.pop()
            if first > end:
                later.append((first, last))
            else:
                start, end = min(start, first), max(end, last)
        self.busy += [(start, end)] + later[::-1]
        if len(self.busy) > KEPT:
            first, last = self.busy.pop(0)
            self.folded += last - first

    def summary(self):
        busy = self.folded + sum(last - first for first, last in self.busy)
        return dict(self.totals, busy_seconds=round(busy, 3), wall_seconds=round(self.totals["wall_seconds"], 3))


class Record:
    """The run so far; ``write`` leaves it beside the log, whole or not at all."""

    def __init__(self, stamp, script, started):
        self.started, self.jobs = started, Jobs()
        self.fields = dict.fromkeys(("end", "node", "beat", "final_usage", "exit_code", "reason"))
        self.fields.update(format=1, stamp=stamp, digest=script.digest, commands=[])
        self.fields["profile"] = {name: script.profile.get(name) for name in IDENTITY}
        self.fields["start"] = time.time() - (time.monotonic() - started)

    def usage(self):
        """Of the runner and all that it waited for."""
        return usage_of(resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))

    def sampled(self, usage):
        """A sample of usage; one that says ``final`` is the pilot's own account."""
        self.fields["final_usage" if usage.get("final") else "beat"] = usage

    def document(self):
        seconds = round(time.monotonic() - self.started, 3)
        jobs = {"jobs": list(self.jobs.listed), "job_totals": self.jobs.summary()}
        return dict(self.fields, seconds=seconds, usage=self.usage(), **jobs)

    def write(self, log):
        """Leave the record beside the log, whole or not at all: on a full disk the service has every part of it."""
        path = log[:-4] + ".json"
        try:
            with open(path + ".new", "w") as file:
                json.dump(self.document(), file, indent=1, sort_keys=True)
            os.replace(path + ".new", path)
        except OSError:
            quietly(os.unlink, path + ".new")
