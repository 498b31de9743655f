"""One job of the agent: its directory, its start, its end, its report.

A program is started by ``os.posix_spawnp`` with ``setsid``: 0.87 CPU-ms for /bin/true, where ``subprocess.Popen`` takes
0.93 (measured, Python 3.11). Python 3.6 and 3.7, and C libraries without POSIX_SPAWN_SETSID, have only Popen.
"""

import os
import signal

from pilotage_node.agent import isolation, limits
from pilotage_node.agent.files import checked, matches, remove
from pilotage_node.agent.room import need_of
from pilotage_node.agent.streams import Stream

LEASED, FETCHING, RUNNING, STORING = range(4)


def spawn(arguments, environment, directory, stdout, stderr):
    """Start a program, looked for on the pilot's own PATH, in a session of its own; gives its pid.

    It inherits descriptors 0 (/dev/null), 1 and 2 only, as all of ours are close-on-exec. The current directory becomes
    ``directory``: nothing here uses relative names.

    :raises OSError: it cannot be executed
    """
    arguments = [argument.encode("utf-8", "surrogateescape") for argument in arguments]
    environment = {name.encode(): value.encode("utf-8", "surrogateescape") for name, value in environment.items()}
    os.chdir(directory)
    if hasattr(os, "posix_spawn"):
        actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, stdout, 1), (os.POSIX_SPAWN_DUP2, stderr, 2)]
        how = {"file_actions": actions, "setsid": True, "setsigmask": ()}
        how["setsigdef"] = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them, a program must not inherit that
        try:
            return os.posix_spawnp(arguments[0], arguments, environment, **how)
        except NotImplementedError:
            pass
    import subprocess

    files = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr}
    process = subprocess.Popen(arguments, env=environment, start_new_session=True, **files)
    process.returncode = 0  # we reap it ourselves
    return process.pid


class JobFailed(Exception):
    """It ends before its start, by its own fault: (reason of the protocol, message)."""


