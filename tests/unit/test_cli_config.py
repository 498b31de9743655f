"""`pilotage config`: what it asks of the service, what it prints, what it does without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.answers import Answers

from pilotage.cli import main

SITE = """\
vos: {demo: {}}
sites:
  HOME:
    resources:
      box: {type: local, flavour: LOCAL, queues: {default: {}}}
"""
OWN = "vos:\n  demo:\n    pilot: {options: {RunJobAgent: {idle_seconds: 5}}}\n"
REVISION = {
    "number": 4,
    "digest": "0a1b2c3d4e5f",
    "parent": 3,
    "author": "vera@physics",
    "vo": "physics",
    "time": 1_700_000_000.0,
    "reason": "more memory",
    "state": "current",
    "canary": None,
}
TRIED = {**REVISION, "number": 5, "state": "canary", "canary": {"share": 0.05, "resource": "box", "vo": None}}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    service = Answers()
    monkeypatch.setenv("PILOTAGE_URL", service.url)
    monkeypatch.setenv("PILOTAGE_TOKEN", "pt_test")
    yield service
    service.server.shutdown()
    service.server.server_close()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no service: whoever asks one fails."""
    monkeypatch.setenv("PILOTAGE_URL", "http://127.0.0.1:9")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory = tmp_path / "site"
    (directory / "vos" / "demo").mkdir(parents=True)
    (directory / "site.yaml").write_text(SITE)
    (directory / "vos" / "demo" / "pilot.yaml").write_text(OWN)
    (directory / ".git").mkdir()
    (directory / ".git" / "x.yaml").write_text("hidden: true")
    return directory


