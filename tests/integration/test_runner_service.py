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


def test_a_transfer_that_outlives_its_command_is_nobody_elses(pilot: Pilot) -> None:
    slow = """
    import time
    def answer(message, before):
        if message["op"] == "upload":
            time.sleep(1)
    """
    commands = """
    class Asks(Command):
        def do(self):
            self.pilot.send({"op": "upload", "id": 1, "path": "p", "name": "n"})
    class Hears(Command):
        def do(self):
            print("heard", self.pilot.receive(2))
    """
    assert pilot.run(commands, "Asks Hears", service=slow) == 0
    assert "Hears: heard None" in pilot.log


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
        done, reports = 0, []
        while done < 40:
            state = {"op": "jobs", "held": [], "reports": reports, "want": {"ahead": 8}}
            self.pilot.send(dict(state, busy_seconds=done / 1e3))
            answer = self.pilot.receive(60)
            done += len(reports)
            usage = {"cpu_user": 1.0, "cpu_system": 0.5, "max_rss_mib": 7, "read_mib": 0, "write_mib": 1}
            report = {"kind": "job", "state": "Done", "reason": "exit", "wall_seconds": 0.001, "usage": usage}
            reports = [dict(report, lease=grant["lease"], job=grant["job"]) for grant in answer["granted"]]
        self.pilot.send({"op": "jobs", "held": [], "reports": reports, "want": None, "busy_seconds": 0.04})
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
    assert totals["busy_seconds"] == 0.04
    told = [report for body in pilot.syncs for report in body["reports"] if report["kind"] == "job"]
    assert {report["lease"] for report in told} == {job["lease"] for job in jobs}, "none is lost with an answer"


def test_reports_of_an_agent_that_crashed_are_delivered_and_its_leases_let_go(pilot: Pilot) -> None:
    crash = """
    class Agent(Command):
        def do(self):
            report = {"kind": "job", "lease": "l1", "state": "Done", "wall_seconds": 1}
            self.pilot.send({"op": "jobs", "held": ["l2"], "reports": [report], "want": None, "busy_seconds": 1})
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
                    state = {"op": "jobs", "held": [], "want": {"ahead": 1}, "busy_seconds": 0}
                    for _ in range(3):
                        self.pilot.send(dict(state, reports=[{"kind": "x", "state": "Running", "text": "y" * 2000000}]))
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
    link.waiting, link.courier = "register", SimpleNamespace()
    body = {"time": 0, "sync_seconds": 60, "lease_seconds": 120, "sequence": 0, "log_offset": 0, **registration}
    link.answered({"status": 200, "body": body, "seconds": 0.1, "retry_after": 0})
    return link


def pauses(link: Link, count: int, **answer: Any) -> list[float]:
    found = []
    for _ in range(count):
        link.waiting, link.body = "sync", {"want": None}
        before = time.monotonic()
        link.answered({"status": 0, "body": {"error": "no route"}, "retry_after": 0, **answer})
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
    agent = SimpleNamespace(send=lambda message: None)
    link.report({"kind": "command"})
    link.report({"kind": "job"})
    link.agent, link.state = agent, {"held": ["l"], "want": {}}
    body = link.compose()
    [first, second] = [report["id"] for report in body["reports"]]
    assert body["held"] == ["l"] and body["want"] == {}
    link.body, link.waiting = body, "sync"
    told = {"acknowledged": [first, "unknown"], "again_seconds": 10, "log_offset": 0}
    link.answered({"status": 200, "body": dict(told, hold=[], granted=[], orders=[]), "retry_after": 0})
    link.gone(agent)
    body = link.compose()
    assert [report["id"] for report in body["reports"]] == [second]
    assert not body["held"] and body["want"] is None


def test_an_answer_that_is_not_understood_is_a_failure(pilot: Pilot) -> None:
    nonsense = """
    def answer(message, before):
        if message["op"] == "sync" and sum(one["op"] == "sync" for one in before) < 2:
            return 200, {"acknowledged": 7}
    """
    assert pilot.run(QUICK, "Quick", service=nonsense) == 0
    assert pilot.log.count("what is not understood") == 2
    assert "pilot:" in kinds(pilot.syncs)
