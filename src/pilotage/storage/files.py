"""Which files (by digest) a VO has in the object store, and when they were last of use."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update

from pilotage.storage.sql import insert_or
from pilotage.storage.tables import files

PART = 500
"""Digests in one statement."""


def record(conn: Connection, vo: str, sha256: str, size: int, now: float) -> None:
    """Notes a stored file, or that it was used again (which keeps it from being purged)."""
    row = {"vo": vo, "sha256": sha256, "size": size, "created": now, "used": now}
    conn.execute(insert_or(conn, files, ["vo", "sha256"], ["size", "used"]), row)


def has(conn: Connection, vo: str, sha256s: Iterable[str]) -> set[str]:
    """Those of the digests that the VO has."""
    return set(sizes(conn, vo, sha256s))


def sizes(conn: Connection, vo: str, sha256s: Iterable[str]) -> dict[str, int]:
    """The sizes in bytes of those that the VO has."""
    found: dict[str, int] = {}
    for these in _parts(vo, sha256s):
        found.update({row.sha256: row.size for row in conn.execute(select(files.c.sha256, files.c.size).where(these))})
    return found


def touch(conn: Connection, vo: str, sha256s: Iterable[str], now: float) -> None:
    """The files are in use now (a job names them)."""
    for these in _parts(vo, sha256s):
        conn.execute(update(files).where(these).values(used=now))


def _parts(vo: str, sha256s: Iterable[str]) -> Iterable[ColumnElement[bool]]:
    wanted = sorted(set(sha256s))
    for start in range(0, len(wanted), PART):
        yield and_(files.c.vo == vo, files.c.sha256.in_(wanted[start : start + PART]))


def purge(conn: Connection, before: float, limit: int = 500) -> list[tuple[str, str]]:
    """Forgets files not used since then; gives their (vo, sha256): the caller then deletes the objects."""
    old: Any = select(files.c.vo, files.c.sha256).where(files.c.used < before).order_by(files.c.used).limit(limit)
    gone: list[tuple[str, str]] = [(vo, sha256) for vo, sha256 in conn.execute(old.with_for_update())]
    for vo, sha256 in gone:
        conn.execute(delete(files).where(files.c.vo == vo, files.c.sha256 == sha256))
    return gone
