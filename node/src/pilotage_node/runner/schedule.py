"""When the pilot speaks to the service next: pure, times are seconds of one monotonic clock."""

SHORTEST, LONGEST = 1.0, 30.0
"""Bounds of the pause after a failure [s]; it doubles from one to the other and is spread by half."""
COALESCE = 0.2
"""A report waits so long for others to go with it [s]."""


class Schedule:
    """``spread``: function without arguments, 0 <= value < 1, so that pilots do not come back all at once."""

    def __init__(self, spread):
        self.spread = spread
        self.again_at = 0.0
        self.report_at = None
        self.not_before = 0.0
        self.failures = 0

    def reported(self, now):
        """A report waits."""
        if self.report_at is None:
            self.report_at = now + COALESCE

    def answered(self, now, again_seconds):
        """The service took a message and says when to come again."""
        self.failures, self.not_before = 0, 0.0
        self.again_at = now + again_seconds

    def failed(self, now, retry_after=0):
        """The service was not reached or asked to be left alone: the pause until the next attempt [s]."""
        pause = min(LONGEST, SHORTEST * 2 ** min(self.failures, 10)) * (0.5 + self.spread() / 2)
        self.failures += 1
        pause = max(pause, retry_after)
        self.not_before = now + pause
        return pause

    def due(self, urgent):
        """When to speak next; ``urgent``: as soon as allowed."""
        at = 0.0 if urgent else self.again_at
        if self.report_at is not None:
            at = min(at, self.report_at)
        return max(at, self.not_before)
