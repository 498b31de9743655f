"""`pilotage summary`: the whole on one screen."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .output import print_fields, print_json, print_table


def summary(as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False) -> None:
    """Show how many jobs and pilots there are, by state, and how each resource is served."""
    from .client import Client

    with Client() as client:
        found = {**client.get("/summary"), **client.get("/resources")}
        url = client.access.url
    if as_json:
        print_json(found)
        return
    print_fields([("service", url), ("jobs", _counts(found["jobs"])), ("pilots", _counts(found["pilots"]))])
    print()
    rows = ((each["resource"], each["pilots"], *_state(each)) for each in found["resources"])
    print_table(("RESOURCE", "PILOTS", "STATE", "WHY"), rows, empty="no resources")


def _counts(states: dict[str, Any]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items() if count) or "none"


def _state(each: dict[str, Any]) -> tuple[str, str]:
    """A resource's state in a word, and why it is in it."""
    resting = "; ".join(f"{queue}: {why}" for queue, why in each["resting"].items())
    if each["error"]:
        return "failing", each["error"]
    if each["leaving"]:
        return "leaving", f"{each['leaving']}; it is served until its pilots are gone"
    if each["draining"]:
        return "draining", "the service is ending"
    return ("resting", resting) if resting else ("served", "")
