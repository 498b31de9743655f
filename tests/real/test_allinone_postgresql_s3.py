"""`pilotage up` on a real PostgreSQL and an S3 server, by configuration alone: nothing of the data is on this disk."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from moto.server import ThreadedMotoServer
from tests.allinone import AllInOne, eventually

sys.path.insert(0, str(Path(__file__).parent))

from postgresql import cluster, programs

BUCKET = "pilotage-test"


@pytest.fixture
def database() -> Iterator[str]:
    where = programs()
    if where is None:
        pytest.skip("PostgreSQL is not installed")
    with cluster(where) as running:
        yield running.url()


@pytest.fixture
def s3() -> Iterator[Any]:
    """A client of an S3 server with one empty bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys)
    client.create_bucket(Bucket=BUCKET)
    yield client
    server.stop()


@pytest.fixture
def one(database: str, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AllInOne]:
    (tmp_path / "key").write_text("test\n")
    monkeypatch.setenv("TEST_KEY_ID", "test")
    objects = {
        "url": f"s3://{BUCKET}/some/prefix",
        "endpoint": s3.meta.endpoint_url,
        "region": "us-east-1",
        "allow_http": True,
        "access_key_id": {"env": "TEST_KEY_ID"},
        "secret_access_key": {"file": str(tmp_path / "key")},
    }
    configuration = {
        "service": {"database": {"url": database}, "objects": objects, "sync_seconds": 1.0},
        "vos": {"demo": {"pilot": {"options": {"RunJobAgent": {"idle_seconds": 3}}}}},
    }
    up = AllInOne(tmp_path, configuration)
    try:
        yield up.start()
    finally:
        up.stop()


def names(s3: Any) -> list[str]:
    """All objects in the bucket."""
    return [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())]


def test_jobs_with_files_and_a_service_killed_in_the_middle(
    one: AllInOne, database: str, s3: Any, tmp_path: Path
) -> None:
    """Each payload leaves a mark when it starts: nothing is lost, and nothing runs or is recorded twice."""
    marks = tmp_path / "marks"
    marks.mkdir()
    (tmp_path / "words.txt").write_text("two\none\n")
    text = (
        f"command: 'echo {{index}} >> {marks}/{{index}}; sleep 0.5; sort words.txt > sorted.txt; cat sorted.txt'\n"
        "inputs: [words.txt]\noutputs: [sorted.txt]\nisolation: none\narray: 12\n"
    )
    (tmp_path / "many.yaml").write_text(text)
    ids = json.loads(one.cli("submit", "many.yaml", "--json", cwd=tmp_path).stdout)["ids"]
    assert len(ids) == 12
    eventually(lambda: len(list(marks.iterdir())) >= 2, "some have begun")
    one.kill()
    one.start()
    jobs = one.wait(ids)
    assert Counter(job["state"] for job in jobs) == {"Done": 12}
    assert [job["stdout"] for job in jobs] == ["one\ntwo\n"] * 12
    assert {file.name: file.read_text().count("\n") for file in marks.iterdir()} == {str(n): 1 for n in range(12)}
    one.cli("job", str(ids[7]), "--output", str(tmp_path / "out"))
    assert (tmp_path / "out" / "sorted.txt").read_text() == "one\ntwo\n"

    # The records are in PostgreSQL and only there, each end once; files and logs are in the bucket.
    with psycopg.connect(database) as connection:
        ends = connection.execute(
            "SELECT subject, count(*) FROM events WHERE what = 'Done' AND kind = 'job' GROUP BY 1"
        )
        assert dict(ends.fetchall()) == {str(identity): 1 for identity in ids}
        leases = connection.execute("SELECT job, count(*) FROM leases WHERE outcome = 'Done' GROUP BY 1")
        assert dict(leases.fetchall()) == dict.fromkeys(ids, 1)
    found = names(s3)
    stored = [name for name in found if name.startswith("some/prefix/files/demo/")]
    assert len(stored) == 2, "the input and the output, each content once"
    for path in ("/pilots/a%00b", "/jobs?owner=%00", "/jobs?batch=a%00", "/pilots?resource=%00"):
        assert one.client().get(path).status_code == 422, "PostgreSQL takes no NUL: refused before it is asked"
    stamp = jobs[0]["pilot"]
    log = one.cli("pilot", stamp, "--log").stdout
    assert "RunJobAgent" in log
    assert any(name.startswith(f"some/prefix/logs/{stamp}/") for name in found)
    assert not list(one.data.glob("pilotage.sqlite*")) and not (one.data / "objects").exists()


def test_wrong_keys_are_told_before_anything_starts(database: str, s3: Any, tmp_path: Path) -> None:
    objects = {
        "url": "s3://no-such-bucket/prefix",
        "endpoint": s3.meta.endpoint_url,
        "region": "us-east-1",
        "allow_http": True,
        "access_key_id": {"env": "PATH"},
        "secret_access_key": {"env": "PATH"},
    }
    up = AllInOne(tmp_path, {"service": {"database": {"url": database}, "objects": objects}})
    (tmp_path / "f.yaml").write_text(json.dumps(up.configuration))
    done = up.cli("up", "--port", "0", "--config", str(tmp_path / "f.yaml"), check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "the object store s3://no-such-bucket/prefix cannot be used" in done.stderr
