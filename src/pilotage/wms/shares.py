"""Fair share: who used least of what is due to them comes first. Past use fades with a half-life."""

from collections.abc import Mapping
from typing import Any


def decayed(value: float, age: float, half_life: float) -> float:
    """What is left of some use after ``age`` seconds.

    >>> decayed(8.0, 20.0, 10.0)
    2.0
    """
    return float(value * 2.0 ** (-max(age, 0.0) / half_life)) if half_life > 0 else 0.0


def share_of(shares: Mapping[str, Any], vo: str, owner: str | None = None) -> float:
    """The share of a VO, or of an owner within it; 1 where none is configured.

    ``shares``: {vo: number} or {vo: {"share": number, "owners": {owner: number}}}.
    """
    entry = shares.get(vo, 1.0)
    if isinstance(entry, Mapping):
        entry = entry.get("share", 1.0) if owner is None else entry.get("owners", {}).get(owner, 1.0)
    elif owner is not None:
        return 1.0
    return max(float(entry), 1e-9)


class Loads:
    """Use over share, of VOs and of owners within VOs. Unit: core-seconds."""

    __slots__ = ("owners", "shares", "vos")

    def __init__(self, usage: Mapping[tuple[str, str], float], shares: Mapping[str, Any]) -> None:
        """``usage``: {(vo, owner): core-seconds, decayed until now}."""
        self.shares = shares
        self.owners = dict(usage)
        self.vos: dict[str, float] = {}
        for (vo, _), value in usage.items():
            self.vos[vo] = self.vos.get(vo, 0.0) + value

    def rank(self, vo: str, owner: str) -> tuple[float, float]:
        """The smaller comes first: between VOs, then between the owners of one."""
        return (
            self.vos.get(vo, 0.0) / share_of(self.shares, vo),
            self.owners.get((vo, owner), 0.0) / share_of(self.shares, vo, owner),
        )

    def charge(self, vo: str, owner: str, amount: float) -> None:
        """Counts more use: what was just given weighs on what is given next."""
        self.vos[vo] = self.vos.get(vo, 0.0) + amount
        self.owners[vo, owner] = self.owners.get((vo, owner), 0.0) + amount

    def copy(self) -> "Loads":
        """One to charge without changing this one."""
        return Loads(self.owners, self.shares)
