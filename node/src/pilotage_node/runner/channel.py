"""Messages between the runner and its children: JSON objects in UTF-8, one a line, over a socket pair."""

import json
import os
import select
import time

from pilotage_node import exitcodes
from pilotage_node.command import CommandFailed
from pilotage_node.processes import quietly

FAR = float("inf")
"""A time that never comes."""


def encode(message):
    """One message as the bytes that travel."""
    return json.dumps(message).encode() + b"\n"


class Lines:
    """Puts received bytes together to messages."""

    rest = b""

    def feed(self, data):
        """The messages that ``data`` completes; ValueError when a line is not JSON."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [json.loads(line.decode()) for line in lines]


class Channel:
    """A command's way to the runner: ``self.pilot``.

    profile: the pilot's profile (dict); workdir: the pilot's directory, absolute;
    pid: the runner's pid; started: time.monotonic() of the pilot's start; draining: True once the pilot must leave;
    registration: {"clock_skew": node - service [s], "seconds": round trip [s]}.
    """

    def __init__(self, sock, **known):
        self.__dict__.update(known, sock=sock, draining=False, lines=Lines(), kept=[], calls=0)

    def fileno(self):
        """For select: readable when ``receive`` may have something. Empty ``receive(0)`` first: it may hold some."""
        return self.sock.fileno()

    def send(self, message):
        """Send one message to the runner; EOFError when the runner is gone."""
        try:
            self.sock.sendall(encode(message))
        except OSError:
            raise EOFError("the runner is gone")

    def receive(self, timeout=None, name=None):
        """The next message (that with the id ``name``), None when it did not come within ``timeout`` seconds.

        :raises EOFError: the runner is gone
        """
        end = FAR if timeout is None else time.monotonic() + timeout
        while True:
            for message in self.kept:
                if name in (None, message.get("id")):
                    self.kept.remove(message)
                    return message
            left = None if timeout is None else max(0, end - time.monotonic())
            if not select.select([self.sock], [], [], left)[0]:
                return None
            data = quietly(self.sock.recv, 1 << 18)
            if not data:
                raise EOFError("the runner is gone")
            found = self.lines.feed(data)
            self.draining = self.draining or any(message["op"] == "drain" for message in found)
            self.kept += found

    def call(self, message, timeout=None):
        """Send a message with an id of its own and wait for the answer to it; None when it did not come in time."""
        self.calls += 1
        name = "%d-%d" % (os.getpid(), self.calls)
        self.send(dict(message, id=name))
        return self.receive(timeout, name)

    def record(self):
        """The pilot's record as it is now, and where its log is: {"record": dict, "log": path}."""
        answer = self.call({"op": "record"}, 30)
        if not answer:
            raise CommandFailed(exitcodes.INTERNAL, "the runner did not give the pilot's record")
        return answer
