"""Who serves a resource: a fenced lease; and what the resource is, for as long as it is served."""

from sqlalchemy import Connection, select, update

from pilotage.storage.sql import insert_or
from pilotage.storage.tables import resources


def acquire(conn: Connection, resource: str, holder: str, now: float, term: float) -> int | None:
    """Takes or renews the right to serve a resource for ``term`` seconds: gives the fence, or None when another has it.

    The fence grows with each change of holder (and when one comes back too late) and stays while one renews in time.
    """
    free = {"name": resource, "holder": "", "fence": 0, "expires": 0.0}
    conn.execute(insert_or(conn, resources, ["name"]), free)
    row = conn.execute(select(resources).where(resources.c.name == resource).with_for_update()).one()
    in_time = row.expires > now
    if in_time and row.holder != holder:
        return None
    fence: int = row.fence if in_time else row.fence + 1
    mine = {"holder": holder, "fence": fence, "expires": now + term}
    conn.execute(update(resources).where(resources.c.name == resource).values(mine))
    return fence


def check(conn: Connection, resource: str, fence: int, now: float) -> bool:
    """Whether the fence is still the one that counts. To be asked in the same transaction as the write that it
    guards."""
    row = conn.execute(select(resources).where(resources.c.name == resource).with_for_update()).first()
    return row is not None and row.fence == fence and row.expires > now


def release(conn: Connection, resource: str, fence: int) -> None:
    """Gives the right back early, so that the next one need not wait."""
    conn.execute(update(resources).where(resources.c.name == resource, resources.c.fence == fence).values(expires=0.0))


def remember(conn: Connection, resource: str, settings: str | None) -> None:
    """Keeps what a resource is configured to be (JSON); None: it is no longer served."""
    conn.execute(update(resources).where(resources.c.name == resource).values(settings=settings))


def served(conn: Connection) -> dict[str, str]:
    """{name: settings as kept} of the resources that are served, or were when their directors ended."""
    query = select(resources.c.name, resources.c.settings).where(resources.c.settings.is_not(None))
    return {row[0]: row[1] for row in conn.execute(query.order_by(resources.c.name))}
