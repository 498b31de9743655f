"""Processes of this node: what the kernel is asked through prctl, and the process tree as /proc shows it.

Some kernels have no /proc/PID/task/TID/children, so descendants are found by reading every /proc/PID/stat: about 15 us
a process. Callers that repeat it pace themselves.
"""

import os
import signal

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 4, 15, 36
"""From <linux/prctl.h>; see prctl(2)."""

TICKS = float(os.sysconf("SC_CLK_TCK"))
PAGE = os.sysconf("SC_PAGE_SIZE")

_libc = None


def prctl(option, value):
    """Call prctl(2); False where the kernel refused or does not know the option."""
    global _libc
    import ctypes

    if _libc is None:
        _libc = ctypes.CDLL(None)
    number = ctypes.c_ulong
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else number(value)
    return _libc.prctl(option, argument, number(0), number(0), number(0)) == 0


def set_subreaper():
    """Orphaned descendants become children of this process, not of init (not inherited by its children)."""
    return prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_undumpable():
    """No ptrace, no core, no reading of this process's memory by others of the same user (inherited until exec)."""
    return prctl(PR_SET_DUMPABLE, 0)


def set_parent_death_signal(number):
    """This process gets the signal when its parent dies; check getppid() afterwards, it may have died before."""
    return prctl(PR_SET_PDEATHSIG, number)


def set_name(name):
    """The name that ps and top show, cut at 15 bytes."""
    return prctl(PR_SET_NAME, name.encode()[:15])


class Process:
    """One process; CPU times in seconds (``reaped_``: of its children that ended and were waited for), rss in bytes."""

    def __init__(self, text):
        """:param text: content of /proc/PID/stat, bytes (format: proc(5)); the name may hold any character"""
        begin, end = text.index(b"("), text.rindex(b")")
        fields = text[end + 2 :].split()
        self.pid = int(text[:begin])
        self.name = text[begin + 1 : end].decode("utf-8", "replace")
        self.state = fields[0].decode()
        self.ppid, self.pgid, self.session = int(fields[1]), int(fields[2]), int(fields[3])
        self.cpu_user, self.cpu_system = int(fields[11]) / TICKS, int(fields[12]) / TICKS
        self.reaped_user, self.reaped_system = int(fields[13]) / TICKS, int(fields[14]) / TICKS
        self.start_ticks = int(fields[19])
        self.rss = int(fields[21]) * PAGE


def read(pid, proc="/proc"):
    """The process of that number, or None when there is none."""
    try:
        descriptor = os.open("%s/%s/stat" % (proc, pid), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Process(os.read(descriptor, 4096))
        finally:
            os.close(descriptor)
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


def kill_tree(pid, number=signal.SIGKILL):
    """Signal ``pid`` and all its descendants.

    Before SIGKILL the tree is stopped until it no longer grows, so that nothing forks away between look and blow.
    """
    done = set()
    while True:
        tree = [pid] + [child for child in descendants(snapshot(), pid) if child != os.getpid()]
        fresh = [each for each in tree if each not in done]
        for each in fresh:
            if each != os.getpid():
                send_signal(each, signal.SIGSTOP if number == signal.SIGKILL else number)
        done.update(fresh)
        if number != signal.SIGKILL or not fresh:
            break
    if number == signal.SIGKILL:
        for each in sorted(done, key=lambda one: one == os.getpid()):
            send_signal(each, number)
