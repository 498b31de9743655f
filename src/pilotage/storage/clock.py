"""The service's clock."""

import time


class Clock:
    """Unix seconds that never jump: the wall clock is read once, and the monotonic clock counts from there.

    So nothing expires because somebody set the time, and nothing expires while the machine is suspended.
    """

    def __init__(self) -> None:
        self.offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        return self.offset + time.monotonic()
