"""The job agent: asks for jobs, runs them side by side within their limits, and reports them."""

from pilotage_node.agent.loop import Agent


def run(command):
    """Run jobs until it is over; called by ``RunJobAgent.do`` in the command's own process.

    :raises CommandFailed: NO_WORK, DISK or UNREACHABLE
    """
    Agent(command).run()
