"""The command RunEnvironmentTest: is this node fit to run jobs?"""

import os
import socket
import sys

from pilotage_node import exitcodes
from pilotage_node.command import Command, CommandFailed, Option


class RunEnvironmentTest(Command):
    """Check that this node can run jobs at all, before anything is installed and before a job is asked for.

    Every finding is printed, good or bad, so that the log tells what the machine was. A node that fails costs its
    community one short pilot instead of many failed jobs: all checks are made, and then the command fails once, with
    a text that names each limit that was missed.

    Cores, memory and disk are those that the pilot may use: the smaller of what the node has and of the pilot's own
    limits (``facts.node``). The write test writes, flushes to the device, reads back and removes a file in
    the working directory. The clock's skew and the connection to the service are those of the registration, which
    every pilot has made before its first command; other services can be tried with ``endpoints``.

    Options:
        min_python: oldest Python accepted, as "3.9"
        systems: operating systems accepted, as ``uname -s`` says; empty = any
        machines: architectures accepted, as ``uname -m`` says; empty = any
        min_cores: fewest cores
        min_memory_mib: least memory [MiB]
        min_disk_mib: least free disk in the working directory [MiB]
        write_test_mib: size of the file written as a test [MiB]; 0 = no write test
        max_clock_skew_seconds: most difference between the node's clock and the service's [s]
        endpoints: services that jobs will need, each HOST:PORT ([HOST]:PORT for IPv6); a TCP connection is made to each
        connect_seconds: most time for one such connection [s]

    Facts given: none.

    Exit codes: DISK, MEMORY, CLOCK, CONNECTIVITY where all that is wrong is of that one kind; ENVIRONMENT otherwise.
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
        "connect_seconds": Option(float, 5.0, "most time for one connection [s]"),
    }
    timeout = 300

    def do(self):
        self.failures = []
        self.check_node(self.options, self.facts.node)
        if self.options.write_test_mib:
            self.check_writing(self.options.write_test_mib)
        self.check_service(self.pilot.registration)
        for endpoint in self.options.endpoints:
            self.found("endpoint", endpoint, self.unreachable(endpoint), exitcodes.CONNECTIVITY)
        if self.failures:
            codes = {code for code, _ in self.failures}
            code = codes.pop() if len(codes) == 1 else exitcodes.ENVIRONMENT
            raise CommandFailed(code, "this node is not fit: " + "; ".join(text for _, text in self.failures))

    def found(self, what, value, wrong=None, code=exitcodes.ENVIRONMENT):
        """Print one finding; ``wrong`` says which limit it missed."""
        self.log("%-16s %s%s" % (what, value, "  <- " + wrong if wrong else ""))
        if wrong:
            self.failures.append((code, "%s: %s, but %s" % (what, value, wrong)))

    def check_node(self, options, node):
        self.found("host", "%(hostname)s, %(platform)s, kernel %(release)s, user %(user)s" % node)
        oldest = tuple(int(part) for part in options.min_python.split("."))
        old = sys.version_info[: len(oldest)] < oldest
        self.found("Python", node["python"], old and "at least %s wanted" % options.min_python)
        for what, wanted in (("system", options.systems), ("machine", options.machines)):
            strange = wanted and node[what] not in wanted
            self.found(what, node[what], strange and "one of %s wanted" % ", ".join(wanted))
        for what, name, least, code in (
            ("cores", "cores", options.min_cores, exitcodes.ENVIRONMENT),
            ("memory [MiB]", "memory_mib", options.min_memory_mib, exitcodes.MEMORY),
            ("free disk [MiB]", "disk_mib", options.min_disk_mib, exitcodes.DISK),
        ):
            value = node[name]  # one that could not be measured misses any limit
            short = least > (value or 0) and "at least %d wanted" % least
            self.found(what, "unknown" if value is None else value, short, code)

    def check_writing(self, size):
        """Write, flush to the device, read back and remove: a full or lying disk shows here, not in a job."""
        path = os.path.join(self.pilot.workdir, "write-test-%d" % os.getpid())
        block, wrong = os.urandom(1 << 20), None
        try:
            try:
                with open(path, "wb") as out:
                    for _ in range(size):
                        out.write(block)
                    out.flush()
                    os.fsync(out.fileno())
                    # Without this the answer would come from memory.
                    os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                with open(path, "rb") as back:
                    if not all(back.read(1 << 20) == block for _ in range(size)):
                        wrong = "what was read back differs"
            finally:
                if os.path.lexists(path):
                    os.unlink(path)
        except OSError as error:
            wrong = "it failed: %s" % (error.strerror or error)
        self.found("write test", "%d MiB in %s" % (size, self.pilot.workdir), wrong, exitcodes.DISK)

    def check_service(self, contact):
        text = ", ".join(self.pilot.service_urls)
        if not contact["reached"]:
            self.found("service", text, "it was not reached", exitcodes.CONNECTIVITY)
            return
        self.found("service", "%s, answered in %.0f ms" % (text, 1000 * contact["seconds"]))
        skew, most = contact["clock_skew"], self.options.max_clock_skew_seconds
        text = "unknown" if skew is None else "%+.1f s" % skew
        self.found("clock skew", text, abs(skew or 0) > most and "at most %g s wanted" % most, exitcodes.CLOCK)

    def unreachable(self, endpoint):
        """Why no TCP connection can be made to HOST:PORT; None when it can."""
        host, _, port = endpoint.rpartition(":")
        try:
            if not host or not 0 < int(port) < 65536:
                raise ValueError
            socket.create_connection((host.strip("[]"), int(port)), self.options.connect_seconds).close()
        except ValueError:
            return "HOST:PORT wanted"
        except OSError as error:
            return "no connection: %s" % (error.strerror or error)
