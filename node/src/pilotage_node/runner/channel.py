"""Messages between the runner and its children: JSON objects in UTF-8, one a line, over a socket pair."""

import json
import select
import time

_encode = json.JSONEncoder(separators=(",", ":")).encode
AGES = 1e6
"""A time-out that stands for none [s]."""


def encode(message):
    """One message as the bytes that travel."""
    return _encode(message).encode() + b"\n"


class Lines:
    """Puts received bytes together to messages."""

    def __init__(self):
        self.parts = []

    def feed(self, data):
        """The messages that ``data`` completes; ValueError when a line is not JSON."""
        whole = data.split(b"\n")
        self.parts.append(whole.pop())
        if whole:
            whole[0] = b"".join(self.parts[:-1]) + whole[0]
            del self.parts[:-1]
        return [json.loads(line.decode()) for line in whole if line]


class Channel:
    """A command's way to the runner: ``self.pilot``.

    profile: the pilot's profile (dict); workdir: the pilot's directory, absolute; service_urls: list;
    pid: the runner's pid; started: time.monotonic() of the pilot's start; draining: True once the pilot must leave;
    registration: {"reached": bool, "clock_skew": node - service [s] or None, "seconds": round trip [s]}.
    """

    def __init__(self, sock, **known):
        self.__dict__.update(known)
        self.draining = False
        self.sock, self.lines = sock, Lines()
        self.kept = []
        self.calls = 0

    def fileno(self):
        """For select: readable when ``receive`` may have something. Empty ``receive(0)`` first: it may hold some."""
        return self.sock.fileno()

    def send(self, message):
        """Send one message to the runner; EOFError when the runner is gone."""
        try:
            self.sock.sendall(encode(message))
        except OSError:
            raise EOFError("the runner is gone")

    def receive(self, timeout=None):
        """The next message, or None when none came within ``timeout`` seconds; EOFError when the runner is gone."""
        return self.kept.pop(0) if self.kept or self._wait(timeout) else None

    def call(self, message, timeout=None):
        """Send a message with an id of its own and wait for the answer to it; None when it did not come in time."""
        self.calls += 1
        name = "call-%d" % self.calls
        self.send(dict(message, id=name))
        end = time.monotonic() + (AGES if timeout is None else timeout)
        while True:
            for message in self.kept:
                if message.get("id") == name:
                    self.kept.remove(message)
                    return message
            if not self._wait(max(0, end - time.monotonic())):
                return None

    def _wait(self, timeout):
        """Wait until messages came in and keep them; False when the time is over."""
        end = time.monotonic() + (AGES if timeout is None else timeout)
        found = []
        while not found:
            if not select.select([self.sock], [], [], max(0, end - time.monotonic()))[0]:
                return False
            try:
                data = self.sock.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                raise EOFError("the runner is gone")
            found = self.lines.feed(data)
        self.draining = self.draining or any(message["op"] == "drain" for message in found)
        self.kept += found
        return True
