"""The courier: the one process of a pilot that speaks HTTP and the only one that knows the pilot's token.

It takes JSON lines from the runner on a socket pair and answers on it. It remembers nothing but the token: the runner
can start another one at any time. TLS is imported here and nowhere else.
"""

import json
import os

# What `threading` would wrap: at the pilot's start nothing may cost an import that is not needed yet.
from _thread import allocate_lock

from pilotage_node import protocol


def main(sock, profile, credentials):
    """Serve the runner until it is gone: requests at once and one by one, transfers beside them in threads.

    :param sock: connected stream socket, JSON lines both ways
    :param profile: the pilot's profile; ``service.urls`` and ``service.trust`` (PEM texts) are used
    :param credentials: {"stamp", "secret"}
    """
    from pilotage_node.courier.service import Line, Service

    where = profile["service"]
    service, lock, transfers = Service(where["urls"], where.get("trust") or ()), allocate_lock(), None
    line = Line(service)

    def send(message):
        with lock:
            try:
                sock.sendall(json.dumps(message).encode() + b"\n")
            except OSError:  # without a runner there is no reason to be here
                os._exit(0)

    for text in sock.makefile("rb"):
        message = json.loads(text.decode())
        if message["op"] in ("register", "sync"):
            send(ask(line, service, message, credentials))
            continue
        if transfers is None:
            from pilotage_node.courier.transfers import Transfers

            transfers = Transfers(service, send)
        transfers.add(message)


def ask(line, service, message, credentials):
    """The answer to register or sync, without the token that it may bring: that stays here."""
    path, body, token = protocol.SYNC, message["body"], service.token
    if message["op"] == "register":
        path, body, token = protocol.REGISTER, dict(credentials, **body), None
    answer = line.post(path, body, token)
    service.token = answer["body"].pop("token", None) or service.token
    return dict(dict(message, op="answer"), **answer)
