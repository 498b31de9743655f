"""How commands and pilots end: limits, drains, kills, results, the last report. Imported when the first of it comes."""

import os
import signal
import time

from pilotage_node import command, exitcodes, processes
from pilotage_node.runner.children import RUNNING, STOPPING
from pilotage_node.runner.log import quietly
from pilotage_node.runner.record import usage_of
from pilotage_node.runner.work import UNKNOWN

FAILURES = ("failed", "timeout", "crashed")


def stop_background(runner):
    """Tell background commands to end, and wait until they did."""
    rest = [child for child in runner.commands() if child.begun and child.traits["background"]]
    for child in rest:
        runner.send(child, {"op": "drain", "reason": "the other commands have ended"})
        child.limit(time.monotonic() + runner.background_seconds, "did not end when told to")
    while not all(child.ended for child in rest):
        runner.turn()


def drain(runner, code, reason):
    """Take no more work: commands have their grace, then only those that always run."""
    runner.drain_at = None
    if runner.leaving:
        return
    runner.leaving = code, reason
    runner.text.own("the pilot leaves: " + reason)
    now = time.monotonic()
    at = now + runner.grace_seconds
    if runner.end_at:  # half of what is left is for reports
        at = min(at, (now + runner.end_at) / 2)
    for child in runner.commands():
        runner.send(child, {"op": "drain", "reason": reason})
        if not (child.traits and child.traits["always"]):
            child.limit(at, "killed")


def kill(runner, code, reason):
    """No grace: what runs is killed, what always runs has seconds."""
    runner.drain_at = runner.end_at = None
    if not runner.leaving or code == exitcodes.KILLED:
        runner.leaving = code, reason
    runner.killing = True
    runner.text.own("everything is killed: " + reason)
    for child in runner.commands():
        child.stage, child.why = STOPPING, "killed"
        escalate(runner, child)


def escalate(runner, child):
    """A child's time is over."""
    if child.stage == RUNNING:
        runner.text.own("%s is ended: %s" % (child.name, child.why))
    if not child.escalate(runner.patience_seconds):
        finish(runner, child, None)


def clear_strays(runner):
    """Kill what became our child because its parent ended: nothing of a command outlives it."""
    until = time.monotonic() + 2 * runner.patience_seconds
    while time.monotonic() < until:
        strays = [pid for pid in processes.children_of(processes.snapshot(), runner.pid) if pid not in runner.children]
        if not strays:
            return
        for pid in strays:
            processes.send_signal(pid, signal.SIGKILL)
            quietly(os.waitpid, pid, os.WNOHANG)
        time.sleep(0.001)  # the kernel needs a moment to end them; their children come to us next


def finish(runner, child, status, *usage):
    """A child ended (status None: it cannot be killed): clear what it left, take what it said last."""
    del runner.children[child.pid]
    quietly(os.killpg, child.pid, signal.SIGKILL)
    clear_strays(runner)
    for take in (runner.hear, runner.listen_to):
        for _ in range(999):
            if not take(child):
                break
    runner.forget(child.sock.fileno())
    runner.forget(child.output)
    child.close()
    child.ended = True
    if child is runner.link.courier:
        runner.text.own("the courier ended: " + ending(status))
        runner.link.courier_ended(time.monotonic())
        return
    if child is runner.outbox.agent:
        runner.outbox.agent_ended()
    outcome, code, message = judge(runner, child, status)
    result = {"name": child.name, "index": child.index, "outcome": outcome, "code": code, "usage": usage_of(*usage)}
    result["message"] = runner.text.clean(message)
    result["seconds"] = round(time.monotonic() - child.started, 3)
    result["tail"] = [runner.text.clean(line[:512].decode("utf-8", "replace")) for line in child.tail]
    if outcome == "done":
        take_facts(runner, child)
    conclude(runner, child.traits or UNKNOWN, result)


def judge(runner, child, status):
    """How a command ended: outcome, code, message."""
    number = os.WTERMSIG(status) if status and os.WIFSIGNALED(status) else 0
    if child.stage and child.why == "timeout":
        seconds = child.traits["timeout"] if child.traits else runner.load_seconds
        return "timeout", exitcodes.TIMEOUT, "it took longer than %s s" % seconds
    if child.result:
        return child.result["outcome"], child.result["code"], child.result["message"]
    if child.stage or (runner.leaving and number == signal.SIGTERM):
        return "killed", exitcodes.KILLED, runner.leaving[1] if runner.leaving else child.why
    if number:
        return "crashed", exitcodes.CRASHED, "ended by " + ending(status)
    return "failed", exitcodes.FAILED, "no result, " + ending(status)


def take_facts(runner, child):
    """What it promised to give."""
    for name in child.traits["provides"]:
        if name in child.result["facts"]:
            runner.facts[name] = child.result["facts"][name]
        else:
            runner.text.own("%s did not give %s" % (child.name, name))


def conclude(runner, declared, result):
    """A command ended: go on or not; the report, the record."""
    name, outcome = result["name"], result["outcome"]
    text = "%s: %s" % (name, result["message"])
    bad = outcome in FAILURES or result["code"] == exitcodes.MISSING_FACT
    if bad and declared["on_failure"] == command.ABORT:
        runner.failure = runner.failure or (result["code"], text)
        if outcome != "skipped" and not declared["always"]:
            runner.aborted = runner.aborted or "%s %s" % (name, outcome)
    runner.text.own("%s after %.1f s, %s" % (outcome, result["seconds"], text))
    runner.record.fields["commands"].append(result)
    runner.record.write(runner.text.path)
    runner.report(dict(result, kind="command"))


def leave(runner):
    """The last report, and all that the service has not acknowledged; in bounded time."""
    done = exitcodes.OK, exitcodes.text_of(exitcodes.OK)
    code, reason = (not runner.killing and runner.failure) or runner.leaving or done
    runner.outbox.phase = "end"
    close(runner, code, reason)
    usage = runner.record.final_usage or runner.record.usage()
    runner.report({"kind": "pilot", "exit_code": code, "reason": runner.text.clean(reason), "usage": usage})
    runner.link.final = True
    until = time.monotonic() + (runner.hasty_seconds if runner.killing else runner.final_seconds)
    while not runner.link.idle() and not runner.over:
        runner.turn(until)
        if time.monotonic() >= until:
            runner.text.own("the service did not take the last reports in time")
            break
    return code


def close(runner, code, reason):
    """The record is complete."""
    runner.text.own("the pilot ends: %s (exit code %d)" % (reason, code))
    runner.record.fields.update(end=time.time(), exit_code=code, reason=runner.text.clean(reason))
    runner.record.write(runner.text.path)
    return code


def ending(status):
    """How a process ended, in words, from its wait status."""
    if status is None:
        return "it cannot be killed"
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return "exit status %d" % os.WEXITSTATUS(status)
