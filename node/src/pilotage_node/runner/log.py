"""The pilot's log: a capped file beside the script, and what of it the service has not acknowledged yet.

Logging never fails and never blocks the pilot: a full disk costs the file, not the pilot, nor what the service gets.
"""

import os
import re
import time

from pilotage_node.processes import quietly

CHUNK = 256 * 1024
"""Most bytes of log in one message to the service."""
LINE = 4096
"""A longer line is cut here [bytes]."""
RESERVE = 64 * 1024
"""Beyond the cap, so that the runner's own last words are not lost to a command that filled the log [bytes]."""

_secret = re.compile(
    r"(?i)((?:secret|token|password|passwd|authorization)[\"']?\s*[:=]\s*[\"']?(?:bearer )?|eyJ|bearer )[^\s\"',;&]+"
)
"""What is named like a secret, or looks like a token (a JWT begins so)."""


class Log:
    """:param paths: places for the file, the first that can be written is taken; ``path`` says which
    :param cap: most bytes of the whole log
    :param identity: {"secret": never shown}
    """

    def __init__(self, paths, cap, identity):
        self.cap, self.identity = cap, identity
        self.size, self.waiting, self.full, self.file = 0, bytearray(), False, None
        for self.path in paths:
            self.file = quietly(open, self.path, "wb", 0)
            if self.file:
                break

    def clean(self, text):
        """The text without secrets."""
        return _secret.sub(r"\1***", text.replace(self.identity["secret"], "***"))

    def own(self, text):
        """Lines of the runner: they fit in when the log is full already, and are seen on standard output too."""
        quietly(os.write, 1, self.add("pilot", text.encode("utf-8", "replace").splitlines(), RESERVE))

    def add(self, name, lines, reserve=0):
        """Lines that a command printed (bytes); gives what was written."""
        if self.full and not reserve:
            return b""
        head = "%s %s: " % (time.strftime("%FT%TZ", time.gmtime()), name)
        text = ""
        for line in lines:
            cut = b" [the line is cut here]" if len(line) > LINE else b""
            text += head + self.clean((line[:LINE] + cut).decode("utf-8", "replace")) + "\n"
        data = text.encode()
        if self.size + len(data) > self.cap + reserve:
            if not self.full:
                self.full = True
                self.own("the log is cut here: it has reached its %d MiB" % (self.cap >> 20))
            return b""
        self.size += len(data)
        self.waiting += data
        if self.file:
            quietly(self.file.write, data)
        return data

    def chunk(self, most):
        """What the service should get next: {"offset": bytes, "text": str}, or None when it has all."""
        text = self.waiting[:most].decode("utf-8", "ignore")  # what is ignored is half a character at the end
        return {"offset": self.size - len(self.waiting), "text": text} if text else None

    def acknowledged(self, offset):
        """The service has the first ``offset`` bytes."""
        del self.waiting[: max(0, offset - self.size + len(self.waiting))]
