"""`pilotage summary`: the whole on one screen."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .output import print_fields, print_json


def summary(as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False) -> None:
    """Show how many jobs and pilots there are, by state."""
    from .client import Client

    with Client() as client:
        found = client.get("/summary")
        url = client.access.url
    if as_json:
        print_json(found)
        return
    print_fields([("service", url), ("jobs", _counts(found["jobs"])), ("pilots", _counts(found["pilots"]))])


def _counts(states: dict[str, Any]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items() if count) or "none"
