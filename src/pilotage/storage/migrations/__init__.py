"""Migrations of the database, by Alembic, which is imported only when there is something to migrate.

A revision is a module in `versions`, written by hand: ``revision``, ``down_revision``, ``upgrade()``.
"""

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from pilotage.storage.database import engine_for
from pilotage.storage.errors import SchemaError
from pilotage.storage.schema import revision_of


def config() -> Config:
    """Alembic's configuration, which needs no file."""
    settings = Config()
    settings.set_main_option("script_location", "pilotage.storage:migrations")
    settings.set_main_option("path_separator", "os")
    return settings


def revisions() -> list[str]:
    """All revisions, oldest first."""
    return [script.revision for script in reversed(list(ScriptDirectory.from_config(config()).walk_revisions()))]


def upgrade(url: URL, target: str = "head") -> list[str]:
    """Applies what is missing, in one transaction; gives the revisions applied. Raises SchemaError."""
    known = revisions()
    settings = config()
    engine = engine_for(url, writes=True)
    try:
        with engine.begin() as conn:
            before = revision_of(conn)
            if before is not None and before not in known:
                raise SchemaError(f"the database is of revision {before}, made by a newer Pilotage than this one")
            settings.attributes["connection"] = conn
            command.upgrade(settings, target)
            after = revision_of(conn)
    except OperationalError as error:
        raise SchemaError(str(error.orig).strip()) from error
    finally:
        engine.dispose()
    first = known.index(before) + 1 if before is not None else 0
    last = known.index(after) + 1 if after is not None else 0
    return known[first:last]
