"""Lost replies and outages between pilot and service: no running job is rescheduled, every result arrives once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.allinone import AllInOne, eventually
from tests.faults.conftest import QUICK, counting, end_states, starts
from tests.faults.proxy import FaultyProxy


@pytest.mark.parametrize(
    "method,path",
    [
        ("POST", "/pilot/register"),
        ("POST", "/pilot/sync"),
        ("GET", "/pilot/files/"),
        ("PUT", "/pilot/files/"),
        ("PUT", "/pilot/output/"),
    ],
)
def test_a_reply_lost_after_it_was_committed(
    up: Callable[..., AllInOne], proxy: FaultyProxy, tmp_path: Path, method: str, path: str
) -> None:
    """Every second reply of that request is lost; the job has input and output, so that each request is used."""
    seen = [0]

    def lose(its_method: str, its_path: str) -> bool:
        if its_method != method or not its_path.startswith(path):
            return False
        seen[0] += 1
        return seen[0] % 2 == 1

    proxy.lose_reply = lose
    one, marks = up(proxy=proxy), tmp_path / "marks"
    (tmp_path / "word.txt").write_text("pilotage")
    (tmp_path / "job.yaml").write_text(
        f"command: [sh, -c, 'echo started >> {marks}; rev word.txt > drow.txt']\n"
        "inputs: [word.txt]\noutputs: [drow.txt]\nisolation: none\n"
    )
    one.cli("submit", "job.yaml", "--wait", cwd=tmp_path)
    ids = one.submit(*[{"command": counting(marks), "isolation": "none"} for _ in range(10)])
    jobs = one.wait(ids)
    assert {job["state"] for job in jobs} == {"Done"}
    assert all(end_states(job) == ["Done"] for job in jobs)
    assert starts(marks) == 11
    first = min(ids) - 1
    one.cli("job", str(first), "--output", str(tmp_path / "fetched"))
    assert (tmp_path / "fetched" / "drow.txt").read_text().strip() == "egatolip"
    eventually(lambda: any(line.startswith(f"{method} {path}") for line in proxy.lost), "a reply was lost")


@pytest.mark.parametrize("how", ["network", "service"])
def test_outage_of_three_token_lifetimes_and_two_leases(
    up: Callable[..., AllInOne], proxy: FaultyProxy, tmp_path: Path, how: str
) -> None:
    """A job runs through the outage, others end in it: none is rescheduled, all results arrive."""
    outage = max(3 * QUICK["token_seconds"], 2 * QUICK["lease_seconds"]) + 1
    one, marks = up(proxy=proxy), tmp_path / "marks"
    ids = one.submit(
        {"command": counting(marks, seconds=outage + 4), "isolation": "none"},
        {"command": counting(marks, seconds=3), "isolation": "none"},
    )
    eventually(lambda: starts(marks) == 2, "both payloads run")
    if how == "service":
        one.kill()
        time.sleep(outage)
        one.start()
    else:
        proxy.down = True
        time.sleep(QUICK["lease_seconds"] / 2)
        proxy.down = False
    jobs = one.wait(ids)
    assert [job["state"] for job in jobs] == ["Done", "Done"]
    assert starts(marks) == 2
    assert all(end_states(job) == ["Done"] for job in jobs)


def test_network_lost_for_longer_than_a_lease_refuses_the_late_result(
    up: Callable[..., AllInOne], proxy: FaultyProxy, tmp_path: Path
) -> None:
    """The service lived on and lost the lease: the job is run again, and the old lease's result is not recorded."""
    one, marks = up(proxy=proxy), tmp_path / "marks"
    [identity] = one.submit({"command": counting(marks, seconds=5), "isolation": "none"})
    eventually(lambda: starts(marks) == 1, "the payload runs")
    proxy.down = True
    eventually(lambda: one.job(identity)["state"] == "Waiting", "the lease is lost")
    proxy.down = False
    [job] = one.wait([identity])
    assert (job["state"], end_states(job)) == ("Done", ["Done"])
    assert starts(marks) == 2
