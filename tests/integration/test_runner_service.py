"""The runner and the service: when it speaks, what it says again, and that outages hurt nothing."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
from tests.integration.runner_pilot import Pilot, pilot

from pilotage_node import exitcodes
from pilotage_node.runner.link import COALESCE, LONGEST, Link
from pilotage_node.runner.log import Log
from pilotage_node.runner.record import Jobs

__all__ = ["pilot"]

QUICK = """
class Quick(Command):
    def do(self):
        time.sleep(0.4)
class Slow(Command):
    timeout = 0
    def do(self):
        print("waiting")
        while not self.pilot.draining and not os.path.exists("../go"):
            self.pilot.receive(0.05)
"""


def kinds(bodies: list[dict[str, Any]]) -> list[str]:
    return [report["kind"] + ":" + report.get("name", "") for body in bodies for report in body["reports"]]


def test_lost_answers_are_asked_again_with_the_same_body(pilot: Pilot) -> None:
    lose = """
    def answer(message, before):
        if message["op"] == "sync" and sum(one["op"] == "sync" for one in before) < 2:
            return 0, {"error": "connection reset"}
    """
    assert pilot.run(QUICK, "Quick", service=lose) == 0
    assert [body["sequence"] for body in pilot.syncs[:3]] == [1, 1, 1]
    assert pilot.syncs[0] == pilot.syncs[1] == pilot.syncs[2]
    assert "connection reset" in pilot.log and "reached again" in pilot.log


def test_killed_courier_is_replaced_and_nothing_is_lost(pilot: Pilot) -> None:
    silent = """
    def answer(message, before):
        registrations = sum(one["op"] == "register" for one in before)
        if message["op"] == "sync" and registrations == 1:
            return "silence"
    """
    pilot.start(QUICK, "Quick Slow", service=silent)
    pilot.eventually(lambda: pilot.syncs)
    os.kill(pilot.pid_of("pilot-courier"), signal.SIGKILL)
    pilot.eventually(lambda: len(pilot.syncs) > 1)
    (pilot.home / "go").touch()
    assert pilot.wait() == 0
    first, second = [message["body"] for message in pilot.wire if message["op"] == "register"]
    assert first["nonce"] == second["nonce"] and second["secret"] == "sesame-open"
    assert pilot.syncs[0] == pilot.syncs[1]
    assert [message["op"] for message in pilot.wire[:4]] == ["register", "sync", "register", "sync"]
    assert kinds(pilot.syncs[1:]) == ["command:Quick", "command:Slow", "pilot:"]


def test_killed_courier_repeats_transfers(pilot: Pilot) -> None:
    """Transfers that it took and did not finish are asked of the next one, in their order; finished ones are not."""
    silent = """
    def answer(message, before):
        registrations = sum(one["op"] == "register" for one in before)
        if message["op"] in ("get", "put") and registrations == 1:
            return "silence"
    """
    pilot.start(
        """
        class Transfers(Command):
            def do(self):
                print("size", self.pilot.call({"op": "upload", "path": "p", "name": "pilot.log"}, 60)["size"])
                self.pilot.send({"op": "get", "id": 7, "sha256": "s", "path": "p", "token": "t"})
                self.pilot.send({"op": "put", "id": 8, "name": "n", "path": "p", "token": "t"})
                print("again", self.pilot.receive(60)["id"], self.pilot.receive(60)["id"])
        """,
        "Transfers",
        service=silent,
    )
    pilot.eventually(lambda: "put" in [message["op"] for message in pilot.wire])
    os.kill(pilot.pid_of("pilot-courier"), signal.SIGKILL)
    assert pilot.wait() == 0
    assert "Transfers: size 3" in pilot.log and "Transfers: again 7 8" in pilot.log
    ops = [message["op"] for message in pilot.wire if message["op"] != "sync"]
    assert ops == ["register", "upload", "get", "put", "register", "get", "put"]
    assert "the courier ended: SIGKILL" in pilot.log


def test_expired_token_registers_anew(pilot: Pilot) -> None:
    expire = """
    def answer(message, before):
        if message["op"] == "sync" and before[-1]["op"] == "register" and len(before) == 1:
            return 401, {"error": "expired", "code": "token"}
    """
    assert pilot.run(QUICK, "Quick", service=expire) == 0
    assert [message["op"] for message in pilot.wire[:4]] == ["register", "sync", "register", "sync"]
    assert pilot.syncs[0] == pilot.syncs[1]
    assert pilot.wire[0]["body"]["nonce"] == pilot.wire[2]["body"]["nonce"]


def test_busy_service_is_left_alone_as_long_as_it_asks(pilot: Pilot) -> None:
    busy = """
    import time
    def answer(message, before):
        with open(message and "times", "a") as out:
            out.write("%s\\n" % time.monotonic())
        if message["op"] == "sync" and sum(one["op"] == "sync" for one in before) == 0:
            return 503, {"error": "busy", "code": "busy", "retry_after": 2}
    """
    assert (
        pilot.run(
            QUICK,
            "Quick Slow",
            service=busy.replace('message and "times"', f'"{pilot.home}/times"'),
            limits={"wall_seconds": 4},
        )
        == exitcodes.OUT_OF_TIME
    )
    times = [float(line) for line in (pilot.home / "times").read_text().split()]
    assert times[2] - times[1] >= 2


def test_ended_pilot_stops_at_once(pilot: Pilot) -> None:
    ended = """
    def answer(message, before):
        if message["op"] == "sync":
            return 410, {"error": "over", "code": "pilot_ended"}
    """
    pilot.start(QUICK, "Quick Slow", service=ended)
    assert pilot.wait() == exitcodes.KILLED
    assert pilot.outcomes == {"Quick": "done", "Slow": "killed"}


@pytest.mark.parametrize(
    "order,code,outcome", [("drain", exitcodes.DRAINED, "done"), ("kill", exitcodes.KILLED, "killed")]
)
def test_orders_of_the_service(pilot: Pilot, order: str, code: int, outcome: str) -> None:
    service = f"""
    def answer(message, before):
        from runner_process import accept
        if message["op"] == "sync":
            status, body = accept(message)
            return status, dict(body, orders=[{{"order": "{order}"}}], again_seconds=0.1)
    """
    pilot.start(
        QUICK + "class Last(Command): always = True; do = lambda self: None", "Quick Slow Last", service=service
    )
    assert pilot.wait() == code
    assert pilot.outcomes["Slow"] == outcome and pilot.outcomes["Last"] == "done"
    assert pilot.syncs[-1]["reports"][-1]["kind"] == "pilot"


AGENT = """
class Agent(Command):
    timeout = 0
    def do(self):
        done, held, reports, n = 0, {}, {}, 0
        while done < 40:
            state = {"op": "jobs", "held": list(held), "reports": list(reports.values()), "urgent": True}
            self.pilot.send(dict(state, want={"ahead": 8} if done < 40 else None))
            answer = self.pilot.receive(60)
            if not answer["reached"]:
                continue
            for name in answer["acknowledged"]:
                done += reports.pop(name, None) is not None
            for grant in answer["granted"]:
                held[grant["lease"]] = grant
            for lease in list(held):
                n += 1
                usage = {"cpu_user": 1.0, "cpu_system": 0.5, "max_rss_mib": 7, "read_mib": 0, "write_mib": 1}
                reports["r%d" % n] = {"id": "r%d" % n, "kind": "job", "lease": lease, "state": "Done", "reason": "exit",
                                      "wall_seconds": 0.001, "usage": usage}
                del held[lease]
        print("all", done, "orders", answer["orders"])
