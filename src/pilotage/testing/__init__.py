"""For the tests of those who write commands: run one command, or a whole pilot, on a fake node and a fake service.

Everything is as on a worker node (built toolbox, composed script, the runner and its processes, HTTP); what is made up
is what the machine is (`FakeNode`) and who answers (`FakeService`). With pytest these are fixtures: ``run_command``,
``run_pilot``, ``fake_node``, ``fake_service``.
"""

from pilotage.testing.commands import CommandResult, run_command
from pilotage.testing.node import FakeNode
from pilotage.testing.pilots import PilotResult, RunningPilot, run_pilot, start_pilot
from pilotage.testing.service import FakeService

__all__ = [
    "CommandResult",
    "FakeNode",
    "FakeService",
    "PilotResult",
    "RunningPilot",
    "run_command",
    "run_pilot",
    "start_pilot",
]
