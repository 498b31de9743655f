"""The runner ends what must end: hanging commands, orphans, drains, signals, the wall clock, its own death."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from tests.integration.runner_pilot import Pilot, pilot

from pilotage_node import exitcodes

__all__ = ["pilot"]

LAST = """
class Last(Command):
    always = True
    def do(self):
        print("last words")
"""

WAITS = """
class Waits(Command):
    timeout = 0
    def do(self):
        print("waiting")
        while not self.pilot.draining:
            self.pilot.receive(60)
        print("drained")

class Stubborn(Command):
    timeout = 0
    def do(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        print("waiting")
        time.sleep(1000)
"""


def waiting(pilot: Pilot, text: str = "waiting") -> None:
    pilot.eventually(lambda: text in pilot.log)


def test_time_limit_ends_a_command_and_all_that_it_started(pilot: Pilot) -> None:
    code = pilot.run(
        """
        class Hangs(Command):
            timeout = 0.5
            def do(self):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                for new in (False, True):
                    subprocess.Popen("trap '' TERM; setsid sleep 1000 & sleep 1000", shell=True, start_new_session=new)
                time.sleep(1000)
        """
        + LAST.replace("\n", "\n        "),
        "Hangs Last",
        patience_seconds=0.5,
    )
    assert code == exitcodes.TIMEOUT
    assert pilot.outcomes == {"Hangs": "timeout", "Last": "done"}
    assert not pilot.processes()


def test_sigterm_lets_a_command_clean_up(pilot: Pilot) -> None:
    pilot.run(
        """
        class Cleans(Command):
            timeout = 0.3
            def do(self):
                try:
                    time.sleep(1000)
                finally:
                    print("cleaned")
        """,
        "Cleans",
    )
    assert pilot.outcomes == {"Cleans": "timeout"} and "Cleans: cleaned" in pilot.log


def test_daemons_of_a_command_end_with_it_and_those_of_background_ones_later(pilot: Pilot) -> None:
    daemon = r"""subprocess.call(['sh', '-c', 'setsid sh -c "echo \\$\\$ > %s; exec sleep 1000" & sleep 0.3'])"""
    code = pilot.run(
        f"""
        def alive(name):
            pid = open(os.path.join("..", name)).read().strip()
            return os.path.exists("/proc/" + pid)

        class Behind(Command):
            background = True
            timeout = 0
            def do(self):
                {daemon % "../behind"}
                open("ready", "w").close()
                while not self.pilot.draining:
                    self.pilot.receive(60)

        class Forks(Command):
            def do(self):
                {daemon % "../forks"}
                while not os.path.exists("ready"):
                    time.sleep(0.01)
                print("mine", alive("forks"))

        class Looks(Command):
            def do(self):
                print("alive", alive("forks"), alive("behind"))

        class Last(Command):
            always = True
            def do(self):
                print("finally", alive("behind"))
        """,
        "Behind Forks Looks Last",
    )
    assert code == 0, pilot.output
    assert "Forks: mine True" in pilot.log
    assert "Looks: alive False True" in pilot.log
    assert "Last: finally False" in pilot.log


def test_many_orphans_that_breed(pilot: Pilot) -> None:
    """Each daemon starts the next one before it ends: a chase that the runner wins."""
    code = pilot.run(
        """
        class Breeds(Command):
            def do(self):
                script = 'trap "" TERM HUP; for i in 1 2 3 4 5 6 7 8; do setsid sh "$0" & done; sleep 0.2; sleep 100'
                head = 'n=$((${n:-0}+1)); export n; [ $n -gt 3 ] || {\\n'
                open("breed", "w").write(head + script + '\\n}; sleep 1000')
                subprocess.Popen(["sh", "breed"], start_new_session=True)
                time.sleep(0.2)
        """,
        "Breeds",
    )
    assert code == 0
    assert not pilot.processes()


def test_zombies_are_reaped(pilot: Pilot) -> None:
    pilot.run(
        """
        class Forks(Command):
            def do(self):
                subprocess.call(["sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done"])
                time.sleep(0.3)

        class Counts(Command):
            def do(self):
                from pilotage_node import processes
                everything = processes.snapshot()
                mine = [everything[pid] for pid in processes.descendants(everything, self.pilot.pid)]
                print("zombies", [one.pid for one in mine if one.state == "Z"])
        """,
        "Forks Counts",
    )
    assert "Counts: zombies []" in pilot.log


def test_sigterm_drains_and_always_commands_run(pilot: Pilot) -> None:
    pilot.start(WAITS + LAST + "class Never(Command): pass", "Waits Never Last")
    waiting(pilot)
    pilot.signal(signal.SIGTERM)
    assert pilot.wait() == exitcodes.DRAINED
    assert pilot.outcomes == {"Waits": "done", "Never": "skipped", "Last": "done"}
    assert "SIGTERM" in pilot.record["reason"] and "Waits: drained" in pilot.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
def test_other_signals_drain_too(pilot: Pilot, number: int) -> None:
    pilot.start(WAITS, "Waits")
    waiting(pilot)
    pilot.signal(number)
    assert pilot.wait() == exitcodes.DRAINED
    assert signal.Signals(number).name in pilot.record["reason"]


def test_grace_is_bounded(pilot: Pilot) -> None:
    pilot.start(WAITS + LAST, "Stubborn Last", grace_seconds=0.5, patience_seconds=0.3)
    waiting(pilot)
    pilot.signal(signal.SIGTERM)
    assert pilot.wait() == exitcodes.DRAINED
    assert pilot.outcomes == {"Stubborn": "killed", "Last": "done"}
    assert not pilot.processes()


def test_second_sigterm_kills_at_once(pilot: Pilot) -> None:
    pilot.start(WAITS + LAST, "Stubborn Last", grace_seconds=1000)
    waiting(pilot)
    pilot.signal(signal.SIGTERM)
    waiting(pilot, "the pilot leaves")
    pilot.signal(signal.SIGTERM)
    assert pilot.wait() == exitcodes.KILLED
    assert pilot.outcomes == {"Stubborn": "killed", "Last": "done"}


LOST = """
def answer(message, before):
    if message["op"] == "sync":
        return 0, {"error": "no route"}
    if message["op"] == "upload":
        return "silence"
"""

UPLOADS = """
class Uploads(Command):
    always = True
    def do(self):
        print("uploading")
        self.pilot.call({"op": "upload", "path": "p", "name": "pilot.log"}, 1000)
"""


def test_sigterm_without_the_service_ends_in_bounded_time(pilot: Pilot) -> None:
    changed = {"lost_seconds": 0.5, "final_seconds": 1000}
    pilot.start(WAITS + UPLOADS, "Waits Uploads", service=LOST, **changed)
    waiting(pilot)
    pilot.signal(signal.SIGTERM)
    assert pilot.wait() == exitcodes.DRAINED
    assert pilot.outcomes == {"Waits": "done", "Uploads": "killed"}
    assert "SIGTERM" in pilot.record["reason"] and "did not take the last reports" in pilot.log


@pytest.mark.parametrize("when", ["uploading", "the pilot ends"])
def test_second_sigterm_without_the_service_ends_all(pilot: Pilot, when: str) -> None:
    """Whatever it waits for: an upload of a command, or for its last reports to be taken."""
    commands = {"uploading": (UPLOADS, "Waits Uploads", exitcodes.KILLED), "the pilot ends": ("", "Waits", 50)}
    more, names, code = commands[when]
    changed = {"lost_seconds": 1000, "final_seconds": 1000, "hasty_seconds": 0.5}
    pilot.start(WAITS + more, names, service=LOST, **changed)
    waiting(pilot)
    pilot.signal(signal.SIGTERM)
    waiting(pilot, when)
    pilot.signal(signal.SIGTERM)
    assert pilot.wait() == code
    assert "a second signal SIGTERM" in pilot.log


ORDER = """
from runner_process import accept
def answer(message, before):
    if message["op"] == "sync":
        status, body = accept(message)
        return status, dict(body, orders=[{"order": "drain"}], again_seconds=0.1)
"""

FINISHES = """
class Behind(Command):
    background = True
    timeout = 0
    def do(self):
        reason = self.pilot.receive(1000)["reason"]
        print("told", reason)

class Finishes(Command):
    timeout = 0
    def do(self):
        message = {"op": ""}
        while message["op"] != "drain":
            self.pilot.send({"op": "jobs", "held": [], "reports": [], "want": None, "busy_seconds": 0})
            message = self.pilot.receive(1000)
        print("waiting by", message["reason"])
        while not os.path.exists("../go"):
            time.sleep(0.05)
"""


def test_drain_by_order_lets_what_runs_end_by_itself(pilot: Pilot) -> None:
    pilot.start(FINISHES, "Behind Finishes", service=ORDER, grace_seconds=0.1, patience_seconds=0.1)
    waiting(pilot, "waiting by order")
    time.sleep(0.5)  # several times the grace
    (pilot.home / "go").touch()
    assert pilot.wait() == exitcodes.DRAINED
    assert pilot.outcomes == {"Finishes": "done", "Behind": "done"}
    assert "told the other commands have ended" in pilot.log and "the service orders it" in pilot.record["reason"]


def test_sigterm_after_an_order_has_its_grace(pilot: Pilot) -> None:
    pilot.start(FINISHES, "Behind Finishes", service=ORDER, grace_seconds=0.1, patience_seconds=0.1)
    waiting(pilot, "waiting by order")
    pilot.signal(signal.SIGTERM)
    assert pilot.wait() == exitcodes.DRAINED
    assert pilot.outcomes == {"Finishes": "killed", "Behind": "done"}


def test_an_order_does_not_outlast_the_wall_time(pilot: Pilot) -> None:
    code = pilot.run(FINISHES, "Behind Finishes", service=ORDER, limits={"wall_seconds": 3})
    assert code == exitcodes.DRAINED
    assert pilot.outcomes == {"Finishes": "killed", "Behind": "done"}


def test_sigterm_to_every_process_at_once(pilot: Pilot) -> None:
    """As batch systems do: the courier lives on, and what it was told is delivered."""
    pilot.start(WAITS + LAST, "Waits Last")
    waiting(pilot)
    for pid in [*pilot.processes()]:
        os.kill(pid, signal.SIGTERM)
    assert pilot.wait() == exitcodes.DRAINED
    assert pilot.outcomes["Last"] == "done" and pilot.outcomes["Waits"] in ("killed", "done")
    assert pilot.syncs[-1]["reports"][-1]["kind"] == "pilot"
    assert "courier ended" not in pilot.log


def test_wall_clock_budget(pilot: Pilot) -> None:
    code = pilot.run(WAITS + LAST, "Waits Last", limits={"wall_seconds": 2})
    assert code == exitcodes.OUT_OF_TIME
    assert pilot.outcomes == {"Waits": "done", "Last": "done"}
    assert pilot.record["node"]["seconds_left"] == pytest.approx(1.9)


def test_wall_clock_budget_of_one_that_does_not_listen(pilot: Pilot) -> None:
    code = pilot.run(WAITS + LAST, "Stubborn Last", limits={"wall_seconds": 2})
    assert code == exitcodes.OUT_OF_TIME
    assert pilot.outcomes == {"Stubborn": "killed", "Last": "done"}


def test_background_command_that_does_not_listen_is_stopped(pilot: Pilot) -> None:
    code = pilot.run(
        """
        class Deaf(Command):
            background = True
            timeout = 0
            def do(self):
                while True:
                    time.sleep(1000)

        class Quick(Command):
            def do(self):
                print("beside it")
        """,
        "Deaf Quick",
        background_seconds=0.3,
    )
    assert code == 0
    assert pilot.outcomes == {"Quick": "done", "Deaf": "killed"}


def test_background_facts_and_failures_count(pilot: Pilot) -> None:
    code = pilot.run(
        """
        class Fails(Command):
            background = True
            def do(self):
                time.sleep(0.3)
                raise CommandFailed(22, "no memory")

        class Works(Command):
            def do(self):
                time.sleep(1)

        class Next(Command):
            def do(self):
                pass
        """,
        "Fails Works Next",
    )
    assert code == exitcodes.MEMORY
    assert pilot.outcomes == {"Fails": "failed", "Works": "done", "Next": "skipped"}


def test_a_command_may_ask_to_leave(pilot: Pilot) -> None:
    commands = """
    class Asks(Command):
        def do(self):
            self.pilot.send({"op": "drain", "reason": "the weather"})

    class Never(Command):
        pass
    """
    assert pilot.run(commands, "Asks Never") == exitcodes.DRAINED
    assert pilot.outcomes == {"Asks": "done", "Never": "skipped"} and "the weather" in pilot.record["reason"]


def test_nothing_outlives_a_killed_runner(pilot: Pilot) -> None:
    pilot.start(
        """
        class Behind(Command):
            background = True
            def do(self):
                subprocess.call(["sleep", "1000"])

        class Works(Command):
            def do(self):
                subprocess.Popen("setsid sh -c 'trap \\"\\" TERM; sleep 1000' & sleep 1000", shell=True)
                print("waiting")
                time.sleep(1000)
        """,
        "Behind Works",
    )
    waiting(pilot)
    pilot.eventually(lambda: len(pilot.processes()) >= 7)
    os.kill(pilot.pid_of("pilot-runner"), signal.SIGKILL)
    pilot.wait()
    pilot.eventually(lambda: not pilot.processes())


def test_output_without_end_neither_blocks_nor_bloats(pilot: Pilot) -> None:
    code = pilot.run(
        """
        class Floods(Command):
            def do(self):
                block = b"x" * 100000 + b"\\n" + b"short line\\n" * 100
                for _ in range(300):
                    os.write(1, block)
                os.write(1, b"y" * 30000000)
                os.write(1, b"\\nthe end")
        """,
        "Floods",
        log_mib=0.5,
    )
    assert code == 0
    assert (pilot.home / "pilot.log").stat().st_size < (1 << 19) + (1 << 16)
    assert pilot.log.count("the log is cut here") == 1 and "[the line is cut here]" in pilot.log
    [floods] = pilot.record["commands"]
    assert floods["tail"][-1] == "the end" and max(map(len, floods["tail"])) <= 512
    assert floods["outcome"] == "done" and "the pilot ends" in pilot.log


def test_what_is_printed_last_is_not_lost(pilot: Pilot) -> None:
    pilot.run(
        """
        class Crashes(Command):
            def do(self):
                os.write(1, b"\\xff last \\xe4 words")
                os.kill(os.getpid(), signal.SIGKILL)
        """,
        "Crashes",
    )
    assert "Crashes: \ufffd last \ufffd words\n" in pilot.log


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_costs_the_file_but_not_the_pilot(pilot: Pilot, tmp_path: Path) -> None:
    import subprocess

    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=True)
    try:
        pilot.place = small
        code = pilot.run(
            """
            class Fills(Command):
                def do(self):
                    with open("../fill", "wb", 0) as out:
                        try:
                            while True:
                                out.write(b"x" * 512)
                        except OSError as error:
                            print("full:", error)
                    for _ in range(1000):
                        print("much to say " * 5)
            """,
            "Fills",
        )
        assert code == 0, pilot.output
        sent = "".join(body["log"]["text"] for body in pilot.syncs if body["log"])
        assert sent.count("much to say") == 5000 and "full: " in sent and "exit code 0" in sent
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_an_internal_error_ends_everything_and_says_so(pilot: Pilot) -> None:
    code = pilot.run("class Never(Command): pass", "Never", register_seconds="nonsense")
    assert code == exitcodes.INTERNAL
    assert "Traceback" in pilot.log and pilot.record["exit_code"] == exitcodes.INTERNAL
    assert not pilot.processes()


def test_an_internal_error_later_is_told_to_the_service(pilot: Pilot) -> None:
    code = pilot.run(WAITS.replace("timeout = 0", "timeout = 'nonsense'"), "Waits")
    assert code == exitcodes.INTERNAL
    report = pilot.syncs[-1]["reports"][-1]
    assert (report["kind"], report["exit_code"]) == ("pilot", exitcodes.INTERNAL)
    assert not pilot.processes()
