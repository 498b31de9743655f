"""Whether a new configuration's pilots fail markedly more often than those of the one that it is to follow."""

from math import comb
from typing import NamedTuple

SURE = 0.01
"""At most so likely may the difference be where there is none."""

TIMES = 2.0
"""So many times the other's failure rate is "markedly more": a small difference is not worth a withdrawal."""

LEAST = 5
"""Failures below which nothing is concluded."""


class Outcomes(NamedTuple):
    """What became of the pilots of one configuration.

    ``failed``: Failed, or Aborted (lost, never started); ``good``: Done, or Running now. Those that have not yet
    started say nothing. Running ones count, or a canary that fails at once would have nobody to be compared with until
    the first long pilot of the other ends.
    """

    good: int = 0
    failed: int = 0

    @property
    def rate(self) -> float | None:
        """The part that failed; None where there is nothing to tell it by."""
        total = self.good + self.failed
        return self.failed / total if total else None


def likelihood(canary: Outcomes, other: Outcomes) -> float:
    """Fisher's exact test, one-sided: how likely are so many failures of the canary, or more, if both fail alike?

    That is, of all ways to deal the failures out to the pilots, the part that gives the canary at least as many. Exact
    for any numbers, however small. (R. A. Fisher, The Design of Experiments, 1935, chapter II.)

    >>> round(likelihood(Outcomes(good=1, failed=3), Outcomes(good=3, failed=1)), 4)
    0.2429
    """
    mine, theirs = sum(canary), sum(other)
    failed = canary.failed + other.failed
    ways, n = 0, max(canary.failed, failed - theirs)
    deal = comb(mine, n) * comb(theirs, failed - n)
    while deal:
        ways += deal
        # The next from this one, exactly: many times faster than two binomials of thousands of pilots each time.
        deal = deal * (mine - n) * (failed - n) // ((n + 1) * (theirs - failed + n + 1))
        n += 1
    return ways / comb(mine + theirs, failed)


def withdraw(canary: Outcomes, other: Outcomes) -> str | None:
    """Why the canary is to be withdrawn, as a sentence; None where there is no reason.

    All three must hold: at least LEAST of its pilots failed; that is at least TIMES the other's rate; and it is not
    chance (`likelihood` below SURE).
    """
    rate, base = canary.rate, other.rate
    if canary.failed < LEAST or rate is None or base is None or rate < TIMES * base:
        return None
    chance = likelihood(canary, other)
    if chance >= SURE:
        return None
    told = f"{canary.failed} of {sum(canary)} pilots failed, against {other.failed} of {sum(other)}"
    return f"{told} of the current configuration (p = {chance:.2g})"
