"""What is too old goes, kind by kind, in bounded batches: no purge holds the writer for long."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, func, select

from pilotage.engines.settings import Settings
from pilotage.storage import Storage, events, files, jobs, leases, pilots, tables
from pilotage.storage.objects import file_key, output_key
from pilotage.wms.jobs import MATCHED, RUNNING, WAITING

BATCH = 500


def _files(conn: Connection, before: float) -> list[tuple[str, str]]:
    """Files not used since ``before``, nor since the oldest job that has not ended: that one may name them."""
    oldest = select(func.min(tables.jobs.c.submitted)).where(tables.jobs.c.state.in_((WAITING, MATCHED, RUNNING)))
    needed = conn.execute(oldest).scalar()
    return files.purge(conn, before if needed is None else min(before, needed), BATCH)


def _still_gone(conn: Connection, gone: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(vo, sha256) for vo, sha256 in gone if not files.has(conn, vo, [sha256])]


async def purge(storage: Storage, settings: Settings, now: float) -> dict[str, int]:
    """Deletes one batch of each kind that is older than its setting says, and their objects; gives how many of each."""
    kinds: dict[str, tuple[Callable[..., Any], float]] = {
        "jobs": (jobs.purge, settings.keep_jobs),
        "queues": (jobs.purge_queues, settings.keep_jobs),
        "leases": (leases.purge, settings.keep_jobs),
        "events": (events.purge, settings.keep_events),
    }
    gone: dict[str, int] = {}
    for kind, (function, keep) in kinds.items():
        found = await storage.write(function, now - keep, BATCH)
        gone[kind] = found if isinstance(found, int) else len(found)
    stamps = await storage.write(pilots.purge, now - settings.keep_pilots, BATCH)
    await _delete_logs(storage, stamps)
    unlogged = await storage.read(pilots.old_logs, now - settings.keep_logs, BATCH)
    await _delete_logs(storage, unlogged)
    await storage.write(pilots.logs_purged, unlogged, now)  # after the deletion: cut short, it is done again
    unused = await storage.write(_files, now - settings.keep_files)
    for vo, sha256 in await storage.read(_still_gone, unused):
        await storage.objects.delete(file_key(vo, sha256))
    return {**gone, "pilots": len(stamps), "logs": len(unlogged), "files": len(unused)}


async def _delete_logs(storage: Storage, stamps: list[str]) -> None:
    """A pilot's log and outputs go together."""
    for stamp in stamps:
        await storage.objects.delete_under(f"logs/{stamp}")
        await storage.objects.delete_under(output_key(stamp, "").rstrip("/"))
