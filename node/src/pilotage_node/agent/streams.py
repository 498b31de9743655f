"""What a job writes to stdout and stderr: read from a pipe, never more than its cap on disk.

A pipe and not a file, because a file that a job writes can only be cut after it has grown, and a limit on file size
(RLIMIT_FSIZE) would hold for all its other files too. What is beyond the cap is read and dropped, so that the job goes
on; the beginning and the end are always kept. Pipes cost no more than files (measured).
"""

import os

from pilotage_node.protocol import INLINE

HALF = (INLINE - 64) // 2


class Stream:
    """One output of a job.

    :param name: ``stdout`` or ``stderr``
    :param path: where to keep it once it is longer than INLINE bytes
    :param cap: how much of it is kept there [bytes]
    """

    def __init__(self, name, fd, path, cap):
        self.name, self.fd, self.path, self.cap = name, fd, path, cap
        self.size, self.head, self.tail, self.file = 0, b"", b"", None
        os.set_blocking(fd, False)

    def feed(self):
        """Take what is there: the number of bytes, 0 at the end, None when there is nothing now."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return None
        if self.size + len(data) > INLINE and self.size < self.cap:
            try:
                if self.file is None:
                    self.file = open(self.path, "wb", 0)
                    self.file.write(self.head)
                self.file.write(data[: self.cap - self.size])
            except OSError:  # a full disk ends the keeping, not the job
                self.cap = 0
        self.head += data[: INLINE - len(self.head)]
        self.tail = (self.tail + data)[-HALF:]
        self.size += len(data)
        return len(data)

    def close(self):
        """Take what is left and close. Bounded: something that still writes must not hold us up."""
        if self.fd is not None:
            for _ in range(32):
                if not self.feed():
                    break
            os.close(self.fd)
            self.fd = None
        if self.file:
            self.file.close()

    def text(self):
        """At most INLINE bytes of UTF-8: all of it, or its start and end."""
        if not self.size:
            return ""
        data = self.head
        if self.size > INLINE:
            data = data[:HALF] + b"\n[%d bytes left out]\n" % (self.size - 2 * HALF) + self.tail
        data = data.decode("utf-8", "replace").replace("\0", "\ufffd").encode()  # no database takes NUL
        if len(data) > INLINE:
            data = data[:HALF] + b"\n[...]\n" + data[-HALF:]
        return data.decode("utf-8", "ignore")
