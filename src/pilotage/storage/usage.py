"""What each owner used, for fair share: core-seconds that fade with a half-life (see wms.shares).

A lease is charged in full when it is given and settled when it ends, so that many jobs given at once weigh at once.
"""

from sqlalchemy import Connection, bindparam, select, update

from pilotage.storage.sql import insert_or
from pilotage.storage.tables import usage
from pilotage.wms.shares import decayed

_all = select(usage.c.vo, usage.c.owner, usage.c.value, usage.c.at)
_one = (
    select(usage.c.value, usage.c.at)
    .where(usage.c.vo == bindparam("b_vo"), usage.c.owner == bindparam("b_owner"))
    .with_for_update()
)
_save = (
    update(usage)
    .where(usage.c.vo == bindparam("b_vo"), usage.c.owner == bindparam("b_owner"))
    .values(value=bindparam("b_value"), at=bindparam("b_at"))
)


class Charges:
    """What a transaction adds to usage and takes off it; saved once, at its end, so that few wait for a row."""

    def __init__(self, now: float, half_life: float) -> None:
        self.now = now
        self.half_life = half_life
        self.sums: dict[tuple[str, str], float] = {}

    def add(self, vo: str, owner: str, amount: float) -> None:
        """Charges now."""
        self.sums[vo, owner] = self.sums.get((vo, owner), 0.0) + amount

    def settle(self, vo: str, owner: str, charged: float, at: float, actual: float) -> None:
        """Takes off what is left of an earlier charge and puts the truth in its place."""
        self.add(vo, owner, actual - decayed(charged, self.now - at, self.half_life))

    def save(self, conn: Connection) -> None:
        """Writes the sums (in one order everywhere: no two writers wait for each other in a ring)."""
        for (vo, owner), amount in sorted(self.sums.items()):
            row = conn.execute(_one, {"b_vo": vo, "b_owner": owner}).first()
            if row is None:
                conn.execute(
                    insert_or(conn, usage, ["vo", "owner"]), {"vo": vo, "owner": owner, "value": 0.0, "at": self.now}
                )
                row = conn.execute(_one, {"b_vo": vo, "b_owner": owner}).one()
            value = max(decayed(row.value, self.now - row.at, self.half_life) + amount, 0.0)
            conn.execute(_save, {"b_vo": vo, "b_owner": owner, "b_value": value, "b_at": self.now})
        self.sums.clear()


def read(conn: Connection, now: float, half_life: float) -> dict[tuple[str, str], float]:
    """Usage of everybody, decayed until now: {(vo, owner): core-seconds}."""
    return {(vo, owner): decayed(value, now - at, half_life) for vo, owner, value, at in conn.execute(_all)}
