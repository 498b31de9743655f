"""How commands and pilots end: limits, drains, kills, results, the last report. Imported when the first of it comes."""

import os
import signal
import time

from pilotage_node import command, exitcodes, processes
from pilotage_node.processes import quietly, usage_of
from pilotage_node.runner.channel import FAR
from pilotage_node.runner.work import TERMINATED


def commands(runner):
    return [child for child in runner.children.values() if child.entry]


def stop_background(runner):
    """The other commands have ended: tell the background ones to, and wait until they did."""
    if runner.grace_at < FAR:
        runner.grace_at = min(runner.grace_at, time.monotonic())
    rest = [child for child in commands(runner) if child.entry["background"]]
    for child in rest:
        child.send({"op": "drain", "reason": "the other commands have ended"})
        child.limit(time.monotonic() + runner.background_seconds, "did not end when told to")
    while not all(child.ended for child in rest):
        runner.turn()


def drain(runner, code, reason, order=None):
    """Take no more work: commands have their grace, then only those that always run. By order they have all the time
    that is left, and background commands go on beside them."""
    if runner.leaving and (order or runner.grace_at < FAR):
        return
    runner.leaving = runner.leaving or (code, reason)
    runner.text.own("the pilot leaves: " + reason)
    if not order:
        now, runner.drain_at = time.monotonic(), FAR
        # half of what is left is for reports
        runner.grace_at = min(now + runner.grace_seconds, (now + runner.end_at) / 2)
    for child in commands(runner):
        if not child.entry["background"]:
            child.send({"op": "drain", "reason": order or reason})
            if not child.entry["always"]:
                child.limit(runner.grace_at, "killed")


def kill(runner, code, reason):
    """No grace: what runs is killed, what always runs and the last reports have seconds, the second time none."""
    runner.over, runner.killing, runner.drain_at = runner.killing, True, FAR
    runner.end_at = FAR if runner.over else time.monotonic() + runner.hasty_seconds
    if not runner.leaving or code == exitcodes.KILLED:
        runner.leaving = code, reason
    runner.text.own("everything is killed: " + reason)
    for child in commands(runner):
        child.stage, child.why = 1, "killed"
        escalate(runner, child)


def escalate(runner, child):
    """A child's time is over: SIGTERM to its group, then SIGKILL to its whole tree; one that cannot even be killed is
    given up."""
    child.stage += 1
    child.limit_at = time.monotonic() + runner.patience_seconds
    if child.stage == 1:
        runner.text.own("%s is ended: %s" % (child.name, child.why))
        quietly(os.killpg, child.pid, signal.SIGTERM)
    elif child.stage == 2:
        processes.kill_tree(child.pid)
    else:
        finish(runner, child, None)


def clear_strays(runner):
    """Kill what became our child because its parent ended: nothing of a command outlives it."""
    until = time.monotonic() + 2 * runner.patience_seconds
    while time.monotonic() < until:
        strays = [pid for pid in processes.children_of(processes.snapshot(), runner.pid) if pid not in runner.children]
        if not strays:
            return
        for pid in strays:
            quietly(os.kill, pid, signal.SIGKILL)
            quietly(os.waitpid, pid, os.WNOHANG)
        time.sleep(0.001)  # the kernel needs a moment to end them; their children come to us next


def finish(runner, child, status, *usage):
    """A child ended (status None: it cannot be killed): clear what it left, take what it said last, go on or not."""
    del runner.children[child.pid]
    quietly(os.killpg, child.pid, signal.SIGKILL)
    clear_strays(runner)
    for _ in range(99):  # as often as a pipe may be full, were it held open by what cannot be killed
        if child.sources:
            runner.hear(child)
            runner.text.add(child.name, child.printed())
    os.close(child.sock)
    os.close(child.output)
    child.sock = child.output = -1  # their numbers are soon another's
    child.ended = True
    runner.link.gone(child)
    if not child.entry:
        runner.text.own("the courier ended: " + ending(status))
        return
    tail = [runner.text.clean(line[:512].decode("utf-8", "replace")) for line in child.tail]
    note(runner, child.entry, *judge(runner, child, status), time.monotonic() - child.started, usage_of(*usage), tail)


def note(runner, entry, outcome, code, message, seconds=0, usage=None, tail=()):
    """Record and report how a command ended, or that it was skipped. A failure ends the pilot, unless the command says
    otherwise; others begin no more, unless it was for a missing fact or at the end anyhow."""
    name = entry["name"]
    text = "%s: %s" % (name, message) if message else name
    if code and outcome != "killed" and entry["on_failure"] == command.ABORT:
        runner.failure = runner.failure or (code, text)
        if outcome != "skipped" and not entry["always"]:
            runner.aborted = runner.aborted or text
    runner.text.own("%s after %.1f s, %s" % (outcome, seconds, text))
    result = {"name": name, "index": entry["index"], "outcome": outcome, "code": code}
    result.update(seconds=round(seconds, 3), usage=usage, message=runner.text.clean(message), tail=tail)
    runner.record.fields["commands"].append(result)
    runner.record.write(runner.text.path)
    runner.link.report(dict(result, kind="command"))


def judge(runner, child, status):
    """How a command ended: outcome, code, message."""
    if child.stage and child.why == "timeout":
        return "timeout", exitcodes.TIMEOUT, "it took longer than %s s" % child.entry["timeout"]
    if child.result:
        runner.facts.update(child.result.get("facts", ()))
        return child.result["outcome"], child.result["code"], child.result["message"]
    if not child.stage and status in (signal.SIGTERM, TERMINATED << 8):
        drain(runner, exitcodes.DRAINED, "signal SIGTERM")  # batch systems send it to all at once: ours is on its way
        child.stage = 1
    if child.stage:
        return "killed", exitcodes.KILLED, runner.leaving[1] if runner.leaving else child.why
    if os.WIFSIGNALED(status):
        return "crashed", exitcodes.CRASHED, "ended by " + ending(status)
    return "failed", exitcodes.FAILED, "no result, " + ending(status)


def leave(runner):
    """The record is complete; then the last report, and all that the service has not acknowledged, in bounded time."""
    failure = not runner.killing and runner.failure
    code, reason = failure or runner.leaving or (exitcodes.OK, "the pilot did its work")
    link, text = runner.link, runner.text
    text.own("the pilot ends: %s (exit code %d)" % (reason, code))
    reason = text.clean(reason)
    runner.record.fields.update(end=time.time(), exit_code=code, reason=reason)
    runner.record.write(text.path)
    if link.contact:
        usage = runner.record.fields["final_usage"] or runner.record.usage()
        link.phase, link.final = "end", True
        link.report({"kind": "pilot", "exit_code": code, "reason": reason, "usage": usage})
        until = time.monotonic() + runner.final_seconds
        while not (link.idle() or runner.over or time.monotonic() >= until):
            runner.turn(until)
        if not link.idle():
            text.own("the service did not take the last reports in time")
    return code


def name_of(number):
    """A signal's name; real-time signals have none."""
    return next((one.name for one in signal.Signals if one == number), "signal %d" % number)


def ending(status):
    """How a process ended, in words, from its wait status."""
    if status is None:
        return "it cannot be killed"
    if os.WIFSIGNALED(status):
        return name_of(os.WTERMSIG(status))
    return "exit status %d" % os.WEXITSTATUS(status)
