"""Secrets: read from where the configuration says, and told to nobody."""

from __future__ import annotations

import logging
import os
import stat
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from pilotage.configuration import ConfigurationError, loads, references
from pilotage.configuration.references import MOST, Secret


def program(directory: Path, text: str) -> str:
    """A shell script that may be run; its path."""
    file = directory / "give"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    return str(file)


def refusal(secret: Secret) -> str:
    with pytest.raises(ValueError) as error:
        secret.read()
    return str(error.value)


class TestPlaces:
    def test_an_environment_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PILOTAGE_TEST_SECRET", "s3cret")
        assert Secret(env="PILOTAGE_TEST_SECRET").read() == "s3cret"
        assert "PILOTAGE_TEST_OTHER is not set" in refusal(Secret(env="PILOTAGE_TEST_OTHER"))

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("s3cret\n")
        assert Secret(file=f"{tmp_path}/secret").read() == "s3cret"
        assert "cannot be read" in refusal(Secret(file=f"{tmp_path}/nothing"))
        (tmp_path / "secret").write_bytes(b"\xff\xfe")
        assert "is not UTF-8" in refusal(Secret(file=f"{tmp_path}/secret"))
        (tmp_path / "secret").write_text("x" * (MOST + 1))
        assert "too large" in refusal(Secret(file=f"{tmp_path}/secret"))

    @pytest.mark.parametrize(
        "places",
        [
            {},
            {"env": "A", "file": "/b"},
            {"env": "A", "command": ["/bin/true"]},
            {"command": []},
            {"command": ["true"]},
        ],
    )
    def test_one_place_and_only_one(self, places: dict[str, object]) -> None:
        with pytest.raises(ValidationError):
            Secret.model_validate(places)

    def test_a_wrong_one_is_told_with_its_line(self) -> None:
        text = "service:\n  database:\n    url: postgresql://a@b/c\n    password: {command: [pass, show]}\n"
        with pytest.raises(ConfigurationError, match=r"x\.yaml:4.*absolute path") as error:
            loads(text, "x.yaml")
        assert "show" not in str(error.value)


class TestCommand:
    def test_what_it_prints_without_the_line_break(self, tmp_path: Path) -> None:
        found = Secret(command=[program(tmp_path, 'printf "%s\\n" "$1"'), "a b; $(id)"]).read()
        assert found == "a b; $(id)", "no shell looks at the arguments"

    def test_it_sees_little_of_our_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PILOTAGE_DB_PASSWORD", "of somebody else")
        seen = Secret(command=[program(tmp_path, "env; pwd")]).read()
        assert "of somebody else" not in seen
        assert f"PATH={os.environ['PATH']}" in seen
        assert seen.endswith("\n/")

    def test_what_it_says_is_in_no_sentence_and_no_log(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        name = program(tmp_path, "echo s3cret; echo s3cret >&2; exit 3")
        assert refusal(Secret(command=[name, "argument"])) == f"the command {name} failed (exit status 3)"
        assert "s3cret" not in caplog.text + "".join(capfd.readouterr())

    @pytest.mark.parametrize("text", ["sleep 1000", "sleep 1000 >/dev/null & exec >&-; wait", "(sleep 1000) & exit 0"])
    def test_one_that_does_not_end_is_ended_with_its_children(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        monkeypatch.setattr(references, "COMMAND_SECONDS", 1.0)
        name = program(tmp_path, f"echo $$ >{tmp_path}/pid\n{text}")
        begin = time.monotonic()
        assert "did not end within 1 s" in refusal(Secret(command=[name]))
        assert time.monotonic() - begin < 60
        leader = int((tmp_path / "pid").read_text())
        with pytest.raises(ProcessLookupError):  # killed ones of the group may take a moment to go
            for _ in range(200):
                os.killpg(leader, 0)
                time.sleep(0.05)

    def test_too_much_is_not_waited_for(self, tmp_path: Path) -> None:
        name = program(tmp_path, "exec cat /dev/zero | tr '\\0' x")
        assert refusal(Secret(command=[name])) == f"what {name} prints is too large for a secret"

    @pytest.mark.parametrize(
        "text,says", [("exit 0", "is empty"), ("echo", "is empty"), ("printf '\\377'", "is not UTF-8")]
    )
    def test_what_is_no_secret(self, tmp_path: Path, text: str, says: str) -> None:
        assert says in refusal(Secret(command=[program(tmp_path, text)]))

    def test_one_that_cannot_be_run(self, tmp_path: Path) -> None:
        name = program(tmp_path, "echo x")
        os.chmod(name, stat.S_IRUSR)
        assert refusal(Secret(command=[name])) == f"the command {name} cannot be run: Permission denied"
        assert "No such file" in refusal(Secret(command=[f"{tmp_path}/nothing"]))
