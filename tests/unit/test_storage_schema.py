"""Making, recognising and migrating databases. The same tests run on PostgreSQL (tests/real)."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import Engine, inspect
from storage_parts import spec

from pilotage.storage import Storage, jobs, migrate, schema
from pilotage.storage.database import engine_for, parse
from pilotage.storage.errors import SchemaError
from pilotage.storage.tables import REVISION, metadata

pytest_plugins = ["storage_fixtures"]


def shape(engine: Engine) -> dict[str, Any]:
    """All that a database says of its tables."""
    seen = inspect(engine)
    tables = {}
    for table in seen.get_table_names():
        columns = {c["name"]: (str(c["type"]), c["nullable"], c.get("primary_key")) for c in seen.get_columns(table)}
        indexes = sorted(
            (
                index["name"] or "",
                str(index["column_names"]),
                index["unique"],
                str({name: str(value) for name, value in index.get("dialect_options", {}).items()}),
            )
            for index in seen.get_indexes(table)
        )
        keys = (str(seen.get_pk_constraint(table)), str(seen.get_foreign_keys(table)))
        tables[table] = (columns, indexes, keys)
    if engine.dialect.name == "sqlite":
        with engine.connect() as conn:
            found = conn.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'index' OR name = 'leases'")
            tables["sql"] = {name: " ".join((sql or "").split()) for name, sql in found}
    return tables


async def test_a_migrated_database_is_as_a_new_one(url: str) -> None:
    engine = engine_for(parse(url), writes=True)
    try:
        assert migrate(url)[-1] == REVISION
        assert migrate(url) == []
        migrated = shape(engine)
        with engine.begin() as conn:
            metadata.drop_all(conn)
            conn.exec_driver_sql("DROP TABLE alembic_version")
            schema.create(conn)
        made = shape(engine)
    finally:
        engine.dispose()
    assert migrated == made
    assert set(metadata.tables) | {"alembic_version"} <= set(made)


async def test_a_migrated_database_works(url: str) -> None:
    migrate(url)
    storage = Storage(url)
    await storage.start()
    try:
        assert await storage.write(jobs.submit, "demo", "ann", [spec()], storage.now(), "") == [1]
    finally:
        await storage.close()


async def test_a_database_is_opened_again(url: str) -> None:
    for expected in (1, 2):
        storage = Storage(url)
        await storage.start()
        try:
            assert await storage.write(jobs.submit, "demo", "ann", [spec()], storage.now(), "") == [expected]
        finally:
            await storage.close()


async def refusal(url: str) -> str:
    with pytest.raises(SchemaError) as error:
        await Storage(url).start()
    return str(error.value)


async def stamp(url: str, revision: str) -> None:
    storage = Storage(url)
    await storage.start()
    await storage.close()
    engine = engine_for(parse(url), writes=True)
    with engine.begin() as conn:
        conn.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
    engine.dispose()


async def test_a_newer_database_is_refused(url: str) -> None:
    await stamp(url, "9999")
    assert "made by a newer Pilotage" in await refusal(url)
    with pytest.raises(SchemaError, match="newer Pilotage"):
        migrate(url)


async def test_an_older_database_says_what_to_do(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await stamp(url, REVISION)
    monkeypatch.setattr(schema, "REVISION", "next")
    assert "pilotage storage migrate" in await refusal(url)


async def test_a_database_of_something_else_is_refused(url: str) -> None:
    engine = engine_for(parse(url), writes=True)
    with engine.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE customers (id INTEGER)")
    engine.dispose()
    assert "customers" in await refusal(url)


@pytest.mark.parametrize("bad", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "nonsense", ""])
def test_urls_that_cannot_work(bad: str) -> None:
    with pytest.raises(ValueError, match="database"):
        Storage(bad)


async def test_a_new_database_needs_no_alembic(url: str) -> None:
    program = (
        "import asyncio, sys\n"
        "from pilotage.storage import Storage\n"
        "async def main():\n"
        "    storage = Storage(sys.argv[1]); await storage.start(); await storage.close()\n"
        "asyncio.run(main())\n"
        "sys.exit('alembic' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, url], check=True)
