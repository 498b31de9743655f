"""Making a database, and telling whether one fits this code."""

from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import OperationalError, ProgrammingError

from pilotage.storage.errors import SchemaError
from pilotage.storage.tables import REVISION, metadata

VERSION_TABLE = "alembic_version"
"""Where Alembic keeps the revision; made by us as it would make it, so that a new database needs no Alembic."""

LOCK = 0x70696C6F
"""PostgreSQL's advisory lock while a database is made: two services may start at once."""


def revision_of(conn: Connection) -> str | None:
    """The database's revision; None when it has none."""
    if not inspect(conn).has_table(VERSION_TABLE):
        return None
    revision: str | None = conn.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()
    return revision


def prepare(engine: Engine) -> None:
    """Makes a new database, accepts one that fits. Raises SchemaError, with what to do, for any other."""
    try:
        with engine.begin() as conn:
            if conn.dialect.name == "postgresql":
                conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
            revision = revision_of(conn)
            if revision == REVISION:
                return
            if revision is None:
                present = set(inspect(conn).get_table_names())
                if present:
                    raise SchemaError(
                        f"the database has tables ({', '.join(sorted(present)[:3])}...) that Pilotage did not make"
                    )
                create(conn)
                return
    except (OperationalError, ProgrammingError) as error:
        raise SchemaError(f"the database cannot be used: {str(error.orig).strip()}") from error
    if revision in known():
        raise SchemaError(
            f"the database is of revision {revision}, this Pilotage needs {REVISION}: run `pilotage storage migrate`"
        )
    raise SchemaError(
        f"the database is of revision {revision}, made by a newer Pilotage than this one (which knows {REVISION})"
    )


def create(conn: Connection) -> None:
    """All tables, in an empty database."""
    metadata.create_all(conn)
    key = f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num)"
    conn.exec_driver_sql(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, {key})")
    conn.exec_driver_sql(f"INSERT INTO {VERSION_TABLE} (version_num) VALUES ('{REVISION}')")


def known() -> list[str]:
    """The revisions that this code can migrate from, oldest first."""
    from pilotage.storage.migrations import revisions  # Alembic is imported only here

    return revisions()
