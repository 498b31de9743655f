"""A channel over a real socket pair, for commands that are driven without a runner."""

import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from pilotage_node import facts
from pilotage_node.runner.channel import Channel


@pytest.fixture
def pair(tmp_path):
    """The command's channel and the runner's end."""
    ours, theirs = socket.socketpair()
    known = {
        "profile": {"service": {"urls": ["https://service.example:8443"]}},
        "workdir": str(tmp_path),
        "pid": os.getpid(),
        "started": time.monotonic(),
        "registration": {"clock_skew": 0.2, "seconds": 0.015},
    }
    yield Channel(ours, **known), Channel(theirs)
    ours.close()
    theirs.close()


def ready(kind, channel, **changed):
    """A command as the runner makes it: options complete, facts of this very machine."""
    command = kind()
    values = {name: option.default for name, option in kind.options.items()}
    assert set(changed) <= set(values)
    command.options = SimpleNamespace(**dict(values, **changed))
    limits = {"cores": None, "memory_mib": None, "disk_mib": None, "gpus": None, "wall_seconds": None}
    command.facts = SimpleNamespace(node=facts.gather_node({"limits": limits}, channel.workdir))
    command.pilot = channel
    return command


def answer_calls(runner, answers):
    """Play the runner in a thread until the command's end closes: answers by op, the rest is kept."""
    seen = []

    def serve():
        while True:
            try:
                message = runner.receive(30)
            except (EOFError, OSError):
                return
            if message is None:
                return
            seen.append(message)
            if message["op"] in answers:
                answer = answers[message["op"]](message)
                if answer is not None:
                    runner.send(dict(answer, id=message["id"]))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return seen, thread


def finished(channel, thread):
    channel.sock.shutdown(socket.SHUT_WR)
    thread.join(30)
    assert not thread.is_alive()
