"""What goes wrong for the person at the terminal."""

from __future__ import annotations


class CliError(Exception):
    """One clear line for standard error; the command ends with `status`.

    :param text: what was wrong and, where known, what to do
    :param status: exit status of the process, not 0
    """

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class Refusal(CliError):
    """The service refused, in its own words; `problems` are all that it found, where it lists them.

    :ivar code: the HTTP status
    """

    problems: tuple[str, ...] = ()
    code: int = 0
