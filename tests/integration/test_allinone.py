"""`pilotage up` as a person uses it: real service, real pilots here, every command, and nothing left at the end."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.allinone import AllInOne, eventually

QUICK = {"vos": {"demo": {"pilot": {"options": {"RunJobAgent": {"idle_seconds": 3}}}}}}
"""Pilots that leave soon, so that tests see them end."""


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AllInOne]:
    """One service for the tests that do not stop it."""
    started = AllInOne(tmp_path_factory.mktemp("allinone"))
    try:
        yield started.start()
    finally:
        started.stop()


class TestOnePerson:
    def test_a_job_from_submit_to_stdout(self, one: AllInOne) -> None:
        done = one.cli("submit", "--wait", "--name", "greeting", "--json", "--", "echo", "hello", "world")
        [job] = json.loads(done.stdout)["jobs"]
        assert job["state"] == "Done"
        shown = one.cli("job", str(job["id"])).stdout
        assert "hello world" in shown
        assert "greeting" in shown
        detail = json.loads(one.cli("job", str(job["id"]), "--json").stdout)
        assert detail["stdout"] == "hello world\n"
        assert [event["what"] for event in detail["events"]][-1] == "Done"
        assert detail["usage"]["cpu_user"] >= 0
        assert "greeting" in one.cli("jobs").stdout

    def test_files_in_and_files_out(self, one: AllInOne, tmp_path: Path) -> None:
        (tmp_path / "words.txt").write_text("two\none\nthree\n")
        script = tmp_path / "sort.sh"
        script.write_text(
            "#!/bin/sh\nmkdir results\nsort list.txt > results/sorted.txt\nwc -l < list.txt > count.txt\n"
        )
        script.chmod(0o755)
        words = [
            "--input",
            "list.txt=words.txt",
            "--input",
            "sort.sh",
            "--output",
            "results/*",
            "--output",
            "count.txt",
        ]
        done = one.cli("submit", "--wait", "--json", *words, "--", "./sort.sh", cwd=tmp_path)
        [identity] = json.loads(done.stdout)["ids"]
        out = tmp_path / "fetched"
        shown = one.cli("job", str(identity), "--output", str(out)).stdout
        assert (out / "results" / "sorted.txt").read_text() == "one\nthree\ntwo\n"
        assert (out / "count.txt").read_text().strip() == "3"
        assert "results/sorted.txt" in shown

    def test_a_job_file_makes_many(self, one: AllInOne, tmp_path: Path) -> None:
        text = "name: square-{item}\ncommand: echo {item} $(({item} * {item}))\narray: [1, 2, 3, 5, 8]\n"
        (tmp_path / "squares.yaml").write_text(text)
        done = one.cli("submit", "squares.yaml", "--wait", "--json", "--wall-seconds", "60", cwd=tmp_path)
        jobs = [one.job(identity) for identity in json.loads(done.stdout)["ids"]]
        assert [job["stdout"] for job in jobs] == ["1 1\n", "2 4\n", "3 9\n", "5 25\n", "8 64\n"]
        assert {job["spec"]["wall_seconds"] for job in jobs} == {60}

    def test_a_failed_job_is_told_and_not_zero(self, one: AllInOne) -> None:
        done = one.cli("submit", "--wait", "--", "sh", "-c", "echo oops >&2; exit 3", check=False)
        assert done.returncode == 1
        assert "exit status 3" in done.stdout
        assert "Traceback" not in done.stderr
        failed = json.loads(one.cli("jobs", "--state", "failed", "--json").stdout)[0]
        assert (failed["exit_code"], failed["reason"]) == (3, "exit")
        assert "oops" in one.cli("job", str(failed["id"])).stdout

    def test_a_limit_is_enforced_and_named(self, one: AllInOne) -> None:
        done = one.cli("submit", "--wait", "--wall-seconds", "1", "--json", "--", "sleep", "60", check=False)
        [job] = json.loads(done.stdout)["jobs"]
        assert (job["state"], job["reason"]) == ("Failed", "wall_limit")

    def test_an_output_that_is_not_there_fails_the_job(self, one: AllInOne) -> None:
        done = one.cli("submit", "--wait", "--json", "--output", "nothing-*.txt", "--", "true", check=False)
        [job] = json.loads(done.stdout)["jobs"]
        assert (job["state"], job["reason"]) == ("Failed", "output_missing")

    def test_kill(self, one: AllInOne) -> None:
        [identity] = one.submit({"command": ["sleep", "120"], "name": "long"})
        one.wait([identity], ("Running",))
        assert str(identity) in one.cli("kill", str(identity), "--reason", "changed my mind").stdout
        [job] = one.wait([identity])
        assert (job["state"], job["reason"]) == ("Killed", "killed")
        assert "changed my mind" in json.dumps(job)
        again = one.cli("kill", str(identity))
        assert "had ended already" in again.stdout
        unknown = one.cli("kill", "999999", check=False)
        assert unknown.returncode == 1
        assert "999999" in unknown.stderr

    def test_what_the_service_refuses_is_one_line(self, one: AllInOne, tmp_path: Path) -> None:
        (tmp_path / "bad.yaml").write_text("command: [echo]\ncoers: 2\n")
        done = one.cli("submit", "bad.yaml", cwd=tmp_path, check=False)
        assert done.returncode == 1
        assert "coers" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        for words in (["job", "99999"], ["pilot", "abcdefgh"], ["submit", "--cores", "0", "--", "true"]):
            done = one.cli(*words, check=False)
            assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr

    def test_pilots_and_their_logs(self, one: AllInOne, tmp_path: Path) -> None:
        one.cli("submit", "--wait", "--", "true")
        pilots = json.loads(one.cli("pilots", "--json").stdout)
        stamp = pilots[0]["stamp"]
        assert stamp[:8] in one.cli("pilots").stdout
        shown = one.cli("pilot", stamp[:8]).stdout
        assert "RunEnvironmentTest" in shown
        assert stamp in shown
        assert json.loads(one.cli("pilot", stamp, "--json").stdout)["commands"][0]["outcome"] == "done"

    def test_summary(self, one: AllInOne) -> None:
        one.cli("submit", "--wait", "--", "true")
        found = eventually(lambda: json.loads(one.cli("summary", "--json").stdout)["jobs"].get("Done"), "it is counted")
        assert found >= 1
        assert "Done" in one.cli("status").stdout

    def test_tokens_of_a_user(self, one: AllInOne) -> None:
        made = json.loads(
            one.cli("token", "create", "--owner", "anna", "--vo", "demo", "--valid", "1h", "--json").stdout
        )
        assert "anna" in one.cli("token", "list").stdout
        assert made["token"] not in one.cli("token", "list", "--json").stdout
        anna = {"env": {**one.environment, "PILOTAGE_TOKEN": made["token"]}}

        def as_anna(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "pilotage.cli.main", *words]
            return subprocess.run(command, capture_output=True, text=True, timeout=120, **anna)

        assert as_anna("submit", "--wait", "--", "true").returncode == 0
        refused = as_anna("token", "list")
        assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
        one.cli("token", "revoke", str(made["id"]))
        ended = as_anna("jobs")
        assert ended.returncode == 1
        assert "PILOTAGE_TOKEN" in ended.stderr

    def test_a_pilot_run_by_hand(self, one: AllInOne, tmp_path: Path) -> None:
        one.cli("generate", "--flavour", "LOCAL", "--bundle", str(tmp_path / "mine"))
        credentials = tmp_path / "mine" / "credentials.json"
        assert credentials.stat().st_mode & 0o777 == 0o600
        stamp = json.loads(credentials.read_text())["stamp"]
        assert "sha256:" in one.cli("inspect", str(tmp_path / "mine" / "pilot")).stdout
        pilot = subprocess.Popen(
            ["sh", "./pilot"], cwd=tmp_path / "mine", stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        eventually(lambda: one.client().get(f"/pilots/{stamp}").json()["state"] == "Running", "it has registered")
        assert not credentials.exists()
        assert stamp in one.cli("drain", stamp[:12]).stdout
        assert pilot.wait(120) in (0, 50)
        eventually(lambda: one.client().get(f"/pilots/{stamp}").json()["state"] == "Done", "it has not failed")
        again = one.cli("generate", "--flavour", "LOCAL", "--bundle", str(tmp_path / "mine"), check=False)
        assert "not an empty directory" in again.stderr

    def test_a_second_up_is_refused(self, one: AllInOne) -> None:
        assert one.process is not None
        done = one.cli("up", "--port", "0", check=False)
        assert done.returncode == 1
        assert str(one.process.pid) in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert one.client().get("/readyz").is_success

    def test_a_port_that_is_taken_is_told(self, one: AllInOne, tmp_path: Path) -> None:
        done = one.cli("up", "--data", str(tmp_path / "other"), "--port", str(one.port), check=False)
        assert done.returncode == 1
        assert str(one.port) in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "other" / "client.json").exists()


def test_ctrl_c_drains_and_a_later_start_goes_on(tmp_path: Path) -> None:
    """A running job gets its grace, the waiting one waits for the next start; no process is left in between."""
    one = AllInOne(tmp_path, QUICK).start()
    try:
        [running] = one.submit({"command": ["sh", "-c", "sleep 4; echo made it"], "priority": 1, "cores": 1})
        one.wait([running], ("Running",))
        waiting = one.submit({"command": ["true"], "tags": ["nowhere"]})
        assert one.process is not None
        one.process.send_signal(signal.SIGINT)
        assert one.process.wait(120) == 0, one.log()
        eventually(lambda: not one.processes(), "no process is left", 30)
        assert not (one.data / "client.json").exists()
        refused = one.cli("jobs", check=False)
        assert "pilotage up" in refused.stderr
        one.start()
        assert one.job(running)["state"] in ("Done", "Waiting", "Running", "Matched")
        [job] = one.wait([running])
        assert job["state"] == "Done"
        assert one.job(waiting[0])["state"] == "Waiting"
    finally:
        one.stop()
    eventually(lambda: not one.processes(), "no process is left", 30)


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    one = AllInOne(tmp_path).start()
    try:
        [identity] = one.submit({"command": ["sleep", "100"]})
        one.wait([identity], ("Running",))
        assert one.process is not None
        one.process.send_signal(signal.SIGINT)
        eventually(lambda: "again" in one.log(), "it says that it drains")
        time.sleep(0.5)
        one.process.send_signal(signal.SIGINT)
        assert one.process.wait(10) == 130
    finally:
        one.stop()


def test_over_tls_a_pilot_pins_the_certificate(tmp_path: Path) -> None:
    one = AllInOne(tmp_path, None, "--tls").start()
    try:
        url = json.loads((one.data / "client.json").read_text())
        assert url["url"].startswith("https://")
        assert one.cli("submit", "--wait", "--", "echo", "safe").returncode == 0
        [pilot] = one.pilots()
        script = next(tmp_path.glob(f"data/**/{pilot['stamp']}/pilot"))
        assert "BEGIN CERTIFICATE" in script.read_text()
        environment = {**one.environment, "PILOTAGE_URL": url["url"], "PILOTAGE_TOKEN": url["token"]}
        command = [sys.executable, "-m", "pilotage.cli.main", "jobs"]
        untrusting = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert untrusting.returncode == 1
        assert "not trusted" in untrusting.stderr
        assert ssl.create_default_context(cafile=url["ca"])
    finally:
        one.stop()


def test_a_wrong_configuration_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("flavours:\n  LOCAL:\n    commands: [RunNothing]\n")
    command = [sys.executable, "-m", "pilotage.cli.main", "up", "--port", "0", "--config", "bad.yaml"]
    environment = {**os.environ, "PILOTAGE_DATA": str(tmp_path / "data")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "bad.yaml:3" in done.stderr
    assert "RunNothing" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_logs_are_deleted_in_their_own_time(tmp_path: Path) -> None:
    """The configuration's `retention.logs`: logs and outputs of ended pilots go, their records and jobs stay."""
    one = AllInOne(tmp_path, {**QUICK, "service": {"retention": {"logs": 0.00001}}}).start()
    try:
        [job] = one.wait(one.submit({"command": ["echo", "kept"]}))
        stamp = job["pilot"]
        path = f"/pilots/{stamp}"
        eventually(lambda: one.client().get(path).json()["outputs_at"], "the pilot has ended, its outputs are fetched")
        assert one.process is not None
        one.process.send_signal(signal.SIGINT)
        assert one.process.wait(120) == 0, one.log()
        one.start()  # what is too old is looked for at each start, then now and then
        eventually(lambda: one.client().get(path).json()["logs_purged"], "its log is deleted")
        assert one.client().get(f"{path}/output").json() == {"outputs": []}
        log = one.client().get(f"{path}/log")
        assert (log.text, log.headers["Pilotage-Log-End"]) == ("", "true")
        assert not list((one.data / "objects" / "logs").rglob("0*"))
        shown = one.cli("pilot", stamp).stdout
        assert "log deleted" in shown and "RunJobAgent" in shown
        assert one.job(job["id"])["stdout"] == "kept\n"
    finally:
        one.stop()
