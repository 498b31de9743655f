"""Files to and from the service: streamed, checked by SHA-256, repeated until they arrive or it makes no sense.

Imported with the first transfer, so that the pilot's start need not pay for it.
"""

import hashlib
import os
import queue
import threading
import time
from urllib.parse import quote

from pilotage_node import protocol
from pilotage_node.courier.service import BLOCK, Line, Unreached, pieces
from pilotage_node.processes import quietly

THREADS = 4
RETRY_SECONDS = 300
"""For how long an unreachable or overloaded service is tried again."""
LONGEST_PAUSE = 30
CACHE_BYTES = 1 << 30
"""A cache is kept below this by dropping what was fetched first."""


class Failed(Exception):
    """A transfer that another attempt would not help."""


class Transfers:
    """The queue of transfers and its threads, started as they are needed.

    :param answer: called with every finished transfer's message, from any thread
    """

    def __init__(self, service, answer):
        self.service, self.answer = service, answer
        self.waiting, self.threads = queue.Queue(), 0
        self.locks = {}  # of the cached files: one fetches, the others wait for it

    def add(self, message):
        """Queue one get, put or upload."""
        self.waiting.put(message)
        if self.threads < THREADS:
            self.threads += 1
            threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        """A thread: one transfer after the other on one connection."""
        line = Line(self.service)
        while True:
            message = self.waiting.get()
            answer = dict.fromkeys(("error", "size", "sha256"), None)
            try:
                answer["size"], answer["sha256"] = self.persist(line, message)
            except Exception as error:
                line.close()
                answer["error"] = "%s: %s" % (os.path.basename(message["path"]), error)
            self.answer(dict(answer, op="transferred", id=message["id"]))

    def persist(self, line, message):
        """Attempt a transfer, with growing pauses, until it succeeds, fails for good, or the time is over."""
        attempt = put if message["op"] != "get" else self.get_cached if message.get("cache") else get
        end, pause = time.monotonic() + RETRY_SECONDS, 0.5
        while True:
            try:
                return attempt(line, message)
            except Unreached as error:
                # The pauses of many couriers must not fall together when a service comes back.
                wait = max(pause * (0.5 + os.urandom(1)[0] / 256), error.wait)
                if time.monotonic() + wait > end:
                    raise
            time.sleep(wait)
            pause = min(pause * 2, LONGEST_PAUSE)

    def get_cached(self, line, message):
        """Take a file from the cache, fetched into it first where it is not there."""
        cached = os.path.join(message["cache"], message["sha256"])
        with self.locks.setdefault(cached, threading.Lock()):
            if not os.path.exists(cached):
                get(line, dict(message, path=cached))
                trim(message["cache"], cached)
        try:
            with open(cached, "rb") as file:
                return save(iter(lambda: file.read(BLOCK), b""), message)
        except (Failed, FileNotFoundError):
            # Jobs may run under the same user: what one of them has altered or removed is fetched afresh.
            quietly(os.unlink, cached)
            return get(line, message)


def trim(directory, kept):
    """Keep a cache small: drop what is oldest."""
    files = [(entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(directory)]
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total > CACHE_BYTES and path != kept and not path.endswith(".part"):
            total -= size
            quietly(os.unlink, path)


def request(line, *words):
    """The body of an answer of status 200 or 201; Unreached where it pays to come again, else Failed."""
    line.open(*words)
    if line.status in (200, 201):
        return line.blocks()
    text = "the service refused it (%d): %s" % (line.status, line.document().get("error"))
    line.close()
    if line.status < 500 and line.status not in (408, 429):
        raise Failed(text)
    raise Unreached(text, line.number("retry-after"))


def get(line, message):
    """Fetch a file: (size, sha256)."""
    return save(request(line, "GET", protocol.FILES + message["sha256"], message["token"]), message)


def save(blocks, message):
    """Write blocks to a file that appears under its name only when it is whole and right: (size, sha256)."""
    part, size, digest = message["path"] + ".part", 0, hashlib.sha256()
    try:
        with open(part, "wb") as file:
            for block in blocks:
                digest.update(block)
                size += file.write(block)
        if digest.hexdigest() != message["sha256"]:
            raise Failed("it is not what was asked for: sha256 " + digest.hexdigest())
        os.replace(part, message["path"])
    finally:
        quietly(os.unlink, part)
    return size, message["sha256"]


def put(line, message):
    """Send a file, as it is now: (size, sha256)."""
    with open(message["path"], "rb") as file:
        digest, size = hashlib.sha256(), os.fstat(file.fileno()).st_size
        for block in pieces(file, size):
            digest.update(block)
        where, token = protocol.FILES + digest.hexdigest(), message.get("token")
        if message["op"] == "upload":
            where, token = protocol.OUTPUT + quote(message["name"], ""), line.service.token
        for _ in request(line, "PUT", where, token, file, size):
            pass
    return size, digest.hexdigest()
