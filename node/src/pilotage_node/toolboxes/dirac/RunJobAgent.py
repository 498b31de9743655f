"""The command RunJobAgent for communities whose jobs are in a DIRAC: its own job agent, started, followed, stopped."""

import os
import select
import signal
import subprocess
import time

from pilotage_node import exitcodes, processes
from pilotage_node.command import Command, CommandFailed, Option
from pilotage_node.processes import quietly
from pilotage_node.toolboxes.dirac import agentlog, programs

DEFAULTS = "/Resources/Computing/CEDefaults/"
NEVER = float("inf")
MANY = 1000000
"""Questions: DIRAC takes 0 for its default."""
TICK = 1
REPORTING = 8
"""Of the grace, what DIRAC's job agent needs to give its jobs back once they were ended [s]; a quiet node needs one."""


class RunJobAgent(Command):
    """Run DIRAC's job agent, follow what it does, and end it in time.

    The agent asks DIRAC's matcher and runs jobs by itself; its log is the pilot's log. Each job that it gets is told to
    the pilot's record and the service: its number, state, times and CPU time.

    It leaves when there is no work (idle_seconds after the first empty answer, or failed_matches of them), when the
    time left is down to reserve_seconds, or when it is told to. Told by an order, the agent is asked to stop after its
    running jobs. On a signal, or when the time is up, running jobs have grace_seconds, of which SIGTERM comes 8 s
    before the end: then the agent gives them back to DIRAC, which reschedules them. What is left after that is killed.

    Options:
        local_ce_type: how jobs run on the node: InProcess, Singularity, Pool, Pool/Singularity
        required_tags: tags that a job must have to run here
        cpu_work_hs06_seconds: most CPU work that a job may ask for [HS06 s]; unset: what fits into the time left
        container_root, container_program, container_binds, container_options: of the inner CE Singularity
        idle_seconds: how long to stay after the first empty answer while nothing runs [s]
        reserve_seconds: time kept at the end for reporting [s]
        grace_seconds: what running jobs are given when the pilot must leave [s]; below the runner's own 30 s
        failed_matches: empty answers in a row after which DIRAC's agent leaves by itself
        max_cycles: questions that the agent asks in all; 0 = any number
        polling_seconds: between questions [s]: 9 or more make the first come at once; DIRAC waits longer after each
            empty answer
        submission_delay_seconds: DIRAC's pause after each job [s]
        filling: ask for another job after the first
        stop_on_failure: leave when a payload fails (DIRAC's StopOnApplicationFailure)
        agent_options: more options of dirac-agent, PATH=VALUE

    Facts given: none.

    Exit codes: NO_WORK when no job came; CONNECTIVITY when the matcher did not answer; FAILED when the agent failed.
    """

    options = {
        "local_ce_type": Option(str, "InProcess", "InProcess, Singularity, Pool or Pool/Singularity"),
        "required_tags": Option(list, [], "tags that a job must have"),
        "cpu_work_hs06_seconds": Option(int, None, "most CPU work of a job [HS06 s]; unset = what fits"),
        "container_root": Option(str, "", "the image in which jobs run"),
        "container_program": Option(str, "", "the program that starts containers"),
        "container_binds": Option(list, [], "directories that jobs see, PATH or PATH:::INSIDE"),
        "container_options": Option(str, "", "more options of that program"),
        "idle_seconds": Option(float, 45.0, "stay after the first empty answer [s]"),
        "reserve_seconds": Option(float, 90.0, "time kept at the end for reporting [s]"),
        "grace_seconds": Option(float, 20.0, "given to running jobs when the pilot must leave [s]"),
        "failed_matches": Option(int, 10, "empty answers in a row after which the agent leaves"),
        "max_cycles": Option(int, 0, "questions that the agent asks in all; 0 = any number"),
        "polling_seconds": Option(int, 9, "between questions [s]; with 9 or more the first comes at once"),
        "submission_delay_seconds": Option(int, 0, "DIRAC's pause after each job [s]"),
        "filling": Option(bool, True, "ask for another job after the first"),
        "stop_on_failure": Option(bool, False, "leave when a payload fails"),
        "agent_options": Option(list, [], "more options of dirac-agent, PATH=VALUE"),
    }
    requires = ("dirac",)
    timeout = 0

    def do(self):
        self.dirac, self.directory = self.facts.dirac, self.pilot.workdir
        left = self.facts.node["seconds_left"]
        self.until = NEVER if left is None else self.pilot.started + left - self.options.reserve_seconds
        self.log_seen = agentlog.Follower(self.options.local_ce_type.startswith("Pool"))
        self.reason, self.kill_at, self.warned, self.told = None, NEVER, False, set()
        self.busy = self.counted_at = 0
        self.cpu_before, self.rest = (0.0, 0.0), b""
        self.stop_file = os.path.join(self.directory, "control", "WorkloadManagement", "JobAgent", "stop_agent")
        wake = processes.listen(signal.SIGTERM)
        self.start()
        try:
            while self.agent.poll() is None or self.output:
                self.turn(wake)
        finally:
            signal.set_wakeup_fd(-1)
            if self.agent.poll() is None:
                processes.kill_tree(self.agent.pid)
            for job in self.log_seen.all_over(time.monotonic(), "the job agent ended before it was over"):
                self.tell(job)
        self.conclude()

    def plan(self):
        self.log("would start: dirac-agent %s" % " ".join(self.words("pilot.cfg", {})))

    # -- the agent

    def start(self):
        words = [os.path.join(self.dirac["bin"], "dirac-agent")]
        words += self.words(self.dirac["configuration"], self.dirac)
        environment = programs.environment(self.dirac["environment"])
        environment.update(self.job_features())
        self.log("starting %s" % " ".join(words))
        try:
            self.agent = subprocess.Popen(
                words,
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a signal for this command is not for the agent: how that ends is our matter
            )
        except OSError as error:
            raise CommandFailed(exitcodes.ENVIRONMENT, "%s cannot be started: %s" % (words[0], error))
        self.output = self.agent.stdout.fileno()
        os.set_blocking(self.output, False)

    def words(self, configuration, dirac):
        """The arguments of dirac-agent."""
        options, place = self.options, getattr(self, "directory", ".")
        agent = [
            ("MaxCycles", options.max_cycles or MANY),
            ("PollingTime", options.polling_seconds),
            ("StopOnApplicationFailure", options.stop_on_failure),
            ("StopAfterFailedMatches", options.failed_matches),
            ("SubmissionDelay", options.submission_delay_seconds),
            ("FillingModeFlag", options.filling),
            ("MinimumTimeLeft", 1),  # what is too little for a job is for the matcher to say
            ("LogLevel", dirac.get("log_level", "INFO")),
        ]
        others = [
            (DEFAULTS + "WorkingDirectory", place),
            ("/LocalSite/LocalCE", options.local_ce_type),
            ("/LocalSite/InstancePath", place),
            ("/LocalSite/CPUTime", self.work(dirac)),
            (DEFAULTS + "RequiredTag", ",".join(options.required_tags)),
            (DEFAULTS + "ContainerRoot", options.container_root),
            (DEFAULTS + "ContainerBin", options.container_program),
            (DEFAULTS + "ContainerBind", ",".join(options.container_binds)),
            (DEFAULTS + "ContainerOptions", options.container_options),
            ("/AgentJobRequirements/ExtraOptions", os.path.basename(configuration)),
        ]
        words = ["WorkloadManagement/JobAgent"]
        for name, value in agent + others:
            if value not in ("", None):
                words += ["-o", "%s=%s" % (name, value)]
        for text in options.agent_options:
            words += ["-o", text]
        return words + ["--cfg", configuration]

    def work(self, dirac):
        """The CPU work that a job may ask for [HS06 s]: what fits into the time left, and the configured ceiling."""
        until, most = getattr(self, "until", NEVER), self.options.cpu_work_hs06_seconds
        if until == NEVER:
            return most
        fits = max(0, int((until - time.monotonic()) * dirac.get("cpu_power", 10.0)))
        return fits if most is None else min(most, fits)

    def job_features(self):
        """Environment that tells DIRAC 8 of the end of our time, as machine/job features: else it only counts CPU time.
        DIRAC 9 counts wall time down by itself."""
        if self.until == NEVER or not self.dirac["version"].lstrip("v").startswith("8."):
            return {}
        place = os.path.join(self.directory, "jobfeatures")
        left = max(1, int(self.until - time.monotonic()))
        figures = {"wall_limit_secs": left, "cpu_limit_secs": left, "jobstart_secs": int(time.time())}
        figures["shutdowntime"] = figures["jobstart_secs"] + left
        os.mkdir(place)
        for name in figures:
            with open(os.path.join(place, name), "w") as file:
                file.write("%d\n" % figures[name])
        return {"JOBFEATURES": "file://" + place, "MACHINEFEATURES": "file://" + place}

    # -- following it

    def turn(self, wake):
        """Wait for the next thing to happen, and let it."""
        sources = [wake, self.pilot.fileno()] + ([self.output] if self.output else [])
        ready = select.select(sources, (), (), TICK)[0]
        if wake in ready and signal.SIGTERM in os.read(wake, 4096):
            self.leave("told by a signal", self.options.grace_seconds / 2)
        message = self.pilot.receive(0)
        while message:
            if message["op"] == "drain":
                hurry = message["reason"] != "order"
                self.leave(message["reason"], self.options.grace_seconds if hurry else NEVER)
            message = self.pilot.receive(0)
        if self.output and (self.output in ready or self.agent.poll() is not None):
            self.read()
        self.consider(time.monotonic())

    def read(self):
        """Copy what the agent says to the pilot's log, and take note of it."""
        data = quietly(os.read, self.output, 1 << 18)
        if data is None and self.agent.poll() is None:
            return
        if not data:  # its end, or what outlives the agent holds it open
            self.output, data = None, b"\n" if self.rest else b""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace")
            self.log(text)
            ready = self.log_seen.ready
            for job in self.log_seen.feed(text, time.monotonic()):
                self.tell(job)
            if self.log_seen.ready and not ready:
                self.log("the job agent has started, %.1f s after the pilot" % (time.monotonic() - self.pilot.started))

    def tell(self, job):
        """A job has begun or ended: a line in the log; ended ones go to the record and the service."""
        now = time.monotonic()
        self.busy += (now - self.counted_at) if self.counted_at else 0
        self.counted_at = now if self.log_seen.running() else 0
        if job.state == agentlog.RUNNING:
            what = "matched" if job.payload is None else "its payload runs"
            self.log("DIRAC job %s (%s): %s" % (job.number, job.kind, what))
            return
        job.cpu = self.cpu_since()
        report = agentlog.report_of(job)
        self.log("DIRAC job %s: %s after %.1f s" % (job.number, report["message"], report["wall_seconds"]))
        if job.number not in self.told:
            self.told.add(job.number)
            self.pilot.send({"op": "jobs", "reports": [report], "busy_seconds": round(self.busy, 3)})

    def cpu_since(self):
        """CPU time that the agent's tree used since the last job ended (user, system) [s]."""
        tree = processes.family(self.agent.pid) if self.agent.returncode is None else []
        now, before = (processes.cpu_of(tree) if tree else self.cpu_before), self.cpu_before
        self.cpu_before = now
        return max(0.0, now[0] - before[0]), max(0.0, now[1] - before[1])

    # -- leaving

    def consider(self, now):
        """Is it time to leave, or to go on with it?"""
        seen = self.log_seen
        if now >= self.until:
            self.leave("the time is up", self.options.grace_seconds)
        elif seen.empty_since and not seen.running() and now - seen.empty_since >= self.options.idle_seconds:
            self.leave("there is no work", NEVER)
        if not self.reason or self.agent.poll() is not None:
            return
        if not seen.running() and not seen.asking and seen.empty:
            # it sleeps until it would ask again, or see the file: there is nothing that it could lose
            quietly(self.agent.send_signal, signal.SIGTERM)
        if now >= self.kill_at - min(REPORTING, 0.5 * self.options.grace_seconds) and not self.warned:
            self.warned = True
            self.end_jobs()
        if now >= self.kill_at:
            processes.kill_tree(self.agent.pid)

    def leave(self, reason, grace):
        """The agent asks for nothing more, and ends after its running jobs or with the grace [s]."""
        if not self.reason:
            self.reason = reason
            self.log("the job agent is asked to leave: %s" % reason)
            try:
                os.makedirs(os.path.dirname(self.stop_file), exist_ok=True)
                with open(self.stop_file, "w") as file:
                    file.write(reason)
            except OSError as error:
                self.log("note: it cannot be asked: %s" % error)
                grace = min(grace, self.options.grace_seconds)
        self.kill_at = min(self.kill_at, time.monotonic() + grace)

    def end_jobs(self):
        """SIGTERM to all below the first process of each job: by that one's status the agent sees that the job did not
        end by itself, and gives it back."""
        everything = processes.snapshot()
        for pid in processes.descendants(everything, self.agent.pid):
            if b"Wrapper" in command_line(pid) and b"Wrapper" not in command_line(everything[pid].ppid):
                for below in processes.descendants(everything, pid):
                    quietly(os.kill, below, signal.SIGTERM)

    def conclude(self):
        """What it came to. :raises CommandFailed: no job came, or the agent failed"""
        seen, status = self.log_seen, self.agent.returncode
        states = [job.state for job in seen.jobs.values()]
        told = ", ".join("%d %s" % (states.count(state), state) for state in sorted(set(states)))
        self.log("the job agent has ended (status %s): %s" % (status, told or "no jobs"))
        if seen.ready is None and not self.reason:
            text = "; ".join(seen.errors[-3:]) or "status %s, see the log" % status
            raise CommandFailed(exitcodes.FAILED, "the job agent did not start: " + text)
        if status and not self.reason:
            what = "was ended by signal %d" % -status if status < 0 else "ended with status %d" % status
            text = "; ".join(seen.errors[-2:])
            raise CommandFailed(exitcodes.FAILED, "the job agent %s%s" % (what, text and ": " + text))
        if seen.refused[0] and not seen.running():
            text = "the matcher did not answer as it should, %d times: %s" % seen.refused
            raise CommandFailed(exitcodes.CONNECTIVITY, text)
        if not states and (seen.empty or self.reason == "there is no work"):
            raise CommandFailed(exitcodes.NO_WORK, "DIRAC has no job for this node")


def command_line(pid):
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            return file.read()
    except OSError:
        return b""
