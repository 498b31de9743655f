"""CPU of whole process trees, exactly, also of those whose members end or detach meanwhile.

The benchmark makes itself sub-reaper: whatever it starts, and whatever that starts and lets go, stays among its
descendants. Then the CPU used so far is the sum, over the living descendants, of their own time and of the children
they have reaped, plus what the benchmark itself has reaped: this never goes down and misses nothing (proc(5): utime,
stime, cutime, cstime). Own times come from the process's CPU clock (clock_getcpuclockid(3)), in nanoseconds, because
the ticks of /proc are 10 ms each; what is reaped is summed by the kernel in nanoseconds and only shown in ticks.
"""

from __future__ import annotations

import os
import resource
import time

from pilotage_node.processes import descendants, kill_tree, set_subreaper, snapshot

__all__ = ["cpu_below", "kill_and_count", "kill_below", "rss_below", "set_subreaper"]


def cpu_clock(pid: int) -> float | None:
    """CPU time of one living process with all its threads [s]; None when it is gone or a zombie."""
    try:
        return time.clock_gettime(~pid << 3 | 2)  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), linux/posix-timers.h
    except OSError:
        return None


def cpu_below() -> float:
    """CPU time of everything that this process has started, dead or alive [s]."""
    found = snapshot()
    reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = reaped.ru_utime + reaped.ru_stime
    for pid in descendants(found, os.getpid()):
        process = found[pid]
        own = cpu_clock(pid)
        if own is None:
            own = process.cpu_user + process.cpu_system
        total += own + process.reaped_user + process.reaped_system
    return total


def rss_below(root: int) -> int:
    """Resident memory of root and everything below [bytes]; shared pages count once for each process."""
    found = snapshot()
    return sum(found[pid].rss for pid in [root, *descendants(found, root)] if pid in found)


def kill_and_count(root: int) -> float:
    """Stop a child of this process and its tree at once, end and reap all of it; returns the CPU time it had used [s].

    What the kernel says of each when it is reaped holds its own time and that of the children it had reaped itself.
    """
    waiting = {root, *descendants(snapshot(), root)}
    kill_tree(root)
    cpu = 0.0
    while waiting:
        for pid in list(waiting):
            try:
                ended, _, usage = os.wait4(pid, os.WNOHANG)
            except ChildProcessError:  # not handed to us yet, or reaped by a parent that was still there
                if not os.path.exists(f"/proc/{pid}"):
                    waiting.discard(pid)
                continue
            if ended:
                cpu += usage.ru_utime + usage.ru_stime
                waiting.discard(pid)
        time.sleep(0.001)
    return cpu


def kill_below() -> None:
    """End and reap everything that this process has started."""
    while children := [process.pid for process in snapshot().values() if process.ppid == os.getpid()]:
        for pid in children:
            kill_and_count(pid)
