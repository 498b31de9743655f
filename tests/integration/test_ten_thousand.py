"""Ten thousand jobs through four real pilots: all done, none twice, by the database's own records."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

from tests.allinone import AllInOne, eventually

JOBS = 10_000
PILOTS = 4

CONFIGURATION = {
    "vos": {"demo": {"pilot": {"options": {"RunJobAgent": {"idle_seconds": 5}}}}},
    "sites": {
        "LOCAL": {
            "resources": {
                "local": {"type": "local", "flavour": "LOCAL", "slots": PILOTS, "queues": {"default": {"cores": 1}}}
            }
        }
    },
}


def test_ten_thousand_jobs_through_four_pilots(tmp_path: Path) -> None:
    one = AllInOne(tmp_path, CONFIGURATION)
    try:
        one.start()
        ids = one.submit(*[{"command": ["true"], "isolation": "none", "wall_seconds": 60}] * JOBS)
        assert len(set(ids)) == JOBS

        def ended() -> bool:
            jobs = one.client().get("/summary").json()["jobs"]
            return sum(jobs.get(state, 0) for state in ("Done", "Failed", "Killed")) == JOBS

        eventually(ended, f"all have ended; the service's log:\n{one.log()[-4000:]}", 280)
    finally:
        one.stop()
    eventually(lambda: not one.processes(), "no process of the test is left", 30)

    database = sqlite3.connect(f"file:{one.data}/pilotage.sqlite?mode=ro", uri=True)
    try:
        assert database.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall() == [("Done", JOBS)]
        assert database.execute("SELECT min(exit_code), max(exit_code), max(attempt) FROM jobs").fetchone() == (0, 0, 1)
        ends = "SELECT subject FROM events WHERE kind = 'job' AND what IN ('Done', 'Failed', 'Killed')"
        assert sorted(int(row[0]) for row in database.execute(ends)) == sorted(ids), "each has one end"
        given = Counter(row[0] for row in database.execute("SELECT job FROM leases WHERE outcome = 'Done'"))
        assert given == dict.fromkeys(ids, 1), "each was done under one lease"
        others = "SELECT count(*) FROM leases WHERE outcome IS NULL OR outcome NOT IN ('Done', 'Returned')"
        assert database.execute(others).fetchone() == (0,), "no lease was lost, none is open"
        shares = dict(database.execute("SELECT pilot, count(*) FROM leases WHERE outcome = 'Done' GROUP BY pilot"))
        assert len(shares) == PILOTS, shares
        said = dict(database.execute("SELECT stamp, done FROM pilots"))
        assert {stamp: said[stamp] for stamp in shares} == shares
    finally:
        database.close()
