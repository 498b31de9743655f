"""`pilotage toolbox`: make, check and list toolboxes; without a service."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import CliError
from .generate import Config, Json, load_configuration, refused
from .output import clean, print_fields, print_json, print_table

if TYPE_CHECKING:
    from pilotage.configuration import Configuration
    from pilotage.configuration.checks import Report
    from pilotage.configuration.sources import Tree

app = typer.Typer(help="Make, check and list toolboxes: where a pilot's commands come from.", no_args_is_help=True)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The toolbox and its package: a Python name.")],
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Where to make it; default: NAME, here.")
    ] = None,
) -> None:
    """Make a toolbox with one command and its tests, to begin with.

    Example: pilotage toolbox new mytools && pilotage toolbox check mytools
    """
    from pilotage.configuration.imports import STANDARD

    from .skeleton import FILES

    if not re.fullmatch(r"[a-z][a-z0-9_]{0,60}", name):
        raise CliError(f"'{name}' cannot be a toolbox: use small letters, digits and _, a letter first", 2)
    if name in STANDARD or name in ("base", "core", "dirac", "tests", "pilotage", "pilotage_node"):
        raise CliError(f"the name '{name}' is taken; choose another", 2)
    root = (directory or Path(name)).absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise CliError(f"{root} is there already; nothing was written")
    try:
        for path, text in FILES.items():
            file = root / path.replace("NAME", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("NAME", name).replace("PATH", str(root)), encoding="utf-8")
    except OSError as error:
        raise CliError(f"cannot write {error.filename}: {error.strerror}") from error
    print(f"made {root}; what to do with it is in its README.md")


@app.command()
def check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A directory, archive, or installed package (dotted).")],
    minimum: Annotated[str, typer.Option(metavar="VERSION", help="The oldest Python of the nodes.")] = "3.6",
    extension: Annotated[
        str | None, typer.Option(metavar="NAME", help="The VO's extension: NAME for commands in NAMEDIRAC....")
    ] = None,
    others: Annotated[
        list[str] | None, typer.Option("--with", metavar="PATH", help="A toolbox that it imports from; repeatable.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Import its modules without a sandbox.")] = False,
    as_json: Json = False,
) -> None:
    """Check whether a toolbox can be used, and tell all that is wrong with it.

    Refused is what cannot run on a worker node or be composed (syntax and features beyond the minimum, imports beyond
    the standard library, no do(), ...), facts that are used and not declared, and modules that do anything when they
    are imported: they are, in a sandbox without network and with a read-only file system.
    """
    from pilotage.configuration import checks
    from pilotage.configuration.compaction import ToolboxError

    if not re.fullmatch(r"3\.([6-9]|[1-9][0-9])", minimum):
        raise CliError(f"--minimum is a version of Python from 3.6 on, like 3.9, not '{minimum}'", 2)
    tree = _tree(path)
    try:
        behind = checks.built(tree, [_tree(other) for other in others or []], extension, minimum)
    except ToolboxError as error:
        raise CliError(f"a toolbox given by --with cannot be built: {error}") from error
    report = checks.check(tree, "checked", behind, extension=extension, minimum=minimum, trust=trust)
    if as_json:
        print_json(_document(report, path))
    else:
        _show(report, path, tree)
    count = len(report.findings)
    if count:
        raise CliError(f"the toolbox {path} has {count} problem{'' if count == 1 else 's'}")
    if report.forbidden:
        raise CliError(
            f"its modules were not imported: this kernel permits no sandbox ({report.forbidden}); "
            "read them, then use --trust"
        )


def _tree(path: str) -> Tree:
    from pilotage.configuration import sources
    from pilotage.configuration.compaction import ToolboxError

    try:
        if not Path(path).exists() and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", path):
            return sources.read_package(path)
        return sources.read_path(Path(path))
    except ToolboxError as error:
        raise CliError(str(error)) from error


def _sha256(path: str) -> str | None:
    """Of an archive: what the configuration must say."""
    import hashlib

    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else None


def _document(report: Report, path: str) -> dict[str, Any]:
    built = report.built
    return {
        "path": path,
        "sha256": _sha256(path),
        "good": not report.findings and not report.forbidden,
        "findings": [{"file": one.file, "line": one.line, "text": one.text} for one in report.findings],
        "sandbox": report.forbidden or None,
        "version": built and built["version"],
        "commands": sorted(built["commands"]) if built else [],
        "modules": sorted(built["modules"]) if built else [],
        "unused": report.unused,
    }


def _show(report: Report, path: str, tree: Tree) -> None:
    for finding in report.findings:
        print(clean(finding))
    built = report.built
    if report.findings or not built:
        return
    fields = [("path", path), ("version", built["version"]), ("sha256", _sha256(path))]
    print_fields([*fields, ("modules", f"{len(built['modules'])} travel, of {len(tree.files)} files")])
    rows = [(name, entry["module"], entry["summary"]) for name, entry in sorted(built["commands"].items())]
    if rows:
        print_table(("COMMAND", "MODULE", "WHAT IT DOES"), rows)
    else:
        print("it has no commands (RunX: a class RunX in RunX.py), only modules that toolboxes before it may import")
    for unused in report.unused:
        print(f"not needed by any command, so it does not travel: {clean(unused)}")


@app.command("list")
def listing(
    vo: Annotated[str | None, typer.Option(metavar="NAME", help="Only this VO's.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List the toolboxes of each VO, in the order in which commands are looked up, and the commands of each."""
    configuration = load_configuration(config)
    if vo is not None and vo not in configuration.vos:
        from pilotage.configuration.schema import unknown

        raise CliError(unknown("VO", vo, configuration.vos))
    found = [row for name in ([vo] if vo else configuration.vos) for row in _listed(configuration, name)]
    if as_json:
        print_json(found)
        return
    rows = [
        (row["vo"], row["name"], row["version"], row["digest"][:12], ", ".join(row["commands"]), row["source"])
        for row in found
    ]
    print_table(("VO", "TOOLBOX", "VERSION", "DIGEST", "COMMANDS", "SOURCE"), rows, empty="no VOs")


def _without_package(configuration: Configuration, vo: str, built: list[dict[str, Any]]) -> str:
    """What is said of a VO with an extension that no toolbox has commands of: they may be missing, or misspelt."""
    extension = configuration.vos[vo].extension
    modules = (entry["module"] for toolbox in built for entry in toolbox["commands"].values())
    if not extension or any(module.startswith(f"{extension}DIRAC.") for module in modules):
        return ""
    text = f"neither a toolbox nor this machine has commands in {extension}DIRAC"
    return f"VO {vo}: the extension is {extension}, but {text}"


def _listed(configuration: Configuration, vo: str) -> list[dict[str, Any]]:
    from pilotage.configuration import ConfigurationError, shelf

    try:
        built = shelf.toolboxes_of(configuration, vo)
    except ConfigurationError as error:
        raise refused(error) from error
    boxes = {source.toolbox.name: source.toolbox for source in shelf.sources_of(configuration, vo)}
    note = _without_package(configuration, vo, built)
    if note:
        print(clean(note), file=sys.stderr)
    found = []
    for toolbox in built:
        box = boxes.get(toolbox["name"])
        source = (box.path or box.package or f"entry point {box.entry_point}") if box else "Pilotage"
        row = {key: toolbox[key] for key in ("name", "version", "digest")}
        found.append({"vo": vo, **row, "source": source, "commands": sorted(toolbox["commands"])})
    return found
