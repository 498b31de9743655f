"""The `pilotage` command by itself: errors in one line, what it prints and imports, its pages."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.answers import Answers

from pilotage.cli import access, jobs, output, tokens
from pilotage.cli.access import Access
from pilotage.cli.client import Client
from pilotage.cli.errors import CliError

pytest_plugins = ["cli_fixtures"]

ROOT = Path(__file__).resolve().parents[2]


def pilotage(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does."""
    command = [sys.executable, "-m", "pilotage.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


def imported(code: str) -> set[str]:
    """The modules that a fresh interpreter has after running `code`."""
    code += "\nimport sys; print('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())


class TestClient:
    def test_the_services_own_sentence_is_the_error(self, client: Client, answers: Answers) -> None:
        answers.say("GET", "/jobs/7", {"error": "There is no job 7 in the VO demo.", "code": "not_found"}, 404)
        with pytest.raises(CliError, match=r"^There is no job 7 in the VO demo\.$"):
            client.get("/jobs/7")

    def test_an_answer_that_is_no_json_is_an_error_too(self, client: Client, answers: Answers) -> None:
        answers.say("GET", "/jobs/7", b"<html>Bad gateway</html>", 502)
        with pytest.raises(CliError, match="502"):
            client.get("/jobs/7")

    def test_a_busy_service_is_waited_for(self, client: Client, answers: Answers) -> None:
        answers.say("GET", "/jobs", {"error": "busy", "code": "busy"}, 503, Retry_After="0.2")
        threading.Timer(0.5, lambda: answers.say("GET", "/jobs", {"jobs": []})).start()
        assert client.get("/jobs") == {"jobs": []}

    def test_no_service_says_how_to_start_one(self) -> None:
        with Client(Access("http://127.0.0.1:9", "t")) as nobody, pytest.raises(CliError, match="pilotage up"):
            nobody.get("/jobs")


class TestAccess:
    def test_saved_for_the_user_alone_and_found_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PILOTAGE_DATA", str(tmp_path))
        file = access.save(Access("http://127.0.0.1:1", "secret", "/ca.pem"), tmp_path)
        assert file.stat().st_mode & 0o777 == 0o600
        assert access.find() == Access("http://127.0.0.1:1", "secret", "/ca.pem")

    def test_the_environment_wins_and_the_files_token_goes_nowhere_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PILOTAGE_DATA", str(tmp_path))
        access.save(Access("http://127.0.0.1:1", "secret"), tmp_path)
        monkeypatch.setenv("PILOTAGE_URL", "https://elsewhere.example/")
        assert access.find() == Access("https://elsewhere.example", "")
        monkeypatch.setenv("PILOTAGE_TOKEN", "other")
        assert access.find() == Access("https://elsewhere.example", "other")

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"url": "x"}'])
    def test_a_damaged_file_is_an_error_of_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
    ) -> None:
        monkeypatch.setenv("PILOTAGE_DATA", str(tmp_path))
        (tmp_path / "client.json").write_text(content)
        with pytest.raises(CliError, match="damaged"):
            access.find()