"""

MATCHER = """
from runner_process import accept
def answer(message, before):
    if message["op"] != "sync":
        return
    count = message["body"]["sequence"]
    if LOSE:
        return 0, {"error": "lost"}
    status, body = accept(message)
    if message["body"]["want"]:
        body["granted"] = [{"lease": "l%d-%d" % (count, i), "job": count * 10 + i} for i in range(8)]
    body["orders"] = [{"order": "kill", "lease": "x", "reason": "why"}]
    return status, body
"""


@pytest.mark.parametrize("lose", ["False", "len(before) in (3, 6)"])
def test_agent_gets_jobs_and_each_is_counted_once(pilot: Pilot, lose: str) -> None:
    assert pilot.run(AGENT, "Agent", service=MATCHER.replace("LOSE", lose)) == 0
    assert "Agent: all 4" in pilot.log and "'lease': 'x'" in pilot.log
    record = pilot.record
    totals, jobs = record["job_totals"], record["jobs"]
    assert totals["count"] == len(jobs) >= 40 and totals["states"] == {"Done": len(jobs)}
    assert totals["cpu_user"] == pytest.approx(len(jobs)) and totals["max_rss_mib"] == 7
    assert len({job["lease"] for job in jobs}) == len(jobs) and jobs[0]["job"] is not None
    assert 0 < totals["busy_seconds"] < record["seconds"]


def test_reports_of_an_agent_that_crashed_are_delivered_and_its_leases_let_go(pilot: Pilot) -> None:
    crash = """
    class Agent(Command):
        def do(self):
            report = {"id": "r1", "kind": "job", "lease": "l1", "state": "Done", "wall_seconds": 1}
            self.pilot.send({"op": "jobs", "held": ["l2"], "reports": [report], "want": None, "urgent": False})
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert pilot.run(crash, "Agent") == exitcodes.CRASHED
    last = pilot.syncs[-1]
    assert last["held"] == [] and "job:" in kinds(pilot.syncs)


