"""Fixtures for the tests of the command line: a plugin of the modules that name it in ``pytest_plugins``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.answers import Answers

from pilotage.cli.access import Access
from pilotage.cli.client import Client


@pytest.fixture
def answers() -> Iterator[Answers]:
    service = Answers()
    yield service
    service.server.shutdown()
    service.server.server_close()


@pytest.fixture
def client(answers: Answers) -> Iterator[Client]:
    with Client(Access(answers.url, "pt_test")) as one:
        yield one
