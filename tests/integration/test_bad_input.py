"""Bad input, as a person or a program meets it: one clear line, a status that is not zero, and nothing changed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.allinone import AllInOne, eventually
from tests.answers import Answers

from pilotage_node import exitcodes

LOCAL = {"type": "local", "flavour": "LOCAL", "slots": 1, "queues": {"default": {}}}
OPTIONS = {"RunJobAgent": {"idle_seconds": 2}, "RunEnvironmentTest": {"min_disk_mib": 64}}
CONFIGURATION = {
    "service": {"sync_seconds": 1},
    "vos": {"demo": {"pilot": {"options": OPTIONS}}, "other": {}},
    "sites": {"LOCAL": {"resources": {"local": {**LOCAL, "vos": ["demo"]}}}},
}
MIB = 1 << 20


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AllInOne]:
    started = AllInOne(tmp_path_factory.mktemp("bad"), CONFIGURATION)
    try:
        yield started.start()
    finally:
        started.stop()
        eventually(lambda: not started.processes(), "no process of the test is left", 30)


def state(one: AllInOne) -> dict[str, Any]:
    """What the service holds: jobs, pilots, tokens."""
    client = one.client()
    objects = one.data / "objects"
    return {
        "jobs": [job["id"] for job in client.get("/jobs", params={"limit": 1000}).json()["jobs"]],
        "pilots": [pilot["stamp"] for pilot in client.get("/pilots", params={"limit": 1000}).json()["pilots"]],
        "tokens": client.get("/tokens").json()["tokens"],
        "files": sorted(str(path) for path in objects.glob("files/**/*") if path.is_file()),
    }


@pytest.fixture
def unchanged(one: AllInOne) -> Iterator[None]:
    """The service holds the same after the test as before."""
    before = state(one)
    yield
    assert state(one) == before


def refused(one: AllInOne, *words: str, cwd: Path, says: str, **more: Any) -> None:
    """A `pilotage` command fails with one line that says so, and prints nothing else."""
    done = one.cli(*words, cwd=cwd, check=False, **more)
    assert done.returncode in (1, 2), done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert says in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


CONFIGURATIONS = [
    (
        "sites: {A: {resources: {r: {type: local, queues: {q: {}},\n  flavour: LOACL}}}}",
        "bad.yaml:2:3: sites.A.resources.r.flavour: unknown flavour 'LOACL'; did you mean 'LOCAL'?",
    ),
    ("flavours:\n  LOCAL:\n    commands:\n      - RunNothing\n", "bad.yaml:4:9: "),
    ("vos:\n  demo:\n    pilot:\n      options:\n        RunJobAgent: {idle_secnds: 3}\n", "bad.yaml:5:23: "),
    ("vos:\n  demo:\n    pilot:\n      options:\n        RunJobAgent: {idle_seconds: soon}\n", "bad.yaml:5:23: "),
    ("service:\n  lease_seconds: soon\n", 'bad.yaml:2:3: service.lease_seconds must be a number, not "soon"'),
    ("vos: {}\nsrvice: {}\n", "bad.yaml:2:1: unknown key 'srvice'; did you mean 'service'?"),
    ("vos:\n  demo: {}\n  demo: {}\n", "bad.yaml:3:3: the key 'demo' is here twice (first in line 2)"),
    ("# caf\udce9\nvos: {}\n", "bad.yaml:1:6: is not UTF-8"),
]


@pytest.mark.parametrize("command", [("up", "--port", "0"), ("generate", "--flavour", "LOCAL", "--vo", "demo")])
@pytest.mark.parametrize(("text", "says"), CONFIGURATIONS)
def test_configurations(
    one: AllInOne, tmp_path: Path, command: tuple[str, ...], text: str, says: str, unchanged: None
) -> None:
    """Unknown flavour, command, option, key; wrong types; a name twice; not UTF-8: with file, line and column."""
    (tmp_path / "bad.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    words = ["--data", str(tmp_path / "data"), *command, "--config", "bad.yaml"]
    if command[0] == "up":
        words = [command[0], "--data", str(tmp_path / "data"), *command[1:], "--config", "bad.yaml"]
    refused(one, *words, cwd=tmp_path, says=says)
    assert not (tmp_path / "data" / "client.json").exists()


JOB_FILES: list[tuple[bytes, str]] = [
    (b"command: [echo]\ncoers: 2\n", "job.yaml:2: coers: this key is not known"),
    (b"command: [echo]\n\ncores: two\n", 'job.yaml:3: cores: Input should be a valid integer, not "two"'),
    (b"cores: 0\njobs:\n  - {command: [a]}\n  - command: [b]\n    cores: 1\n  - command: [c]\n", "job.yaml:1: cores: "),
    (b"jobs:\n  - {command: [a]}\n  - command: [b]\n    tags:\n      - x\n      - 7\n", "job.yaml:6: tags[1]: "),
    (b"name: n\ncommand: [a]\narray: 3\nwall_seconds: -{index}\n", "job.yaml:4: wall_seconds: "),
    (b"command: [a]\ncommand: [b]\n", "job.yaml:2: 'command' is given twice"),
    (
        b"command: [a]\ninputs:\n  - words.txt\n  - {file: job.yaml, name: words.txt}\n",
        "two inputs have the name 'words.txt'",
    ),
    (b"command: [a]\noutputs: [x, y, x]\n", "job.yaml:1: two outputs have the same pattern"),
    (b"command: [a]\ninputs:\n  - {file: words.txt, name: ../../etc/passwd}\n", "job.yaml:3: inputs[0].name: "),
    (b"command: [a]\noutputs: ['results/../../*']\n", "job.yaml:2: outputs[0]: a file name is normalised"),
    (b"command: [a]\noutputs: [/etc/passwd]\n", "job.yaml:2: outputs[0]: a file name is relative"),
    (b"command: [a]\ninputs: [none.txt]\n", "none.txt"),
    (b"command: [a]\ninputs: [.]\n", "directory"),
    (b"command: [a]\ninputs: [dangling]\n", "dangling"),
    (b"name: caf\xe9\ncommand: [a]\n", "job.yaml: not UTF-8 text (byte 9)"),
    (b"command: [a, '" + b"x" * (10 * MIB) + b"']\n", "is larger than the limit of 1 MiB"),
]


@pytest.mark.parametrize(("text", "says"), JOB_FILES, ids=[says for _, says in JOB_FILES])
def test_job_files(one: AllInOne, tmp_path: Path, text: bytes, says: str, unchanged: None) -> None:
    """Unknown keys, wrong types, duplicate names, paths that climb, inputs that are not there, 10 MB, not UTF-8."""
    (tmp_path / "job.yaml").write_bytes(text)
    (tmp_path / "words.txt").write_text("words")
    (tmp_path / "dangling").symlink_to("nowhere")
    refused(one, "submit", "job.yaml", cwd=tmp_path, says=says)


COMMAND_LINES: list[tuple[list[str], str]] = [
    (["--input", "none.txt", "--", "true"], "none.txt"),
    (["--input", "/", "--", "true"], "directory"),
    (["--input", "../x=words.txt", "--", "true"], "inputs[0].name: a file name is normalised"),
    (["--input", "/x=words.txt", "--", "true"], "inputs[0].name: a file name is relative"),
    (["--input", "a=words.txt", "--input", "a=more.txt", "--", "true"], "two inputs have the name 'a'"),
    (["--output", "../*", "--", "true"], "outputs[0]: a file name is normalised"),
    (["--cores", "0", "--", "true"], "cores: "),
    (["--tag", "no spaces", "--", "true"], "tags[0]: "),
    (["--isolation", "maybe", "--", "true"], "isolation: "),
    (["--", "echo", "caf\udce9"], "UTF-8"),
    (["--name", "caf\udce9", "--", "true"], "UTF-8"),
    (["--vo", "nowhere", "--", "true"], "nowhere"),
]


@pytest.mark.parametrize(("words", "says"), COMMAND_LINES)
def test_command_lines(one: AllInOne, tmp_path: Path, words: list[str], says: str, unchanged: None) -> None:
    (tmp_path / "words.txt").write_text("words")
    (tmp_path / "more.txt").write_text("more")
    refused(one, "submit", *words, cwd=tmp_path, says=says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["generate", "--flavour", "NOWHERE"], "NOWHERE"),
        (["generate", "--flavour", "LOCAL", "--vo", "none"], "none"),
        (["generate", "--flavour", "LOCAL", "--bundle", "there"], "not an empty directory"),
        (["generate", "--flavour", "NOWHERE", "--bundle", "new"], "NOWHERE"),
        (["no-such-command"], "no-such-command"),
        (["jobs", "--no-such-option"], "--no-such-option"),
        (["jobs", "--state", "Gone"], "gone"),
        (["job", "999999"], "999999"),
        (["pilot", "ffffffffffff"], "ffffffffffff"),
        (["kill", "9-7"], "not a range"),
        (["token", "create", "--owner", "a b", "--vo", "demo"], "owner: "),
        (["token", "create", "--owner", "a", "--vo", "demo", "--valid", "soon"], "not a duration"),
    ],
)
def test_other_commands(one: AllInOne, tmp_path: Path, words: list[str], says: str, unchanged: None) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    refused(one, *words, cwd=tmp_path, says=says)
    assert not (tmp_path / "new").exists()


def test_an_output_pattern_that_matches_nothing(one: AllInOne, tmp_path: Path) -> None:
    done = one.cli("submit", "--wait", "--output", "*.none", "--output", "there", "--", "touch", "there", check=False)
    assert done.returncode == 1
    assert "*.none" in done.stdout + done.stderr
    [job] = json.loads(one.cli("jobs", "--json", "--limit", "1").stdout)
    assert (job["state"], job["reason"]) == ("Failed", "output_missing")
    assert "*.none" in job["message"] and "there" not in job["message"].replace("there is", "")


@pytest.mark.parametrize("name", ["../evil", "/tmp/pilotage-evil", "a/../../evil", "a\nb"])
def test_fetching_never_leaves_its_directory(tmp_path: Path, name: str) -> None:
    """A service gone mad names outputs that lead elsewhere: not one file is written, not even the good one."""
    answers = Answers()
    try:
        job = dict.fromkeys(("submitted", "started", "ended", "wall_seconds", "signal", "exit_code", "usage"))
        job |= {"id": 7, "state": "Done", "name": "n", "owner": "anna", "vo": "demo", "reason": "exit", "spec": {}}
        files = [{"name": "good", "sha256": "a" * 64, "size": 4}, {"name": name, "sha256": "b" * 64, "size": 4}]
        answers.say("GET", "/jobs/7", {**job, "outputs": files, "events": [], "stdout": "", "stderr": ""})
        answers.say("GET", "/jobs/7/output", {"outputs": files})
        answers.say("GET", "/jobs/7/output/good", b"good")
        environment = {**os.environ, "PILOTAGE_URL": answers.url, "PILOTAGE_TOKEN": "t"}
        command = [sys.executable, "-m", "pilotage.cli.main", "job", "7", "--output", "out"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert "unsafe name" in done.stderr
        assert list(tmp_path.iterdir()) == []
        assert not Path("/tmp/pilotage-evil").exists()
    finally:
        answers.server.shutdown()
        answers.server.server_close()


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an answer that is one sentence."""
    content = answer.json()
    assert set(content) == {"error", "code"} and "\n" not in content["error"]
    return answer.status_code, content["code"]


