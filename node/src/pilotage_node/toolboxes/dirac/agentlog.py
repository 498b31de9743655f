"""What the log of DIRAC's job agent says of its jobs, line by line (DIRAC 8 and 9). Pure: lines and times in, jobs out.

The agent has no other way to tell: it has no exit status of its own, and its jobs are processes below it.
"""

import re

MATCHED = re.compile(r"Received JobID=(\d+), JobType=(\S*),")
WRAPPER = re.compile(r"\[(\d+)\]JobWrapper \w+: (.*)")
FINAL = re.compile(r"Final job status (\w+) ; (.*)")
STARTED = re.compile(r"Job Wrapper is starting execution phase for job (\d+)")
SUBMITTED = re.compile(r"Job being submitted \(DIRAC JobID: (\d+);")
EXIT = re.compile(r"Exit status: ?(-?\d+)")
RESCHEDULED = re.compile(r"Job Rescheduled (\d+)")
EMPTY = re.compile(r"Job request OK, but no match found")
REFUSED = re.compile(r"(?:Failed to get jobs|Timeout while requesting job|Pilot version mismatch) ?(.*)")
STOPS = re.compile(r'JobAgent will stop with message "(.*?)"')
LOADING = re.compile(r"Error while loading agent module:? ?(.*)")
READY = re.compile(r"Loaded agent module ")
CYCLE = re.compile(r"(Starting cycle for module|run summary|Stopping agent module)")
ERROR = re.compile(r" (?:ERROR|FATAL|EXCEPT): (.*)")

SIGNALLED = 128
"""Exit statuses above it are of wrappers that did not end by themselves."""
RUNNING, DONE, FAILED, KILLED = "Running", "Done", "Failed", "Killed"
BACK = "Rescheduled"
"""DIRAC gives the job to another pilot."""


class Job:
    """One job of DIRAC. ``state``: RUNNING until it is over; ``minor``: DIRAC's words for how it ended."""

    __slots__ = ("cpu", "ended", "exit_code", "kind", "minor", "number", "payload", "started", "state")

    def __init__(self, number, kind, now):
        self.number, self.kind, self.started, self.state, self.minor = number, kind, now, RUNNING, ""
        self.ended = self.exit_code = self.cpu = self.payload = None


class Follower:
    """Reads the log.

    jobs: all that were matched, by number; ready: when the agent had started; empty: answers without a job since the
    last one; refused: (how many, what the matcher or its connection said last); asking: a request is under way or the
    agent runs a job: it must not be disturbed; stops: why it stops by itself; errors: its last error lines.

    :param several: the agent runs jobs side by side (Pool): "submitted" is then a start, not an end
    """

    def __init__(self, several):
        self.several, self.jobs, self.current, self.errors = several, {}, None, []
        self.ready = self.stops = None
        self.empty, self.refused, self.matches = 0, (0, ""), 0
        self.empty_since = None
        self.asking = False

    def running(self):
        return [job for job in self.jobs.values() if job.state == RUNNING]

    def feed(self, line, now):
        """Take one line; the jobs of which it says something new, [] for nearly all lines."""
        found = MATCHED.search(line)
        if found:
            job = self.jobs[found.group(1)] = self.current = Job(found.group(1), found.group(2), now)
            self.matches, self.empty, self.empty_since, self.asking = self.matches + 1, 0, None, True
            self.refused = (0, "")
            return [job]
        found = WRAPPER.search(line)
        if found:
            return self.of_wrapper(self.jobs.get(found.group(1)), found.group(2), now)
        return self.of_agent(line, now)

    def of_wrapper(self, job, text, now):
        """A line of a job's wrapper."""
        if job is None:
            return []
        if STARTED.search(text) and job.payload is None:
            job.payload = now
            return [job]
        found = FINAL.search(text)
        if found:
            state = {"Done": DONE, "Completed": DONE, "Killed": KILLED}.get(found.group(1), FAILED)
            return self.over(job, BACK if found.group(1) == BACK else state, found.group(2).strip(), now)
        return []

    def of_agent(self, line, now):
        """A line of the agent itself."""
        if CYCLE.search(line):
            self.asking = "Starting cycle" in line
        elif READY.search(line):
            self.ready = now
        elif EMPTY.search(line):
            self.nothing(now)
            self.refused = (0, "")
        elif STOPS.search(line):
            self.stops = STOPS.search(line).group(1)
        elif ERROR.search(line):
            self.errors = (self.errors + [ERROR.search(line).group(1)[:300]])[-5:]
        found = REFUSED.search(line)
        if found:
            self.refused = self.refused[0] + 1, found.group(1).strip()
            self.nothing(now)
        return self.of_jobs(line, now)

    def of_jobs(self, line, now):
        """What the agent says of a job."""
        found = RESCHEDULED.search(line)
        if found and found.group(1) in self.jobs:
            return self.over(self.jobs[found.group(1)], BACK, "given back by the agent", now)
        found = EXIT.search(line)
        if found and self.current and not self.several:
            self.current.exit_code = int(found.group(1))
        found = SUBMITTED.search(line)
        if found and found.group(1) in self.jobs and not self.several:
            job = self.jobs[found.group(1)]
            if job.exit_code is not None and job.exit_code <= SIGNALLED:  # else the agent gives it back
                return self.over(job, FAILED if job.exit_code else DONE, "", now)
        return []

    def nothing(self, now):
        """There was no job for us."""
        self.empty, self.asking = self.empty + 1, False
        if self.empty_since is None:
            self.empty_since = now

    def over(self, job, state, minor, now):
        """A job has ended; what is known first stays."""
        if job.state != RUNNING:
            return []
        job.state, job.minor, job.ended = state, minor, now
        return [job]

    def all_over(self, now, why):
        """The agent is gone: jobs of which nothing was said."""
        for job in self.running():
            self.over(job, FAILED, why, now)
            yield job


def report_of(job):
    """A job as the pilot's record and the service have it: REPORT of the protocol."""
    wall = (job.ended or job.started) - job.started
    cpu_user, cpu_system = job.cpu or (0.0, 0.0)
    usage = {"cpu_user": round(cpu_user, 2), "cpu_system": round(cpu_system, 2)}
    usage.update(max_rss_mib=0, read_mib=0, write_mib=0)
    state = FAILED if job.state == BACK else job.state
    return {
        "kind": "job",
        "lease": "dirac-" + job.number,
        "job": "DIRAC %s" % job.number,
        "state": state,
        "exit_code": job.exit_code,
        "reason": "lost" if job.state == BACK else "exit",
        "message": "%s; %s" % (job.state, job.minor) if job.minor else job.state,
        "wall_seconds": round(wall, 1),
        "usage": usage,
    }
