"""The life cycle of a job: which states there are and what leads from one to another."""

WAITING = "Waiting"  # in a task queue
MATCHED = "Matched"  # leased to a pilot, not known to have started
RUNNING = "Running"
DONE = "Done"
FAILED = "Failed"
KILLED = "Killed"

STATES = (WAITING, MATCHED, RUNNING, DONE, FAILED, KILLED)
ENDED = frozenset((DONE, FAILED, KILLED))

TRANSITIONS: dict[str, frozenset[str]] = {
    WAITING: frozenset((MATCHED, KILLED)),
    MATCHED: frozenset((RUNNING, WAITING, DONE, FAILED, KILLED)),
    RUNNING: frozenset((WAITING, DONE, FAILED, KILLED)),
    DONE: frozenset(),
    FAILED: frozenset(),
    KILLED: frozenset(),
}
"""From each state, those that may follow. A leased job waits again when its lease is returned or lost."""


def next_state(state: str, wanted: str) -> str | None:
    """The state after a wish to go to ``wanted``; None where that is not allowed (or changes nothing).

    >>> next_state("Matched", "Running")
    'Running'
    >>> next_state("Done", "Running") is None
    True
    """
    return wanted if wanted in TRANSITIONS[state] else None
