"""What the directors of one process have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pilotage.configuration.live import Live
from pilotage.directors.supply import Scene, Waiting
from pilotage.engines.builtin import BuiltinEngine
from pilotage.storage import Storage


@dataclass(slots=True)
class Shared:
    """The parts that all of them use, and what one of them decides after the other.

    :ivar data: the directory of this installation
    :ivar urls: where new pilots find the service
    :ivar holder: who we are, in the leases of resources
    :ivar scene: what to plan with
    :ivar after: called with the name of each step that is done; tests crash there
    """

    storage: Storage
    engine: BuiltinEngine
    live: Live
    data: Path
    urls: Sequence[str]
    trust: Sequence[str]
    holder: str
    scene: Scene
    after: Callable[[str], None] = lambda step: None
    planning: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: Waiting = field(default_factory=Waiting)
