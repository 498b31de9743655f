"""The object store on S3 (moto's server, over HTTP): the very tests that run on a local directory (tests/unit)."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from test_storage_objects import *  # noqa: F403

from pilotage.storage.objects import Objects

KEYS = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


NUMBERS = itertools.count()


@pytest.fixture
def objects(endpoint: str) -> Objects:
    bucket = f"bucket{next(NUMBERS)}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )
    client.create_bucket(Bucket=bucket)
    return Objects(f"s3://{bucket}/some/prefix", {"endpoint": endpoint, "allow_http": True, **KEYS})
