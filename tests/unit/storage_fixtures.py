"""Fixtures for the tests of storage and engines: a plugin of the modules that name it in ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from storage_parts import Clock

from pilotage.storage import Storage


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/pilotage.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def storage(url: str, clock: Clock) -> AsyncIterator[Storage]:
    opened = Storage(url, clock=clock)
    await opened.start()
    yield opened
    await opened.close()
