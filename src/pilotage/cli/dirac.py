"""`pilotage config import` and `config export-dirac`: DIRAC's configuration to ours and back, offline."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import CliError
from .generate import load_configuration, refused
from .output import clean, print_json

if TYPE_CHECKING:
    from pilotage.configuration.dirac import Note

SHOWN = 40
"""Kinds of notes that a person sees; --json has all."""


def import_dirac(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A .cfg file: the whole configuration or a part of it.")
    ] = None,
    pilot_json: Annotated[
        Path | None, typer.Option("--pilot-json", metavar="FILE", help="A pilot.json; alone, or beside the .cfg.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write the files there.")] = None,
    as_dirac_does: Annotated[
        bool,
        typer.Option(
            "--as-dirac-does", help="A VO that sets the commands of one type loses those of all others, as in DIRAC."
        ),
    ] = False,
    setup: Annotated[
        str | None, typer.Option(metavar="NAME", help="The DIRAC setup (default: the one of DIRAC/Setup).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Files and notes as JSON, for programs.")] = False,
) -> None:
    """Make configuration files of a DIRAC configuration.

    Example: pilotage config import dirac.cfg --out pilots/

    DIR is then a configuration: for `pilotage config validate DIR`, `config apply DIR` and `up --config DIR`. What has
    no counterpart, and what means something else than one might think, is listed with its path and line. Nothing is
    written where the result is not valid.
    """
    from pilotage.configuration import ConfigurationError
    from pilotage.configuration.dirac import cfg, convert, pilotjson
    from pilotage.configuration.loader import load_files

    if file is None and pilot_json is None:
        raise CliError("what is imported? give a .cfg file, --pilot-json FILE, or both", 2)
    if out is not None:
        _check_empty(out)
    try:
        root = cfg.read(file) if file else None
        pilot = pilotjson.read(pilot_json) if pilot_json else None
        whole = pilotjson.together(root, pilot) if root and pilot else root or pilot
        assert whole is not None
        imported = convert(whole, setup=setup, as_dirac_does=as_dirac_does)
        configuration = load_files(imported.files)
    except ConfigurationError as error:
        raise refused(error) from error
    if out is not None:
        _write(out, imported.files)
    if as_json:
        print_json({"files": imported.files, "notes": [_as_data(note) for note in imported.notes]})
        return
    places = list(configuration.resources())
    queues = sum(len(resource.queues) for _, _, resource in places)
    print(f"{len(configuration.sites)} sites, {len(places)} resources, {queues} queues, {len(configuration.vos)} VOs")
    _tell(imported.notes)
    if out is None:
        print("nothing was written; give --out DIR to write " + ", ".join(list(imported.files)[:3]) + ", ...")
    else:
        print(f"wrote {len(imported.files)} files to {clean(out)}; see: pilotage config validate {clean(out)}")


def export_dirac(
    source: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="Configuration of ours.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write there (default: standard output).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Text and notes as JSON, for programs.")] = False,
) -> None:
    """Make a DIRAC configuration (.cfg) of a configuration.

    Example: pilotage config export-dirac pilots/ --out pilots.cfg

    It holds the Pilot sections, and VOs, sites, CEs and queues, as far as DIRAC has such things; what it has not is
    listed. The embedded defaults are not exported.
    """
    from pilotage.configuration import ConfigurationError
    from pilotage.configuration.dirac import export
    from pilotage.configuration.directory import parse_all, together

    configuration = load_configuration(source)
    try:
        data = together(parse_all(configuration.files))
    except ConfigurationError as error:
        raise refused(error) from error
    exported = export(data, configuration.where)
    if out is not None:
        if out.exists():
            raise CliError(f"{out} is there already")
        _write(out.parent, {out.name: exported.text})
    if as_json:
        print_json({"text": exported.text, "notes": [_as_data(note) for note in exported.notes]})
        return
    if out is None:
        sys.stdout.write(exported.text)
    _tell(exported.notes, file=sys.stdout if out is not None else sys.stderr)


def _as_data(note: Note) -> dict[str, Any]:
    return {"path": note.path, "text": note.text, "file": note.file, "line": note.line}


def _tell(notes: Iterable[Note], file: Any = None) -> None:
    """Notes for people: the same sentence about the same option of many places is one line, with the first place."""
    kinds: dict[tuple[str, str], list[Note]] = {}
    for note in notes:
        kinds.setdefault((note.path.rpartition("/")[2] if "/" in note.path else note.path, note.text), []).append(note)
    for (_, text), same in list(kinds.items())[:SHOWN]:
        place = f"{same[0].where}: " if same[0].where else ""
        more = f" (and {len(same) - 1} more like it)" if len(same) > 1 else ""
        print(clean(f"{place}{same[0].path}: {text}{more}"), file=file)
    if len(kinds) > SHOWN:
        print(f"... and {len(kinds) - SHOWN} other kinds of notes; --json has all", file=file)


def _check_empty(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CliError(f"{directory} is there already and not an empty directory")


def _write(directory: Path, files: Mapping[str, str]) -> None:
    try:
        for name, text in files.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CliError(f"cannot write {error.filename or directory}: {error.strerror}") from error
