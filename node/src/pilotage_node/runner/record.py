"""The record: one JSON document of the whole run, and the account of the jobs in it."""

import json
import os
import resource
import time
from collections import deque

from pilotage_node.processes import FIGURES, quietly, usage_of

KEPT = 1000
"""Jobs listed one by one, the last ones; all are in the totals."""
LISTED = ("job", "lease", "state", "reason", "wall_seconds", "usage")


class Jobs:
    """The account of the jobs whose reports pass through."""

    def __init__(self):
        self.listed = deque(maxlen=KEPT)
        self.totals = dict.fromkeys(FIGURES + ("count", "wall_seconds", "busy_seconds", "max_rss_mib"), 0)
        self.totals["states"] = {}

    def told(self, message):
        """By the job agent: its new reports, and for how long any job ran."""
        totals = self.totals
        totals["busy_seconds"] = message["busy_seconds"]
        for report in message["reports"]:
            state, usage = report["state"], report.get("usage", {})
            if state in ("Running", "Returned"):
                continue
            self.listed.append({key: report.get(key) for key in LISTED})
            totals["count"] += 1
            totals["states"][state] = totals["states"].get(state, 0) + 1
            totals["wall_seconds"] += report.get("wall_seconds", 0)
            totals["max_rss_mib"] = max(totals["max_rss_mib"], usage.get("max_rss_mib", 0))
            for name in FIGURES:
                totals[name] += usage.get(name, 0)


class Record:
    """The run so far; ``write`` leaves it beside the log, whole or not at all."""

    def __init__(self, started, introduction, stamp):
        self.started, self.introduction, self.jobs = started, introduction, Jobs()
        self.fields = {"format": 1, "stamp": stamp, "commands": [], "beat": None, "final_usage": None}
        self.fields["start"] = time.time() - (time.monotonic() - started)

    def usage(self):
        """Of the runner and all that it waited for."""
        return usage_of(resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))

    def document(self):
        seconds = round(time.monotonic() - self.started, 3)
        found = {name: self.introduction.get(name) for name in ("digest", "node", "profile")}
        found.update(self.fields, jobs=list(self.jobs.listed), job_totals=self.jobs.totals)
        return dict(found, seconds=seconds, usage=self.usage())

    def write(self, log):
        """Leave the record beside the log, whole or not at all: on a full disk the service has every part of it."""
        path = log[:-4] + ".json"
        try:
            with open(path + ".new", "w") as file:
                json.dump(self.document(), file, indent=1, sort_keys=True)
            os.replace(path + ".new", path)
        except OSError:
            quietly(os.unlink, path + ".new")
