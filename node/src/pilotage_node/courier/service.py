"""HTTP to the service: verified TLS, kept-alive connections, true reasons when it is not reached."""

import http.client
import json
import socket
import ssl
import time
from urllib.parse import urlsplit

from pilotage_node import __version__, protocol

CONNECT_SECONDS = 10
ANSWER_SECONDS = 60
"""Longest wait for the next bytes of an answer."""
ANSWER_BYTES = 16 << 20
BLOCK = 1 << 20

FAILURES = (OSError, http.client.HTTPException, ValueError)
"""What a connection can raise; before Python 3.7 a certificate for another host is a ValueError."""


class Unreached(Exception):
    """No address of the service gave an answer, or none that can be used; the text says why."""


class Service:
    """Where the service is, whom to trust, and the pilot's token: what all connections of a courier share.

    :param trust: pinned anchors (PEM texts), any of which will do; none: the system's store
    """

    def __init__(self, urls, trust):
        self.urls = [urlsplit(url) for url in urls]
        self.token = self.context = None
        if any(url.scheme == "https" for url in self.urls):
            # Python loads the system's store only where no anchor is given: it costs as much as the rest of the start.
            self.context = ssl.create_default_context(cadata="\n".join(trust) if trust else None)
            if trust:
                # What is pinned is trusted, be it a root or not (X509_V_FLAG_PARTIAL_CHAIN), and as strictly by every
                # Python: 3.13 alone asks for more extensions (X509_V_FLAG_X509_STRICT). From openssl/x509_vfy.h.
                self.context.verify_flags = (self.context.verify_flags | 0x80000) & ~0x20


class Line:
    """One kept-alive connection, for one thread. ``sent``: monotonic time at which the last request was sent."""

    def __init__(self, service):
        self.service = service
        self.http = self.url = self.sent = None

    def post(self, path, body, token):
        """Send JSON, one attempt at every address: {"status", "body", "seconds", "retry_after"}.

        Status 0 when there was no proper answer; its body is {"error": why}.
        """
        try:
            response = self.open("POST", path, token, json.dumps(body).encode())
            text = b"".join(self.blocks(response, ANSWER_BYTES + 1))
            body, seconds = self.parse(response, text), time.monotonic() - self.sent
        except Unreached as error:
            return {"status": 0, "body": {"error": str(error)}}
        return {"status": response.status, "body": body, "seconds": seconds, "retry_after": pause_of(response)}

    def parse(self, response, text):
        """The JSON object of an answer; an error that is not JSON gets the words that there are."""
        if len(text) > ANSWER_BYTES:
            raise Unreached("the answer is larger than %d MiB" % (ANSWER_BYTES >> 20))
        try:
            answer = json.loads(text.decode())
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            if response.status < 300:
                raise Unreached("the answer is not a JSON object: is this a Pilotage service?")
            return {"error": "%d %s %s" % (response.status, response.reason, text[:200].decode("utf-8", "replace"))}
        return answer

    def open(self, method, path, token, body=b"", size=None):
        """Send a request, at the first address that answers; the response's body is still to be read.

        :param body: bytes, or a file of which ``size`` bytes are sent
        :raises Unreached: there was no answer
        """
        headers = {protocol.VERSION_HEADER: protocol.VERSION, "User-Agent": "pilotage/" + __version__}
        if method != "GET":
            headers["Content-Length"] = len(body) if size is None else size
        if token:
            headers["Authorization"] = "Bearer " + token
        causes = []
        for url in self.service.urls:
            try:
                response = self.attempt(url, method, url.path.rstrip("/") + path, headers, body, size)
                # It answered: it is asked first from now on.
                self.service.urls = sorted(self.service.urls, key=lambda other: other is not url)
                return response
            except FAILURES as error:
                causes.append("%s: %s" % (url.netloc.rpartition("@")[2], self.failed(error)))
        raise Unreached("; ".join(causes) or "the profile names no address of the service")

    def attempt(self, url, *request):
        """One request to one address. A kept connection may be dead by now: then once more on a fresh one."""
        if self.url is url and self.http and self.http.sock:
            try:
                return self.transmit(*request)
            except socket.timeout:
                raise
            except FAILURES:
                pass
        self.close()
        kind, more = http.client.HTTPConnection, {}
        if url.scheme == "https":
            kind, more = http.client.HTTPSConnection, {"context": self.service.context}
        self.http = kind(url.hostname, url.port, timeout=CONNECT_SECONDS, **more)
        self.http.connect()
        self.http.sock.settimeout(ANSWER_SECONDS)
        self.url = url
        return self.transmit(*request)

    def transmit(self, method, path, headers, body, size):
        """Send the request on the open connection; the response, its body not yet read."""
        self.sent = time.monotonic()
        self.http.putrequest(method, path)
        for name in headers:
            self.http.putheader(name, str(headers[name]))
        self.http.endheaders(body if size is None else None)
        if size is not None:
            body.seek(0)
            try:
                for block in pieces(body, size):
                    self.http.send(block)
            except (BrokenPipeError, ConnectionResetError):
                self.url = None  # refused before all was sent: the answer, if it comes through, says why
        return self.http.getresponse()

    def blocks(self, response, most=1 << 60):
        """The body of a response in blocks, ``most`` bytes of it; raises Unreached when it breaks off."""
        try:
            while most > 0:
                block = response.read(min(BLOCK, most))
                if not block and response.length:
                    raise http.client.IncompleteRead(b"", response.length)
                if not block:
                    return
                most -= len(block)
                yield block
        except FAILURES as error:
            raise Unreached(self.failed(error))
        self.close()

    def failed(self, error):
        """Give the connection up; why it failed, in words that tell an administrator where to look."""
        self.close()
        if isinstance(error, ssl.CertificateError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return "certificate not trusted: %s" % (getattr(error, "verify_message", "") or error)
        for kind, words in CAUSES:
            if isinstance(error, kind):
                return words
        return getattr(error, "strerror", None) or "%s: %s" % (type(error).__name__, error)

    def close(self):
        if self.http:
            self.http.close()
        self.http = None


def pieces(file, size):
    """Exactly so many bytes of a file, in blocks, from where it stands."""
    while size:
        block = file.read(min(BLOCK, size))
        if not block:
            raise EOFError("the file %s became shorter while it was read" % file.name)
        yield block
        size -= len(block)


def pause_of(response):
    """Seconds after which the service asks to come again; 0 where it does not say."""
    wait = response.getheader("Retry-After") or ""
    return int(wait) if wait.isdigit() else 0


CAUSES = (
    (socket.timeout, "timed out"),
    (socket.gaierror, "name not found"),
    (ConnectionRefusedError, "connection refused"),
    ((ConnectionError, http.client.IncompleteRead), "connection lost"),
    (http.client.BadStatusLine, "the answer is not HTTP"),
)
