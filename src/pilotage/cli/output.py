"""What a person or a program sees: tables, JSON, progress bars. Everything here goes to a terminal or a pipe."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SLOW = 2.0
"""Seconds after which work shows a progress bar."""

NARROW = 24
"""Letters that any but the last column of a table has at most on a terminal."""

LEAST = 16
"""Letters that the last column has at least, however narrow the terminal is."""

COLOURS = {
    "Done": "green",
    "Running": "cyan",
    "Matched": "cyan",
    "Submitted": "cyan",
    "Failed": "red",
    "Aborted": "red",
    "Killed": "yellow",
    "failed": "red",
    "timeout": "red",
    "crashed": "red",
    "done": "green",
}

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: Any) -> str:
    """Text as it may go to a terminal: what comes from jobs and users must not steer it (no escape sequences)."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\r\n", "\n"))


def print_json(value: Any) -> None:
    """JSON for programs, on standard output."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def print_table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], empty: str = "nothing", narrow: int | None = NARROW
) -> None:
    """A table, each column as wide as it needs; on a terminal the last one is cut to fit, the others at `narrow`
    letters (None: never)."""
    terminal = sys.stdout.isatty()
    last = len(head) - 1
    cells = [[_cell(value, narrow if terminal and n < last else None) for n, value in enumerate(row)] for row in rows]
    if not cells:
        print(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    widths = [max(len(row[column]) for row in [head, *cells]) for column in range(len(head))]
    if terminal:
        widths[last] = min(widths[last], max(LEAST, Console().width - sum(widths[:last]) - 2 * last))
    # Height too: a width alone is not believed on every terminal.
    console = Console(highlight=False, width=sum(widths) + 2 * len(head), height=25)
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in head:
        table.add_column(title, no_wrap=True)
    for row in cells:
        row[last] = _cell(row[last], widths[last])
        table.add_row(*(Text(value, style=COLOURS.get(value, "")) for value in row))
    with console.capture() as capture:
        console.print(table)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))


def _cell(value: Any, width: int | None) -> str:
    text = "-" if value is None or value == "" else clean(value).replace("\n", " ")
    return text if width is None or len(text) <= width else text[: width - 1] + "…"


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Name and value, a line each; what has no value is left out."""
    there = [(name, clean(value)) for name, value in fields if value is not None and value != ""]
    width = max((len(name) for name, _ in there), default=0)
    for name, value in there:
        print(f"{name:<{width}}  {value}")


def moment(at: float | None) -> str | None:
    """A time of the service (Unix seconds) as local date and time."""
    return None if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def short_moment(at: float | None) -> str | None:
    """The same for tables: the time alone where it was today."""
    if at is None:
        return None
    when, today = time.localtime(at), time.localtime()
    return time.strftime("%H:%M:%S" if when[:3] == today[:3] else "%Y-%m-%d %H:%M", when)


def duration(seconds: float | None) -> str | None:
    """Seconds as people read them: 0.42 s, 12 s, 3 min 20 s, 2 h 05 min, 3 d 4 h."""
    if seconds is None:
        return None
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: float | None) -> str | None:
    """Bytes as people read them."""
    if count is None:
        return None
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


class Bar:
    """A progress bar on standard error, shown only on a terminal and only when the work takes longer than SLOW."""

    def __init__(self, what: str, total: float, in_bytes: bool = False) -> None:
        self._what, self._total, self._in_bytes = what, total, in_bytes
        self._done = 0.0
        self._started = time.monotonic()
        self._shown: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._shown is not None:
            self._shown.stop()

    def advance(self, by: float) -> None:
        self.reach(self._done + by)

    def reach(self, done: float, what: str | None = None) -> None:
        """So much of the total is done; `what` replaces the text beside the bar."""
        self._done = done
        self._what = what or self._what
        if self._shown is None and time.monotonic() - self._started > SLOW and sys.stderr.isatty():
            self._show()
        if self._shown is not None and self._task is not None:
            self._shown.update(self._task, completed=done, description=self._what)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        counter = DownloadColumn() if self._in_bytes else MofNCompleteColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), counter, TimeElapsedColumn())
        self._shown = Progress(*columns, console=Console(stderr=True), transient=True)
        self._shown.start()
        self._task = self._shown.add_task(self._what, total=self._total)
