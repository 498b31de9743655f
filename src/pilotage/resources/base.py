"""What every resource can do, in bulk, and the plain data that goes in and out. Resources know nothing of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class ResourceError(Exception):
    """A resource refused or failed: one sentence, fit for the record of a pilot."""


class State(StrEnum):
    """Where a pilot is, as its resource sees it."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"
    """It ran (or was refused, or killed) and is over."""
    GONE = "gone"
    """The resource knows nothing of it, or knows that it never started and never will."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of one pilot; with ENDED the exit status where the resource knows it, and why where it says so."""

    state: State
    exit_code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One pilot to submit: its script and what lies beside it. `credentials` is secret: never in arguments or logs."""

    stamp: str
    queue: str
    script: str
    credentials: str = field(repr=False)
    wall_seconds: int | None = None
    cores: int | None = None
    memory_mib: int | None = None


class Resource(Protocol):
    """One resource. Calls are in bulk and may take long; their callers limit the time. A reference is a text.

    Any call may raise ResourceError when the resource as a whole cannot be reached: then nothing is known.
    """

    async def node(self) -> dict[str, Any]:
        """What is known of its nodes by itself: cores, memory_mib, disk_mib, gpus, platform, each or none."""

    async def submit(self, bundles: Sequence[Bundle]) -> dict[str, str | ResourceError]:
        """Starts pilots: for each stamp its reference, or why it was refused (then surely nothing was started)."""

    async def status(self, references: Sequence[str]) -> dict[str, Status]:
        """The status of each; those that the resource does not know are GONE."""

    async def cancel(self, references: Sequence[str]) -> None:
        """Ends pilots: politely first, then by force. Returns at once; `status` tells when they are over."""

    async def drain(self, references: Sequence[str]) -> None:
        """Asks running pilots to leave, by a signal where it can; else does nothing: the service orders it too."""

    async def output(self, reference: str) -> dict[str, bytes]:
        """What a pilot left, bounded in size: `stdout`, `stderr` and, where they are, its own log and record."""

    async def clean(self, references: Sequence[str]) -> None:
        """Forgets pilots that are over, and frees what they take. Repeating it is harmless."""

    async def find(self) -> dict[str, str]:
        """{stamp: reference} of all pilots that carry our tag, whatever their state: what a crash may have left.

        Pilots whose submission was cut short before they could start are made sure never to start, and are not listed.
        Never called while a submit of the same resource is under way.
        """

    async def free_slots(self) -> int | None:
        """How many more pilots would start at once; None: unknown."""
