"""One job of the agent: its directory, its start, its use of the node against its limits, its end, its report;
and whose a process is."""

import os
import signal
import subprocess
import time

from pilotage_node.agent import isolation
from pilotage_node.agent.files import Stream, checked, disk_use, matches
from pilotage_node.facts import read
from pilotage_node.processes import children_of, cpu_of, descendants, quietly, remove_tree, snapshot, usage_of

KINDS = ("cores", "memory_mib", "disk_mib", "gpus")
"""What a job takes of the node."""
BASE = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
"""What a job gets of the pilot's environment."""
MIB = 1 << 20
STRAY = "stray"
LIMITS = ("memory_mib", "disk_mib", "cpu_seconds", "wall_seconds")
FAREWELL = 5
"""Seconds from SIGTERM to SIGKILL of a job; from its lease to going back of one that was leased ahead in vain; from
killing all jobs to leaving without what is still being stored (those jobs run again elsewhere)."""


class JobFailed(Exception):
    """It ends before its start, by its own fault: (reason of the protocol, message)."""


def raw(text):
    """As the kernel gets it, whatever the locale."""
    return text.encode("utf-8", "surrogateescape")


class Job:
    """A lease of this pilot and what became of it; its attributes begin with those of the grant (protocol).

    report: the last one, in the making; it has a ``state`` once the job is over. life: the agent's steps for it. fate:
    why we stop it, (state, reason, message), None while it lives by itself; killed at ``kill_at``. waiting: transfers
    under way. used: CPU time of user and system [s], memory [bytes], disk [bytes], of the whole tree.

    :param total: what the pilot has: the limit of a job that has none of its own
    """

    pid = fate = life = isolation = told = None
    waiting = 0
    streams = gpus = ()
    used = (0, 0, 0, 0)

    def __init__(self, grant, directory, total, now):
        self.__dict__.update(grant)
        spec = self.spec
        self.need = {kind: spec.get(kind) or 0 for kind in KINDS}
        self.limits = dict(total, **{key: most for key, most in spec.items() if most})
        self.since = now
        self.directory = os.path.join(directory, self.lease)
        self.report = {"kind": "job", "lease": self.lease, "job": self.job, "outputs": []}

    def prepare(self, kinds, cache):
        """Make its directory; yields the requests for its input files.

        :param kinds: isolation that works here
        :raises OSError: the node's fault; :raises JobFailed: its own
        """
        wanted = self.spec["isolation"]
        if wanted == "required" and not kinds:
            raise JobFailed("isolation_missing", "no kind of isolation works on this node")
        os.mkdir(self.directory, 0o700)
        if kinds and wanted != "none":
            self.isolation = kinds[0]
            os.mkdir(self.directory + "/.tmp")
        for item in self.spec["inputs"]:
            try:
                path = os.path.join(self.directory, checked(item["name"]))
                os.makedirs(os.path.dirname(path), exist_ok=True)
            except (ValueError, OSError) as error:
                raise JobFailed("input_failed", str(error))
            yield {"op": "get", "sha256": item["sha256"], "path": path, "cache": cache}

    def environment(self):
        """A clean one: the job's own, and what the agent says; of the pilot's nothing but PATH and LANG."""
        cores = str(self.need["cores"])
        temporary = "/tmp" if self.isolation else self.directory
        found = dict(BASE, HOME=self.directory, TMPDIR=temporary, OMP_NUM_THREADS=cores)
        found.update(self.spec["environment"], CUDA_VISIBLE_DEVICES=",".join(self.gpus))
        found.update(PILOTAGE_JOB=str(self.job), PILOTAGE_LEASE=self.lease, PILOTAGE_CORES=cores)
        return {raw(name): raw(value) for name, value in found.items()}

    def start(self, hide):
        """Start it, in a session of its own. It inherits descriptors 0 (/dev/null), 1 and 2 only.

        :param hide: paths that it must not see where it is isolated
        :raises JobFailed: it cannot be executed; :raises OSError: the node's fault
        """
        for item in self.spec["inputs"]:
            if item["executable"]:
                os.chmod(os.path.join(self.directory, item["name"]), 0o755)
        line, environment = self.spec["command"], self.environment()
        if self.isolation:
            line = isolation.wrap(self.isolation, self.directory, hide, self.gpus, line, environment)
        cap = self.spec["stdout_mib"] * MIB
        self.streams = [Stream(name, "%s.%s" % (self.directory, name), cap) for name in ("stdout", "stderr")]
        out, err = [stream.writer for stream in self.streams]
        try:
            process = subprocess.Popen(
                [raw(word) for word in line],
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                close_fds=False,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise JobFailed("start_failed", "%.200s: %s" % (line[0], error))
        finally:
            os.close(out)
            os.close(err)
        process.returncode = 0  # we reap it ourselves
        self.pid, self.started = process.pid, time.monotonic()

    def use(self, *used):
        self.used = [max(pair) for pair in zip(self.used, used)]

    def measure(self, processes):
        """Note what its processes use now; children that they waited for are in their account."""
        self.use(*cpu_of(processes), sum(process.rss for process in processes), disk_use(self.directory))

    def exceeded(self, now):
        """How to stop a job that exceeds a limit, (farewell, state, reason, message), else None."""
        user, system, memory, disk = self.used
        used = memory / MIB, disk / MIB, user + system, now - self.started
        for key, value in zip(LIMITS, used):
            most = self.limits.get(key)
            if most and value > most:
                what, _, unit = key.partition("_")
                # memory and disk are shared with others: no time for a farewell
                farewell = FAREWELL if unit == "seconds" else 0
                return farewell, "Failed", what + "_limit", "%s was %d, the limit is %d" % (key, value, most)
        return None

    def ended(self, status, used):
        """Its first process ended; ``status`` and ``used`` as ``os.wait4`` gives them.

        What it used is held against its limits once more, so that its fate does not hang on when we looked. The memory
        that the kernel tells is not: it is never below the agent's own at the start.
        """
        now = time.monotonic()
        quietly(os.killpg, self.pid, signal.SIGKILL)
        code, number = status >> 8, status & 127
        if self.isolation and 128 < code <= 192:
            number = code - 128
        disk = disk_use(self.directory) if self.spec["disk_mib"] else 0
        self.use(used.ru_utime, used.ru_stime, 0, disk)
        verdict = 0, "Failed" if code or number else "Done", "signal" if number else "exit", ""
        self.end(*self.fate or (self.exceeded(now) or verdict)[1:])
        usage = dict(usage_of(used), cpu_user=self.used[0], cpu_system=self.used[1])
        usage["max_rss_mib"] = max(self.used[2] / MIB, usage["max_rss_mib"])
        self.report.update(usage=usage, wall_seconds=round(now - self.started, 4), isolation=self.isolation)
        self.report.update(exit_code=None if number else code, signal=number or None)
        for stream in self.streams:
            stream.close()
            self.report[stream.name] = stream.text()

    def end(self, state, reason, message):
        """It is over; a job that failed by itself keeps its own reason."""
        if self.report.get("state") in (None, "Done"):
            self.report.update(state=state, reason=reason, message=message)

    def uploads(self):
        """The requests to store its outputs. May turn Done into Failed: output_missing."""
        if self.report["reason"] in ("killed", "drained", "lost"):
            return []
        files, globs = [(stream.path, stream.name) for stream in self.streams if stream.file], self.spec["outputs"]
        if globs:
            found, missing = matches(self.directory, globs)
            files += found
            if missing:
                self.end("Failed", "output_missing", "nothing matches " + ", ".join(missing)[:500])
        return [{"op": "put", "path": path, "name": name} for path, name in files]

    def clean(self):
        """Remove all of it from the disk."""
        for stream in self.streams:
            if stream.file:
                os.unlink(stream.path)
        remove_tree(self.directory)


def owner(everything, pid, jobs):
    """Whose an orphan is: the pid of its job, STRAY when that is over, None while it cannot be told."""
    process = everything[pid]
    lease = read("/proc/%d/environ" % pid).partition("PILOTAGE_LEASE=")[2].partition("\0")[0]
    for job in jobs.values():
        if job.pid == process.session or job.lease == lease:
            return job.pid
    older = any(everything[job].start_ticks <= process.start_ticks for job in jobs if job in everything)
    return None if older and not lease else STRAY


def trees(jobs):
    """The processes of each running job, {pid of the job: [Process]}; strays under STRAY; by one look for all jobs.

    Processes that left their parent are children of the agent, which is a sub-reaper. Whose they are is known by their
    session, or by PILOTAGE_LEASE in their environment; or they are nobody's, once no job runs that was there before
    them.

    :param jobs: running jobs by pid
    """
    everything, found = snapshot(), {}
    for pid in children_of(everything, os.getpid()):
        family = [everything[each] for each in [pid] + descendants(everything, pid)]
        found.setdefault(pid if pid in jobs else owner(everything, pid, jobs), []).extend(family)
    return found