def test_big_messages_both_ways_do_not_deadlock(pilot: Pilot) -> None:
    big = """
    from runner_process import accept
    def answer(message, before):
        if message["op"] == "sync":
            status, body = accept(message)
            return status, dict(body, granted=[{"lease": "l", "job": 1, "spec": "x" * 3000000}])
    """
    code = pilot.run(
        """
        class Agent(Command):
            timeout = 60
            def do(self):
                for n in range(5):
                    reports = [{"id": "r%d" % n, "kind": "x", "text": "y" * 2000000}]
                    for _ in range(3):
                        self.pilot.send({"op": "jobs", "held": [], "reports": reports, "want": {}, "urgent": True})
                time.sleep(1)
                print("size", len(self.pilot.receive(60)["granted"][0]["spec"]))
        """,
        "Agent",
        service=big,
    )
    assert code == 0, pilot.output
    assert "size 3000000" in pilot.log


def test_log_goes_in_chunks_and_whole(pilot: Pilot) -> None:
    code = pilot.run(
        """
        class Talks(Command):
            def do(self):
                for n in range(20000):
                    print("\\u00e4\\u20ac %d" % n)
        """,
        "Talks",
    )
    assert code == 0
    texts = [body["log"]["text"] for body in pilot.syncs if body["log"]]
    assert "".join(texts) == pilot.log and max(len(text.encode()) for text in texts) <= 256 * 1024


def test_last_reports_are_sent_in_bounded_time(pilot: Pilot) -> None:
    away = "def answer(message, before): return (0, {'error': 'x'}) if message['op'] == 'sync' else None"
    assert pilot.run(QUICK, "Quick", service=away, final_seconds=1) == 0
    assert "did not take the last reports" in pilot.log


def link_of(now: float = 0.0, **registration: Any) -> Link:
    """A registered Link without a pilot around it."""
    runner = SimpleNamespace(text=Log([], 1 << 20, {"secret": "x"}), identity={}, leaving=None)
    link = Link(runner, {})
    link.waiting = "register"
    link.answered({"status": 200, "body": {"sync_seconds": 60, **registration}})
    return link


def pauses(link: Link, count: int, **answer: Any) -> list[float]:
    found = []
    for _ in range(count):
        link.waiting, link.body = "sync", {"want": None}
        before = time.monotonic()
        link.answered({"status": 0, "body": {"error": "no route"}, **answer})
        assert link.due() == link.not_before
        found.append(link.not_before - before)
    return found


