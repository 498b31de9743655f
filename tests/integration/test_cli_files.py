"""Files on their way: job files, inputs to the service, outputs from it into a directory and never outside of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.answers import Answers

from pilotage.cli import jobfile
from pilotage.cli.client import Client
from pilotage.cli.errors import CliError
from pilotage.cli.fetch import fetch, safe_parts
from pilotage.cli.jobplace import place
from pilotage.cli.upload import upload_inputs

pytest_plugins = ["cli_fixtures"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def written(text: str) -> Path:
        file = tmp_path / "job.yaml"
        file.write_text(text)
        return file

    return written


class TestJobFile:
    def test_one_job_with_inputs_relative_to_the_file(self, write: Callable[[str], Path]) -> None:
        file = write("command: [echo, 1, 2.5]\ninputs: [a.txt, {file: sub/b.txt, name: c/d.txt, executable: true}]\n")
        [spec] = jobfile.read(file)
        assert spec["command"] == ["echo", "1", "2.5"]
        assert spec["inputs"] == [
            {"name": "a.txt", "path": file.parent / "a.txt", "executable": None},
            {"name": "c/d.txt", "path": file.parent / "sub" / "b.txt", "executable": True},
        ]

    def test_a_text_is_run_by_the_shell(self, write: Callable[[str], Path]) -> None:
        assert jobfile.read(write("command: echo a | rev\n"))[0]["command"] == ["/bin/sh", "-c", "echo a | rev"]

    def test_jobs_share_what_they_do_not_say(self, write: Callable[[str], Path]) -> None:
        specs = jobfile.read(write("cores: 2\njobs:\n- command: [a]\n- {command: [b], cores: 4}\n"))
        assert [(spec["command"], spec["cores"]) for spec in specs] == [(["a"], 2), (["b"], 4)]

    def test_an_array_replaces_its_words_and_no_other_braces(self, write: Callable[[str], Path]) -> None:
        text = "name: t-{index}\ncommand: [awk, '{print $1}', '{item}']\noutputs: ['{item}.png']\narray: [x, y]\n"
        specs = jobfile.read(write(text))
        assert [spec["name"] for spec in specs] == ["t-0", "t-1"]
        assert specs[1]["command"] == ["awk", "{print $1}", "y"]
        assert specs[1]["outputs"] == ["y.png"]

    def test_an_array_by_number_and_jobs_with_arrays(self, write: Callable[[str], Path]) -> None:
        assert len(jobfile.read(write("command: [a]\narray: 64\n"))) == 64
        assert len(jobfile.read(write("jobs:\n- {command: [a], array: 3}\n- {command: [b]}\n"))) == 4

    @pytest.mark.parametrize(
        "text,says",
        [
            ("command: [a]\ncommand: [b]\n", "job.yaml:2: 'command' is given twice"),
            ("command: [a\n", "job.yaml:2:"),
            ("- a\n", "a job file is a mapping"),
            ("", "not nothing"),
            ("name: x\n", "`command` is missing"),
            ("comand: x\n", "is 'comand' meant to be it?"),
            ("command: [a]\ninputs: a.txt\n", "`inputs` is a list"),
            ("command: [a]\ninputs: [{name: x}]\n", "an input is a path"),
            ("command: [a]\ninputs: [{file: a, mode: 7}]\n", "not known: mode"),
            ("jobs: 3\n", "`jobs` is a list"),
            ("jobs: [3]\n", "jobs[0] is a mapping"),
            ("jobs: []\n", "there is no job in it"),
            ("command: [a]\narray: 0\n", "`array` is a number"),
            ("command: [a]\narray: true\n", "`array` is a number"),
            ("command: !!python/object/apply:os.system [id]\n", "job.yaml:1:"),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(self, write: Callable[[str], Path], text: str, says: str) -> None:
        with pytest.raises(CliError) as refused:
            jobfile.read(write(text))
        assert says in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_the_line_of_a_refused_field(self, write: Callable[[str], Path]) -> None:
        file = write(
            "cores: 1\n"
            "inputs:\n  - a.txt\n  - {file: b.txt, name: ../b}\n"
            "jobs:\n"
            "  - command: [x]\n"
            "    array: [p, q]\n"
            "    cores: 0\n"
            "  - {command: [y],\n"
            "     tags: [1]}\n"
        )
        assert len(jobfile.read(file)) == 3
        found = [place(file, *at).rpartition(":")[2] for at in ((1, "cores"), (2, "cores"), (2, "tags[0]"))]
        assert found == ["8", "1", "10"], "the nearest mapping that says it"
        assert place(file, 0, "inputs[1].name").endswith(":4")
        assert place(file, 2, "").endswith(":9"), "the whole job"
        assert place(file, 0, "priority") == str(file), "it says nothing of it"

    def test_not_there_and_not_utf8(self, tmp_path: Path) -> None:
        with pytest.raises(CliError, match="cannot read"):
            jobfile.read(tmp_path / "none.yaml")
        (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
        with pytest.raises(CliError, match="not UTF-8"):
            jobfile.read(tmp_path / "latin.yaml")

    def test_the_demo_is_64_jobs(self) -> None:
        specs = jobfile.read(ROOT / "examples" / "picture" / "picture.yaml")
        assert len(specs) == 64
        assert specs[63]["command"][-1] == "63"
        assert all(item["path"].is_file() for spec in specs for item in spec["inputs"])


class TestUpload:
    def test_each_content_travels_once(self, answers: Answers, client: Client, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"same")
        (tmp_path / "b").write_bytes(b"same")
        (tmp_path / "run").write_bytes(b"#!/bin/sh\n")
        (tmp_path / "run").chmod(0o755)
        digests = [hashlib.sha256(content).hexdigest() for content in (b"same", b"#!/bin/sh\n")]
        answers.say("POST", "/files/missing", {"missing": digests})
        for digest in digests:
            answers.say("PUT", f"/files/{digest}", {}, 201)
        names = ("a", "b", "run")
        inputs = [{"name": name, "path": tmp_path / name, "executable": None} for name in names]
        specs = upload_inputs(client, [{"command": ["x"], "inputs": inputs}] * 3)
        sent = [(path, body) for method, path, body in answers.asked if method == "PUT"]
        assert sorted(body for _, body in sent) == [b"#!/bin/sh\n", b"same"]
        assert [item["executable"] for item in specs[2]["inputs"]] == [False, False, True]
        assert specs[0]["inputs"][0] == {"name": "a", "sha256": digests[0], "size": 4, "executable": False}

    @pytest.mark.parametrize("kind", ["missing", "directory", "pipe"])
    def test_what_cannot_be_read_is_named_before_anything_is_sent(
        self, answers: Answers, client: Client, tmp_path: Path, kind: str
    ) -> None:
        path = tmp_path / "input"
        if kind == "directory":
            path.mkdir()
        if kind == "pipe":
            os.mkfifo(path)
        with pytest.raises(CliError, match=str(path)):
            upload_inputs(client, [{"command": ["x"], "inputs": [{"name": "a", "path": path, "executable": None}]}])
        assert answers.asked == []


class TestFetch:
    @pytest.mark.parametrize(
        "name", ["../x", "/etc/passwd", "a/../../x", "", ".", "..", "a//b", "a\\b", "a\nb", "a/./b", "x\0"]
    )
    def test_names_that_lead_elsewhere_are_refused(self, name: str) -> None:
        with pytest.raises(CliError, match="unsafe name"):
            safe_parts(name)

    def test_nothing_is_written_when_one_name_is_bad(self, client: Client, answers: Answers, tmp_path: Path) -> None:
        answers.say("GET", "/good", b"good")
        files = [{"name": "good", "path": "/good", "size": 4}, {"name": "../bad", "path": "/bad", "size": 4}]
        with pytest.raises(CliError, match="unsafe name"):
            fetch(client, files, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "bad").exists()

    def test_files_arrive_whole_and_replace_old_ones(self, client: Client, answers: Answers, tmp_path: Path) -> None:
        answers.say("GET", "/one", b"new")
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "one").write_text("old")
        sha256 = hashlib.sha256(b"new").hexdigest()
        paths = fetch(client, [{"name": "sub/one", "path": "/one", "size": 3, "sha256": sha256}], tmp_path)
        assert paths == [tmp_path / "sub" / "one"]
        assert (tmp_path / "sub" / "one").read_text() == "new"

    def test_wrong_content_leaves_the_old_file(self, client: Client, answers: Answers, tmp_path: Path) -> None:
        answers.say("GET", "/one", b"evil")
        (tmp_path / "one").write_text("old")
        with pytest.raises(CliError, match="damaged"):
            fetch(client, [{"name": "one", "path": "/one", "size": 3, "sha256": "0" * 64}], tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["one"]
        assert (tmp_path / "one").read_text() == "old"

    def test_no_link_is_followed(self, client: Client, answers: Answers, tmp_path: Path) -> None:
        answers.say("GET", "/one", b"new")
        outside, out = tmp_path / "outside", tmp_path / "out"
        outside.mkdir()
        out.mkdir()
        (outside / "one").write_text("precious")
        (out / "one").symlink_to(outside / "one")
        (out / "sub").symlink_to(outside)
        fetch(client, [{"name": "one", "path": "/one", "size": 3}], out)
        with pytest.raises(CliError, match="link"):
            fetch(client, [{"name": "sub/one", "path": "/one", "size": 3}], out)
        assert (outside / "one").read_text() == "precious"
        assert (out / "one").read_text() == "new"
