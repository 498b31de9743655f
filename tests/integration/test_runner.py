"""The runner: order, outcomes, facts, the record. Every test runs a real pilot process."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from tests.integration.runner_pilot import Pilot, pilot

from pilotage_node import exitcodes

__all__ = ["pilot"]


def test_commands_run_in_order_and_pass_facts_along(pilot: Pilot) -> None:
    code = pilot.run(
        """
        class First(Command):
            provides = ("answer",)
            options = {"number": Option(int, 1, "a number")}
            def do(self):
                self.log("cores %d in %s" % (self.facts.node["cores"], os.getcwd() == self.pilot.workdir))
                self.facts.answer = {"value": self.options.number}

        class Second(Command):
            requires = ("answer",)
            wants = ("nothing",)
            def do(self):
                self.log("got %s and %s" % (self.facts.answer, self.facts.nothing))
        """,
        "First Second",
        options={"First": {"number": 42}},
    )
    assert code == exitcodes.OK, pilot.output
    assert pilot.outcomes == {"First": "done", "Second": "done"}
    assert "First: cores" in pilot.log and "True" in pilot.log
    assert "Second: got {'value': 42} and None" in pilot.log


def test_a_class_that_has_nothing_but_do(pilot: Pilot) -> None:
    code = pilot.run(
        """
        class WithSelf:
            def do(self):
                print("with self", self.facts.node["hostname"])

        class WithoutSelf:
            def do():
                print("without self")
        """,
        "WithSelf WithoutSelf",
    )
    assert (code, set(pilot.outcomes.values())) == (0, {"done"})
    assert "WithoutSelf: without self" in pilot.log


def test_the_record_and_the_reports_tell_the_whole_run(pilot: Pilot) -> None:
    code = pilot.run(
        """
        class Busy(Command):
            def do(self):
                until = time.process_time() + 0.1
                while time.process_time() < until:
                    pass
                print("one\\ntwo")
        """,
        "Busy",
    )
    assert code == 0
    record = pilot.record
    assert record["stamp"] == "s1234567890" and record["digest"] == "d" * 64 and record["exit_code"] == 0
    assert record["node"]["cores"] >= 1 and record["end"] >= record["start"]
    [busy] = record["commands"]
    assert busy["usage"]["cpu_user"] + busy["usage"]["cpu_system"] >= 0.1
    assert busy["usage"]["max_rss_mib"] > 1 and busy["tail"] == ["one", "two"]
    reports = [report for body in pilot.syncs for report in body["reports"]]
    assert [report["kind"] for report in reports] == ["command", "pilot"]
    assert reports[0]["outcome"] == "done" and reports[1]["exit_code"] == 0
    assert len({report["id"] for report in reports}) == 2
    sent = "".join(body["log"]["text"] for body in pilot.syncs if body["log"])
    assert sent == pilot.log
    assert [body["sequence"] for body in pilot.syncs] == list(range(1, len(pilot.syncs) + 1))


def test_registration_comes_before_the_first_command(pilot: Pilot) -> None:
    pilot.run(
        """
        class Look(Command):
            def do(self):
                with open(os.path.join(os.path.dirname(self.pilot.workdir), "wire.jsonl")) as wire:
                    print("ops", [line.split('"')[3] for line in wire], self.pilot.registration["seconds"] > 0)
        """,
        "Look",
    )
    assert "Look: ops ['register'] True" in pilot.log
    first = pilot.wire[0]["body"]
    assert first["stamp"] == "s1234567890" and first["secret"] == "sesame-open" and first["nonce"]
    assert "pilot s1234567890" in first["log"] and first["node"]["hostname"]


def test_credentials_are_gone_and_never_in_the_log(pilot: Pilot) -> None:
    pilot.run(
        """
        class Leak(Command):
            def do(self):
                print("credentials there:", os.path.exists("../credentials.json"))
                print("the secret is sesame-open")
                print('{"token": "abc123def", "Authorization": "Bearer xyz987"} curl -H "X: Bearer lone654"')
                print("open", sorted(os.listdir("/proc/self/fd"), key=int))
                raise CommandFailed(20, "it was sesame-open")
        """,
        "Leak",
    )
    everything = pilot.log + pilot.output + json.dumps(pilot.syncs) + json.dumps(pilot.record)
    assert "credentials there: False" in pilot.log
    for secret in ("sesame-open", "abc123def", "xyz987", "lone654"):
        assert secret not in everything
    line = next(line for line in pilot.log.splitlines() if "Leak: open" in line)
    assert len(line.split("open ")[1].split(",")) == 5, line  # 0, 1, 2, the channel, and the look itself


def test_failure_skips_the_rest_but_not_always(pilot: Pilot) -> None:
    code = pilot.run(
        """
        class Fails(Command):
            def do(self):
                raise CommandFailed(21, "not enough disk")

        class Never(Command):
            def do(self):
                print("must not run")

        class Last(Command):
            always = True
            requires = ("unknown",)
            def do(self):
                print("last words")
        """,
        "Fails Never Last",
    )
    assert code == exitcodes.DISK
    assert pilot.outcomes == {"Fails": "failed", "Never": "skipped", "Last": "done"}
    assert "must not run" not in pilot.log and "Last: last words" in pilot.log
    assert "not enough disk" in pilot.record["reason"]
    report = pilot.syncs[-1]["reports"][-1]
    assert report["kind"] == "pilot" and "not enough disk" in report["reason"] and report["exit_code"] == 21


def test_continue_goes_on_and_what_lacks_its_fact_is_skipped(pilot: Pilot) -> None:
    code = pilot.run(
        """
        class Gives(Command):
            provides = ("thing",)
            on_failure = CONTINUE
            def do(self):
                raise RuntimeError("boom")

        class Needs(Command):
            requires = ("thing",)
            def do(self):
                pass

        class Other(Command):
            def do(self):
                pass
        """,
        "Gives Needs Other",
    )
    assert code == exitcodes.MISSING_FACT
    assert pilot.outcomes == {"Gives": "failed", "Needs": "skipped", "Other": "done"}
    gives, needs, _ = pilot.record["commands"]
    assert gives["message"] == "RuntimeError: boom" and "thing" in needs["message"]
    assert "commands.py" in pilot.log, "the traceback is in the log"


@pytest.mark.parametrize(
    "body,outcome,message",
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "SIGSEGV"),
        ("os._exit(3)", "failed", "exit status 3"),
        ("sys.exit(4)", "failed", "sys.exit(4)"),
        ("self.facts.undeclared = 1", "failed", "provides"),
        ("self.facts.undeclared", "failed", "requires or wants"),
        ("self.facts.given = object()", "failed", "not JSON"),
        ("sys.exit(0)", "failed", "sys.exit(0)"),
    ],
)
def test_every_way_to_end_is_a_result(pilot: Pilot, body: str, outcome: str, message: str) -> None:
    pilot.run(
        f"""
        class Ends(Command):
            provides = ("given",)
            def do(self):
                {body}
        """,
        "Ends",
    )
    [ends] = pilot.record["commands"]
    assert ends["outcome"] == outcome and message in ends["message"], ends


def test_a_module_that_cannot_be_imported_is_a_failure(pilot: Pilot) -> None:
    assert pilot.run("raise ValueError('no such luck')", "Anything") == exitcodes.FAILED
    assert pilot.outcomes == {"Anything": "failed"}
    assert "no such luck" in pilot.record["reason"]


def test_no_credentials(pilot: Pilot, tmp_path: Path) -> None:
    pilot.start("", "", "--credentials", str(tmp_path / "missing.json"))
    assert pilot.wait() == exitcodes.NO_CREDENTIALS
    assert "missing.json" in pilot.output


def test_unknown_argument(pilot: Pilot) -> None:
    pilot.start("", "", "--frobnicate")
    assert pilot.wait() == exitcodes.USAGE
    assert "--frobnicate" in pilot.output


def test_the_working_directory_is_private_and_removed(pilot: Pilot) -> None:
    pilot.run(
        """
        class Mess(Command):
            def do(self):
                print("mode", oct(os.stat(".").st_mode))
                os.makedirs("closed/in")
                open("closed/in/file", "w").close()
                os.symlink("/etc", "closed/link")
                os.chmod("closed", 0)
        """,
        "Mess",
    )
    assert "mode 0o40700" in pilot.log
    assert not [entry for entry in pilot.home.iterdir() if entry.name.startswith("pilot-")]
    assert stat.S_ISDIR(os.stat("/etc").st_mode)


@pytest.mark.parametrize(
    "status,code", [(401, exitcodes.REFUSED), (409, exitcodes.SECOND_START), (426, exitcodes.PROTOCOL)]
)
def test_refused_registration(pilot: Pilot, status: int, code: int) -> None:
    refuse = f"def answer(message, before): return {status}, {{'error': 'not you', 'code': 'x'}}"
    assert pilot.run("class Never(Command): pass", "Never", service=refuse) == code
    assert pilot.record["commands"] == [] and "not you" in pilot.record["reason"]
    assert len(pilot.wire) == 1


def test_service_that_is_never_reached(pilot: Pilot) -> None:
    away = "def answer(message, before): return 0, {'error': 'no route'}"
    assert pilot.run("", "Never", service=away, register_seconds=2) == exitcodes.UNREACHABLE
    assert {message["body"]["nonce"] for message in pilot.wire} == {pilot.wire[0]["body"]["nonce"]}


def interpreters() -> list[str]:
    found = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))
    return [str(path) for path in found] or ["python3"]


def test_python_3_6_is_here() -> None:
    assert any("/3.6." in path for path in interpreters()) or not os.environ.get("CI"), "Python 3.6 is missing"


@pytest.mark.parametrize("python", interpreters())
def test_every_interpreter(pilot: Pilot, python: str) -> None:
    code = pilot.run(
        """
        class Background(Command):
            background = True
            timeout = 0
            def do(self):
                while not self.pilot.draining:
                    self.pilot.send({"op": "usage", "usage": {"sample": 1}})
                    self.pilot.receive(0.05)

        class Hello(Command):
            def do(self):
                print("h\\xe4llo", "%d.%d" % sys.version_info[:2])
                print(self.pilot.call({"op": "upload", "path": "x", "name": "x"}, 20)["size"])

        class Hangs(Command):
            timeout = 0.5
            on_failure = CONTINUE
            def do(self):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                subprocess.call(["sleep", "1000"])

        class Last(Command):
            always = True
            def do(self):
                record: dict = self.pilot.call({"op": "record"}, 20)["record"]
                print("outcomes", [one["outcome"] for one in record["commands"]])
        """,
        "Background Hello Hangs Last",
        python=python,
        patience_seconds=0.3,
    )
    assert code == 0, pilot.output
    assert pilot.outcomes == {"Background": "done", "Hello": "done", "Hangs": "timeout", "Last": "done"}
    assert "Hello: h\u00e4llo 3." in pilot.log and "Last: outcomes ['done', 'timeout', 'done']" in pilot.log
