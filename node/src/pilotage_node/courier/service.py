"""HTTP/1.1 (RFC 9112) to the service: verified TLS, kept-alive connections, true reasons when it is not reached.

The standard library's http.client is not used: with the mail parser that it brings it costs a quarter of a pilot's
start, and what one known service needs of HTTP is a page.
"""

import io
import json
import socket
import time

from pilotage_node import protocol

CONNECT_SECONDS = 10
ANSWER_SECONDS = 60
"""Longest wait for the next bytes of an answer."""
BLOCK = 1 << 20

FAILURES = (OSError, ValueError, EOFError, LookupError)
"""What a connection can raise; before Python 3.7 a certificate for another host is a ValueError."""


class Unreached(Exception):
    """No address of the service gave an answer that can be used; ``wait``: come again after so many seconds."""

    def __init__(self, why, wait=0):
        Exception.__init__(self, why)
        self.wait = wait


class Service:
    """Where the service is, whom to trust, and the pilot's token: what all connections of a courier share.

    :param trust: pinned anchors (PEM texts), any of which will do; none: the system's store
    """

    def __init__(self, urls, trust=()):
        self.urls, self.token = urls, None
        if not any(url.startswith("https:") for url in urls):
            return
        import ssl

        # Python loads the system's store only where no anchor is given: it costs as much as the rest of the start.
        self.context = ssl.create_default_context(cadata="\n".join(trust) or None)
        if trust:
            # What is pinned is trusted, be it a root or not (X509_V_FLAG_PARTIAL_CHAIN), and as strictly by every
            # Python: 3.13 alone asks for more extensions (X509_V_FLAG_X509_STRICT). From openssl/x509_vfy.h.
            self.context.verify_flags = (self.context.verify_flags | 0x80000) & ~0x20


class Line:
    """One kept-alive connection, for one thread. ``sent``: monotonic time at which the last request was sent; of its
    answer ``status``, and ``headers`` by their names in lower case.
    """

    def __init__(self, service):
        self.service, self.sock, self.sent = service, None, 0.0

    def post(self, path, body, token):
        """Send JSON, one attempt at every address: {"status", "body", "seconds", "retry_after"}.

        Status 0 when there was no proper answer; its body is {"error": why}.
        """
        status = wait = 0
        try:
            self.open("POST", path, token, json.dumps(body).encode())
            body, status, wait = self.document(), self.status, self.number("retry-after")
        except Unreached as error:
            body = {"error": str(error)}
        return {"status": status, "body": body, "seconds": time.monotonic() - self.sent, "retry_after": wait}

    def number(self, name):
        """A header of the answer that is a number; 0 where it is not there, or a date."""
        value = self.headers.get(name, "")
        return int(value) if value.isdigit() else 0

    def document(self):
        """The JSON object that the answer brings; an error that is not JSON gets the words that there are."""
        text = b"".join(self.blocks()).decode("utf-8", "replace")
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError):
            if self.status < 300:
                raise Unreached("the answer is not a JSON object: is this a Pilotage service?")
            return {"error": "%d %s" % (self.status, text[:200])}

    def open(self, method, path, token, body=b"", size=None):
        """Send a request, to the first address that answers; the answer's body is still to be read.

        :param body: bytes, or a file of which ``size`` bytes are sent
        :raises Unreached: there was no answer
        """
        if size is None:
            body, size = io.BytesIO(body), len(body)
        causes = []
        # A kept connection may be dead by now: its failure is no cause.
        for url in [None] * bool(self.sock) + self.service.urls:
            try:
                if url:
                    self.connect(url)
                self.exchange(method, path, token, body, size)
                return
            except FAILURES as error:
                self.close()
                causes += ["%s: %s" % (url, error)] * bool(url)
        raise Unreached("; ".join(causes))

    def connect(self, url):
        scheme, _, place = url.rstrip("/").partition("://")
        self.host = place.partition("/")[0]
        self.base = place[len(self.host) :]
        host, port = self.host, {"https": 443, "http": 80}[scheme]
        if host.rpartition(":")[2].isdigit():
            host, _, port = host.rpartition(":")
        host = host.strip("[]")
        self.sock = socket.create_connection((host, port), CONNECT_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if scheme == "https":
            self.sock = self.service.context.wrap_socket(self.sock, server_hostname=host)
        self.sock.settimeout(ANSWER_SECONDS)
        self.file = self.sock.makefile("rb")

    def exchange(self, method, path, token, body, size):
        """Send the request on the open connection, and take the head of the answer."""
        head = "%s %s%s HTTP/1.1\r\nHost: %s\r\n" % (method, self.base, path, self.host)
        head += "Content-Length: %d\r\n%s: %d\r\n" % (size, protocol.VERSION_HEADER, protocol.VERSION)
        if token:
            head += "Authorization: Bearer %s\r\n" % token
        self.sent = time.monotonic()
        body.seek(0)
        try:
            self.sock.sendall(head.encode() + b"\r\n")
            for block in pieces(body, size):
                self.sock.sendall(block)
        except OSError:
            pass  # refused before all was sent: the answer, if it comes through, says why
        first, *fields = iter(self.text_line, "")
        if not first.startswith("HTTP/1."):
            raise ValueError("the answer is not HTTP")
        self.status = int(first[9:12])
        pairs = (field.partition(":")[::2] for field in fields)
        self.headers = {name.lower(): value.strip() for name, value in pairs}

    def text_line(self):
        text = self.file.readline(1 << 16)
        if not text:
            raise EOFError("connection lost")
        return text.decode("latin-1").rstrip("\r\n")

    def blocks(self):
        """The body of the answer in blocks; raises Unreached when it breaks off."""
        try:
            if self.headers.get("transfer-encoding", "").lower() != "chunked":
                yield from pieces(self.file, self.number("content-length"))
                return
            size = 1
            while size:
                size = int(self.text_line().partition(";")[0], 16)
                yield from pieces(self.file, size)
                while self.text_line():  # the end of the chunk; after the last one, fields that nobody needs
                    pass
        except FAILURES as error:
            self.close()
            raise Unreached("the answer broke off: %s" % error)

    def close(self):
        """Give the connection up."""
        if self.sock:
            self.sock.close()
        self.sock = self.file = None


def pieces(file, size):
    """Exactly so many bytes of a file or connection, in blocks, from where it stands."""
    while size:
        block = file.read(min(BLOCK, size))
        if not block:
            raise EOFError("%d bytes are missing" % size)
        yield block
        size -= len(block)
