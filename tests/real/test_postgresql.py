"""Storage and engine on a real PostgreSQL: the very tests that run on SQLite (tests/unit)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from postgresql import Cluster, cluster, programs
from test_engine import *  # noqa: F403
from test_engine_faults import *  # noqa: F403
from test_storage import *  # noqa: F403
from test_storage_configurations import *  # noqa: F403
from test_storage_pilots import *  # noqa: F403
from test_storage_records import *  # noqa: F403
from test_storage_schema import *  # noqa: F403

pytest_plugins = ["storage_fixtures"]


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    where = programs()
    if where is None:
        pytest.skip("PostgreSQL is not installed")
    with cluster(where) as running:
        yield running


@pytest.fixture
def url(server: Cluster) -> str:
    return server.url()
