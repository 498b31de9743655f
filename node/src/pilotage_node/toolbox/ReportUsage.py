"""The command ReportUsage: what the pilot used, and how much of it went into jobs."""

from pilotage_node import processes
from pilotage_node.command import CONTINUE, Command, Option


class ReportUsage(Command):
    """Add up what the pilot used, by command, by job and in all; print it as a table and send it to the service.

    It runs at the end of every pilot, after a failure and after a signal too, so that no pilot leaves without an
    account. The figures are the kernel's: wall time, CPU time in user and system mode, largest resident memory of one
    process (and of the whole pilot, where RunMonitoringAgent ran), data read from and written to disk.

    empty time: wall time in which no job ran [s].
    efficiency: CPU time of jobs / (wall time x cores of the pilot).

    Options:
        jobs_listed: how many jobs, the last ones, have a line of their own in the table; all are in the totals

    Facts given: none. The totals are the ``usage`` of the pilot's last report.

    Exit codes: INTERNAL when the runner does not give the record.
    """

    options = {"jobs_listed": Option(int, 20, "jobs, the last ones, that have a line of their own")}
    timeout = 60
    on_failure = CONTINUE
    always = True

    def do(self):
        record, rows = self.pilot.record()["record"], [HEADS]
        usage = totals(record, self.facts.node["cores"], self.pilot.pid)
        jobs, count = usage["jobs"], self.options.jobs_listed
        for one in record["commands"]:
            rows.append(row(one["name"], one["outcome"], one["seconds"], one["usage"]))
        for one in record["jobs"][-count:] if count else ():
            rows.append(row("job %s" % (one["job"] or one["lease"]), one["state"], one["wall_seconds"], one["usage"]))
        rows.append(row("all %d jobs" % jobs["count"], "", jobs["wall_seconds"], jobs))
        rows.append(row("the whole pilot", "", usage["wall_seconds"], usage))
        for one in rows:
            self.log("%-26.26s %-10.10s %10s %9s %9s %9s %9s %9s" % one)
        states = ", ".join("%d %s" % (number, state) for state, number in sorted(jobs["states"].items())) or "none"
        text = "jobs: {}; empty for {empty_seconds} s of {wall_seconds} s; efficiency {efficiency:.1%} of {cores} cores"
        self.log(text.format(states, **usage))
        self.pilot.send({"op": "usage", "usage": usage})

    def plan(self):
        self.log("would print what each command, the last %d jobs and the pilot used" % self.options.jobs_listed)


HEADS = ("command or job", "outcome", "wall s", "user s", "system s", "read MiB", "write MiB", "RSS MiB")


def row(name, state, seconds, usage):
    figures = [usage[name] for name in (*processes.FIGURES, "max_rss_mib")] if usage else [0] * 5
    return (name, state, *("%.1f" % value for value in [seconds or 0] + figures))


def totals(record, cores, runner):
    """The pilot's usage from its record: numbers; ``jobs``: the same of all jobs together; ``monitored``: the last
    sample of RunMonitoringAgent, None where it did not run.

    :param runner: its pid; its descendants that are still alive (the courier, this command) are counted, too: the
        kernel adds a process to its parent's account only when it has ended
    """
    alive = processes.cpu_of(processes.family(runner)[1:])
    usage, wall, jobs = record["usage"], record["seconds"], record["job_totals"]
    job_cpu = jobs["cpu_user"] + jobs["cpu_system"]
    return dict(
        usage,
        final=True,
        wall_seconds=round(wall, 1),
        cores=cores,
        cpu_user=round(usage["cpu_user"] + alive[0], 2),
        cpu_system=round(usage["cpu_system"] + alive[1], 2),
        empty_seconds=round(max(0, wall - jobs["busy_seconds"]), 1),
        efficiency=round(job_cpu / max(wall * cores, 1e-6), 4),
        jobs=jobs,
        monitored=record["beat"],
    )
