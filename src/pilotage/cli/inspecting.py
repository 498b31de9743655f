"""`pilotage inspect`: what a pilot script or a seed holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import CliError
from .generate import Json, read_text
from .output import clean, print_fields, print_json, print_table


def inspect(
    file: Annotated[Path, typer.Argument(metavar="PILOT", help="A pilot script or a seed.")],
    sources: Annotated[Path | None, typer.Option(metavar="DIR", help="Unpack all that it carries into DIR.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a pilot script is made of, or a seed.

    That is profile and commands with all options, or what the seed fetches and from where; and that the script was not
    altered since it was composed. One that an sh script holds (`generate --rendering shell`) is found in there.
    """
    from pilotage.renderings.shell import held
    from pilotage_node.compose import ScriptError, read_script

    try:
        script = read_script(held(read_text(file, "the pilot script")))
    except ScriptError as error:
        raise CliError(f"{file}: {error}") from error
    if sources is not None:
        _unpack(script.sections, sources)
    if as_json and "seed" in script.profile:
        print_json({"digest": script.digest, "seed": script.profile})
    elif as_json:
        print_json({"digest": script.digest, "profile": script.profile, "provenance": script.provenance})
    elif "seed" in script.profile:
        _show_seed(script)
    else:
        _show_pilot(script)
    if not as_json and sources is not None:
        print(f"\nunpacked {len(script.sections)} files into {clean(sources)}")


def _common(script: Any) -> list[tuple[str, Any]]:
    """What pilots and seeds have in common."""
    profile = script.profile
    where = "/".join(part for part in (profile["site"], profile["resource"], profile["queue"]) if part)
    size = sum(len(text) for text in script.sections.values())
    return [
        ("digest", f"sha256:{script.digest} (as its text)"),
        ("flavour", profile["flavour"]),
        ("VO", profile["vo"]),
        ("where", where or "any machine"),
        ("size", f"{size} characters in {len(script.sections)} sections"),
    ]


def _show_pilot(script: Any) -> None:
    profile = script.profile
    print_fields(
        [
            *_common(script),
            ("configuration", profile["revision"]),
            ("service", ", ".join(profile["service"]["urls"]) or "none given"),
            ("trust anchors", len(profile["service"]["trust"]) or "the node's own"),
        ]
    )
    print()
    rows = (
        (number, command["name"], " ".join(f"{key}={json.dumps(value)}" for key, value in command["options"].items()))
        for number, command in enumerate(profile["commands"])
    )
    print_table(("#", "COMMAND", "OPTIONS"), rows)


def _show_seed(script: Any) -> None:
    seed = script.profile
    held = f"held: the pilot is sha256:{seed['pinned']['script']}" if seed["pinned"] else "fetched"
    fields = [("manifest", held), ("trust anchors", len(seed["trust"]) or "the node's own")]
    print_fields([*_common(script), *fields, ("cache", seed["cache"] or "the user's own")])
    print()
    rows = (
        (number, source["place"], "manifest and blobs" if source["manifest"] else "blobs only")
        for number, source in enumerate(seed["sources"])
    )
    print_table(("#", "SOURCE", "GIVES"), rows, narrow=None)


def _unpack(sections: dict[str, str], directory: Path) -> None:
    """Write each section to a file of its name; a script of unknown origin does not choose where that is."""
    from .fetch import safe_parts

    for name, text in sections.items():
        parts = safe_parts(name.partition(" ")[0])
        target = directory.joinpath(*parts)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.parent.resolve().is_relative_to(directory.resolve()) or target.is_symlink():
                raise CliError(f"refused to write through a link at {target}")
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CliError(f"cannot write {target}: {error.strerror}") from error
