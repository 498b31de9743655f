"""Programs that a pilot starts and does not trust: each in a session of its own, with a time limit that always holds.

A program that hangs in the kernel (a dead network file system) cannot be killed. It is left behind, as nothing waits
for its end but this module, and this module not for longer than the limit.
"""

import os
import signal
import subprocess
import time

from pilotage_node.processes import quietly

KEPT = 1 << 16
"""Bytes of output, the last ones, that are kept."""
TELLING = ("error", "fatal", "no such", "cannot", "can't", "not found", "denied", "failed", "no space", "refused")
LIMITED = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "MAMBA_EXTRACT_THREADS",
    "MAMBA_DOWNLOAD_THREADS",
    "CMAKE_BUILD_PARALLEL_LEVEL",
)
"""By these installers learn how many threads they may start; without, they take all the node's cores."""
DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PILOTAGE_HIDE", "LD_PRELOAD")


class Failed(Exception):
    """Something could not be done: the text says what and why."""


def environment(more=(), cores=None):
    """The pilot's environment without what would lead another Python astray; :param more: a dict that is added."""
    made = {name: os.environ[name] for name in os.environ if name not in DROPPED}
    if cores:
        made.update(dict.fromkeys(LIMITED, str(cores)), MAKEFLAGS="-j%d" % cores)
    made.update(more or {})
    return made


def run(words, seconds, more=(), directory=None, cores=None):
    """Run a program: what it printed, standard output and errors together (its last part).

    :param words: the program and its arguments
    :param seconds: its time limit
    :param more: dict, added to the environment
    :raises Failed: it cannot be started, did not end in time, or its exit status is not 0
    """
    status, text = attempt(words, seconds, more, directory, cores)
    if status:
        raise Failed("%s: %s" % (outcome(words, status), telling(text) or "it printed nothing"))
    return text


def attempt(words, seconds, more=(), directory=None, cores=None):
    """The same: (exit status, text). :raises Failed: it cannot be started, or did not end in time"""
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(more, cores),
            cwd=directory,
            start_new_session=True,
        )
    except OSError as error:
        raise Failed("%s cannot be started: %s" % (words[0], error))
    try:
        text = output_of(child, seconds)
    except BaseException:
        quietly(os.killpg, child.pid, signal.SIGKILL)
        raise
    return child.returncode, text


def output_of(child, seconds):
    """What a child prints until it has ended.

    Its output is looked at, not waited for to its end: a grandchild that lives on holds it open.
    """
    end, data, pause = time.monotonic() + seconds, b"", 0.005
    descriptor = child.stdout.fileno()
    os.set_blocking(descriptor, False)
    while True:
        ended = child.poll() is not None
        for _ in range(64):  # more only after a look at the clock
            part = quietly(os.read, descriptor, KEPT)
            if not part:
                break
            data = (data + part)[-KEPT:]
        if ended:
            child.stdout.close()
            return data.decode("utf-8", "replace")
        if time.monotonic() > end:
            text = telling(data.decode("utf-8", "replace"))
            raise Failed("it did not end within %g s%s" % (seconds, text and "; its last words: " + text))
        time.sleep(pause)
        pause = min(0.1, pause * 1.5)


def outcome(words, status):
    name = os.path.basename(words[0])
    return "%s was ended by signal %d" % (name, -status) if status < 0 else "%s ended with status %d" % (name, status)


def telling(text):
    """The lines of a program's output that say what was wrong: the last few that name an error, else the last two."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if any(word in line.lower() for word in TELLING)]
    return " | ".join(line[:300] for line in errors[-3:] or lines[-2:])
