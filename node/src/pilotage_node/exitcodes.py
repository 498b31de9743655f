"""Exit codes of a pilot, in its record and as the process's exit status; ``pilotage_node.meanings`` explains them."""

OK, FAILED, NO_PYTHON, USAGE = range(4)
NO_CREDENTIALS, REFUSED, SECOND_START, PROTOCOL, UNREACHABLE, ALTERED = range(10, 16)
ENVIRONMENT, DISK, MEMORY, CLOCK, CONNECTIVITY = range(20, 25)
TIMEOUT, CRASHED, MISSING_FACT = range(30, 33)
NO_WORK = 40
DRAINED, KILLED, OUT_OF_TIME = range(50, 53)
INTERNAL = 70