def test_pauses_double_and_are_spread_and_bounded() -> None:
    found = pauses(link_of(lease_seconds=300), 9)
    assert all(2**n / 2 <= pause <= 2**n + 1 for n, pause in enumerate(found[:5])), found
    assert all(LONGEST / 2 <= pause <= LONGEST + 1 for pause in found[5:])
    assert pauses(link_of(), 1, retry_after=77)[0] >= 77


def test_pauses_stay_well_below_the_lease() -> None:
    assert max(pauses(link_of(lease_seconds=6), 20)) <= 6 / 5 + 0.1
    assert max(pauses(link_of(lease_seconds=0.1), 20)) <= 0.6


def test_when_to_speak_next() -> None:
    link, now = link_of(), time.monotonic()
    assert now + 50 < link.due() < now + 61
    link.report({"kind": "command"})
    soon = link.due()
    assert now < soon < now + COALESCE + 10
    link.report({"kind": "command"})
    assert link.due() == soon, "a second report does not put off the first"


def test_what_is_not_acknowledged_is_kept() -> None:
    link = link_of()
    agent = SimpleNamespace()
    link.report({"kind": "command"})
    link.agent, link.state = agent, {"held": ["l"], "reports": [{"id": "r1"}], "want": {}, "urgent": True}
    body = link.compose()
    [first, second] = [report["id"] for report in body["reports"]]
    assert second == "r1" and body["held"] == ["l"] and body["want"] == {}
    link.body, link.waiting, link.asker = body, "sync", None
    link.answered({"status": 200, "body": {"acknowledged": [first, "unknown"], "again_seconds": 10}})
    link.gone(agent)
    body = link.compose()
    assert [report["id"] for report in body["reports"]] == ["r1"] and body["held"] == [] and body["want"] is None


def test_an_answer_that_is_not_understood_is_a_failure(pilot: Pilot) -> None:
    nonsense = """
    def answer(message, before):
        if message["op"] == "sync" and sum(one["op"] == "sync" for one in before) < 2:
            return 200, {"acknowledged": 7}
    """
    assert pilot.run(QUICK, "Quick", service=nonsense) == 0
    assert pilot.log.count("what is not understood") == 2
    assert "pilot:" in kinds(pilot.syncs)


def test_busy_time_is_the_union_of_the_jobs_times() -> None:
    jobs = Jobs()

    def report(name: str, seconds: float, **ended: float) -> dict[str, Any]:
        return {"id": name, "kind": "job", "lease": name, "state": "Done", "wall_seconds": seconds, **ended}

    jobs.reported([report("a", 2, ended=102), report("b", 2, ended=112), report("c", 2, ended=107)], 200)
    assert jobs.summary()["busy_seconds"] == 6
    jobs.reported([report("d", 1, ended=101.5), report("e", 4, ended=108)], 200)
    assert jobs.summary()["busy_seconds"] == 8
    jobs.reported([report("f", 0.5), {**report("g", 0.25), "state": "Returned"}], 200)
    assert jobs.summary()["busy_seconds"] == 8.5 and jobs.summary()["count"] == 6
    jobs.reported([report("h", 100, ended=200)], 200)
    assert jobs.summary()["busy_seconds"] == 100


def test_the_end_of_a_job_is_not_told_to_the_service(pilot: Pilot) -> None:
    agent = """
    class Agent(Command):
        def do(self):
            now = time.monotonic()
            reports = [{"id": "r%d" % n, "kind": "job", "lease": "l", "state": "Done", "wall_seconds": 0.01,
                        "ended": now - n} for n in range(3)]
            self.pilot.send({"op": "jobs", "held": [], "reports": reports, "want": None, "urgent": True})
            self.pilot.receive(60)
    """
    assert pilot.run(agent, "Agent") == 0
    jobs = [report for body in pilot.syncs for report in body["reports"] if report["kind"] == "job"]
    assert len(jobs) >= 3 and not any("ended" in report for report in jobs)
    assert pilot.record["job_totals"]["busy_seconds"] == pytest.approx(0.03, abs=0.001)