def test_requests_that_are_no_jobs(one: AllInOne, unchanged: None) -> None:
    client = one.client()
    large = json.dumps({"command": ["x" * (10 * MIB)]}).encode()
    assert refusal(client.post("/jobs", content=large)) == (413, "too_large")
    assert refusal(client.post("/jobs", content=b'{"command": ["\xff"]}')) == (400, "not_utf8")
    assert refusal(client.post("/jobs", content=b'{"command": ["a"], "command": ')) == (400, "not_json")
    assert refusal(client.post("/jobs", json={"command": ["a\x00b"]})) == (422, "invalid")
    assert refusal(client.put("/files/" + "0" * 64, content=b"other")) == (422, "digest_mismatch")
    assert refusal(client.get("/jobs?owner=a%00b")) == (422, "invalid")
    assert refusal(client.get("/jobs/1/output/..%2f..%2fetc%2fpasswd"))[0] in (404, 422)


def test_tokens(one: AllInOne, tmp_path: Path) -> None:
    """Of another VO, expired, forged, of another kind."""
    [mine] = one.submit({"command": ["true"], "tags": ["nowhere"]})

    def token(**values: Any) -> str:
        made = one.client().post("/tokens", json={"owner": "oscar", "vo": "other", **values})
        return str(made.json()["token"])

    other, short = token(), token(vo="demo", seconds=1)
    environment = {**one.environment, "PILOTAGE_URL": str(one.client().base_url)}

    def asking(as_token: str, *words: str) -> str:
        command = [sys.executable, "-m", "pilotage.cli.main", *words]
        more = {**environment, "PILOTAGE_TOKEN": as_token}
        done = subprocess.run(command, env=more, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done
        return done.stderr

    eventually(lambda: one.client(short).get("/jobs").status_code == 401, "the short token has expired")
    before = state(one)
    assert f"There is no job {mine} in the VO other" in asking(other, "job", str(mine))
    assert str(mine) in asking(other, "kill", str(mine))
    assert "not for demo" in asking(other, "submit", "--vo", "demo", "--", "true")
    assert refusal(one.client(other).get(f"/jobs/{mine}/output")) == (404, "not_found")
    for wrong in (short, "pt_" + "x" * 43, other[:-1] + ("a" if other[-1] != "a" else "b"), "a.b.c", "a.b", "é"):
        assert "token" in asking(wrong, "submit", "--", "true")
    assert refusal(one.client("a.b.c").post("/pilot/sync", json={}, headers=SPOKEN)) == (401, "token_invalid")
    assert refusal(one.client(other).post("/pilot/sync", json={}, headers=SPOKEN)) == (403, "forbidden")
    assert refusal(one.client(other).post("/pilots/bundle", json={})) == (403, "forbidden")
    assert state(one) == before
    assert one.job(mine)["state"] == "Waiting"


SPOKEN = {"Pilotage-Protocol": "1"}


def test_a_one_time_secret_is_good_for_one_start(one: AllInOne, tmp_path: Path) -> None:
    """Somebody copied a pilot with its credentials: the second start leaves at once, and does not harm the first."""
    one.cli("generate", "--flavour", "LOCAL", "--vo", "demo", "--bundle", str(tmp_path / "first"))
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    credentials = json.loads((tmp_path / "first" / "credentials.json").read_text())
    hello = {"protocol": 1, **credentials, "nonce": "mine", "node": {"cores": 1}, "log": "", "digest": "0" * 64}
    environment = {"PATH": os.environ["PATH"]}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "env": environment}
    first = subprocess.Popen(["sh", "./pilot"], cwd=tmp_path / "first", **quiet)  # type: ignore[call-overload]
    try:
        stamp = credentials["stamp"]
        eventually(lambda: one.client().get(f"/pilots/{stamp}").json()["state"] == "Running", "the first registered")
        second = subprocess.run(["sh", "./pilot"], cwd=tmp_path / "second", timeout=120, **quiet)  # type: ignore[call-overload]
        assert second.returncode == exitcodes.SECOND_START
        assert "another start of the pilot" in (tmp_path / "second" / "pilot.log").read_text()
        assert refusal(one.client().post("/pilot/register", json=hello, headers=SPOKEN)) == (409, "stamp_used")
        guess = {**hello, "secret": "guessed"}
        assert refusal(one.client().post("/pilot/register", json=guess, headers=SPOKEN))[0] == 401
        status = first.wait(120)
        assert status in (exitcodes.OK, exitcodes.NO_WORK)
    finally:
        if first.poll() is None:
            first.terminate()
            first.wait(60)
    found = one.client().get(f"/pilots/{stamp}").json()
    assert (found["state"], found["exit_code"]) == ("Done", status)


@pytest.mark.parametrize("route", ["/pilot/register", "/pilot/sync"])
def test_a_protocol_version_that_does_not_exist(one: AllInOne, route: str, unchanged: None) -> None:
    client = one.client()
    for body, headers in (({"protocol": 2}, {}), ({"protocol": 99}, {}), ({"protocol": 1}, {"Pilotage-Protocol": "7"})):
        answer = client.post(route, json=body, headers=headers)
        # A sync is for pilots alone: who is none does not even learn the versions.
        assert refusal(answer) == ((426, "protocol") if route.endswith("register") else (403, "forbidden"))


def test_bytes_that_are_no_request(one: AllInOne, unchanged: None) -> None:
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 100):
        with socket.create_connection(("127.0.0.1", one.port), 10) as raw:
            raw.sendall(data + b"\r\n\r\n")
            raw.settimeout(10)
            assert b" 200 " not in raw.recv(4096)
    assert one.client().get("/readyz").is_success
