"""Small helps for SQL that both databases speak."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from pilotage.storage.tables import counters

_next = update(counters).where(counters.c.name == bindparam("b_name")).values(value=counters.c.value + bindparam("b_n"))
_value = select(counters.c.value).where(counters.c.name == bindparam("b_name"))


def numbers(conn: Connection, name: str, n: int) -> int:
    """The first of ``n`` new numbers, which nobody else gets. They follow one another in the order of commits."""
    if not conn.execute(_next, {"b_name": name, "b_n": n}).rowcount:
        conn.execute(insert_or(conn, counters, ["name"]), {"name": name, "value": 0})
        conn.execute(_next, {"b_name": name, "b_n": n})
    value: int = conn.execute(_value, {"b_name": name}).scalar_one()
    return value - n + 1


def insert_or(conn: Connection, table: Table, keys: Sequence[str], replace: Sequence[str] = ()) -> Any:
    """An insert that leaves a row with the same keys as it is, or replaces the named columns of it."""
    statement: Any = (sqlite.insert if conn.dialect.name == "sqlite" else postgresql.insert)(table)
    if not replace:
        return statement.on_conflict_do_nothing(index_elements=list(keys))
    return statement.on_conflict_do_update(
        index_elements=list(keys), set_={name: getattr(statement.excluded, name) for name in replace}
    )
