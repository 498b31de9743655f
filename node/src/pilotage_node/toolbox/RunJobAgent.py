"""The command RunJobAgent: run the jobs that the matcher has for this node."""

from pilotage_node.agent import Agent
from pilotage_node.command import Command, Option


class RunJobAgent(Command):
    """Ask the matcher for what this node has room for, run the jobs side by side, report them, leave when it is over.

    Each job has its own directory, session and process group, a clean environment and its own limits on wall time, CPU
    time, memory and disk (of its whole process tree); where the job asks for it, namespaces of its own as well.

    It leaves when there is no work (idle_seconds after the first empty answer), when the time left is down to
    reserve_seconds, when the service was not reached for patience_seconds with nothing to do, or
    when it is told to. Told by an order, running jobs end by themselves; on a signal or when time is up they have
    grace_seconds, of which SIGTERM comes 5 s before the end. Jobs that were never started go back.

    Options:
        idle_seconds: how long to stay after the first empty answer while nothing runs [s]
        reserve_seconds: time kept at the end for reporting; only jobs that fit before it are asked for [s]
        grace_seconds: what running jobs are given when the pilot must leave [s]; keep it below the runner's own 30 s
        patience_seconds: how long to wait for a service that is not reached before leaving without it [s]
        hide: paths that isolated jobs must not see, besides the pilot's own and the usual places of credentials

    Facts given: none.

    Exit codes: NO_WORK when no job came; DISK when job directories cannot be made again and again; UNREACHABLE.
    """

    options = {
        "idle_seconds": Option(float, 45.0, "stay after the first empty answer [s]"),
        "reserve_seconds": Option(float, 90.0, "time kept at the end for reporting [s]"),
        "grace_seconds": Option(float, 20.0, "given to running jobs when the pilot must leave [s]"),
        "patience_seconds": Option(float, 900.0, "wait for a service that is not reached [s]"),
        "hide": Option(list, [], "paths that isolated jobs must not see"),
    }
    timeout = 0

    def do(self):
        Agent(self).run()

    def plan(self):
        node, options = self.facts.node, self.options
        self.log(
            "would ask for jobs for %(cores)s cores, %(memory_mib)s MiB of memory, %(disk_mib)s MiB of disk" % node
        )
        self.log("would leave %g s after the first empty answer" % options.idle_seconds)
        if node["seconds_left"] is not None:
            self.log("would take jobs for at most %.0f s" % (node["seconds_left"] - options.reserve_seconds))
