"""One command, run as the runner runs it: its own process, its time limit, facts in and facts out."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilotage.configuration.compaction import MINIMUM
from pilotage.configuration.crossing import crossing
from pilotage.configuration.toolboxes import base, build, core, read, sealed
from pilotage.testing.node import FakeNode
from pilotage.testing.pilots import PilotResult, run_pilot, script_for
from pilotage.testing.service import FakeService

NOT_RUN = "not run"
BASE = "pilotage_node.toolbox"


@dataclass(slots=True)
class CommandResult:
    """What became of a command.

    :ivar outcome: "done", "failed", "timeout", "crashed", "killed", "skipped"; "not run": the pilot did not come so far
    :ivar code: exit code (``pilotage_node.exitcodes``); :ivar text: what was wrong, "" where nothing was
    :ivar log: what it printed; :ivar facts: the facts that it gave
    :ivar files: {path in the working directory: content} that it left
    :ivar seconds: how long it took; :ivar pilot: the whole pilot around it
    """

    outcome: str
    code: int
    text: str
    log: str
    facts: dict[str, Any]
    files: dict[str, bytes]
    seconds: float
    pilot: PilotResult = field(repr=False)


def run_command(
    source: Any,
    name: str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    node: FakeNode | None = None,
    service: FakeService | None = None,
    toolboxes: Sequence[str | Path] = (),
    extension: str | None = None,
    **more: Any,
) -> CommandResult:
    """Run one command in a pilot of its own, built and composed as for a real resource.

    Example::

        result = run_command("mytoolbox", "CheckMySoftware", options={"path": "/nowhere"})
        assert (result.outcome, result.code) == ("failed", exitcodes.ENVIRONMENT), result.log

    :param source: a toolbox's directory or archive (with ``name``, where it has several commands), a module's file, a
        class, a dotted name ("package.RunX" or "RunX" of the base toolbox), or the text of a module
    :param options: those that differ from their defaults
    :param facts: what commands before it would have given
    :param node: what the machine is; None: a FakeNode as it is when made
    :param service: what the pilot speaks to; None: a FakeService
    :param toolboxes: directories or archives of others that it imports from
    :param extension: of the VO, where commands are found by the path convention
    :param more: ``seconds``, ``python``, ``runner`` as for ``run_pilot``
    :raises ToolboxError: the toolbox cannot be built; :raises ComposeError: e.g. an option that it does not have
    """
    with contextlib.ExitStack() as stack:
        built, command = stack.enter_context(_built(source, name, toolboxes, extension))
        profile = {
            "vo": "test",
            "site": "TEST",
            "resource": "fake",
            "queue": "default",
            "flavour": "TEST",
            "revision": "0",
            "service": {"urls": [], "trust": []},
            "commands": [{"name": command, "options": dict(options or {})}],
        }
        script = script_for(profile=profile, toolboxes=built)
        # What the composer was not to check, the runner shall.
        needs = json.dumps(built[0]["commands"][command]["needs"])
        script = script.replace('"requires": []', f'"requires": {needs}')
        pilot = run_pilot(script=script, facts=facts, node=node, service=service, **more)
    record = pilot.commands.get(command)
    if record is None:
        return CommandResult(NOT_RUN, pilot.code, pilot.reason or pilot.output, pilot.log, {}, {}, 0.0, pilot)
    given = {key: value for key, value in pilot.facts.items() if key != "node" and key not in (facts or {})}
    return CommandResult(
        record["outcome"],
        record["code"],
        record["message"],
        pilot.log_of(command),
        given,
        pilot.files,
        record["seconds"],
        pilot,
    )


@contextlib.contextmanager
def _built(
    source: Any, name: str | None, toolboxes: Sequence[str | Path], extension: str | None
) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """The toolbox that a command is in and those after it, built, and the command's name. The facts that it requires
    are there from the start, so the composer is not to look for who gives them."""
    with contextlib.ExitStack() as stack:
        if isinstance(source, str) and "\n" in source:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            source = _written(source, Path(directory))
        if isinstance(source, str) and source in base()["commands"]:
            source = f"{BASE}.{source}"
        root, command = _found(source, name)
        built = [base(), core()]
        trees = [read(root), *map(read, toolboxes)] if root != BASE else []
        wanted = crossing(trees, extension, MINIMUM)
        for number in range(len(trees) - 1, -1, -1):
            more, title = sorted(wanted[number]), "test" if number == 0 else trees[number].shown
            built.insert(0, build(trees[number], title, others=list(built), more=more, extension=extension))
        names = sorted(built[0]["commands"])
        if not command and len(names) == 1:
            command = names[0]
        if command not in names:
            raise LookupError(f"which command? {root} has: {', '.join(names) or 'none'}; not {command or 'one'}")
        yield [_alone(built[0], command), *built[1:-2]], command


def _alone(toolbox: dict[str, Any], command: str) -> dict[str, Any]:
    """The toolbox, with a manifest that says that the command requires nothing; ``needs`` says what it did."""
    entry = toolbox["commands"][command]
    commands = dict(toolbox["commands"], **{command: dict(entry, requires=[], needs=entry["requires"])})
    return sealed({**toolbox, "name": "test", "commands": commands})


def _written(text: str, directory: Path) -> Path:
    """A toolbox of one module, given as text; it is named for its (last) class that has a ``do``."""
    names = [
        node.name
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and any(getattr(part, "name", "") == "do" for part in node.body)
    ]
    if not names:
        raise LookupError("this text has no class with a do()")
    file = directory / "given_toolbox" / f"{names[-1]}.py"
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    return file


def _found(source: Any, name: str | None) -> tuple[Path | str, str]:
    """The toolbox, a directory or a dotted name as ``build`` takes them, and the command, "" where it is not said."""
    if inspect.isclass(source):
        package = source.__module__.rpartition(".")[0]
        return package or Path(inspect.getfile(source)).parent, source.__name__
    if isinstance(source, Path) or "/" in source or Path(source).exists():
        path = Path(source).resolve()
        if path.suffix != ".py":
            return path, name or ""
        directory = path.parent
        while (directory.parent / "__init__.py").is_file():
            directory = directory.parent
        return directory, name or path.stem
    top, *parts = source.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"there is no toolbox, module or base command {source}")
    if Path(spec.submodule_search_locations[0], *parts).is_dir():
        return source, name or ""
    if len(parts) > 1 and parts[-1] == parts[-2]:
        parts.pop()
    return ".".join([top, *parts[:-1]]), name or parts[-1]
