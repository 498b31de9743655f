"""Exit codes: one table for the record, the process's exit status and a vacuum factory's shutdown message.

Each code is (exit status 0..255, shutdown message code, text). The shutdown message codes are those of the Vacuum model
(HSF-TN-2016-04, section "shutdown messages"): 100 shut down by the host, 200 success, 300 no work, 400 bad environment or
site, 500 slow to register, 600 payload or client failed, 700 internal error.
"""

OK = 0
FAILED = 1
NO_PYTHON = 2
USAGE = 3
NO_CREDENTIALS = 10
REFUSED = 11
SECOND_START = 12
PROTOCOL = 13
UNREACHABLE = 14
ENVIRONMENT = 20
DISK = 21
MEMORY = 22
CLOCK = 23
CONNECTIVITY = 24
TIMEOUT = 30
CRASHED = 31
MISSING_FACT = 32
NO_WORK = 40
AGENT = 41
DRAINED = 50
KILLED = 51
OUT_OF_TIME = 52
INTERNAL = 70

TABLE = {
    OK: (200, "the pilot did its work"),
    FAILED: (600, "a command failed without a more precise code"),
    NO_PYTHON: (400, "no Python 3.6 or newer on this machine"),
    USAGE: (700, "the pilot was started with arguments it does not know"),
    NO_CREDENTIALS: (500, "no credentials were found beside the pilot"),
    REFUSED: (500, "the service refused the pilot's credentials"),
    SECOND_START: (500, "a pilot with this stamp was started before"),
    PROTOCOL: (500, "the service does not speak this pilot's protocol version"),
    UNREACHABLE: (500, "the service could not be reached"),
    ENVIRONMENT: (400, "the node failed the environment test"),
    DISK: (400, "not enough disk, or the directory cannot be written"),
    MEMORY: (400, "not enough memory"),
    CLOCK: (400, "the node's clock differs too much from the service's"),
    CONNECTIVITY: (400, "a service that the pilot needs cannot be reached"),
    TIMEOUT: (600, "a command exceeded its time limit"),
    CRASHED: (600, "a command was ended by a signal"),
    MISSING_FACT: (600, "a command lacked a fact that an earlier one should have given"),
    NO_WORK: (300, "there was no work for this node"),
    AGENT: (600, "the job agent failed"),
    DRAINED: (200, "the pilot was told to leave and did"),
    KILLED: (100, "the pilot was killed by the service or a signal"),
    OUT_OF_TIME: (100, "the pilot's time was up"),
    INTERNAL: (700, "an error in the pilot itself"),
}


def text_of(code):
    """The meaning of an exit code, one phrase; for a code outside the table, the number itself."""
    return TABLE[code][1] if code in TABLE else "exit code %d" % code
