"""Exit codes: one table for the record, the process's exit status and a vacuum factory's shutdown message.

The shutdown message codes are those of the Vacuum model (HSF-TN-2016-04, section "shutdown messages"): 100 shut down
by the host, 200 success, 300 no work, 400 bad environment or site, 500 slow to register, 600 payload or client failed,
700 internal error.
"""

OK, FAILED, NO_PYTHON, USAGE = range(4)
NO_CREDENTIALS, REFUSED, SECOND_START, PROTOCOL, UNREACHABLE = range(10, 15)
ENVIRONMENT, DISK, MEMORY, CLOCK, CONNECTIVITY = range(20, 25)
TIMEOUT, CRASHED, MISSING_FACT = range(30, 33)
NO_WORK = 40
DRAINED, KILLED, OUT_OF_TIME = range(50, 53)
INTERNAL = 70

TABLE = {
    OK: (200, "the pilot did its work"),
    FAILED: (600, "a command failed"),
    NO_PYTHON: (400, "no Python 3.6 or newer"),
    USAGE: (700, "unknown arguments"),
    NO_CREDENTIALS: (500, "no credentials"),
    REFUSED: (500, "credentials refused"),
    SECOND_START: (500, "started before"),
    PROTOCOL: (500, "protocol version refused"),
    UNREACHABLE: (500, "the service could not be reached"),
    ENVIRONMENT: (400, "unfit node"),
    DISK: (400, "unfit disk"),
    MEMORY: (400, "not enough memory"),
    CLOCK: (400, "wrong clock"),
    CONNECTIVITY: (400, "a needed service could not be reached"),
    TIMEOUT: (600, "a command exceeded its time"),
    CRASHED: (600, "a command crashed"),
    MISSING_FACT: (600, "a command lacked a fact"),
    NO_WORK: (300, "no work for this node"),
    DRAINED: (200, "told to leave"),
    KILLED: (100, "killed"),
    OUT_OF_TIME: (200, "time is up"),
    INTERNAL: (700, "an error in the pilot"),
}
"""{exit status 0..255: (shutdown message code, text)}"""


def text_of(code):
    """The meaning of an exit code, one phrase; for a code outside the table, the number itself."""
    return TABLE[code][1] if code in TABLE else "exit code %d" % code
