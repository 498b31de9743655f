"""Leases, orders and leaving: what the job agent says, holds, gives back, and when it goes."""

import time

import pytest
from tests.integration.agent_harness import Agent, carrying, job, sh


@pytest.fixture
def make(tmp_path):
    made = []

    def one(**more):
        made.append(Agent(tmp_path / f"pilot{len(made)}", **more))
        return made[-1]

    yield one
    for each in made:
        each.close()


def test_it_leaves_when_there_is_no_work(make):
    agent = make(options={"idle_seconds": 3.0})
    assert agent.wait() == 40
    asked = [state for state in agent.states if state["want"]]
    assert 1 <= len(asked) <= 6, "it asks again, less and less often"
    busy = make(options={"idle_seconds": 1.0})
    busy.run({})
    assert busy.wait() == 0


def test_a_service_that_is_not_reached_is_not_an_empty_answer(make):
    agent = make(options={"idle_seconds": 0.5, "patience_seconds": 4.0})
    agent.reached = False
    begun = time.monotonic()
    assert agent.wait() == 14
    assert time.monotonic() - begun >= 4


def test_results_are_told_while_the_service_is_not_reached(make):
    """Once: it is the runner who keeps them until the service has them."""
    agent = make()
    agent.queue = [sh("sleep 2; echo once")]
    agent.until(lambda: agent.started)
    agent.reached = False
    agent.until(lambda: "lease-1.Done" in agent.heard)
    agent.drain()
    assert agent.wait() == 0
    assert agent.heard["lease-1.Done"]["stdout"] == "once\n"
    assert agent.states[-1]["held"] == [] and 2 <= agent.states[-1]["busy_seconds"] < 60


def test_a_lease_is_never_started_twice(make, tmp_path):
    """The grant comes again while the job runs, and after its end: a reply was lost, or an old one came late."""
    agent = make()
    marks = tmp_path / "marks"
    grant = {"lease": "L", "job": 1, "attempt": 1, "token": "t", "spec": job(**sh(f"echo x >> {marks}; sleep 1"))}
    agent.until(lambda: agent.states)
    for _ in range(2):
        agent.leased["L"] = grant
        answer = {"op": "jobs", "hold": ["L"], "granted": [grant, grant], "orders": []}
        agent.send(dict(answer, empty=False))
        agent.until(lambda: "L" in agent.results)
    agent.run({})
    assert marks.read_text() == "x\n"


def test_a_lost_lease_ends_its_job(make):
    agent = make()
    agent.queue = [sh("trap '' TERM; sleep 100; sleep 100"), sh("sleep 100")]
    agent.until(lambda: len(agent.started) == 2)
    agent.withheld.add("lease-1")
    agent.until(lambda: "lease-1" not in agent.states[-1]["held"])
    agent.until(lambda: not carrying("PILOTAGE_LEASE=lease-1"))
    assert carrying("PILOTAGE_LEASE=lease-2")
    agent.leased.pop("lease-1", None)
    agent.run(sh("exit 0"))
    assert [agent.results["lease-1"][key] for key in ("state", "reason")] == ["Failed", "lost"]
    assert agent.results["lease-3"]["state"] == "Done", "the room is free again"


def test_a_job_is_killed_on_order(make):
    agent = make()
    agent.queue = [sh("trap '' TERM; while :; do sleep 1; done"), sh("sleep 100"), sh("exit 0")]
    agent.until(lambda: len(agent.started) == 2)
    agent.orders = [{"order": "kill", "lease": f"lease-{n}", "reason": "enough"} for n in (1, 2, 77)]
    agent.until(lambda: len(agent.results) == 3)
    told = agent.results
    ends = [(told[lease]["state"], told[lease]["reason"], told[lease]["message"]) for lease in ("lease-1", "lease-2")]
    assert ends == [("Killed", "killed", "enough")] * 2
    assert (told["lease-1"]["signal"], told["lease-2"]["signal"], told["lease-3"]["state"]) == (9, 15, "Done")


def test_a_drain_order_lets_jobs_end_and_gives_back_what_was_leased_ahead(make):
    agent = make()
    agent.run(*[{} for _ in range(200)])
    agent.queue = [sh("sleep 3") for _ in range(60)]
    agent.until(lambda: len(agent.leased) > 10 and len(agent.started & set(agent.leased)) == 2)
    held = set(agent.leased)
    agent.drain("order")
    assert agent.wait() == 0
    told = {lease: agent.results[lease]["state"] for lease in held}
    assert set(told.values()) == {"Done", "Returned"}
    assert sum(state == "Done" for state in told.values()) <= 4


def test_what_was_leased_ahead_goes_back_when_its_like_prove_long(make):
    agent = make()
    agent.run(*[{} for _ in range(200)])
    agent.queue = [sh("sleep 30") for _ in range(60)]
    agent.until(lambda: len(agent.leased) > 10)
    agent.until(lambda: len(agent.leased) <= 2)
    assert len(agent.started) >= 2


def test_a_signal_gives_jobs_their_grace(make):
    agent = make(options={"grace_seconds": 10.0})
    agent.queue = [sh("sleep 3; echo done"), sh("trap 'echo saved; exit 0' TERM; while :; do sleep 0.1; done")]
    agent.until(lambda: len(agent.started) == 2)
    agent.drain("signal SIGTERM")
    assert agent.wait() == 0
    one, two = agent.results["lease-1"], agent.results["lease-2"]
    assert (one["state"], one["stdout"]) == ("Done", "done\n")
    assert (two["state"], two["reason"], two["stdout"], two["exit_code"]) == ("Failed", "drained", "saved\n", 0)
    assert "SIGTERM" in two["message"]


def test_sigterm_itself_is_a_short_grace(make):
    agent = make()
    agent.queue = [sh("trap '' TERM; while :; do sleep 1; done")]
    agent.until(lambda: agent.started)
    agent.process.terminate()
    assert agent.wait() == 0
    assert agent.results["lease-1"]["reason"] == "drained"


def test_jobs_are_asked_for_the_time_that_is_left(make):
    agent = make(node={"seconds_left": 60}, options={"reserve_seconds": 10.0})
    agent.run(sh("exit 0", wall_seconds=20))
    assert 40 <= agent.states[0]["want"]["seconds_left"] <= 50


def test_it_leaves_when_its_time_is_up(make):
    agent = make(node={"seconds_left": 16}, options={"reserve_seconds": 10.0, "grace_seconds": 3.0})
    agent.queue = [sh("sleep 100", wall_seconds=3)]
    agent.until(lambda: agent.leased)
    agent.granting = False
    assert agent.wait() == 0
    assert {report["reason"] for report in agent.results.values()} <= {"wall_limit", "drained"}
