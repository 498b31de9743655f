"""The pytest plugin of Pilotage: fixtures for the tests of toolboxes. Found by pytest once Pilotage is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pilotage.testing import CommandResult, FakeNode, FakeService, PilotResult


@pytest.fixture
def fake_node(tmp_path: Path) -> FakeNode:
    """A worker node made up for this test (see ``pilotage.testing.FakeNode``); change its facts and files at will."""
    from pilotage.testing import FakeNode

    return FakeNode(tmp_path / "node")


@pytest.fixture
def fake_service() -> Iterator[FakeService]:
    """A service on loopback that keeps what pilots tell it (see ``pilotage.testing.FakeService``)."""
    from pilotage.testing import FakeService

    service = FakeService()
    yield service
    service.close()


@pytest.fixture
def run_command(fake_node: FakeNode, fake_service: FakeService) -> Callable[..., CommandResult]:
    """``pilotage.testing.run_command`` on this test's ``fake_node`` and ``fake_service``."""
    from pilotage import testing

    def run(source: Any, name: str | None = None, **more: Any) -> CommandResult:
        return testing.run_command(source, name, **{"node": fake_node, "service": fake_service, **more})

    return run


@pytest.fixture
def run_pilot(fake_node: FakeNode, fake_service: FakeService) -> Callable[..., PilotResult]:
    """``pilotage.testing.run_pilot`` on this test's ``fake_node`` and ``fake_service``."""
    from pilotage import testing

    def run(configuration: Any = None, **more: Any) -> PilotResult:
        return testing.run_pilot(configuration, **{"node": fake_node, "service": fake_service, **more})

    return run
