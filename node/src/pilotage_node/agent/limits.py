"""What jobs use while they run, against what they may: whole process trees, by one look at /proc for all jobs.

Processes that left their parent are children of the agent, which is a sub-reaper. Whose they are is known by their
session, or by PILOTAGE_LEASE in their environment; or they are nobody's, once no job runs that was there before them.
"""

import os
import signal
import time

from pilotage_node.agent.files import disk_use
from pilotage_node.processes import children_of, descendants, send_signal, snapshot

MIB = 1 << 20
STRAY = ()
STRAY_SECONDS = 2.0
"""Orphans are looked for so long after each end of a job."""


def owner(everything, pid, jobs):
    """The job of an orphan, STRAY when that is over, None while it cannot be told."""
    process, lease = everything[pid], None
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            lease = file.read().partition(b"PILOTAGE_LEASE=")[2].partition(b"\0")[0].decode("utf-8", "replace")
    except OSError:
        pass
    for job in jobs.values():
        if job.pid == process.session or job.lease == lease:
            return job
    older = any(everything[job].start_ticks <= process.start_ticks for job in jobs if job in everything)
    return None if older and not lease else STRAY


def trees(jobs):
    """Pids of each running job's processes, {job: [pid]}; strays under STRAY; and the snapshot.

    :param jobs: running jobs by pid
    """
    everything = snapshot()
    found = {job: [pid] + descendants(everything, pid) for pid, job in jobs.items()}
    found[STRAY] = []
    for pid in children_of(everything, os.getpid()):
        if pid not in jobs:
            found.get(owner(everything, pid, jobs), []).extend([pid] + descendants(everything, pid))
    return found, everything


def measure(job, processes):
    """Note what the job's processes use now; children that they waited for are in their account."""
    job.rss = max(job.rss, sum(process.rss for process in processes))
    job.user = max(job.user, sum(process.cpu_user + process.reaped_user for process in processes))
    job.system = max(job.system, sum(process.cpu_system + process.reaped_system for process in processes))


def exceeded(job, now, total):
    """The limit that the job exceeds, as (reason, message), or None.

    :param total: what the pilot has (``Room.total``): the limit of jobs that have none of their own
    """
    if now >= job.disk_at:
        job.disk = sum(disk_use(path) for path in job.directories())
        job.disk_at = now + 50 * (time.monotonic() - now)  # less often where it takes long: at most 2 % of the time
    limit = dict(total, **{kind: value for kind, value in job.spec.items() if value})
    for reason, used, most, text in (
        ("memory_limit", job.rss / MIB, limit["memory_mib"], "%d MiB of memory"),
        ("disk_limit", job.disk / MIB, limit["disk_mib"], "%d MiB of disk"),
        ("cpu_limit", job.user + job.system, limit.get("cpu_seconds"), "%d s of CPU time"),
        ("wall_limit", now - job.started, limit["wall_seconds"], "%d s of wall time"),
    ):
        if most and used > most:
            return reason, "used " + text % used + ", the limit is %d" % most
    return None


class Watch:
    """Looks at the processes of jobs, not before ``scan_at`` (at most 2 % of the time), and for orphans of jobs that
    are over until ``stray_until``.

    :param running: jobs by pid
    :param total: what the pilot has
    """

    def __init__(self, running, total):
        self.running, self.total = running, total
        self.scan_at = self.stray_until = 0.0

    def look(self, jobs, now):
        """Those of ``jobs`` that exceed a limit, with it, as [(job, (reason, message))]."""
        if now >= self.scan_at and (jobs or now < self.stray_until):
            found, everything = trees(self.running)
            for pid in found[STRAY]:
                send_signal(pid, signal.SIGKILL)
                self.stray_until = now + STRAY_SECONDS
            for job in jobs:
                measure(job, [everything[pid] for pid in found[job] if pid in everything])
            self.scan_at = now + 50 * (time.monotonic() - now)
        over = [(job, exceeded(job, now, self.total)) for job in jobs if not job.fate]
        return [(job, limit) for job, limit in over if limit]


def file_limit(size):
    """Set our own limit on the size of a file [bytes], for what we start next; gives the one before.

    Between two looks at a directory a disk can be filled. Not by prlimit(2) after the start: the program may have
    forked before.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    except ValueError:
        pass  # the pilot's own is stricter
    return soft


def cpu_limit(pid, seconds):
    """The kernel's limit on the CPU time of each process, behind ours on that of all together."""
    import resource

    try:
        resource.prlimit(pid, resource.RLIMIT_CPU, (seconds + 2, seconds + 7))
    except (OSError, ValueError):
        pass  # it is over already, or has a stricter one


def signal_trees(running, jobs, number):
    """Send a signal to all processes of ``jobs``, some of the ``running`` ones."""
    found, _ = trees(running)
    for job in jobs:
        for pid in found[job]:
            # the outer process of an isolated job would take the others with it before they have heard
            if number == signal.SIGKILL or pid != job.pid or not job.isolation:
                send_signal(pid, number)


def kill_everything(seconds):
    """Kill and reap all descendants of this process until none is left, or the seconds are over."""
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                for pid in descendants(snapshot(), os.getpid()):
                    send_signal(pid, signal.SIGKILL)
                time.sleep(0.01)
    except ChildProcessError:
        pass
