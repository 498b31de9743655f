"""What an operator may choose of the built-in engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DAY = 86400.0


@dataclass(frozen=True)
class Settings:
    """Durations in seconds."""

    lease_seconds: float = 120.0  # a pilot may be silent for so long
    sync_seconds: float = 10.0  # how often it comes when nothing presses
    busy_seconds: float = 0.2  # how soon it may come again after it got jobs
    half_life: float = 7 * DAY  # of past use, in fair share
    shares: Mapping[str, Any] = field(
        default_factory=dict
    )  # {vo: share} or {vo: {"share": n, "owners": {owner: n}}}; else 1
    keep_jobs: float = 30 * DAY  # after their end
    keep_pilots: float = 30 * DAY  # after their end
    keep_logs: float = 14 * DAY  # pilots' logs and outputs after their end; never longer than the pilots
    keep_events: float = 90 * DAY
    keep_files: float = 30 * DAY  # after their last use
    purge_seconds: float = 60.0  # how often what is too old is looked for

    @property
    def margin(self) -> float:
        """What is added to a lease's time: so it need not be renewed at each synchronisation, only once some of it is
        used."""
        return self.lease_seconds / 2
