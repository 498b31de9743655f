"""Files to and from the service: streamed, checked by SHA-256, repeated until they arrive or it makes no sense.

Imported with the first transfer, so that the pilot's start need not pay for it.
"""

import hashlib
import os
import threading
import time
from urllib.parse import quote

from pilotage_node import protocol
from pilotage_node.courier.service import BLOCK, Line, Unreached, pause_of, pieces

THREADS = 4
RETRY_SECONDS = 300
"""For how long an unreachable or overloaded service is tried again."""
LONGEST_PAUSE = 30
CACHE_BYTES = 1 << 30
"""A cache is kept below this by dropping what was fetched first."""


class Failed(Exception):
    """A transfer that another attempt would not help; the text is the answer's error."""


class Again(Unreached):
    """The service answered that it cannot serve now: (text, seconds that it asks for)."""


class Transfers:
    """The queue of transfers and its threads, started as they are needed.

    :param answer: called with every finished transfer's message, from any thread
    """

    def __init__(self, service, answer):
        self.service, self.answer = service, answer
        self.waiting, self.fetching = [], {}
        self.threads = self.idle = 0
        self.changed = threading.Condition()

    def add(self, message):
        """Queue one get, put or upload."""
        with self.changed:
            self.waiting.append(message)
            if self.idle < len(self.waiting) and self.threads < THREADS:
                self.threads += 1
                threading.Thread(target=self.work, daemon=True).start()
            self.changed.notify()

    def work(self):
        """A thread: one transfer after the other on one connection."""
        line = Line(self.service)
        while True:
            with self.changed:
                while not self.waiting:
                    self.idle += 1
                    self.changed.wait()
                    self.idle -= 1
                message = self.waiting.pop(0)
            if message["op"] != "get":
                self.carry_out(message, put, line, message)
            elif message.get("cache") and message["sha256"].isalnum():
                self.get_shared(line, message)
            else:
                self.carry_out(message, get, line, message, message["path"])

    def carry_out(self, message, function, *arguments):
        """Do one transfer to its end and tell; True when it succeeded."""
        answer = {"op": "transferred", "id": message["id"], "error": None, "size": None, "sha256": None}
        try:
            answer["size"], answer["sha256"] = function(*arguments)
        except Exception as error:
            words = "%s: %s" % (getattr(error, "filename", None) or message["path"], getattr(error, "strerror", error))
            answer["error"] = str(error) if isinstance(error, Failed) else words
        self.answer(answer)
        return answer["error"] is None

    def get_shared(self, line, message):
        """A get by way of the cache: who asks for what is being fetched waits for it, without holding a thread."""
        cached = os.path.join(message["cache"], message["sha256"])
        with self.changed:
            if cached in self.fetching:
                self.fetching[cached].append(message)
                return
            self.fetching[cached] = []
        good = self.carry_out(message, get_cached, line, message, cached)
        with self.changed:
            others = self.fetching.pop(cached)
            if not good:
                # Their tokens may be good where this one was not: each tries for itself.
                self.waiting.extend(others)
                self.changed.notify(len(others))
                return
        for other in others:
            self.carry_out(other, get_cached, line, other, cached)


def get_cached(line, message, cached):
    """Take a file from the cache, or fetch it into the cache first: (size, sha256)."""
    try:
        if not os.path.exists(cached):
            get(line, message, cached)
            trim(message["cache"], cached)
        with open(cached, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return save(pieces(file, size), message["path"], message["sha256"])
    except (Failed, FileNotFoundError):
        # Jobs may run under the same user: what one of them has altered or removed is fetched afresh.
        if not remove(cached):
            raise
        return get(line, message, message["path"])


def trim(directory, kept):
    """Keep a cache small: drop what is oldest."""
    files = [entry for entry in os.scandir(directory) if not entry.name.endswith(".part")]
    files = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in files)
    total = sum(size for _, size, _ in files)
    for _, size, path in files:
        if total > CACHE_BYTES and path != kept:
            total -= size
            remove(path)


def remove(path):
    """Unlink what may not be there; True when it was."""
    try:
        os.unlink(path)
        return True
    except OSError:
        return False


def get(line, message, path):
    """Fetch a file: (size, sha256)."""
    where = protocol.FILES + quote(message["sha256"], "")

    def attempt():
        return save(line.blocks(request(line, "GET", where, message["token"])), path, message["sha256"])

    return persist(attempt)


def persist(attempt):
    """Repeat an attempt with growing pauses until it succeeds, fails for good, or the time is over."""
    end, pause = time.monotonic() + RETRY_SECONDS, 0.25
    while True:
        try:
            return attempt()
        except Unreached as error:
            # The pauses of many couriers must not fall together when a service comes back.
            pause = min(pause * 2, LONGEST_PAUSE)
            wait = max(pause * (0.5 + os.urandom(1)[0] / 256), *error.args[1:], 0)
            if time.monotonic() + wait > end:
                raise Failed(error.args[0])
            time.sleep(wait)


def request(line, *words):
    """Line.open for transfers: a response of status 200 or 201; Unreached where it pays to come again, else Failed."""
    response = line.open(*words)
    if response.status in (200, 201):
        return response
    answer = {"error": "a redirection, which is not followed"}
    if response.status >= 400:
        answer = line.parse(response, b"".join(line.blocks(response, BLOCK)))
    line.close()
    text = "the service refused it (%d): %s" % (response.status, answer.get("error"))
    if response.status < 500 and response.status not in (408, 429):
        raise Failed(text)
    raise Again(text, pause_of(response))


def save(blocks, path, sha256):
    """Write blocks to a file that appears under its name only when it is whole and right: (size, sha256)."""
    part, size, digest = path + ".part", 0, hashlib.sha256()
    try:
        with open(part, "wb") as file:
            for block in blocks:
                digest.update(block)
                file.write(block)
                size += len(block)
        if digest.hexdigest() != sha256:
            raise Failed("the file is not what was asked for: sha256 %s, not %s" % (digest.hexdigest(), sha256))
        os.replace(part, path)
    except BaseException:
        remove(part)
        raise
    return size, sha256


def put(line, message):
    """Send a file, as it is now: (size, sha256)."""
    with open(message["path"], "rb") as file:
        digest, size = hashlib.sha256(), os.fstat(file.fileno()).st_size
        for block in pieces(file, size):
            digest.update(block)

        def attempt():
            where, token = protocol.FILES + digest.hexdigest(), message.get("token")
            if message["op"] == "upload":
                where, token = protocol.OUTPUT + quote(message["name"], ""), line.service.token
            for _ in line.blocks(request(line, "PUT", where, token, file, size)):
                pass
            return size, digest.hexdigest()

        return persist(attempt)
