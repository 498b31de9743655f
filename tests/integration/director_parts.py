"""For the directors' tests: real storage, real processes on the local resource; an sh script stands in for the pilot.

Run as a program it is one director process, which dies by kill -9 at a step: `director_parts.py DATA STEP [YAML]`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pilotage import resources
from pilotage.configuration import Configuration, loads
from pilotage.configuration.live import Live
from pilotage.directors.run import Directors, run_directors
from pilotage.engines.builtin import BuiltinEngine
from pilotage.resources import local
from pilotage.resources.base import Bundle, ResourceError
from pilotage.resources.local import LocalResource
from pilotage.storage import Storage
from pilotage.storage.objects import Objects
from pilotage_node.protocol import VERSION

CONFIGURATION = """\
directors: {interval_seconds: 0.1, lost_seconds: 0.5, failed_seconds: 3600, call_seconds: 30}
sites:
  HERE:
    resources:
      one: {type: local, flavour: LOCAL, slots: 3, queues: {q: {cores: 1}}}
"""

SCRIPT = """\
echo "$$" >>../starts
trap 'echo told to leave; exit 50' TERM
while test ! -e end; do sleep 0.02; done
echo out; echo "my last words" >&2
exit $(cat end)
"""
"""Counts its starts, waits for the file `end` in its directory, exits with the status in it; 50 when told to leave."""


class Stand(LocalResource):
    """The local resource, with our script for the pilot's."""

    async def submit(self, bundles: Sequence[Bundle]) -> dict[str, str | ResourceError]:
        return await super().submit([dataclasses.replace(bundle, script=SCRIPT) for bundle in bundles])


def use_stand() -> None:
    """From now on resources of type `local` are `Stand`."""
    resources.make = lambda name, settings, data: Stand(data / "local" / name, settings.slots, kill_seconds=0.5)


class House:
    """Storage, engine and directors on a directory."""

    def __init__(self, data: Path, text: str = CONFIGURATION) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.data = data
        self.live = Live(loads(text, "test.yaml"))
        self.storage = Storage(f"sqlite:///{data}/db.sqlite", Objects(str(data / "objects")))
        self.engine = BuiltinEngine(self.storage, b"k" * 32)
        self.directors: Directors | None = None

    @property
    def configuration(self) -> Configuration:
        """The one that counts."""
        return self.live.current

    async def open(self) -> House:
        await self.storage.start()
        await self.engine.start()
        return self

    async def start(self, after: Callable[[str], None] = lambda step: None) -> None:
        urls = ["http://127.0.0.1:1"]
        self.directors = await run_directors(self.storage, self.engine, self.live, self.data, urls, after=after)

    async def stop(self) -> None:
        if self.directors is not None:
            await self.directors.stop()
            self.directors = None

    async def close(self) -> None:
        await self.stop()
        await self.storage.close()

    async def submit(self, count: int, **spec: Any) -> None:
        await self.engine.submit("demo", "ann", [{"command": ["true"], **spec}] * count)
        if self.directors is not None:
            self.directors.wake()

    async def register(self, stamp: str) -> dict[str, Any]:
        """What the pilot would do first."""
        credentials = (self.place(stamp) / "credentials.json").read_text()
        secret = json.loads(credentials)["secret"]
        request = {"protocol": VERSION, "stamp": stamp, "secret": secret, "nonce": "n", "node": {"cores": 1}}
        return await self.engine.register(request)

    def place(self, stamp: str, resource: str = "one") -> Path:
        return self.data / "local" / resource / stamp

    def starts(self, resource: str = "one") -> int:
        """How many pilots have ever been started."""
        file = self.data / "local" / resource / "starts"
        return len(file.read_text().splitlines()) if file.exists() else 0


class _Dying(subprocess.Popen):
    """The director dies when all files of a pilot are there, before its launcher is started."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class _Leaving(subprocess.Popen):
    """The director dies when the launcher was started, before it can know."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)


async def _die(data: Path, step: str, text: str = CONFIGURATION) -> None:
    def after(done: str) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    if step in ("written", "forked"):
        local.subprocess.Popen = _Dying if step == "written" else _Leaving  # type: ignore[misc, assignment]
    house = await House(data, text).open()
    await house.start(after)
    await asyncio.sleep(60)
    sys.exit(f"the step {step} never came")


if __name__ == "__main__":
    use_stand()
    asyncio.run(_die(Path(sys.argv[1]), *sys.argv[2:]))
