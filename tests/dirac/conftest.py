"""The real DIRAC server of these tests, one version after the other; skipped where its environments are not built."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.dirac import settings
from tests.dirac.server import VERSIONS, Environments, Server, started

from pilotage.testing import FakeNode, FakeService, PilotResult, RunningPilot, start_pilot

BUILD = Path(os.environ.get("PILOTAGE_DIRAC_BUILD") or Path(__file__).parents[2] / "build/dirac")
ASKED = os.environ.get("PILOTAGE_DIRAC", "").split()
"""The versions that were asked for, as 8 or 9: their environments are built where they are not."""


@pytest.fixture(scope="module", params=ASKED or list(VERSIONS))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    environments = Environments(VERSIONS[request.param], BUILD)
    if environments.missing():
        if not ASKED:
            pytest.skip(f"DIRAC {environments.version} is not built; `make test-dirac` builds it")
        environments.make()
    place = Path(tempfile.mkdtemp(prefix="dirac-"))
    try:
        running = started(environments.version, BUILD, place)
        yield running
        running.stop()
    finally:
        shutil.rmtree(place, ignore_errors=True)


Start = Callable[..., RunningPilot]


@pytest.fixture
def service() -> Iterator[FakeService]:
    found = FakeService()
    yield found
    found.close()


@pytest.fixture
def start(server: Server, service: FakeService, tmp_path: Path) -> Iterator[Start]:
    """Start a pilot for the server: `start("CREAM", {"RunJobAgent": {...}}, wall=600)`; the rest is configured."""
    pilots = []
    script = tmp_path / "environment.sh"
    script.write_text(f"export PATH={server.environments.client}/bin:$PATH\n")

    def make(
        flavour: str = "LOCAL", options: dict[str, Any] | None = None, wall: int = 3600, **more: Any
    ) -> RunningPilot:
        proxy = tmp_path / "proxy"
        if not proxy.exists():
            server.proxy(proxy)
        node = FakeNode(tmp_path / f"node-{len(pilots)}", cores=1, memory_mib=2048, wall_seconds=wall)
        pilot = start_pilot(
            configuration(server, flavour, script, proxy, options or {}, wall),
            node=node,
            service=service,
            vo=settings.VO,
            resource=settings.CE,
            queue=settings.QUEUE,
            **more,
        )
        pilots.append(pilot)
        return pilot

    yield make
    for pilot in pilots:
        pilot.close()


def configuration(
    server: Server, flavour: str, script: Path, proxy: Path, options: dict[str, Any], wall: int
) -> dict[str, Any]:
    """As an operator would write it: a VO whose jobs are in DIRAC, and the site as DIRAC knows it."""
    all_options: dict[str, dict[str, Any]] = {
        "InstallDIRAC": {"preinstalled_environment": str(script)},
        "ConfigureDIRAC": {
            "configuration_servers": [settings.SERVER],
            "setup": settings.SETUP if server.version.startswith("8.") else "",
            "environment": str(script),
            "proxy": str(proxy),
            "ca_directory": str(server.pki / "certificates"),
        },
        "RunJobAgent": {"idle_seconds": 3},
    }
    for command, changed in options.items():
        all_options.setdefault(command, {}).update(changed)
    queues = {settings.QUEUE: {"wall_seconds": wall}}
    resource = {"type": "local", "flavour": flavour, "queues": queues}
    return {
        "vos": {settings.VO: {"engine": "dirac", "pilot": {"options": all_options}}},
        "sites": {settings.SITE: {"resources": {settings.CE: resource}}},
        "service": {"url": "http://192.0.2.1:1"},
    }


def told(result: PilotResult) -> list[tuple[str, str]]:
    """The DIRAC jobs in a pilot's record: (number, state)."""
    return [(job["job"].replace("DIRAC ", ""), job["state"]) for job in result.record["jobs"]]
