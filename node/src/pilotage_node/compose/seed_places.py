"""Where a seed's files come from: directories, web servers, and a cache; each fetch bounded in size and time."""

import fcntl
import os
import signal
import stat
import time

SECONDS = 60
"""Longest that a fetch may take, and that the cache of another seed is waited for."""
KEPT = 64
"""Files in a cache; the one that was not used for longest makes room."""


class Refused(Exception):
    """Why a place gives nothing, or why what it gives is not taken."""


class Source:
    """A directory, or a base URL.

    :param entry: see ``seed.main``; ``manifest`` is the path of its trusted manifest, or None
    :param trust: anchors (PEM) of the service: it is verified by these alone, others by the node's own as well
    :ivar lost: whether it pays to ask it again
    """

    def __init__(self, entry, trust):
        self.place, self.manifest, self.only = entry["place"], entry["manifest"], entry["service"]
        self.trust, self.connection, self.lost = trust, None, False

    def read(self, path, most):
        """The bytes of a file of at most so many; raises Refused."""
        try:
            data = timed(self.fetch if "://" in self.place else self.load, path, most + 1)
        except (OSError, ValueError) as error:
            raise Refused(str(error))
        if len(data) > most:
            raise Refused("refused: it is larger than %d bytes" % most)
        return data

    def load(self, path, size):
        with open(self.place + path, "rb") as file:
            return file.read(size)

    def fetch(self, path, size):
        # Imported here: a seed that has all at hand is not to pay for it, nor fail for want of it.
        try:
            from http.client import HTTPException
        except ImportError as error:
            self.lost = True
            raise Refused("this Python cannot fetch: %s" % error)
        scheme, _, rest = self.place.partition("://")
        host, _, base = rest.partition("/")
        try:
            if self.connection is None:
                self.connection = self.connect(scheme, host)
            self.connection.request("GET", ("/" + base if base else "") + path)
            answer = self.connection.getresponse()
            data = answer.read(size)
            if answer.length and len(data) < size:
                raise EOFError("%d bytes are missing" % answer.length)
        except (OSError, ValueError, EOFError, HTTPException) as error:
            self.lost = True
            raise Refused(str(error) if isinstance(error, OSError) else "%s: %s" % (type(error).__name__, error))
        if answer.status != 200 or len(data) == size:
            self.connection.close()
        if answer.status != 200:
            raise Refused("HTTP status %d %s" % (answer.status, data[:200].decode("utf-8", "replace")))
        return data

    def connect(self, scheme, host):
        from http.client import HTTPConnection, HTTPSConnection

        if scheme == "http":
            return HTTPConnection(host, timeout=SECONDS)
        import ssl

        context = ssl.create_default_context(cadata="\n".join(self.trust) or None)
        if self.trust:  # as the pilot's courier does, see there
            context.verify_flags = (context.verify_flags | 0x80000) & ~0x20
            if not self.only:
                context.load_default_certs()
        return HTTPSConnection(host, timeout=SECONDS, context=context)


class Cache:
    """Files in a directory that is ours alone, locked while we use it; without such a directory nothing is kept.

    :param place: the directory; None: one below $XDG_CACHE_HOME, $HOME or $TMPDIR
    """

    def __init__(self, place):
        self.directory = self.lock = None
        for path in [place] if place else usual():
            try:
                self.open(path)
                return
            except OSError as error:
                say("the cache %s is not used: %s" % (path, error))
                self.close()

    def open(self, path):
        """Make, check and lock a directory; raises OSError."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        self.directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        state = os.fstat(self.directory)
        if state.st_uid != os.geteuid() or state.st_mode & 0o077:
            text = "it must be our own (uid %d) and closed to others (mode 700), but has uid %d and mode %o"
            raise OSError(text % (os.geteuid(), state.st_uid, stat.S_IMODE(state.st_mode)))
        self.lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=self.directory)
        timed(fcntl.flock, self.lock, fcntl.LOCK_EX)

    def load(self, name):
        """(bytes, when it was saved [Unix seconds]) of a file, or (None, 0)."""
        if self.directory is None:
            return None, 0
        try:
            with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.directory), "rb") as file:
                saved = os.fstat(file.fileno()).st_mtime
                os.utime(file.fileno(), (time.time(), saved))
                return file.read(), saved
        except OSError:
            return None, 0

    def save(self, name, data):
        """Keep a file; where that fails it is only said."""
        if self.directory is None:
            return
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with open(os.open("part", flags, 0o600, dir_fd=self.directory), "wb") as file:
                file.write(data)
            os.rename("part", name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
            self.trim()
        except OSError as error:
            say("not kept in the cache: %s" % error)

    def trim(self):
        names = [name for name in os.listdir(self.directory) if name != "lock"]
        used = {name: os.stat(name, dir_fd=self.directory, follow_symlinks=False).st_atime for name in names}
        for name in sorted(names, key=used.get)[:-KEPT]:
            os.unlink(name, dir_fd=self.directory)

    def close(self):
        """Let others use it."""
        for descriptor in (self.directory, self.lock):
            if descriptor is not None:
                os.close(descriptor)
        self.directory = self.lock = None


def usual():
    """Where a cache may be when nobody says so."""
    for base in (os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME") and os.environ["HOME"] + "/.cache"):
        if base and os.path.isabs(base):
            yield os.path.join(base, "pilotage-seed")
    yield os.path.join(os.environ.get("TMPDIR") or "/tmp", "pilotage-seed-%d" % os.geteuid())


def timed(function, *arguments):
    """What a function gives; TimeoutError when that takes too long. It rings again and again: who connects may take the
    first for a failure of one address, and try the next."""
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)
    try:
        return function(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def ring(*ignored):
    raise TimeoutError("not within %d s" % SECONDS)


def say(text):
    """A line for whoever looks after the machine; what a stranger's server says cannot do more than be read."""
    line = "".join(character if character.isprintable() else "?" for character in text)[:1000]
    try:
        os.write(2, ("seed: %s\n" % line).encode("utf-8", "replace"))
    except OSError:
        pass
