"""What a no-op job costs, all in: submitted, matched, run in its own directory under its limits, its result stored.

One `pilotage up` with SQLite, one pilot with two slots, 2,000 jobs in one request. Counted is the CPU of everything
that was started (service, director, pilot from its start, jobs) from before the request to the last result; jobs/s are
from the first match to the last result, by the database's own times. Divided by the spawn floor of the same run.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench import trees
from bench.allinone import all_in_one
from bench.figures import Report, progress
from bench.floor import spawn_floor

JOBS = 2000
SLOTS = 2
BAR = 3.0
"""Times the spawn floor."""


@dataclass
class Outcome:
    """CPU-ms a job; jobs/s from the first match to the last result; isolation as the jobs' records tell it."""

    cpu_ms: float
    rate: float
    isolation: str


def measure_pilotage(jobs: int, isolation: str) -> Outcome:
    """Run the jobs through a fresh all-in-one. Raises RuntimeError unless every job is done, each exactly once."""
    with all_in_one(slots=1, cores=SLOTS) as service:
        before = trees.cpu_below()
        specs = [{"command": ["/bin/true"], "isolation": isolation, "cores": 1, "wall_seconds": 60}] * jobs
        service.ask("POST", "/jobs", specs)
        # The database is asked, not the service: watching must not cost what is measured.
        for _ in service.patiently(0.1):
            if service.rows("SELECT count(*) FROM jobs WHERE ended IS NOT NULL") == [(jobs,)]:
                break
        cpu = trees.cpu_below() - before
        ended = service.rows("SELECT state, count(*), max(attempt) FROM jobs GROUP BY state")
        leases = service.rows(
            "SELECT count(*), count(DISTINCT job), count(DISTINCT pilot) FROM leases WHERE outcome = 'Done'"
        )
        if len(ended) != 1 or ended[0][0] != "Done" or leases != [(jobs, jobs, 1)]:
            raise RuntimeError(f"not every job was done exactly once by one pilot: jobs {ended}, leases {leases}")
        ((seconds,),) = service.rows("SELECT (SELECT max(ended) FROM jobs) - (SELECT min(leased) FROM leases)")
        kinds = service.rows("SELECT DISTINCT isolation FROM jobs")
        return Outcome(1000 * cpu / jobs, jobs / seconds, ", ".join(kind or "none" for (kind,) in kinds))


def run(report: Report, runs: int) -> None:
    for number in range(runs):
        progress(f"run {number + 1} of {runs}")
        floor, floor_rate = spawn_floor()
        report.add("spawn floor", floor, "CPU-ms")
        report.add("spawn floor, rate", floor_rate, "jobs/s")
        for isolation, bar in (("none", BAR), ("preferred", None)):
            ours = measure_pilotage(JOBS, isolation)
            report.add(f"isolation {isolation}", ours.cpu_ms, "CPU-ms")
            report.add(f"isolation {isolation}, rate", ours.rate, "jobs/s")
            report.add(f"isolation {isolation} / floor, CPU", ours.cpu_ms / floor, "", bar=bar)
            report.note(f"isolation {isolation} was: {ours.isolation}")
