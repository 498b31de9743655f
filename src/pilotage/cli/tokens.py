"""`pilotage token`: who may speak to the service."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from .errors import CliError
from .output import moment, print_json, print_table

app = typer.Typer(help="Make, list and revoke tokens of people and programs.", no_args_is_help=True)

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


def seconds(text: str) -> int:
    """A duration as people write it: 90s, 15m, 12h, 30d, 4w."""
    match = re.fullmatch(r"(\d{1,9})\s*([smhdw])", text.strip())
    if not match or not int(match[1]):
        raise CliError(f"{text!r} is not a duration; write 90s, 15m, 12h, 30d or 4w", 2)
    return int(match[1]) * UNITS[match[2]]


@app.command()
def create(
    owner: Annotated[str, typer.Option(metavar="NAME", help="The person or program that it is for.")],
    vo: Annotated[str, typer.Option(metavar="NAME", help="The VO whose member it is.")],
    role: Annotated[
        list[str] | None, typer.Option(metavar="ROLE", help="user (default), vo_admin or admin; may be repeated.")
    ] = None,
    valid: Annotated[str, typer.Option(metavar="TIME", help="How long it is valid: 90s, 15m, 12h, 30d, 4w.")] = "30d",
    as_json: Json = False,
) -> None:
    """Make a token. It is printed once, and kept by the service only as a digest.

    Give it to the person as PILOTAGE_TOKEN, beside PILOTAGE_URL.
    """
    from .client import Client

    body = {"vo": vo, "owner": owner, "roles": role or ["user"], "seconds": seconds(valid)}
    with Client() as client:
        made = client.post("/tokens", body)
    if as_json:
        print_json(made)
    else:
        print(made["token"])
        if sys.stdout.isatty():
            print(f"use it so: export PILOTAGE_URL={client.access.url} PILOTAGE_TOKEN=...", file=sys.stderr)


@app.command("list")
def listing(as_json: Json = False) -> None:
    """List the tokens that were made (never their secrets)."""
    from .client import Client

    with Client() as client:
        found = client.get("/tokens")["tokens"]
    if as_json:
        print_json(found)
        return
    rows = (
        (
            token["id"],
            token["owner"],
            token["vo"],
            ", ".join(token["roles"]),
            moment(token["created"]),
            moment(token["expires"]) or "never",
            moment(token["revoked"]),
        )
        for token in found
    )
    print_table(("ID", "OWNER", "VO", "ROLES", "CREATED", "EXPIRES", "REVOKED"), rows, empty="no tokens")


@app.command()
def revoke(
    ids: Annotated[list[int], typer.Argument(metavar="ID", help="Numbers from `pilotage token list`.")],
) -> None:
    """End tokens at once."""
    from .client import Client

    with Client() as client:
        for identity in ids:
            client.delete(f"/tokens/{identity}")
            print(f"token {identity} is revoked")
