"""What `pilotage.testing` offers, but for the processes: the fake node, the fake service, the jobs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_parts import WANT, house

from pilotage.testing import FakeNode, FakeService, run_pilot
from pilotage.testing.commands import _found
from pilotage.testing.jobs import Jobs, job, sh
from pilotage.testing.pilots import PilotResult, script_for
from pilotage_node import protocol
from pilotage_node.toolbox.ReportUsage import ReportUsage


@pytest.fixture
def service() -> Iterator[FakeService]:
    one = FakeService()
    yield one
    one.close()


def registration(**changed: Any) -> dict[str, Any]:
    return {"protocol": 1, "stamp": "s1", "secret": "x", "nonce": "n1", "log": "hello\n", "node": {}, **changed}


def state(**changed: Any) -> dict[str, Any]:
    return {"sequence": 1, "held": [], "reports": [], "want": None, "log": None, "beat": {}, **changed}


def sync(service: FakeService, **changed: Any) -> dict[str, Any]:
    headers = {"Authorization": "Bearer token-of-s1"}
    answer = httpx.post(service.url + protocol.SYNC, json=state(**changed), headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


# -- the node


def test_a_node_has_its_files_programs_and_environment(tmp_path: Path) -> None:
    node = FakeNode(
        tmp_path,
        environment={"MINE": "7", "HOME": None},
        files={"/opt/mine/version": "7.1\n"},
        programs={"nvidia-smi": "echo GPU 0"},
    )
    assert node.path("opt/mine/version").read_text() == "7.1\n"
    assert node.environment["PATH"].startswith(str(tmp_path / "bin") + ":")
    assert node.path("bin/nvidia-smi").stat().st_mode & 0o111
    assert node.environment["MINE"] == "7" and "HOME" not in node.environment


def test_a_node_of_its_own_directory_leaves_nothing(tmp_path: Path) -> None:
    node = FakeNode()
    node.close()
    assert not node.root.exists()
    kept = FakeNode(tmp_path)
    kept.close()
    assert kept.root.exists()


def test_a_file_stays_in_the_node(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leads out of the node"):
        FakeNode(tmp_path, files={"../escaped": ""})


# -- the service


def test_a_stamp_registers_once(service: FakeService) -> None:
    first = httpx.post(service.url + protocol.REGISTER, json=registration())
    again = httpx.post(service.url + protocol.REGISTER, json=registration())
    other = httpx.post(service.url + protocol.REGISTER, json=registration(nonce="n2"))
    assert (first.status_code, again.status_code) == (200, 200)
    assert (other.status_code, other.json()["code"]) == (409, "stamp_used")
    assert httpx.post(service.url + protocol.REGISTER, json=registration(protocol=99)).status_code == 426
    assert httpx.post(service.url + protocol.SYNC, json=state()).status_code == 401, "without a token"
    assert service.log == "hello\n"


def test_jobs_are_handed_out_once_and_told_again_until_held(service: FakeService) -> None:
    httpx.post(service.url + protocol.REGISTER, json=registration())
    service.submit(["/bin/true"], cores=2)
    service.submit(["/bin/false"])
    assert sync(service)["granted"] == [], "nobody asked"
    [grant] = sync(service, want=WANT)["granted"]
    assert grant["spec"] == job(command=["/bin/true"], cores=2)
    assert sync(service)["granted"] == [grant], "the answer may have been lost"
    told = sync(service, held=["lease-1"])
    assert (told["granted"], told["hold"]) == ([], ["lease-1"])
    report = {"id": "r1", "kind": "job", "lease": "lease-1", "state": "Done"}
    told = sync(service, reports=[report])
    assert (told["hold"], told["acknowledged"]) == ([], ["r1"])
    sync(service, reports=[report])
    assert service.job(1) == report and service.reports == [report]


def test_the_log_is_put_together(service: FakeService) -> None:
    httpx.post(service.url + protocol.REGISTER, json=registration())
    assert sync(service, log={"offset": 6, "text": "wörld\n"})["log_offset"] == 13
    sync(service, log={"offset": 6, "text": "wörld\n"})
    assert sync(service, log={"offset": 99, "text": "a gap\n"})["log_offset"] == 13
    assert service.log == "hello\nwörld\n"


def test_orders_files_and_uploads(service: FakeService) -> None:
    httpx.post(service.url + protocol.REGISTER, json=registration())
    service.order("drain")
    service.order("kill", job=3, reason="enough")
    assert sync(service)["orders"] == [{"order": "drain"}, {"order": "kill", "lease": "lease-3", "reason": "enough"}]
    given = service.put(b"data", "in.txt")
    assert httpx.get(service.url + protocol.FILES + given["sha256"]).content == b"data"
    assert httpx.get(service.url + protocol.FILES + "0" * 64).status_code == 404
    assert httpx.put(service.url + protocol.FILES + "1" * 64, content=b"out").status_code == 201
    assert httpx.put(service.url + protocol.OUTPUT + "pilot.log", content=b"log").status_code == 201
    assert (service.stored, service.uploads) == ({"1" * 64: b"out"}, {"pilot.log": b"log"})
    assert httpx.get(service.url + "/elsewhere").status_code == 404


async def test_its_answers_have_the_form_of_the_real_services(service: FakeService, tmp_path: Path) -> None:
    """Else the tests of toolboxes would pass, and their pilots fail."""

    def form(answer: Any) -> Any:
        if isinstance(answer, dict):
            return {key: form(value) for key, value in answer.items()}
        return [form(item) for item in answer] if isinstance(answer, list) else type(answer) in (int, float)

    def post(path: str, body: Any, token: str = "none") -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.post(service.url + path, json=body, headers=headers).json()

    async with house(tmp_path) as at:
        anna, pilot = await at.person(), await at.pilot()
        await anna.submit({"command": ["/bin/true"]})
        service.submit(["/bin/true"])
        registered = await pilot.register()
        assert form(post(protocol.REGISTER, pilot.registration())) == form(registered)
        real = await pilot.sync(want=WANT)
        fake = post(protocol.SYNC, pilot.message(want=WANT), f"token-of-{pilot.stamp}")
        assert len(real["granted"]) == len(fake["granted"]) == 1 and form(real) == form(fake)
        other = await pilot.post(protocol.REGISTER, pilot.registration(nonce="n2"))
        assert form(post(protocol.REGISTER, pilot.registration(nonce="n2"))).keys() <= form(other.json()).keys()


def test_it_can_misbehave(service: FakeService) -> None:
    service.down = True
    with pytest.raises(httpx.TransportError):
        httpx.post(service.url + protocol.REGISTER, json=registration())
    service.down, service.refusing, service.retry_after = False, 503, 7
    answer = httpx.post(service.url + protocol.REGISTER, json=registration())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    service.refusing, service.slow_seconds = 0, 0.3
    answer = httpx.post(service.url + protocol.REGISTER, json=registration())
    assert answer.elapsed.total_seconds() >= 0.3 and service.registrations == [registration()]


def test_it_serves_tls_that_only_who_trusts_it_accepts() -> None:
    service = FakeService(tls=True)
    try:
        with pytest.raises(httpx.TransportError):
            httpx.post(service.url + protocol.REGISTER, json=registration())
        trusting = ssl.create_default_context(cadata=service.trust[0])
        assert httpx.post(service.url + protocol.REGISTER, json=registration(), verify=trusting).status_code == 200
    finally:
        service.close()


def test_each_pilot_holds_its_own_jobs() -> None:
    jobs = Jobs()
    jobs.queue = [sh("exit 0"), sh("exit 1")]
    first = jobs.answer(state(want={**WANT, "cores": 1}), "one")
    second = jobs.answer(state(want={**WANT, "cores": 1}), "two")
    assert (first["hold"], second["hold"]) == (["lease-1"], ["lease-2"])
    assert jobs.answer(state(held=["lease-1"]), "one")["granted"] == []


def test_a_job_that_no_pilot_would_get_is_refused() -> None:
    with pytest.raises(TypeError, match="a job's spec has no coers; it has command, "):
        job(coers=2)


# -- what is run


def test_a_command_is_found_by_file_class_directory_and_dotted_name(tmp_path: Path) -> None:
    own = tmp_path / "mine" / "commands" / "RunX.py"
    own.parent.mkdir(parents=True)
    own.write_text("class RunX:\n    def do(self): pass\n")
    assert _found(str(own), None) == (own.parent, "RunX")
    (own.parent / "__init__.py").touch()
    assert _found(own, None) == (own.parent, "RunX")
    (tmp_path / "mine" / "__init__.py").touch()
    assert _found(own, None) == (tmp_path / "mine", "RunX"), "the whole package"
    assert _found(tmp_path / "mine", "RunX") == (tmp_path / "mine", "RunX")
    base = "pilotage_node.toolbox", "ReportUsage"
    assert _found(ReportUsage, None) == base
    assert _found("pilotage_node.toolbox.ReportUsage", None) == base
    assert _found("pilotage_node.toolbox.ReportUsage.ReportUsage", None) == base
    assert _found("pilotage_node.toolbox", "ReportUsage") == base
    with pytest.raises(LookupError, match="no toolbox, module or base command nowhere"):
        _found("nowhere", None)


def test_a_pilot_is_one_of_configuration_profile_and_script() -> None:
    with pytest.raises(TypeError, match="give one of"):
        script_for()
    with pytest.raises(TypeError, match="give one of"):
        run_pilot({}, script="x")
    text = script_for({"vos": {"mine": {}}}, flavour="LOCAL")
    assert '"vo": "mine"' in text
    assert script_for(script=text) == text


def test_the_log_of_one_command() -> None:
    log = "2026-01-01T00:00:00Z pilot: RunX begins\n2026-01-01T00:00:00Z RunX: a: b\n2026-01-01T00:00:01Z RunXY: c\n"
    assert PilotResult(0, log=log).log_of("RunX") == "a: b\n"
