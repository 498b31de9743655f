"""Children of the runner: forked processes, each with a socket for messages and a pipe for what it prints."""

import os
import signal
import socket
import sys
import time

from pilotage_node import processes
from pilotage_node.runner.channel import Lines, encode
from pilotage_node.runner.log import LINE, quietly

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""Signals by which a batch system, a person or a terminal tells the pilot to leave."""
TAIL = 20
"""Last printed lines of a command that its report carries."""
RUNNING, STOPPING, KILLED = 0, 1, 2


class Child:
    """One child, seen from the runner.

    :param function: called in the child with its socket; its value is the exit status
    :param release: called in the child: lets go of what is the runner's
    :param signals: what the child does with HANDLED, SIG_DFL or SIG_IGN
    """

    def __init__(self, name, function, release, death_signal, signals):
        self.name = name
        self.started = time.monotonic()
        self.lines, self.unsent, self.tail = Lines(), b"", []
        self.rest, self.skipping = b"", False
        self.traits = self.result = self.why = self.limit_at = None
        self.stage, self.begun, self.ended = RUNNING, False, False
        self.sock, theirs = socket.socketpair()
        self.output, writer = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if not self.pid:
            become(parent, self, (release, self.close), lambda: function(theirs), writer, death_signal, signals)
        theirs.close()
        os.close(writer)
        self.sock.setblocking(False)
        os.set_blocking(self.output, False)

    def send(self, message):
        """Queue a message, if any, and send what can be sent now; what is left is ``unsent``."""
        try:
            self.unsent += encode(message) if message else b""
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # it is gone; what that means is told when it is reaped
            self.unsent = b""

    def received(self):
        """Messages that came in; None when the child closed its end."""
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        return self.lines.feed(data) if data else None

    def printed(self):
        """Whole lines printed since the last call (bytes), long ones cut; None when there will be no more."""
        try:
            data = os.read(self.output, 1 << 16)
        except OSError:
            return []
        lines = (self.rest + (data or b"\n" * bool(self.rest))).split(b"\n")
        self.rest = lines.pop()
        if self.skipping and lines:  # the end of a line that was cut before
            del lines[0]
            self.skipping = False
        if len(self.rest) > LINE and not self.skipping:
            lines.append(self.rest)
            self.skipping = True
        if self.skipping:
            self.rest = b""
        self.tail = (self.tail + lines)[-TAIL:]
        return lines if data or lines else None

    def limit(self, at, why):
        """It must have ended by then, unless it must sooner anyhow."""
        if self.stage == RUNNING and (self.limit_at is None or at < self.limit_at):
            self.limit_at, self.why = at, why

    def escalate(self, patience):
        """Its time is over: SIGTERM to its group, later SIGKILL to its whole tree, later it is given up (False)."""
        self.stage += 1
        self.limit_at = time.monotonic() + patience
        if self.stage == STOPPING:
            quietly(os.killpg, self.pid, signal.SIGTERM)
        else:
            processes.kill_tree(self.pid)
        return self.stage <= KILLED

    def close(self):
        self.sock.close()
        os.close(self.output)


def become(parent, child, prepare, function, writer, death_signal, signals):
    """In the new process: a session of its own, nothing to read, one pipe to print to; never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            signal.signal(number, signals)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        processes.set_parent_death_signal(death_signal)
        if os.getppid() != parent:
            os._exit(status)
        processes.set_subreaper()
        processes.set_name(child.name)
        for step in prepare:
            step()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (writer, 1), (writer, 2)):
            os.dup2(source, target)
        os.close(null)
        os.close(writer)
        sys.stdout = sys.stderr = open(1, "w", 1, "utf-8", "backslashreplace", closefd=False)
        status = function() or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    quietly(sys.stdout.flush)
    if os.getppid() != parent:  # the runner is dead: nobody else ends what was started here
        processes.kill_tree(os.getpid())
    if status == 128 + signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    os._exit(status)
