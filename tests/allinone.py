"""The all-in-one as a test uses it: the real `pilotage up` in a process of its own, and a client beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml

from pilotage.testing.processes import PATIENCE, carrying, end, eventually

__all__ = ["PATIENCE", "TERMINAL", "AllInOne", "eventually"]

TERMINAL = ("Done", "Failed", "Killed")


class AllInOne:
    """`pilotage up` on a data directory of the test; started, killed and started again as the test likes."""

    def __init__(self, home: Path, configuration: dict[str, Any] | None = None, *options: str) -> None:
        self.home = home
        self.data = home / "data"
        self.configuration = configuration
        self.options = options
        self.environment = {**os.environ, "PILOTAGE_DATA": str(self.data)}
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> AllInOne:
        """Start the service and wait until it is ready; a second start reuses the port of the first."""
        command = [sys.executable, "-m", "pilotage.cli.main", "up", "--data", str(self.data), "--port", str(self.port)]
        if self.configuration is not None:
            file = self.home / "pilotage.yaml"
            file.write_text(yaml.safe_dump(self.configuration))
            command += ["--config", str(file)]
        (self.data / "client.json").unlink(missing_ok=True)
        with open(self.home / "up.log", "ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.options], env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        eventually(self._ready, f"the service is ready; its log:\n{self.log()}")
        return self

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"`pilotage up` ended:\n{self.log()}"
        try:
            access = json.loads((self.data / "client.json").read_text())
            self.port = httpx.URL(access["url"]).port or 0
            return self.client().get("/readyz").is_success
        except (FileNotFoundError, ValueError, httpx.TransportError):
            return False

    def log(self) -> str:
        """What `pilotage up` printed so far."""
        file = self.home / "up.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def client(self, token: str | None = None) -> httpx.Client:
        """An HTTP client with the administrator's token, or another."""
        access = json.loads((self.data / "client.json").read_text())
        verify: Any = True
        if access.get("ca"):
            import ssl

            verify = ssl.create_default_context(cafile=access["ca"])
        headers = {"Authorization": f"Bearer {token or access['token']}"}
        return httpx.Client(base_url=access["url"], headers=headers, verify=verify, timeout=60)

    def cli(self, *arguments: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a `pilotage` command against this service."""
        command = [sys.executable, "-m", "pilotage.cli.main", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=240, **more)
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}\n{self.log()}"
        return done

    def submit(self, *specs: dict[str, Any]) -> list[int]:
        """Submit jobs by the API; their ids."""
        answer = self.client().post("/jobs", json=list(specs))
        assert answer.status_code < 300, answer.text
        return list(answer.json()["ids"])

    def job(self, identity: int) -> dict[str, Any]:
        return dict(self.client().get(f"/jobs/{identity}").json())

    def wait(
        self, ids: list[int], states: tuple[str, ...] = TERMINAL, patience: float = PATIENCE
    ) -> list[dict[str, Any]]:
        """Wait until each job is in one of `states`; the jobs."""

        def there() -> list[dict[str, Any]]:
            jobs = [self.job(identity) for identity in ids]
            return jobs if all(job["state"] in states for job in jobs) else []

        return eventually(there, f"jobs {ids[:5]} are {states}; the service's log:\n{self.log()[-4000:]}", patience)

    def pilots(self) -> list[dict[str, Any]]:
        return list(self.client().get("/pilots").json()["pilots"])

    def kill(self) -> None:
        """kill -9 of the service alone; pilots live on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Stop the service and end every process that carries this test's data directory."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        end(self.processes())

    def processes(self) -> list[int]:
        """Every live process that names this test's directory in its command line, environment or working directory."""
        return list(carrying(str(self.home)))
