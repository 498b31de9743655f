"""What job descriptions the service takes, and in which words it refuses the others."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pilotage.service.errors import from_validation
from pilotage.service.models import JobSpec, safe_name


def refusal(**keys: object) -> str:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate_json(json.dumps({"command": ["true"], **keys}))
    error = from_validation(caught.value)
    assert "\n" not in error.text
    return error.text


def an_input(name: str) -> dict[str, object]:
    return {"name": name, "sha256": "ab" * 32, "size": 1}


@pytest.mark.parametrize("name", ["a", "a/b.txt", ".hidden", "tile 7.png", "ä/ö", "..a", "a..", "x" * 255, "~", "-rf"])
def test_good_names(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../a", "a/../b", "a/..", "a//b", "./a", "a/.", "a/", ".", "..", "a\x00b", "a\nb", "x" * 256],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"file name|normalised"):
        safe_name(name)
    assert refusal(inputs=[an_input(name)]).startswith("inputs[0].name: ")
    assert refusal(outputs=[name]).startswith("outputs[0]: ")


@given(st.text(max_size=40))
def test_a_name_that_passes_stays_inside(name: str) -> None:
    import os.path

    try:
        safe_name(name or "/")
    except ValueError:
        return
    assert os.path.normpath(os.path.join("/job", name)) == "/job/" + name


def test_refusals_name_the_field_and_the_reason() -> None:
    assert refusal(comand=["x"]) == "comand: this key is not known"
    assert refusal(cores="2") == 'cores: Input should be a valid integer, not "2"'
    assert refusal(cores=0).startswith("cores: Input should be greater than or equal to 1")
    assert refusal(cores=True).startswith("cores: ")
    assert refusal(environment={"A=B": "x"}).startswith("environment.A=B")
    assert refusal(isolation="maybe").startswith("isolation: ")
    assert refusal(command=["a\x00b"]).startswith("command[0]: a NUL character")
    assert refusal(command=[]).startswith("command: ")
    assert refusal(command=[""]).startswith("command[0] is empty")
    assert refusal(memory_mib=-1, cores=0).endswith("(and 1 more)")
    assert refusal(wall_seconds=10**12).startswith("wall_seconds: ")
    assert refusal(name="two\nlines").startswith("name: ")


def test_duplicates_are_refused() -> None:
    assert refusal(inputs=[an_input("a"), an_input("a")]) == "two inputs have the name 'a'"
    assert "needs it as a directory" in refusal(inputs=[an_input("a/b"), an_input("a")])
    assert refusal(outputs=["*.png", "*.png"]) == "two outputs have the same pattern"


def test_missing_command() -> None:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate_json("{}")
    assert from_validation(caught.value).text == "command: this key is missing"


def test_not_json() -> None:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate_json('{"command": [')
    error = from_validation(caught.value)
    assert (error.status, error.code) == (400, "not_json")


def test_defaults_are_the_contract() -> None:
    spec = JobSpec(command=["true"]).model_dump()
    assert spec["cores"] == 1 and spec["wall_seconds"] == 3600 and spec["retries"] == 2
    assert spec["isolation"] == "preferred" and spec["stdout_mib"] == 16
