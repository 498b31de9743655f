"""The command ReportUsage: what the pilot used, and how much of it went into jobs."""

from pilotage_node import exitcodes, processes
from pilotage_node.command import CONTINUE, Command, CommandFailed, Option

FIGURES = ("cpu_user", "cpu_system", "max_rss_mib", "read_mib", "write_mib")


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
        answer = self.pilot.call({"op": "record"}, 30)
        if answer is None:
            raise CommandFailed(exitcodes.INTERNAL, "the runner did not give the pilot's record")
        record = answer["record"]
        usage = totals(record, self.facts.node["cores"], living(self.pilot.pid))
        listed = record["jobs"][-self.options.jobs_listed :] if self.options.jobs_listed else []
        for line in table(record, usage, listed):
            self.log(line)
        self.pilot.send({"op": "usage", "usage": usage})


def living(runner):
    """User and system CPU time [s] of the runner's descendants that are still alive (the courier, this command):
    the kernel adds a process to its parent's account only when it has ended."""
    everything = processes.snapshot()
    tree = [everything[pid] for pid in processes.descendants(everything, runner)]
    return (
        sum(process.cpu_user + process.reaped_user for process in tree),
        sum(process.cpu_system + process.reaped_system for process in tree),
    )


def totals(record, cores, alive):
    """The pilot's usage from its record: numbers; ``jobs``: the same of all jobs together; ``monitored``: the last
    sample of RunMonitoringAgent, None where it did not run.

    :param alive: user and system CPU time of living descendants [s]
    """
    wall, own, jobs = record["seconds"], record["usage"], record["job_totals"]
    job_cpu = jobs["cpu_user"] + jobs["cpu_system"]
    return {
        "final": True,
        "wall_seconds": round(wall, 1),
        "cores": cores,
        "cpu_user": round(own["cpu_user"] + alive[0], 2),
        "cpu_system": round(own["cpu_system"] + alive[1], 2),
        "max_rss_mib": own["max_rss_mib"],
        "read_mib": own["read_mib"],
        "write_mib": own["write_mib"],
        "empty_seconds": round(max(0.0, wall - jobs["busy_seconds"]), 1),
        "efficiency": round(job_cpu / (wall * cores), 4) if wall > 0 and cores else 0.0,
        "jobs": jobs,
        "monitored": record["beat"],
    }


def row(name, state, seconds, usage):
    figures = [(usage or {}).get(key) or 0 for key in FIGURES]
    return "%-26.26s %-10.10s %10.1f %9.2f %9.2f %9.0f %9.1f %9.1f" % tuple([name, state, seconds or 0] + figures)


def table(record, usage, listed):
    """The lines of the table: commands, the jobs of ``listed``, and the totals."""
    jobs, wall = usage["jobs"], usage["wall_seconds"]
    heads = ("command or job", "outcome", "wall s", "user s", "system s", "RSS MiB", "read MiB", "write MiB")
    yield "%-26s %-10s %10s %9s %9s %9s %9s %9s" % heads
    for command in record["commands"]:
        yield row(command["name"], command["outcome"], command["seconds"], command.get("usage"))
    if jobs["count"] > len(listed):
        yield "(the last %d jobs of %d)" % (len(listed), jobs["count"])
    for job in listed:
        yield row("job %s" % (job["job"] or job["lease"]), job["state"], job["wall_seconds"], job["usage"])
    yield row("all %d jobs" % jobs["count"], "", jobs["wall_seconds"], jobs)
    yield row("the whole pilot", "", wall, usage)
    states = ", ".join("%d %s" % (count, state) for state, count in sorted(jobs["states"].items()))
    yield "jobs: %s; empty for %.1f s of %.1f s; efficiency %.1f %% of %d cores" % (
        states or "none",
        usage["empty_seconds"],
        wall,
        100 * usage["efficiency"],
        usage["cores"],
    )
