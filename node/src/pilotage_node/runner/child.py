"""Children of the runner: forked processes, each with a socket for messages and a pipe for what it prints."""

import os
import signal
import socket
import sys
import time

from pilotage_node import processes
from pilotage_node.processes import quietly
from pilotage_node.runner.channel import FAR, Lines, encode
from pilotage_node.runner.log import LINE

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""Signals by which a batch system, a person or a terminal tells the pilot to leave."""
TAIL = 20
"""Last printed lines of a command that its report carries."""


class Child:
    """One child, seen from the runner.

    stage: 0 it runs, 1 it is told to end (SIGTERM), 2 it is killed; ``limit_at``: when the next comes, ``why``: reason;
    result: its last message; ``unsent``: bytes that wait for room in the socket; sources: its socket and its output,
    until they are at their end.

    :param function: called in the child with its socket; its value is the exit status
    :param entry: of a command, in the profile; None: the courier, which ignores HANDLED, as it is needed to the end
    """

    stage, limit_at, unsent, rest, ended = 0, FAR, b"", b"", False
    why = result = None

    def __init__(self, name, function, entry):
        self.name, self.entry, self.started, self.lines, self.tail = name, entry, time.monotonic(), Lines(), []
        ours, theirs = socket.socketpair()
        self.sock = ours.detach()
        self.output, writer = os.pipe()
        self.sources = {self.sock, self.output}
        parent = os.getpid()
        self.pid = os.fork()
        if not self.pid:
            become(parent, name, function, theirs, writer, not entry)
        theirs.close()
        os.close(writer)
        for source in self.sources:
            os.set_blocking(source, False)

    def send(self, message=None):
        """Queue a message, if any, and send what can be sent now."""
        self.unsent += encode(message) if message else b""
        try:
            self.unsent = self.unsent[os.write(self.sock, self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # it is gone; what that means is told when it is reaped
            self.unsent = b""

    def read(self, source):
        """What can be read now; None when there is nothing, b"" at the end, when the source is no longer looked at."""
        data = quietly(os.read, source, 1 << 18)
        if data == b"":
            self.sources.discard(source)
        return data

    def received(self):
        """Messages that came in."""
        return self.lines.feed(self.read(self.sock) or b"")

    def printed(self):
        """Whole lines printed since the last call (bytes); of long ones no more than the log shows."""
        data = self.read(self.output)
        if data == b"" and self.rest:
            data = b"\n"
        *lines, rest = (self.rest + (data or b"")).split(b"\n")
        self.rest = rest[: LINE + 1]
        self.tail = (self.tail + lines)[-TAIL:]
        return lines

    def limit(self, at, why):
        """It must have ended by then, unless it must sooner anyhow."""
        if not self.stage and at < self.limit_at:
            self.limit_at, self.why = at, why


def become(parent, name, function, sock, output, courier):
    """In the new process: a session of its own, nothing to read, one pipe to print to; never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            signal.signal(number, signal.SIG_IGN if courier else signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        processes.set_parent_death_signal(signal.SIGKILL if courier else signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(status)
        processes.set_subreaper()
        processes.set_name(name)
        for descriptor in map(int, os.listdir("/proc/self/fd")):  # what is the runner's stays the runner's
            if descriptor not in (sock.fileno(), output):
                quietly(os.close, descriptor)
        os.open(os.devnull, os.O_RDONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        sys.stdout = sys.stderr = open(1, "w", 1, "utf-8", "backslashreplace", closefd=False)
        status = function(sock) or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
        finally:
            if os.getppid() != parent:  # the runner is dead: nobody else ends what was started here
                processes.kill_tree(os.getpid())
            os._exit(status)
