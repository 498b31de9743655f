"""The life cycle of a pilot."""

from pilotage_node.meanings import TABLE

PLANNED = "Planned"  # recorded, not yet known to be submitted
SUBMITTED = "Submitted"
RUNNING = "Running"
DONE = "Done"
FAILED = "Failed"
ABORTED = "Aborted"  # never registered, or lost

STATES = (PLANNED, SUBMITTED, RUNNING, DONE, FAILED, ABORTED)
ENDED = frozenset((DONE, FAILED, ABORTED))

LOST = "lost"
"""The reason of an Aborted pilot that fell silent. It is the only end that a pilot may come back from."""

NEVER_STARTED = "never_started"
"""The reason of an Aborted pilot whose one-time secret expired unused."""

GOOD = frozenset((200, 300))
"""Shutdown codes of the Vacuum model (see pilotage_node.meanings) of a pilot that did what it could: success, no
work."""

TRANSITIONS: dict[str, frozenset[str]] = {
    PLANNED: frozenset((SUBMITTED, RUNNING, FAILED, ABORTED)),
    SUBMITTED: frozenset((RUNNING, FAILED, ABORTED)),
    RUNNING: frozenset((DONE, FAILED, ABORTED)),
    DONE: frozenset(),
    FAILED: frozenset(),
    ABORTED: frozenset((RUNNING,)),
}
"""From each state, those that may follow; Aborted to Running only as `returns` says."""


def next_state(state: str, wanted: str, reason: str = "") -> str | None:
    """The state after a wish to go to ``wanted``, None where that is not allowed. ``reason``: of the present state."""
    if state == ABORTED and wanted == RUNNING and reason != LOST:
        return None
    return wanted if wanted in TRANSITIONS[state] else None


def end_state(exit_code: int | None) -> str:
    """The state that a pilot's own last report means: Done where its shutdown code (pilotage_node.meanings) says
    success or no work, so a pilot that found nothing to do, or was told to leave and did, has not failed.

    >>> end_state(0), end_state(20), end_state(None)
    ('Done', 'Failed', 'Failed')
    """
    shutdown = TABLE[exit_code][0] if exit_code in TABLE else None
    return DONE if shutdown in GOOD else FAILED