class Job:
    """A lease of this pilot and what became of it; its attributes begin with those of the grant (protocol).

    fate: why we stopped it, (state, reason, message), None while it lives by itself; result: (state, reason, message,
    exit code, signal); isolation: kind used; told: its Running was reported; waiting: transfers under way.
    """

    pid = started = fate = result = isolation = usage = None
    phase, told, waiting = LEASED, False, 0
    streams = gpus = ()
    rss = user = system = disk = disk_at = kill_at = wall = 0

    def __init__(self, grant, directory, now):
        self.__dict__.update(grant)
        self.need = need_of(self.spec)
        self.since = now
        self.directory = os.path.join(directory, self.lease)
        self.outputs = []

    def directories(self):
        return [self.directory] + ([self.directory + ".tmp"] if self.isolation else [])

    def prepare(self, kinds, cache):
        """Make its directory; gives the requests for its input files, without ids.

        :param kinds: isolation that works here
        :raises OSError: the node's fault; :raises JobFailed: its own
        """
        wanted = self.spec.get("isolation") or "none"
        if wanted == "required" and not kinds:
            raise JobFailed("isolation_missing", "no kind of isolation works on this node")
        self.isolation = kinds[0] if kinds and wanted != "none" else None
        for path in self.directories():
            os.mkdir(path, 0o700)
        requests = []
        for item in self.spec.get("inputs") or ():
            try:
                path = os.path.join(self.directory, checked(item["name"]))
                os.makedirs(os.path.dirname(path), exist_ok=True)
            except (ValueError, OSError) as error:
                raise JobFailed("input_failed", str(error))
            requests.append({"op": "get", "sha256": item["sha256"], "path": path, "token": self.token, "cache": cache})
        return requests

    def environment(self, base):
        """A clean one: ``base``, the job's own, and what the agent says; nothing else of the pilot's."""
        spec = self.spec
        environment = dict(base, HOME=self.directory, TMPDIR="/tmp" if self.isolation else self.directory)
        environment["OMP_NUM_THREADS"] = cores = str(self.need["cores"])
        environment.update(spec.get("environment") or ())
        environment.update(PILOTAGE_JOB=str(self.job), PILOTAGE_LEASE=self.lease, PILOTAGE_CORES=cores)
        if spec.get("memory_mib"):
            environment["PILOTAGE_MEMORY_MIB"] = str(spec["memory_mib"])
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        return environment

    def start(self, base, hidden):
        """Start it.

        :param hidden: function that gives the paths to hide
        :raises JobFailed: it cannot be executed; :raises OSError: the node's fault
        """
        for item in self.spec.get("inputs") or ():
            os.chmod(os.path.join(self.directory, item["name"]), 0o755 if item.get("executable") else 0o644)
        environment, arguments = self.environment(base), list(self.spec["command"])
        if "PATH" in (self.spec.get("environment") or ()):
            arguments.insert(0, "/usr/bin/env")  # which looks for the program on the job's own PATH
        if self.isolation:
            private = self.directory + ".tmp"
            arguments = isolation.wrap(self.isolation, self.directory, private, hidden(), self.gpus, arguments)
        ends, streams, cap = [], [], (self.spec.get("stdout_mib") or 0) * limits.MIB
        disk = self.spec.get("disk_mib")
        try:
            for name in ("stdout", "stderr"):
                fd, end = os.pipe()
                ends.append(end)
                streams.append(Stream(name, fd, "%s.%s" % (self.directory, name), cap))
            self.streams = streams
            before = limits.file_limit(disk * limits.MIB) if disk else None
            try:
                self.pid = spawn(arguments, environment, self.directory, *ends)
            except (OSError, ValueError) as error:
                raise JobFailed("start_failed", "%.200s: %s" % (self.spec["command"][0], error))
            finally:
                if disk:
                    limits.file_limit(before)
            if self.spec.get("cpu_seconds"):
                limits.cpu_limit(self.pid, self.spec["cpu_seconds"])
        finally:
            for end in ends:
                os.close(end)

    def ended(self, status, used, wall):
        """Its first process ended; ``status`` and ``used`` as ``os.wait4`` gives them. ``max_rss_mib`` is not below the
        agent's own at the start, from which the kernel counts."""
        self.wall = wall
        code, number = status >> 8, status & 127
        if self.isolation and 128 < code <= 192:
            number = code - 128
        self.user, self.system = max(self.user, used.ru_utime), max(self.system, used.ru_stime)
        self.usage = {
            "cpu_user": round(self.user, 4),
            "cpu_system": round(self.system, 4),
            "max_rss_mib": round(max(self.rss / limits.MIB, used.ru_maxrss / 1024), 1),
            "read_mib": round(used.ru_inblock / 2048, 2),
            "write_mib": round(used.ru_oublock / 2048, 2),
        }
        verdict = self.fate or self.verdict(code, number)
        self.result = verdict + ((None, number) if number else (code, None))

    def verdict(self, code, number):
        """(state, reason, message) of a job that we did not stop."""
        if not code and not number:
            return "Done", "exit", ""
        cpu, disk = self.spec.get("cpu_seconds"), self.spec.get("disk_mib")
        if cpu and (number == signal.SIGXCPU or self.user + self.system >= cpu):
            return "Failed", "cpu_limit", "used more than %d s of CPU time" % cpu
        if disk and number == signal.SIGXFSZ:
            return "Failed", "disk_limit", "a file grew beyond %d MiB" % disk
        return "Failed", "signal" if number else "exit", "ended by signal %d" % number if number else ""

    def uploads(self):
        """The requests to store its outputs, without ids. May turn Done into Failed: output_missing, output_failed."""
        if self.result[1] in ("killed", "drained"):
            return []
        files = [(stream.path, stream.name) for stream in self.streams if stream.file and stream.cap]
        if self.spec.get("outputs"):
            try:
                found, missing = matches(self.directory, self.spec["outputs"])
                files += found
                if missing:
                    self.fail("output_missing", "nothing matches " + ", ".join(missing)[:500])
            except ValueError as error:
                self.fail("output_failed", str(error))
        return [{"op": "put", "path": path, "name": name, "token": self.token} for path, name in files]

    def fail(self, reason, message):
        """Something failed beside it; a job that failed by itself keeps its own reason."""
        if self.result is None or self.result[0] == "Done":
            self.result = ("Failed", reason, message) + (self.result or (None, None))[-2:]

    def report(self):
        """What its last report says (protocol)."""
        keys = ("state", "reason", "message", "exit_code", "signal")
        report = dict(zip(keys, self.result))
        report.update(wall_seconds=round(self.wall, 4), usage=self.usage or {}, isolation=self.isolation)
        report.update(outputs=self.outputs, stdout="", stderr="")
        for stream in self.streams:
            report[stream.name] = stream.text()
        return report

    def clean(self):
        """Remove all of it from the disk."""
        for stream in self.streams:
            stream.close()
            if stream.file:
                os.unlink(stream.path)
        for path in self.directories():
            remove(path)
