"""`pilotage config canary`, `promote`, `withdraw`: a revision tried by a share of the new pilots."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .config_files import ask
from .output import moment, print_fields, print_json, print_table

SIDES = ("canary", "current")

Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
Number = Annotated[
    int | None, typer.Argument(metavar="[N]", min=1, help="The canary's revision, to be sure that it is that one.")
]
Message = Annotated[str, typer.Option("--message", "-m", metavar="WHY", help="Why; it is kept with the change.")]


def canary(
    number: Annotated[
        int | None, typer.Argument(metavar="[N]", min=1, help="A revision that was tried; else the present canary.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what became of the canary's pilots, beside those of the current revision.

    Counted are the pilots made since it began, at its resource and of its VO. The service withdraws it by itself when
    its pilots fail markedly more often.
    """
    found = ask("GET", "/configuration/canary", number=number)
    if as_json:
        print_json(found)
        return
    revision, trial = found["revision"], found["revision"]["canary"]
    print_fields(
        [
            ("canary", f"revision {revision['number']} (by {revision['author']}: {revision['reason']})"),
            ("state", revision["state"]),
            ("since", moment(revision["time"])),
            ("share", f"{trial['share'] * 100:g}% of new pilots"),
            ("resource", trial["resource"] or "all"),
            ("VO", trial["vo"] or "all"),
            ("ended", moment(trial.get("ended"))),
            ("by", trial.get("by")),
            ("why", trial.get("why")),
            ("by chance", f"{_chance(found['likelihood'])} for a difference like this, or a larger one"),
        ]
    )
    print()
    numbers = {"canary": revision["number"], "current": found["base"] or "defaults"}
    print_table(("PILOTS OF", "REVISION", *HEAD), ((side, numbers[side], *_row(found[side])) for side in SIDES))


HEAD = ("WAITING", "RUNNING", "DONE", "FAILED", "ABORTED", "FAILURES")


def _row(side: dict[str, Any]) -> tuple[Any, ...]:
    states, rate = side["states"], side["failure_rate"]
    counts = (states.get(state, 0) for state in ("Running", "Done", "Failed", "Aborted"))
    return (side["waiting"], *counts, "-" if rate is None else f"{rate * 100:.1f}%")


def _chance(likelihood: float) -> str:
    return f"p = {likelihood:.2g}"


def promote(number: Number = None, message: Message = "", as_json: Json = False) -> None:
    """Make the canary the current revision, for all new pilots."""
    _end("promote", number, message, as_json, "is current")


def withdraw(number: Number = None, message: Message = "", as_json: Json = False) -> None:
    """Give the canary to no more pilots; those that have it go on."""
    _end("withdraw", number, message, as_json, "is withdrawn")


def _end(what: str, number: int | None, message: str, as_json: bool, said: str) -> None:
    made = ask("POST", f"/configuration/canary/{what}", {"number": number, "reason": message})
    if as_json:
        print_json(made)
    else:
        print(f"revision {made['number']} {said}")
