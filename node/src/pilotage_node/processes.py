"""Processes of this node: what the kernel is asked through prctl, and the process tree as /proc shows it.

Some kernels have no /proc/PID/task/TID/children, so descendants are found by reading every /proc/PID/stat: about 15 us
a process. Callers that repeat it pace themselves.
"""

import _ctypes
import os
import signal

TICKS = float(os.sysconf("SC_CLK_TCK"))
PAGE = os.sysconf("SC_PAGE_SIZE")


def prctl(option, value):
    """Call prctl(2); False where the kernel refused or does not know the option (numbers: <linux/prctl.h>).

    This is what ctypes wraps, which takes 5 ms of every start to import.
    """
    return not _ctypes.call_function(_ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl"), (option, value, 0, 0, 0))


def set_subreaper():
    """Orphaned descendants become children of this process, not of init (not inherited by its children)."""
    return prctl(36, 1)


def set_undumpable():
    """No ptrace, no core, no reading of this process's memory by others of the same user (inherited until exec)."""
    return prctl(4, 0)


def set_parent_death_signal(number):
    """This process gets the signal when its parent dies; check getppid() afterwards, it may have died before."""
    return prctl(1, number)


def set_name(name):
    """The name that ps and top show, cut at 15 bytes."""
    return prctl(15, name.encode()[:15])


class Process:
    """One process; CPU times in seconds (``reaped_``: of its children that ended and were waited for), rss in bytes."""

    def __init__(self, text):
        """:param text: content of /proc/PID/stat, bytes (format: proc(5)); the name may hold any character"""
        head, _, tail = text.rpartition(b")")
        pid, _, name = head.partition(b" (")
        fields = tail.split()
        self.pid, self.name, self.state = int(pid), name.decode("utf-8", "replace"), fields[0].decode()
        self.ppid, self.pgid, self.session = map(int, fields[1:4])
        self.cpu_user, self.cpu_system, self.reaped_user, self.reaped_system = (int(n) / TICKS for n in fields[11:15])
        self.start_ticks, self.rss = int(fields[19]), int(fields[21]) * PAGE


def read(pid, proc="/proc"):
    """The process of that number, or None when there is none."""
    try:
        with open("%s/%s/stat" % (proc, pid), "rb", 0) as file:
            return Process(file.read(4096))
    except (OSError, ValueError, IndexError):  # it ended meanwhile
        return None


def snapshot(proc="/proc"):
    """All processes that can be seen: {pid: Process}."""
    found = (read(name, proc) for name in os.listdir(proc) if name.isdigit())
    return {process.pid: process for process in found if process}


def children_of(everything, pid):
    """Pids of the children of ``pid`` in a snapshot."""
    return [process.pid for process in everything.values() if process.ppid == pid]


def descendants(everything, pid):
    """Pids of all descendants of ``pid`` in a snapshot, parents before children, ``pid`` not among them."""
    children = {}
    for process in everything.values():
        children.setdefault(process.ppid, []).append(process.pid)
    found = list(children.get(pid, ()))
    for child in found:
        found.extend(children.get(child, ()))
    return found


def send_signal(pid, number):
    """kill(2); False when there is no such process or it is not ours."""
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def kill_tree(pid):
    """Kill ``pid`` and all its descendants. First all are stopped, until the tree no longer grows: nothing forks
    away between look and blow. ``pid`` comes last, as it may be the caller.
    """
    me, tree, fresh = os.getpid(), [], [pid]
    while fresh:
        tree += fresh
        for each in fresh:
            if each != me:
                send_signal(each, signal.SIGSTOP)
        fresh = [each for each in descendants(snapshot(), pid) if each not in tree]
    for each in reversed(tree):
        send_signal(each, signal.SIGKILL)
