"""`pilotage up` in a directory of its own, started as a user would and ended with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import trees

CONFIGURATION = """
sites:
  LOCAL:
    resources:
      local:
        type: local
        flavour: LOCAL
        slots: {slots}
        queues:
          default: {{cores: {cores}, wall_seconds: 86400}}
"""
"""One local resource; ``slots`` is how many pilots it takes, ``cores`` how many each has."""

PATIENCE = 300.0
"""How long anything may take before the benchmark gives up [s]; nothing is measured by it."""


class Service:
    """A running all-in-one: where its data is and how it is spoken to."""

    def __init__(self, process: subprocess.Popen[bytes], data: Path, log: Path) -> None:
        self.process, self.data, self.log = process, data, log
        self.url = self.token = ""
        self.context: ssl.SSLContext | None = None

    def wait_until_ready(self, pause: float = 0.02) -> None:
        """Until it has said where it is, and answers."""
        file = self.data / "client.json"
        for _ in self.patiently(pause):
            if file.exists():
                access = json.loads(file.read_text())
                self.url, self.token = access["url"], access["token"]
                if access.get("ca"):
                    self.context = ssl.create_default_context(cafile=access["ca"])
                with contextlib.suppress(urllib.error.URLError):
                    self.ask("GET", "/readyz")
                    return

    def patiently(self, pause: float) -> Iterator[None]:
        """Again and again, with a pause between, until the service ends or patience does."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"pilotage up ended with {self.process.returncode}: {self.words()}")
            yield
            time.sleep(pause)
        raise RuntimeError(f"not within {PATIENCE:.0f} s; pilotage up said: {self.words()}")

    def words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request; the answer's JSON, or its text where it is not JSON. Raises urllib.error.HTTPError."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=120, context=self.context) as answer:
            text = answer.read().decode()
        try:
            return json.loads(text)
        except ValueError:
            return text

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database itself says."""
        file = self.data / "pilotage.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()


@contextlib.contextmanager
def all_in_one(slots: int = 1, cores: int = 2, tls: bool = False, ready: bool = True) -> Iterator[Service]:
    """Start `pilotage up`; at the end it drains, and whatever is left is killed."""
    trees.set_subreaper()
    with tempfile.TemporaryDirectory(prefix="pilotage-bench-") as directory:
        home = Path(directory)
        configuration = home / "configuration.yaml"
        configuration.write_text(CONFIGURATION.format(slots=slots, cores=cores))
        data, log = home / "data", home / "up.log"
        command = [
            sys.executable,
            "-m",
            "pilotage.cli.main",
            "--data",
            data,
            "up",
            "--config",
            configuration,
            "--port",
            "0",
        ]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--tls"] if tls else command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={"PATH": os.environ["PATH"], "HOME": directory},
            )
        service = Service(process, data, log)
        try:
            if ready:
                service.wait_until_ready()
            yield service
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            trees.kill_below()
