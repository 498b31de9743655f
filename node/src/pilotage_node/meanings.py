"""What exit codes mean, in words and as a vacuum factory's shutdown message. No pilot needs it, so it stays at home.

The shutdown message codes are those of the Vacuum model (HSF-TN-2016-04, section "shutdown messages"): 100 shut down
by the host, 200 success, 300 no work, 400 bad environment or site, 500 slow to register, 600 payload or client failed,
700 internal error.
"""

from pilotage_node import exitcodes

TABLE = {
    exitcodes.OK: (200, "the pilot did its work"),
    exitcodes.FAILED: (600, "a command failed"),
    exitcodes.NO_PYTHON: (400, "no Python 3.6 or newer"),
    exitcodes.USAGE: (700, "unknown arguments"),
    exitcodes.NO_CREDENTIALS: (500, "no credentials"),
    exitcodes.REFUSED: (500, "credentials refused"),
    exitcodes.SECOND_START: (500, "started before"),
    exitcodes.PROTOCOL: (500, "protocol version refused"),
    exitcodes.UNREACHABLE: (500, "the service could not be reached"),
    exitcodes.ALTERED: (500, "what was fetched is not what it should be"),
    exitcodes.ENVIRONMENT: (400, "unfit node"),
    exitcodes.DISK: (400, "unfit disk"),
    exitcodes.MEMORY: (400, "not enough memory"),
    exitcodes.CLOCK: (400, "wrong clock"),
    exitcodes.CONNECTIVITY: (400, "a needed service could not be reached"),
    exitcodes.TIMEOUT: (600, "a command exceeded its time"),
    exitcodes.CRASHED: (600, "a command crashed"),
    exitcodes.MISSING_FACT: (600, "a command lacked a fact"),
    exitcodes.NO_WORK: (300, "no work for this node"),
    exitcodes.DRAINED: (200, "told to leave"),
    exitcodes.KILLED: (100, "killed"),
    exitcodes.OUT_OF_TIME: (200, "time is up"),
    exitcodes.INTERNAL: (700, "an error in the pilot"),
}
"""{exit status 0..255: (shutdown message code, text)}"""


def text_of(code):
    """The meaning of an exit code, one phrase; for a code outside the table, the number itself."""
    return TABLE[code][1] if code in TABLE else "exit code %d" % code
