"""Figures of a benchmark: the values of its runs, their median, their bar; printed for people or as JSON."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass, field


@dataclass
class Figure:
    """One measured quantity.

    :param bar: the value that the median must not pass; None = shown for information
    :param most: True when the bar is a maximum, False when it is a minimum
    :param assertable: False for seconds and jobs/s, which depend on what else the machine does: never asserted by CI
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    bar: float | None = None
    most: bool = True
    assertable: bool = True

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        if self.bar is None or not self.values:
            return None
        return self.median <= self.bar if self.most else self.median >= self.bar


class Report:
    """The figures of one benchmark, in the order of their first value."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.notes: list[str] = []
        self.figures: dict[str, Figure] = {}

    def add(self, name: str, value: float, unit: str = "", **how: object) -> None:
        """Add the value of one run."""
        self.figures.setdefault(name, Figure(name, unit, **how)).values.append(value)  # type: ignore[arg-type]

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def print(self, as_json: bool) -> None:
        if as_json:
            rows = [
                {
                    "name": f.name,
                    "unit": f.unit,
                    "median": f.median,
                    "runs": f.values,
                    "bar": f.bar,
                    "at": "most" if f.most else "least",
                    "met": f.met,
                }
                for f in self.figures.values()
            ]
            print(json.dumps({"title": self.title, "notes": self.notes, "figures": rows}, indent=1))
            return
        print(f"\n{self.title}")
        for text in self.notes:
            print(f"  ({text})")
        width = max([len(name) for name in self.figures], default=0)
        for f in self.figures.values():
            spread = f"  [{number(min(f.values))} .. {number(max(f.values))}]" if len(f.values) > 1 else ""
            bar = ""
            if f.bar is not None:
                bar = f"  bar: at {'most' if f.most else 'least'} {number(f.bar)}: {'met' if f.met else 'MISSED'}"
            print(f"  {f.name:<{width}}  {number(f.median):>9} {f.unit:<7}{spread}{bar}")

    def missed(self) -> list[str]:
        """Names of the figures that CI may assert and that pass their bar."""
        return [f.name for f in self.figures.values() if f.assertable and f.met is False]


def number(value: float) -> str:
    """A number at a glance: three significant digits, whole from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def progress(text: str) -> None:
    """One line on standard error: what is being measured now."""
    print(f"  .. {text}", file=sys.stderr, flush=True)
