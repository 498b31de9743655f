"""A pilot's runner in a process of its own, with a courier that plays the service; run by ``runner_pilot``.

Usage: runner_process.py DIR [pilot arguments]. DIR holds scenario.json, commands.py and perhaps service.py; the pilot
script would be in the current directory. It must run under every Python that pilots run under.
"""

import json
import os
import sys
from types import SimpleNamespace

from pilotage_node.runner import channel, start


class Script:
    def __init__(self, profile):
        self.profile, self.digest, self.path = profile, "d" * 64, os.path.abspath("pilot")

    def text_of(self, section):
        return "the text of " + section


def accept(message):
    """A service that takes everything and has no jobs."""
    body = message["body"]
    if message["op"] == "register":
        return 200, {
            "stamp": body["stamp"],
            "token": "t",
            "sync_seconds": 60,
            "time": 1.0,
            "lease_seconds": 120,
            "log_offset": 0,
            "sequence": 0,
        }
    text = body["log"] or {"offset": 0, "text": ""}
    return 200, {
        "hold": body["held"],
        "granted": [],
        "acknowledged": [report["id"] for report in body["reports"]],
        "log_offset": text["offset"] + len(text["text"].encode()),
        "orders": [],
        "again_seconds": 60,
    }


def courier_of(directory):
    """A courier that notes every message in wire.jsonl, and answers as service.py says, else by ``accept``."""

    def courier(sock, profile, credentials):
        try:
            from service import answer
        except ImportError:
            answer = None
        lines = channel.Lines()
        path = os.path.join(directory, "wire.jsonl")
        while True:
            data = sock.recv(65536)
            if not data:
                return
            for message in lines.feed(data):
                with open(path, "a+") as wire:
                    wire.seek(0)
                    before = [json.loads(line) for line in wire]
                    wire.write(json.dumps(message) + "\n")
                found = answer and answer(message, before)
                if found == "silence":
                    continue
                if message["op"] in ("get", "put", "upload"):
                    reply = {"op": "transferred", "id": message["id"], "error": None, "size": 3, "sha256": "s"}
                else:
                    found = found or accept(message)
                    reply = {"op": "answer", "status": found[0], "body": found[1], "seconds": 0.001}
                    reply["retry_after"] = found[1].get("retry_after", 0)
                sock.sendall(channel.encode(reply))

    return courier


def main(directory, words):
    sys.path.insert(0, directory)
    sys.dont_write_bytecode = True
    with open(os.path.join(directory, "scenario.json")) as file:
        scenario = json.load(file)
    sys.modules["pilotage_node.courier"] = SimpleNamespace(main=courier_of(directory))
    sys.exit(start.start(Script(scenario["profile"]), words, **scenario["changed"]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