class Command:
    """`pilotage config ...` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: Any, status: int = 0) -> str:
        """What it prints; of an error, what it says: `error` has that of a success."""
        found = main._guarded(["config", *map(str, words)], False)
        out, self.error = self._capsys.readouterr()
        assert found == status, (out, self.error)
        if status:
            assert out == "", out
            return self.error
        return out


@pytest.fixture
def config(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def asked(answers: Answers) -> list[tuple[str, str]]:
    return [(method, path) for method, path, _ in answers.asked]


def sent(answers: Answers) -> Any:
    return json.loads(answers.asked[-1][2])


class TestApply:
    def test_a_directory(self, answers: Answers, config: Command, site: Path) -> None:
        answers.say("POST", "/configurations", REVISION, 201)
        assert config("apply", site, "-m", "more memory", "--base", 3) == "revision 4 is current\n"
        files = {"site.yaml": SITE, "vos/demo/pilot.yaml": OWN}
        assert sent(answers) == {"files": files, "base": 3, "reason": "more memory"}
        assert json.loads(config("apply", site, "-m", "x", "--json")) == REVISION
        assert sent(answers)["base"] == 0

    def test_a_file(self, answers: Answers, config: Command, site: Path) -> None:
        answers.say("POST", "/configurations", REVISION, 201)
        config("apply", site / "site.yaml", "-m", "x")
        assert sent(answers)["files"] == {"site.yaml": SITE}
        for name in ("site.yml", "site.json", "site"):  # what `validate` takes
            config("apply", (site / "site.yaml").rename(site / name), "-m", "x")
            assert sent(answers)["files"] == {"site.yaml": SITE}
            (site / name).rename(site / "site.yaml")

    def test_as_a_canary(self, answers: Answers, config: Command, site: Path) -> None:
        answers.say("POST", "/configurations", TRIED, 201)
        said = config("apply", site, "-m", "x", "--canary", "2.5%", "--resource", "box", "--vo", "demo")
        assert said == "revision 5 is tried as a canary; see it with: pilotage config canary\n"
        assert sent(answers)["canary"] == {"share": 0.025, "resource": "box", "vo": "demo"}

    @pytest.mark.parametrize("share", ["0%", "100%", "200%", "5", "-1%", "x", ""])
    def test_a_share_is_a_percentage(self, nobody: None, config: Command, site: Path, share: str) -> None:
        said = config("apply", site, "-m", "x", "--canary", share, status=2)
        assert "more than 0% and less than 100%" in said

    def test_wrong_uses(self, nobody: None, config: Command, site: Path, tmp_path: Path) -> None:
        assert "--message" in config("apply", site, status=2)
        assert "'--message' / '-m': it says nothing" in config("apply", site, "-m", " ", status=2)
        assert "give --canary SHARE too" in config("apply", site, "-m", "x", "--vo", "demo", status=2)
        (tmp_path / "empty").mkdir()
        assert "there is no .yaml file in" in config("apply", tmp_path / "empty", "-m", "x", status=1)
        assert "No such file" in config("apply", tmp_path / "none", "-m", "x", status=1)
        (tmp_path / "empty" / "a.yml").write_text("")
        assert "a.yml: is not read; name it a.yaml" in config("apply", tmp_path / "empty", "-m", "x", status=1)

    def test_all_problems_are_listed_and_the_last_line_says_it(
        self, answers: Answers, config: Command, site: Path
    ) -> None:
        problems = ["site.yaml:1:1: this", "site.yaml:2:1: that\x1b[31m"]
        refusal = {"error": f"{problems[0]} (and 1 more)", "code": "invalid", "problems": problems}
        answers.say("POST", "/configurations", refusal, 422)
        said = config("apply", site, "-m", "x", status=1).splitlines()
        again = "site.yaml:2:1: that\N{REPLACEMENT CHARACTER}[31m"
        assert said == ["site.yaml:1:1: this", again, "pilotage: site.yaml:1:1: this (and 1 more)"]
        one = {"error": problems[0], "code": "invalid", "problems": problems[:1]}
        answers.say("POST", "/configurations", one, 422)
        assert config("apply", site, "-m", "x", status=1) == "pilotage: site.yaml:1:1: this\n"


class TestRevisions:
    def test_log(self, answers: Answers, config: Command) -> None:
        answers.say("GET", "/configurations", {"configurations": [TRIED, REVISION], "next": None})
        head, tried, current = config("log", "-n", 2).splitlines()
        assert head.split() == ["REVISION", "STATE", "WHEN", "BY", "FROM", "DIGEST", "WHY"]
        assert tried.split()[:3] == ["5", "canary", "5%"]
        assert current.split()[:2] == ["4", "current"] and current.endswith("more memory")
        assert asked(answers) == [("GET", "/configurations?limit=2")]
        assert json.loads(config("log", "--json")) == [TRIED, REVISION]

    def test_show(self, answers: Answers, config: Command) -> None:
        event = {"time": 1.7e9, "what": "applied", "who": "vera@physics", "why": "more memory", "request_id": "r"}
        whole = {**REVISION, "files": {"vos/demo/a.yaml": OWN, "a.yaml": SITE + "\x1b[2J"}, "events": [event]}
        answers.say("GET", "/configurations/4", whole)
        answers.say("GET", "/configuration", {"number": 4})
        text = config("show", 4)
        assert text == config("show"), "the current one"
        assert "the own parts of the VO physics" in text
        assert "applied  vera@physics  more memory" in text
        assert f"\n# vos/demo/a.yaml\n{OWN}" in text
        assert "\x1b" not in text
        assert json.loads(config("show", 4, "--json")) == whole

    def test_show_where_nothing_was_applied(self, answers: Answers, config: Command) -> None:
        running = {"number": 0, "digest": "abc", "source": None, "canary": None, "files": {}}
        answers.say("GET", "/configuration", running)
        assert "embedded defaults; no revision was applied" in config("show")
        answers.say("GET", "/configuration", {**running, "source": "/etc/p", "files": {"a.yaml": SITE}})
        assert "/etc/p" in config("show")

    def test_rollback(self, answers: Answers, config: Command) -> None:
        answers.say("POST", "/configuration/rollback", REVISION, 201)
        assert config("rollback", 2, "-m", "it was better") == "revision 4 is current\n"
        assert sent(answers) == {"number": 2, "base": None, "reason": "it was better"}
        assert "--message" in config("rollback", 2, status=2)

    def test_export(self, answers: Answers, config: Command, tmp_path: Path) -> None:
        files = {"site.yaml": SITE, "vos/demo/pilot.yaml": "# \N{LATIN SMALL LETTER U WITH DIAERESIS}\r\n"}
        answers.say("GET", "/configurations/3", {**REVISION, "number": 3, "files": files})
        answers.say("GET", "/configuration", {"number": 4, "files": files})
        config("export", 3, tmp_path / "a")
        assert "--base 3" in config.error
        config("export", tmp_path / "b")
        assert "--base 4" in config.error
        for place in ("a", "b"):
            found = {str(path.relative_to(tmp_path / place)): path for path in (tmp_path / place).rglob("*.yaml")}
            assert {name: path.read_bytes().decode() for name, path in found.items()} == files
        assert "not an empty directory" in config("export", tmp_path / "b", status=1)
        assert "pilotage config export 3 DIR" in config("export", "x", tmp_path / "c", status=2)
        answers.say("GET", "/configurations/2", {**REVISION, "number": 2, "state": "past", "files": files})
        config("export", 2, tmp_path / "d")
        assert "not current; make it so with: pilotage config rollback 2" in config.error
        assert "have no files" in config("export", 0, tmp_path / "e", status=1)

    @pytest.mark.parametrize("name", ["../x.yaml", "/x.yaml", "a/../../x.yaml"])
    def test_export_writes_nowhere_else(self, answers: Answers, config: Command, tmp_path: Path, name: str) -> None:
        answers.say("GET", "/configuration", {"number": 4, "files": {"a.yaml": "", name: ""}})
        assert "unsafe name" in config("export", tmp_path / "new", status=1)
        assert not (tmp_path / "new").exists()


class TestCanary:
    FOUND = {
        "revision": TRIED,
        "base": 4,
        "canary": {
            "states": {"Failed": 6, "Running": 1},
            "good": 1,
            "failed": 6,
            "waiting": 2,
            "failure_rate": 6 / 7,
        },
        "current": {"states": {"Done": 90}, "good": 90, "failed": 0, "waiting": 0, "failure_rate": 0.0},
        "likelihood": 1.23e-5,
    }

    def test_both_side_by_side(self, answers: Answers, config: Command) -> None:
        answers.say("GET", "/configuration/canary", self.FOUND)
        text = config("canary")
        assert "5% of new pilots" in text and "p = 1.2e-05" in text
        rows = [line.split() for line in text.splitlines()[-3:]]
        assert rows == [
            ["PILOTS", "OF", "REVISION", "WAITING", "RUNNING", "DONE", "FAILED", "ABORTED", "FAILURES"],
            ["canary", "5", "2", "1", "0", "6", "0", "85.7%"],
            ["current", "4", "0", "0", "90", "0", "0", "0.0%"],
        ]
        assert json.loads(config("canary", "--json")) == self.FOUND

    def test_ended_by_command(self, answers: Answers, config: Command) -> None:
        answers.say("POST", "/configuration/canary/promote", TRIED)
        answers.say("POST", "/configuration/canary/withdraw", TRIED)
        assert config("promote", 5, "-m", "good") == "revision 5 is current\n"
        assert sent(answers) == {"number": 5, "reason": "good"}
        assert config("withdraw") == "revision 5 is withdrawn\n"
        assert sent(answers) == {"number": None, "reason": ""}


class TestOffline:
    def test_validate(self, nobody: None, config: Command, site: Path) -> None:
        assert config("validate", site).startswith(f"{site} is valid (digest ")
        assert json.loads(config("validate", site, "--json"))["problems"] == []
        own = site / "vos" / "demo" / "pilot.yaml"
        own.write_text("vos:\n  demo:\n    share: 2\n    toolboxes: []\n")
        first, second, said = config("validate", site, status=1).splitlines()
        assert first.startswith(f"{own}:3:5: 'share' of a VO is the operator's")
        assert second.startswith(f"{own}:4:5: 'toolboxes' of a VO is the operator's")
        assert said == f"pilotage: {first} (and 1 more)"
        assert "is not there" in config("validate", site / "none", status=1)

    def test_validate_composes(self, nobody: None, config: Command, site: Path) -> None:
        (site / "site.yaml").write_text(SITE.replace("{default: {}}", "{default: {pilot: {commands: [RunX]}}}"))
        assert "site.yaml:5:80: unknown command 'RunX'" in config("validate", site, status=1)
        (site / "site.yaml").write_text(SITE.replace("type: local", "type: locl"))
        assert "site.yaml:5:13: resource 'box': unknown type of resource 'locl'" in config("validate", site, status=1)

    def test_explain(self, nobody: None, config: Command, site: Path) -> None:
        text = config("explain", "--config", site, "--resource", "box")
        rows = {line.split()[0]: line for line in text.splitlines()}
        assert rows["options.RunJobAgent.idle_seconds"].split()[1:] == [
            "5",
            "VO",
            "demo",
            f"{site}/vos/demo/pilot.yaml:3:37",
        ]
        assert "built-in flavour LOCAL" in rows["commands[0]"]
        found = json.loads(config("explain", "--config", site, "--flavour", "LOCAL", "--vo", "demo", "--json"))
        assert {"path", "value", "layer", "where"} == set(found[0])
        assert "which pilot?" in config("explain", "--config", site, status=2)
        assert "did you mean 'box'?" in config("explain", "--config", site, "--resource", "bax", status=1)
        wrong = config("explain", "--config", site, "--resource", "box", "--revision", 3, status=2)
        assert "leave --revision out" in wrong

    def test_diff_of_files(self, nobody: None, config: Command, site: Path) -> None:
        text = config("diff", site / "site.yaml", site)
        assert text.startswith("--- a/vos/demo/pilot.yaml\n+++ b/vos/demo/pilot.yaml\n@@")
        assert "+    pilot: {options: {RunJobAgent: {idle_seconds: 5}}}\n" in text
        assert config("diff", site, site) == "no file differs\n"
        head, row = config("diff", "--pilots", site / "site.yaml", site).splitlines()
        assert head.split() == ["RESOURCE", "QUEUE", "VO", "WHAT", "BEFORE", "AFTER"]
        assert row.split() == ["box", "default", "demo", "options.RunJobAgent.idle_seconds", "default", "5"]
        assert config("diff", "--pilots", site, site) == "no resource gets another pilot\n"

    def test_schema(self, nobody: None, config: Command) -> None:
        assert "sites" in json.loads(config("schema"))["properties"]


class TestOnline:
    def test_validate(self, answers: Answers, config: Command, site: Path) -> None:
        answers.say("POST", "/configuration/validate", {"valid": False, "digest": None, "problems": ["a.yaml:1:1: no"]})
        assert config("validate", "--online", site, status=1) == "pilotage: a.yaml:1:1: no\n"
        answers.say("POST", "/configuration/validate", {"valid": True, "digest": "abc", "problems": []})
        assert "digest abc" in config("validate", "--online", site)

    def test_explain(self, answers: Answers, config: Command) -> None:
        row = {"path": "log_mib", "value": 10, "layer": "all pilots", "where": "a.yaml:1:1"}
        answers.say("GET", "/configuration/explain", {"vo": "demo", "explained": [row]})
        text = config("explain", "--resource", "box", "--queue", "q", "--vo", "demo")
        assert text.splitlines()[1].split() == ["log_mib", "10", "all", "pilots", "a.yaml:1:1"]
        assert asked(answers)[-1][1] == "/configuration/explain?vo=demo&resource=box&queue=q"
        config("explain", "--flavour", "VAC", "--revision", 3)
        assert asked(answers)[-1][1] == "/configuration/explain?number=3&flavour=VAC"

    def test_diff_of_revisions(self, answers: Answers, config: Command) -> None:
        files = [{"name": "a.yaml", "change": "changed", "diff": None}]
        vanished = {"resource": "box", "queue": "q", "vo": "demo", "kind": "vanished", "changes": []}
        answers.say("GET", "/configurations/3/diff/4", {"old": 3, "new": 4, "files": files, "pilots": [vanished]})
        answers.say("GET", "/configuration", {"number": 4, "files": {}})
        assert "too long" in config("diff", 3, 4)
        assert config("diff", "--pilots", 3).splitlines()[1].split() == [
            "box",
            "q",
            "demo",
            "its",
            "pilots",
            "sent",
            "none",
        ]
        assert asked(answers)[-1][1] == "/configurations/3/diff/4?pilots=true"

    def test_queues_whose_pilots_differ_in_the_same_way_are_one_row(self, answers: Answers, config: Command) -> None:
        def changed(queue: str, vo: str, new: int | None) -> dict[str, Any]:
            changes = [{"path": "options.RunJobAgent.idle_seconds", "old": 30, "new": new}]
            return {"resource": "box", "queue": queue, "vo": vo, "kind": "changed", "changes": changes}

        found = [changed("q1", "a", 45), changed("q1", "b", 45), changed("q2", "a", 45), changed("q3", "a", None)]
        answers.say("GET", "/configurations/3/diff/4", {"old": 3, "new": 4, "files": [], "pilots": found})
        _, *rows = config("diff", "--pilots", 3, 4).splitlines()
        what = ["options.RunJobAgent.idle_seconds", "30"]
        assert [row.split() for row in rows] == [
            ["box", "q1,", "q2", "a", *what, "45"],
            ["box", "q1", "b", *what, "45"],
            ["box", "q3", "a", *what, "default"],
        ]
        assert json.loads(config("diff", "--pilots", 3, 4, "--json"))["pilots"] == found

    def test_diff_of_a_revision_and_files(self, answers: Answers, config: Command, site: Path) -> None:
        answers.say("GET", "/configuration", {"number": 3, "files": {"site.yaml": SITE}, "source": None})
        answers.say("GET", "/configurations/3", {"number": 3, "files": {"site.yaml": SITE}})
        for side in ("current", 3):
            assert config("diff", side, site).startswith("--- a/vos/demo/pilot.yaml")
            assert "5" in config("diff", "--pilots", side, site)

    def test_diff_of_what_a_service_has_from_a_directory(self, answers: Answers, config: Command, site: Path) -> None:
        answers.say("GET", "/configuration", {"number": 0, "files": {"site.yaml": SITE}, "source": "/etc/pilotage"})
        assert config("diff", "current", site).startswith("--- a/vos/demo/pilot.yaml")
        assert config("diff", "0", "current").startswith("--- a/site.yaml")
