"""The command RunEnvironmentTest: is this node fit to run jobs?"""

import os
import socket

from pilotage_node import exitcodes
from pilotage_node.command import Command, CommandFailed, Option
from pilotage_node.processes import quietly

CODES = {"cores": exitcodes.ENVIRONMENT, "memory_mib": exitcodes.MEMORY, "disk_mib": exitcodes.DISK}
"""What a lack of it is told by."""


class RunEnvironmentTest(Command):
    """Check that this node can run jobs at all, before anything is installed and before a job is asked for.

    Every finding is printed, good or bad, so that the log tells what the machine was. A node that fails costs its
    community one short pilot instead of many failed jobs: all checks are made, and then the command fails once, with
    a text that names each limit that was missed.

    Cores, memory and disk are those that the pilot may use: the smaller of what the node has and of the pilot's own
    limits (``facts.node``). The write test writes, flushes to the device and removes a file in the working directory.
    The clock's skew and the connection to the service are those of the registration, which every pilot has made before
    its first command; other services can be tried with ``endpoints``.

    Options:
        min_python: oldest Python accepted, as "3.9"
        systems: operating systems accepted, as ``uname -s`` says; empty = any
        machines: architectures accepted, as ``uname -m`` says; empty = any
        min_cores: fewest cores
        min_memory_mib: least memory [MiB]
        min_disk_mib: least free disk in the working directory [MiB]
        write_test_mib: size of the file written as a test [MiB]; 0 = no write test
        max_clock_skew_seconds: most difference between the node's clock and the service's [s]
        endpoints: services that jobs will need, each HOST:PORT; a TCP connection is made to each

    Facts given: none.

    Exit codes: DISK, MEMORY, CLOCK, CONNECTIVITY, ENVIRONMENT, as the first limit that was missed.
    """

    options = {
        "min_python": Option(str, "3.6", "oldest Python accepted"),
        "systems": Option(list, ["Linux"], "operating systems accepted; empty = any"),
        "machines": Option(list, [], "architectures accepted; empty = any"),
        "min_cores": Option(int, 1, "fewest cores"),
        "min_memory_mib": Option(int, 256, "least memory [MiB]"),
        "min_disk_mib": Option(int, 2048, "free disk below which the pilot leaves [MiB]"),
        "write_test_mib": Option(int, 1, "size of the file written as a test [MiB]; 0 = no test"),
        "max_clock_skew_seconds": Option(float, 300.0, "most difference from the service's clock [s]"),
        "endpoints": Option(list, [], "services to try, each HOST:PORT"),
    }
    timeout = 300

    def do(self):
        options, contact = self.options, self.pilot.registration
        self.check_node(options, self.facts.node)
        urls = ", ".join(self.pilot.profile["service"]["urls"])
        self.found("service", "%s, answered in %.0f ms" % (urls, 1000 * contact["seconds"]))
        skew, most = contact["clock_skew"], options.max_clock_skew_seconds
        self.found("clock skew", "%+.1f s" % skew, abs(skew) > most and "at most %g s wanted" % most, exitcodes.CLOCK)
        self.attempt("write test", self.pilot.workdir, self.write, exitcodes.DISK)
        for endpoint in options.endpoints:
            self.attempt("endpoint", endpoint, connect, exitcodes.CONNECTIVITY)
        if self.failures:
            codes, texts = zip(*self.failures)
            raise CommandFailed(codes[0], "this node is not fit: " + "; ".join(texts))

    def plan(self):
        self.check_node(self.options, self.facts.node)
        self.log("would write %d MiB as a test in the working directory" % self.options.write_test_mib)
        self.log("would connect to: %s" % (", ".join(self.options.endpoints) or "nothing but the service"))
        for _, text in self.failures:
            self.log("would leave this node: " + text)

    def check_node(self, options, node):
        self.failures = []
        self.found("host", "%(hostname)s, %(platform)s, kernel %(release)s, user %(user)s" % node)
        python, oldest = node["python"], options.min_python
        self.found("python", python, numbers(python) < numbers(oldest) and "at least %s wanted" % oldest)
        for what, wanted in (("system", options.systems), ("machine", options.machines)):
            wrong = wanted and node[what] not in wanted
            self.found(what, node[what], wrong and "one of %s wanted" % ", ".join(wanted))
        for what, code in CODES.items():
            size, least = node[what], getattr(options, "min_" + what)
            # One that could not be measured misses any limit.
            self.found(what, size, (size or 0) < least and "at least %d wanted" % least, code)

    def found(self, what, value, wrong=None, code=exitcodes.ENVIRONMENT):
        """Print one finding; ``wrong`` says which limit it missed."""
        self.log("%-16s %s%s" % (what, value, "  <- " + wrong if wrong else ""))
        if wrong:
            self.failures.append((code, "%s: %s, but %s" % (what, value, wrong)))

    def attempt(self, what, value, function, code):
        """Print whether something can be done."""
        wrong = None
        try:
            function(value)
        except (OSError, ValueError, OverflowError) as error:
            wrong = "it failed: %s" % error
        self.found(what, value, wrong, code)

    def write(self, directory):
        """Write, flush to the device and remove: a full disk shows here, not in a job."""
        path = os.path.join(directory, "write-test")
        try:
            with open(path, "wb") as out:
                out.write(bytes(self.options.write_test_mib << 20))
                out.flush()
                os.fsync(out.fileno())
        finally:
            quietly(os.unlink, path)


def connect(endpoint):
    """Make a TCP connection to HOST:PORT."""
    host, _, port = endpoint.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), 5).close()


def numbers(version):
    return [int(part) for part in version.split(".")]
