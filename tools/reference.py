#!/usr/bin/env python3
"""Write the pages of docs/reference from what they describe; --check only compares.

The pages of the worker node's commands (the toolbox) are made from their sources by AST, as the composer reads them.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
TRAITS = ("requires", "wants", "provides", "timeout")
NOTE = "<!-- Made by tools/reference.py from the sources: change them, then run `make docs`. -->\n"


def commands_page() -> str:
    """The page of the `pilotage` command."""
    from typer.main import get_command

    from pilotage.cli.main import app

    lines = [NOTE, "# The `pilotage` command\n"]
    root = get_command(app)
    lines.append(_text(root.help))
    lines.append("Options before the command:\n\n" + _table(root))
    lines.append(
        "Every listing takes `--json`. An error is one line on standard error and a status that is not 0: 1 an error, "
        "2 a wrong use, 130 after Ctrl-C. `--debug`, anywhere before `--`, shows the traceback.\n"
    )
    for path, command in _leaves(root, "pilotage"):
        lines += [f"## {path}\n", f"    {_usage(path, command)}\n", _text(command.help), _table(command)]
    return "\n".join(line for line in lines if line).rstrip() + "\n"


def _leaves(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if getattr(command, "commands", None):
            yield from _leaves(command, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


def _usage(path: str, command: Any) -> str:
    arguments = [_argument(parameter) for parameter in command.params if parameter.param_type_name == "argument"]
    return " ".join([path, "[OPTIONS]", *arguments])


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper())
    return f"{name}..." if parameter.nargs == -1 and "|" not in name else name


def _text(help: str | None) -> str:
    return (help or "").strip() + "\n"


def _table(command: Any) -> str:
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            rows.append((f"`{_argument(parameter)}`", parameter.help or ""))
        else:
            value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
            names = ", ".join([*parameter.opts, *parameter.secondary_opts])
            default = parameter.default
            shown = f" Default: {default}." if isinstance(default, (int, str)) and not isinstance(default, bool) else ""
            rows.append((f"`{names}{value}`", f"{parameter.help or ''}{shown}"))
    if not rows:
        return ""
    lines = [" | ".join(text.replace("|", "\\|") for text in row) for row in rows]
    return "| option | what it does |\n|---|---|\n" + "".join(f"| {line} |\n" for line in lines)


DIRAC = """\
Pilots of a VO with `engine: dirac` find these commands before those of the base toolbox, which work around them as they
are: monitoring, the usage report (DIRAC's jobs are counted in it) and the upload of the pilot's output.

What is tested against a real DIRAC server (8.0.86 and 9.1.22; `make test-dirac`): installations that are there already,
found by a script, and those made by pip; the configuration, asked for and answered over DISET (dips) with a proxy; jobs
with sandboxes in the inner CE InProcess; drain orders, signals, the end of the queue's time, and failures of each kind.
What is tested on stand-ins of the same interface only, as it cannot be had where the tests run: CVMFS, the DIRACOS2
installer. What has not been tried: host certificates, tokens, VOMS, the inner CEs Pool and Singularity.
"""


def toolbox_page() -> str:
    """The page of the commands that run inside a pilot."""
    lines = [NOTE, "# The base toolbox: what a pilot can be composed of\n"]
    lines.append(
        "Each is one atomic function of a pilot. Which of them run, in which order and with which options, is "
        "configuration (see [configuration](../configuration.md)); their options are set there under `options`.\n"
    )
    for file in sorted((ROOT / "node/src/pilotage_node/toolbox").glob("[A-Z]*.py")):
        lines += _toolbox_command(file)
    return "\n".join(lines).rstrip() + "\n"


def dirac_page() -> str:
    """The page of the commands for DIRAC."""
    lines = [NOTE, "# The toolbox `dirac`: pilots whose jobs are in a DIRAC\n", DIRAC]
    for name in ("InstallDIRAC", "ConfigureDIRAC", "RunJobAgent"):
        lines += _toolbox_command(ROOT / f"node/src/pilotage_node/toolboxes/dirac/{name}.py")
    return "\n".join(lines).rstrip() + "\n"


def _toolbox_command(file: Path) -> list[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == file.stem)
    values = {_name(n): n.value for n in found.body if isinstance(n, ast.Assign) and _name(n)}
    lines = [f"## {file.stem}\n", _text(ast.get_docstring(found) or ast.get_docstring(tree))]
    traits = [f"{name}: {_shown(values[name])}" for name in TRAITS if name in values]
    traits += [name for name in ("always", "background") if name in values and _shown(values[name]) == "True"]
    if traits:
        lines.append(", ".join(traits) + "\n")
    options = values.get("options")
    if isinstance(options, ast.Dict) and options.keys:
        lines.append("| option | type | default | what it does |\n|---|---|---|---|")
        for key, value in zip(options.keys, options.values, strict=True):
            if isinstance(value, ast.Call) and key is not None:
                kind, default, *help = value.args
                said = ast.literal_eval(help[0]) if help else ""
                lines.append(f"| `{ast.literal_eval(key)}` | {ast.unparse(kind)} | `{ast.unparse(default)}` | {said} |")
        lines.append("")
    return lines


def _name(assignment: ast.Assign) -> str:
    target = assignment.targets[0]
    return target.id if isinstance(target, ast.Name) else ""


def _shown(node: ast.expr) -> str:
    value = ast.literal_eval(node)
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def configuration_page() -> str:
    """The page of every key of a configuration file."""
    import configuration_page as made

    return str(made.page(NOTE))


PAGES = {
    "commands.md": commands_page,
    "configuration.md": configuration_page,
    "dirac.md": dirac_page,
    "toolbox.md": toolbox_page,
}


def main() -> int:
    check = "--check" in sys.argv[1:]
    REFERENCE.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, make in PAGES.items():
        page, file = make(), REFERENCE / name
        if not file.exists() or file.read_text(encoding="utf-8") != page:
            stale.append(name)
            if not check:
                file.write_text(page, encoding="utf-8")
    for name in stale:
        print(f"{'stale' if check else 'wrote'}: docs/reference/{name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
