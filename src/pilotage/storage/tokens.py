"""User and admin tokens: opaque, stored as digests only."""

import hashlib
import secrets
from typing import Any

from sqlalchemy import Connection, insert, select, update

from pilotage.storage import events, jsontext
from pilotage.storage.sql import numbers
from pilotage.storage.tables import tokens

Row = dict[str, Any]

SHOWN = [c for c in tokens.c if c.name != "digest"]


def digest(secret: str) -> str:
    """SHA-256 (hex) of a random secret. No salt and no stretching: our secrets have 256 bits of their own."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create(
    conn: Connection,
    kind: str,
    now: float,
    *,
    vo: str | None,
    owner: str,
    roles: list[str],
    expires: float | None,
    who: str = "",
) -> tuple[int, str]:
    """Makes a token of a kind ("user", "admin", ...) and gives (its id, the token itself); the latter is never seen
    again.

    ``expires``: unix seconds, None for never.
    """
    token = "pt_" + secrets.token_urlsafe(32)  # a prefix for secret scanners; a dash never comes first
    number = numbers(conn, "token", 1)
    row = {
        "id": number,
        "digest": digest(token),
        "kind": kind,
        "vo": vo,
        "owner": owner,
        "roles": jsontext.dump(roles),
        "created": now,
        "expires": expires,
    }
    conn.execute(insert(tokens), row)
    data = jsontext.dump({"kind": kind, "vo": vo, "owner": owner, "roles": roles})
    events.append(conn, [(now, "token", str(number), "created", who, "", "", data)])
    return number, token


def find(conn: Connection, token_digest: str, now: float) -> Row | None:
    """The live token with this digest: {id, kind, vo, owner, roles, created, expires, revoked}; None when unknown,
    expired or revoked."""
    row = conn.execute(select(*SHOWN).where(tokens.c.digest == token_digest)).mappings().first()
    if row is None or row["revoked"] is not None or (row["expires"] is not None and row["expires"] <= now):
        return None
    return _plain(row)


def listing(conn: Connection) -> list[Row]:
    """All tokens, revoked ones too: as `find`; never the digest."""
    return [_plain(row) for row in conn.execute(select(*SHOWN).order_by(tokens.c.id)).mappings()]


def revoke(conn: Connection, token_id: int, now: float, who: str = "") -> bool:
    """Ends a token at once. False when there is no such live token."""
    live = update(tokens).where(tokens.c.id == token_id, tokens.c.revoked.is_(None)).values(revoked=now)
    if not conn.execute(live).rowcount:
        return False
    events.append(conn, [(now, "token", str(token_id), "revoked", who, "", "", None)])
    return True


def _plain(row: Any) -> Row:
    return {**row, "roles": jsontext.load(row["roles"])}
