"""What jobs leave: safe names, what an output pattern matches, how much is there, removal; stdout and stderr."""

import os
import stat

from pilotage_node.processes import quietly
from pilotage_node.protocol import INLINE

HALF = (INLINE - 64) // 2


def checked(name):
    """The name, when it stays inside a job's directory. The service checks it too; a pilot trusts nobody.

    :raises ValueError: it leads out
    """
    if not isinstance(name, str) or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("it leads out: %.200r" % name)
    return name


def tree(directory):
    """(path, lstat) of all in a directory that is not a directory. Links are never followed."""
    for top, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(top, name)
            status = quietly(os.lstat, path)
            if status:
                yield path, status


def disk_use(directory):
    """Bytes on disk below a directory."""
    return sum(status.st_blocks for _, status in tree(directory)) * 512


def fits(name, glob):
    """``*``, ``?`` and ``[a-z]`` stay within a directory; in a pattern with ``**/`` they cross any number of them."""
    from fnmatch import fnmatchcase

    if "**/" in glob:
        return fnmatchcase(name, glob) or fnmatchcase(name, glob.replace("**/", ""))
    return name.count("/") == glob.count("/") and fnmatchcase(name, glob)


def matches(directory, globs):
    """The regular files that the patterns match, as [(path, name)], and the patterns that match nothing."""
    found, idle = {}, set(globs)
    for path, status in tree(directory):
        name = path[len(directory) + 1 :]
        hits = [glob for glob in globs if stat.S_ISREG(status.st_mode) and fits(name, glob)]
        if hits:
            found[path] = os.fsencode(name).decode("utf-8", "replace")
            idle.difference_update(hits)
    return sorted(found.items()), sorted(idle)


class Stream:
    """What a job writes to stdout or stderr: read from a pipe, never more than its cap on disk.

    A pipe and not a file, because a file that a job writes can only be cut after it has grown, and a limit on file size
    (RLIMIT_FSIZE) would hold for all its other files too. What is beyond the cap is read and dropped, so that the job
    goes on; the beginning and the end are always kept. Pipes cost no more than files (measured).
    ``writer`` is the end of the pipe that the job gets.

    :param name: ``stdout`` or ``stderr``
    :param path: where to keep it once it is longer than INLINE bytes
    :param cap: how much of it is kept there [bytes]
    """

    def __init__(self, name, path, cap):
        self.name, self.path, self.cap = name, path, cap
        self.size, self.head, self.tail, self.file = 0, b"", b"", None
        self.fd, self.writer = os.pipe()
        os.set_blocking(self.fd, False)

    def feed(self):
        """Take what is there; False when there will be no more."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return True
        if self.size + len(data) > INLINE and self.size < self.cap:
            try:
                if not self.file:
                    self.file = open(self.path, "wb", 0)
                    self.file.write(self.head)
                self.file.write(data[: self.cap - self.size])
            except OSError:  # a full disk ends the keeping, not the job
                self.cap = 0
        self.head += data[: INLINE - len(self.head)]
        self.tail = (self.tail + data)[-HALF:]
        self.size += len(data)
        return bool(data)

    def close(self):
        """Take what is left and close. Bounded: something that still writes must not hold us up."""
        for _ in range(32):
            if not self.feed():
                break
        os.close(self.fd)
        if self.file:
            self.file.close()

    def text(self):
        """At most INLINE bytes of UTF-8: all of it, or its start and end; what is not text is told as ``?``."""
        data = self.head
        if self.size > INLINE:
            data = data[:HALF] + b"\n[%d bytes left out]\n" % (self.size - 2 * HALF) + self.tail
        return data.decode("utf-8", "replace").replace("\ufffd", "?").replace("\0", "?")
