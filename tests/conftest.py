"""For all tests: what may be skipped on a laptop is a failure in CI, where every real component must be there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# No test depends on speed: this machine may be busy.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell without job control starts what it puts in the background so; pilots would inherit it and keep to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")


def _refuse_skip(report: Any) -> None:
    """Turn a skip into a failure that says what was skipped; expected failures (xfail) are left alone."""
    if not IN_CI or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"in CI nothing is skipped: {reason.removeprefix('Skipped: ')}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(autouse=True)
def _own_service_only(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test ever speaks to the service of the person who runs it."""
    for name in ("PILOTAGE_URL", "PILOTAGE_TOKEN", "PILOTAGE_CA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PILOTAGE_DATA", str(tmp_path_factory.getbasetemp() / "no-service"))
