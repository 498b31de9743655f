"""What the fault tests share: an all-in-one with short clocks, behind a faulty proxy where a test wants one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.allinone import AllInOne, eventually
from tests.faults.proxy import FaultyProxy

QUICK = {"lease_seconds": 6, "token_seconds": 4, "sync_seconds": 1}
"""The service's clocks, shortened so that outages of several leases take seconds."""


def configuration(url: str | None = None, **run_job_agent: Any) -> dict[str, Any]:
    """The embedded defaults with short clocks; `url` is what pilots are told to call."""
    service: dict[str, Any] = dict(QUICK)
    if url:
        service["url"] = url
    options = {"RunJobAgent": {"idle_seconds": 3, **run_job_agent}, "RunEnvironmentTest": {"min_disk_mib": 64}}
    return {"service": service, "vos": {"demo": {"pilot": {"options": options}}}}


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    faulty = FaultyProxy()
    yield faulty
    faulty.close()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., AllInOne]]:
    """A function that starts an all-in-one; at the end it is stopped and no process of it may be left."""
    started: list[AllInOne] = []

    def start(settings: dict[str, Any] | None = None, proxy: FaultyProxy | None = None) -> AllInOne:
        one = AllInOne(tmp_path, settings or configuration(proxy.url if proxy else None))
        started.append(one.start())
        if proxy:
            proxy.target = one.port
        return one

    yield start
    for one in started:
        one.stop()
        eventually(lambda one=one: not one.processes(), "no process of the test is left", 30)


def counting(file: Path, *, seconds: float = 0) -> list[str]:
    """A payload that leaves one line in `file` each time it is started, then works for `seconds`."""
    return ["/bin/sh", "-c", f"echo started >> {file}; sleep {seconds}; echo finished"]


def starts(file: Path) -> int:
    """How often the counting payload was started."""
    return len(file.read_text().splitlines()) if file.exists() else 0


def end_states(job: dict[str, Any]) -> list[str]:
    """The terminal states in a job's events: exactly one, whatever happened."""
    return [event["what"] for event in job["events"] if event["what"] in ("Done", "Failed", "Killed")]
