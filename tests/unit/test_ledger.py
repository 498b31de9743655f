"""Directors without a resource: what they write of pilots that are over, what they say of those that stay."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from storage_parts import Clock, FakePilot, spec

from pilotage.directors.ledger import Ledger
from pilotage.directors.recovery import REPORT_SECONDS
from pilotage.directors.run import Directors
from pilotage.engines.builtin import BuiltinEngine
from pilotage.resources.base import State, Status
from pilotage.storage import Storage, jobs, usage

pytest_plugins = ["storage_fixtures"]


async def test_a_lost_pilots_jobs_are_charged_for_what_they_got(storage: Storage, clock: Clock) -> None:
    engine = BuiltinEngine(storage, b"k" * 32)
    await engine.start()
    half_life = engine.settings.half_life
    await engine.submit("demo", "ann", [spec(wall_seconds=3600)])
    pilot = await FakePilot(engine, "p1").plan()
    await pilot.register()
    await pilot.sync()
    clock.time += 10
    ledger = Ledger(storage, "box", "me", half_life)
    assert await ledger.hold(0.0, 60.0) == (True, True)
    over = clock.time - REPORT_SECONDS
    await ledger.close("p1", Status(State.ENDED, 137), over, 60.0, "")
    assert await storage.read(jobs.counts) == {"Waiting": 1}
    used = await storage.read(usage.read, clock.time, half_life)
    assert used["demo", "ann"] == pytest.approx(10.0, abs=0.1), "not the hour that it was leased for"


class Blind:
    """A director whose database does not answer."""

    name = "box"

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def drain(self) -> None:
        pass

    async def left(self) -> int:
        raise OSError("no database")

    def wake(self) -> None:
        pass


async def test_pilots_that_cannot_be_counted_are_not_gone() -> None:
    blind: Any = Blind()
    none: Any = None
    directors = Directors(none, os.open(os.devnull, os.O_RDONLY))
    directors._directors["box"] = blind
    try:
        assert await directors.drain(0.1) == 1
    finally:
        blind.ledger = Nothing()
        await directors.stop()


class Nothing:
    """No lease to give back."""

    async def release(self) -> None:
        pass
