"""What the kernel is asked: through prctl, of the process tree as /proc shows it, of signals, ends, and files.

Some kernels have no /proc/PID/task/TID/children, so descendants are found by reading every /proc/PID/stat: about 15 us
a process. Callers that repeat it pace themselves.
"""

import _ctypes
import os
import signal

TICKS = float(os.sysconf("SC_CLK_TCK"))
PAGE = os.sysconf("SC_PAGE_SIZE")
FIGURES = ("cpu_user", "cpu_system", "read_mib", "write_mib")


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
        fields = tail.split()
        self.pid, self.state = int(head.split()[0]), fields[0].decode()
        self.ppid, _, self.session = map(int, fields[1:4])
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


def family(pid):
    """The process ``pid`` and all its descendants: [Process]."""
    everything = snapshot()
    return [everything[each] for each in [pid] + descendants(everything, pid) if each in everything]


def cpu_of(processes):
    """User and system CPU time of processes and of their children that ended and were waited for [s]."""
    user = sum(process.cpu_user + process.reaped_user for process in processes)
    return user, sum(process.cpu_system + process.reaped_system for process in processes)


def usage_of(*counted):
    """What the kernel counted (rusage structures, max_rss: the largest): CPU [s], memory and I/O [MiB]."""
    usage = {"max_rss_mib": max([one.ru_maxrss for one in counted], default=0) >> 10}
    for name, field, unit in zip(FIGURES, ("utime", "stime", "inblock", "oublock"), (1, 1, 2048, 2048)):
        usage[name] = round(sum(getattr(one, "ru_" + field) for one in counted) / unit, 4)
    return usage


def quietly(function, *arguments):
    """Call a system function; an error of the system is of no consequence: None."""
    try:
        return function(*arguments)
    except OSError:
        return None


def remove_tree(path):
    """Remove a directory, also what a job closed to us; what resists is left. Links are not followed."""
    quietly(os.chmod, path, 0o700)
    for entry in list(quietly(os.scandir, path) or ()):
        if entry.is_dir(follow_symlinks=False):
            remove_tree(entry.path)
        else:
            quietly(os.unlink, entry.path)
    quietly(os.rmdir, path)


def listen(*numbers):
    """From now on these signals are bytes in a pipe: its descriptor."""
    wakeup, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in numbers:
        signal.signal(number, lambda *ignored: None)
    return wakeup


def ended():
    """Every child that ended by now, strays that became ours among them: (pid, wait status, resource usage)."""
    found = quietly(os.wait4, -1, os.WNOHANG)
    while found and found[0]:
        yield found
        found = quietly(os.wait4, -1, os.WNOHANG)


def kill_tree(pid):
    """Kill ``pid`` and all its descendants. First all are stopped, until the tree no longer grows: nothing forks
    away between look and blow. ``pid`` comes last, as it may be the caller.
    """
    me, tree, fresh = os.getpid(), [], [pid]
    while fresh:
        tree += fresh
        for each in fresh:
            if each != me:
                quietly(os.kill, each, signal.SIGSTOP)
        fresh = [each for each in descendants(snapshot(), pid) if each not in tree]
    for each in reversed(tree):
        quietly(os.kill, each, signal.SIGKILL)
