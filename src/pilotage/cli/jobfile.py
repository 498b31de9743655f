"""A job file (YAML or JSON) as a list of job descriptions for the service.

One job is a mapping of the service's job description (see docs/job-files.md); two keys make many of one file:

* ``jobs: [...]``: one mapping a job; the file's other keys hold for each that does not say otherwise;
* ``array: N`` or ``array: [a, b, ...]``: one job for each index or value; in all texts ``{index}`` and ``{item}`` are
  replaced.

Inputs are paths relative to the job file: ``a.txt``, or ``{file: a.txt, name: b.txt, executable: true}``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import CliError

Spec = dict[str, Any]

MAX_JOBS = 1_000_000


def read(file: Path) -> list[Spec]:
    """The jobs that `file` describes, `inputs` resolved to ``{"name", "path", "executable"}``.

    :raises CliError: not there, not UTF-8, not YAML, or not a job file; with the line where there is one
    """
    content = _load(file)
    if not isinstance(content, dict):
        raise CliError(f"{file}: a job file is a mapping (command: ..., or jobs: ...), not {_kind(content)}")
    specs = [_normal(spec, where, file.parent) for spec, where in _many(content, str(file))]
    if not specs:
        raise CliError(f"{file}: there is no job in it")
    return specs


def _load(file: Path) -> Any:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Refuses a key given twice: YAML says that it is an error, PyYAML keeps the last one silently."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key.value, str) and key.value != "<<":
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"{key.value!r} is given twice", key.start_mark
                        )
                    seen.add(key.value)
            return dict(super().construct_mapping(node, deep))

    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader)  # a safe loader
    except OSError as error:
        raise CliError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CliError(f"{file}: not UTF-8 text (byte {error.start})") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise CliError(f"{file}{line}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise CliError(f"{file}: {' '.join(str(error).split())}") from error


def _many(content: dict[str, Any], where: str) -> Iterator[tuple[Spec, str]]:
    """The jobs of one mapping, each with the text by which errors name it."""
    if "jobs" in content and "array" in content:
        raise CliError(f"{where}: either `jobs` or `array`, not both")
    if "jobs" in content:
        common = {key: value for key, value in content.items() if key != "jobs"}
        if not isinstance(content["jobs"], list):
            raise CliError(f"{where}: `jobs` is a list of jobs, not {_kind(content['jobs'])}")
        for number, spec in enumerate(content["jobs"]):
            if not isinstance(spec, dict):
                raise CliError(f"{where}: jobs[{number}] is a mapping, not {_kind(spec)}")
            yield from _many({**common, **spec}, f"{where}: jobs[{number}]")
    elif "array" in content:
        common = {key: value for key, value in content.items() if key != "array"}
        for index, item in enumerate(_items(content["array"], where)):
            replaced = _replace(common, {"{index}": str(index), "{item}": str(item)})
            yield replaced, f"{where}: array[{index}]"
    else:
        yield content, where


def _items(array: Any, where: str) -> Any:
    if isinstance(array, list) and all(isinstance(item, (str, int, float)) for item in array):
        return array
    if isinstance(array, int) and not isinstance(array, bool) and 1 <= array <= MAX_JOBS:
        return range(array)
    raise CliError(f"{where}: `array` is a number of jobs (1..{MAX_JOBS}) or a list of values")


def _replace(value: Any, words: dict[str, str]) -> Any:
    """`value` with the words replaced in every text; other braces stay as they are (shell and awk use them)."""
    if isinstance(value, str):
        for word, by in words.items():
            value = value.replace(word, by)
        return value
    if isinstance(value, list):
        return [_replace(item, words) for item in value]
    if isinstance(value, dict):
        return {key: _replace(item, words) for key, item in value.items()}
    return value


def _normal(spec: Spec, where: str, base: Path) -> Spec:
    """A command given as one text is a shell's; inputs become name, path and executable."""
    spec = dict(spec)
    command = spec.get("command")
    if isinstance(command, str):
        spec["command"] = ["/bin/sh", "-c", command]
    elif isinstance(command, list):
        spec["command"] = [str(word) if _number(word) else word for word in command]
    elif command is None:
        near = difflib.get_close_matches("command", [str(key) for key in spec], 1)
        meant = f"; is {near[0]!r} meant to be it?" if near else ": what is to be run"
        raise CliError(f"{where}: `command` is missing{meant}")
    inputs = spec.get("inputs", [])
    if not isinstance(inputs, list):
        raise CliError(f"{where}: `inputs` is a list of files, not {_kind(inputs)}")
    spec["inputs"] = [_input(item, where, base) for item in inputs]
    return spec


def _number(word: Any) -> bool:
    return isinstance(word, (int, float)) and not isinstance(word, bool)


def _input(item: Any, where: str, base: Path) -> dict[str, Any]:
    if isinstance(item, str):
        item = {"file": item}
    if not isinstance(item, dict) or not isinstance(item.get("file"), str):
        raise CliError(
            f"{where}: an input is a path, or a mapping with `file` (and `name`, `executable`), not {item!r}"
        )
    if unknown := set(item) - {"file", "name", "executable"}:
        raise CliError(f"{where}: inputs: this key is not known: {sorted(unknown)[0]}")
    path = base / Path(item["file"]).expanduser()
    return {"name": item.get("name", path.name), "path": path, "executable": item.get("executable")}


def _kind(value: Any) -> str:
    names = {
        dict: "a mapping",
        list: "a list",
        str: "a text",
        int: "a number",
        float: "a number",
        bool: "true or false",
    }
    return "nothing" if value is None else names.get(type(value), type(value).__name__)