class TestOutput:
    def test_a_table_in_a_pipe_cuts_nothing_and_obeys_no_escape(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.print_table(("A", "B"), [(1, "x" * 500), (None, "\x1b[31mred\x1b[0m [bold]b[/bold]")])
        text = capsys.readouterr().out
        assert "x" * 500 in text
        assert "\x1b" not in text
        assert "[bold]b[/bold]" in text
        assert all(line == line.rstrip() for line in text.splitlines())

    @pytest.mark.parametrize(
        "seconds,text",
        [(0.4, "0.40 s"), (59.2, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (273600, "3 d 4 h"), (None, None)],
    )
    def test_durations(self, seconds: float | None, text: str | None) -> None:
        assert output.duration(seconds) == text

    def test_sizes(self) -> None:
        assert [output.size(n) for n in (0, 1023, 1536, 5 << 30)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]

    def test_token_lifetimes(self) -> None:
        assert [tokens.seconds(text) for text in ("90s", "15m", "12h", "30d")] == [90, 900, 43200, 2592000]
        for wrong in ("", "3", "0s", "-1d", "1y"):
            with pytest.raises(CliError):
                tokens.seconds(wrong)

    def test_states_in_any_case(self) -> None:
        assert jobs.state_names(["running,WAITING", "done"]) == ["Running", "Waiting", "Done"]
        with pytest.raises(CliError, match="there are: Waiting"):
            jobs.state_names(["gone"])


class TestCommand:
    @pytest.mark.parametrize(
        "words,status,says",
        [
            (["jobs"], 1, "start one with: pilotage up"),
            (["nonsense"], 2, "nonsense"),
            (["jobs", "--nonsense"], 2, "--nonsense"),
            (["job", "x"], 2, "ID"),
            (["submit"], 2, "what is to be run"),
            (["submit", "--"], 2, "no command"),
            (["submit", "echo", "x"], 2, "pilotage submit -- echo x"),
            (["submit", "a.yaml", "--", "echo"], 2, "not both"),
            (["submit", "none.yaml"], 1, "cannot read none.yaml"),
            (["submit", "--env", "x", "--", "echo"], 2, "NAME=VALUE"),
            (["kill", "abc"], 1, "pilotage up"),
            (["kill", "9-7"], 2, "not a range"),
            (["inspect", "none"], 1, "cannot read the pilot script none"),
            (["up", "--config", "none.yaml"], 1, "none.yaml"),
            (["flavours", "--config", "none.yaml"], 1, "none.yaml"),
            (["generate"], 2, "--flavour"),
            (["generate", "--flavour", "NOWHERE"], 1, "NOWHERE"),
        ],
    )
    def test_an_error_is_one_line_and_not_zero(self, words: list[str], status: int, says: str, tmp_path: Path) -> None:
        done = pilotage(*words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr

    def test_debug_shows_the_traceback_wherever_it_stands(self) -> None:
        for words in (["--debug", "jobs"], ["jobs", "--debug"]):
            done = pilotage(*words)
            assert done.returncode == 1
            assert "Traceback" in done.stderr

    def test_a_narrow_terminal_keeps_every_column(self, answers: Answers) -> None:
        job = dict.fromkeys(("submitted", "wall_seconds", "pilot", "signal", "exit_code"))
        job |= {"id": 7, "state": "Failed", "name": "n" * 99, "owner": "anna", "reason": "lost", "message": "why " * 50}
        answers.say("GET", "/jobs", {"jobs": [job]})
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        environment = {**os.environ, "PILOTAGE_URL": answers.url, "TERM": "dumb"}
        environment.pop("COLUMNS", None)
        command = [sys.executable, "-m", "pilotage.cli.main", "jobs"]
        subprocess.run(command, stdin=slave, stdout=slave, stderr=slave, env=environment, check=True, timeout=60)
        os.close(slave)
        head, row = os.read(master, 65536).decode().splitlines()[:2]
        os.close(master)
        assert head.split() == ["ID", "STATE", "NAME", "OWNER", "SUBMITTED", "TOOK", "PILOT", "REASON"]
        assert "Failed" in row
        assert row.count("…") == 2
        assert len(row) < 120

    def test_a_reader_that_leaves_is_no_error(self, answers: Answers) -> None:
        row = dict.fromkeys(("name", "owner", "submitted", "wall_seconds", "pilot", "reason", "message", "exit_code"))
        answers.say(
            "GET", "/jobs", {"jobs": [{**row, "id": n, "state": "Done", "usage": "x" * 200} for n in range(5000)]}
        )
        command = f"{shlex.quote(sys.executable)} -m pilotage.cli.main jobs --json --limit 5000 | head -1"
        environment = {**os.environ, "PILOTAGE_URL": answers.url}
        done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == ("[\n", "")

    def test_clients_import_no_server_code(self) -> None:
        found = imported("import pilotage.cli.client, pilotage.cli.upload, pilotage.cli.fetch, pilotage.cli.main")
        servers = {"service", "storage", "engines", "directors", "configuration", "resources", "wms"}
        assert not {name for name in found if name.startswith("pilotage.") and name.split(".")[1] in servers}
        assert not found & {"fastapi", "uvicorn", "sqlalchemy", "obstore", "alembic", "joserfc", "yaml", "pydantic"}

    def test_help_imports_little(self) -> None:
        code = "from pilotage.cli.main import run\ntry: run(['--help'])\nexcept SystemExit: pass"
        assert not imported(code) & {"httpx", "rich", "pydantic", "yaml"}

    def test_the_reference_pages_are_up_to_date(self) -> None:
        command = [sys.executable, str(ROOT / "tools" / "reference.py"), "--check"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}run: make docs"


class TestStorage:
    def test_an_older_database_is_migrated_on_demand(self, tmp_path: Path) -> None:
        from pilotage.storage.database import parse
        from pilotage.storage.migrations import upgrade

        upgrade(parse(f"sqlite:///{tmp_path}/pilotage.sqlite"), "0001")
        old = pilotage("up", "--data", str(tmp_path), "--port", "0")
        assert (old.returncode, len(old.stderr.splitlines())) == (1, 1), old.stderr
        assert "run `pilotage storage migrate`" in old.stderr
        assert "Applied 0002, 0003, 0004" in pilotage("storage", "migrate", "--data", str(tmp_path)).stdout
        assert "up to date" in pilotage("storage", "migrate", "--data", str(tmp_path)).stdout
        nothing = pilotage("storage", "migrate", "--data", str(tmp_path / "other"))
        assert (nothing.returncode, len(nothing.stderr.splitlines())) == (1, 1), nothing.stderr

    @pytest.mark.parametrize(
        "service,says",
        [
            ("database: {url: 'postgresql://me@127.0.0.1:9/none', password: {env: NOT_SET}}", "f.yaml:1:63"),
            ("database: {url: 'postgresql://me@127.0.0.1:9/none'}", "postgresql://me@127.0.0.1:9/none cannot be used"),
            ("objects: {url: /proc/none}", "the object store /proc/none cannot be used"),
        ],
    )
    def test_a_store_that_cannot_be_used_is_told(self, tmp_path: Path, service: str, says: str) -> None:
        (tmp_path / "f.yaml").write_text(f"service: {{{service}}}")
        done = pilotage("up", "--data", str(tmp_path / "data"), "--port", "0", "--config", "f.yaml", cwd=tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert says in done.stderr


class TestOffline:
    def test_generate_and_inspect(self, tmp_path: Path) -> None:
        pilot = tmp_path / "pilot"
        first = pilotage("generate", "--flavour", "LOCAL", "--url", "https://pilots.example:8842")
        assert first.returncode == 0, first.stderr
        assert pilotage("generate", "--flavour", "LOCAL", "--url", "https://pilots.example:8842").stdout == first.stdout
        pilot.write_text(first.stdout)
        shown = pilotage("inspect", str(pilot), "--json", "--sources", str(tmp_path / "sources"))
        assert shown.returncode == 0, shown.stderr
        found = json.loads(shown.stdout)
        assert found["profile"]["service"]["urls"] == ["https://pilots.example:8842"]
        assert "RunJobAgent" in [command["name"] for command in found["profile"]["commands"]]
        assert (tmp_path / "sources" / "pilotage_node" / "toolbox" / "RunJobAgent.py").is_file()
        assert "RunJobAgent" in pilotage("inspect", str(pilot)).stdout

    def test_an_altered_script_is_told(self, tmp_path: Path) -> None:
        text = pilotage("generate", "--flavour", "LOCAL").stdout
        (tmp_path / "pilot").write_text(text.replace("import", "Import", 1))
        done = pilotage("inspect", str(tmp_path / "pilot"))
        assert done.returncode == 1
        assert "altered" in done.stderr

    def test_flavours(self) -> None:
        found = json.loads(pilotage("flavours", "--json").stdout)
        assert "RunJobAgent" in next(flavour["commands"] for flavour in found if flavour["flavour"] == "LOCAL")
        assert "LOCAL" in pilotage("flavours").stdout

    def test_a_wrong_configuration_is_refused_with_file_and_line(self, tmp_path: Path) -> None:
        (tmp_path / "bad.yaml").write_text("service:\n  lease_seconds: soon\n")
        done = pilotage("flavours", "--config", "bad.yaml", cwd=tmp_path)
        assert done.returncode == 1
        assert "bad.yaml:2" in done.stderr
        assert len(done.stderr.splitlines()) == 1
