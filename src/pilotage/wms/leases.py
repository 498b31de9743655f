"""What becomes of a job when its lease ends without a result."""

from pilotage.wms import jobs

LOST = "Lost"  # the pilot was silent too long, or left without a word: the job may have run
RETURNED = "Returned"  # leased ahead and given back: the job was surely not started


def aftermath(outcome: str, attempt: int, retries: int, kill: str | None) -> tuple[str, str]:
    """(state, reason) of a job after its lease was lost or returned.

    ``attempt`` is the number of this start (1 is the first), ``retries`` how many more starts than one are allowed: a
    job with ``retries: 0`` that may have been started is never started again. ``kill``: the reason of a kill order, if
    any.

    >>> aftermath(LOST, 1, 0, None)
    ('Failed', 'lost')
    >>> aftermath(RETURNED, 1, 0, None)
    ('Waiting', '')
    """
    if kill is not None:
        return jobs.KILLED, "killed"
    if outcome == RETURNED or attempt <= retries:
        return jobs.WAITING, ""
    return jobs.FAILED, "lost"


def attempts(outcome: str, attempt: int) -> int:
    """How many starts are used up afterwards: a returned lease uses none."""
    return attempt - 1 if outcome == RETURNED else attempt


def ended_as(reported: str, reason: str) -> str:
    """How a lease ended, by the pilot's report: Done, Failed, Killed, Returned, or Lost when the job was cut short only
    because its pilot had to leave (whether it may run again is for `aftermath` to say)."""
    return LOST if reported == jobs.FAILED and reason in ("drained", "lost") else reported
