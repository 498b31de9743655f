"""The bars that are ratios, asserted by the benchmarks themselves; never seconds (see bench/README.md)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("name", "runs"), [("overhead", 1), ("start", 5), ("seed", 3)])
def test_a_ratio_keeps_its_bar(name: str, runs: int) -> None:
    """CPU a job at most 3 times the spawn floor; CPU of a pilot's start at most 1.5 times that of its imports;
    of a seed's start at most twice that of the pilot."""
    command = [sys.executable, "-m", "bench", name, "--runs", str(runs), "--check"]
    for _ in range(3):  # other tests run beside it: their noise only ever adds
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)
        print(done.stdout)
        if done.returncode == 0:
            return
    raise AssertionError(done.stdout + done.stderr)
