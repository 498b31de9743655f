"""Directors whose configuration changes while they serve: real database, real processes, kill -9 in between."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import director_parts
import pytest
from director_parts import CONFIGURATION, House
from test_director import end, finish, rows_in, until, until_started

from pilotage import resources
from pilotage.configuration import loads
from pilotage.directors import site
from pilotage.resources.base import ResourceError
from pilotage.storage import pilots
from pilotage.storage import resources as holders

REAL = resources.make
NONE = "directors: {interval_seconds: 0.1, lost_seconds: 0.5}\nsites: {}\n"
TWO = CONFIGURATION + "      two: {type: local, flavour: LOCAL, slots: 2, queues: {q: {cores: 1}}}\n"


@pytest.fixture(autouse=True)
def _stand(monkeypatch):
    monkeypatch.setattr("pilotage.resources.make", None)
    director_parts.use_stand()


@pytest.fixture
async def house(tmp_path):
    house = await House(tmp_path / "data").open()
    yield house
    await finish(house, "one", "two")


def become(house: House, text: str) -> None:
    house.live.replace(loads(text, "test.yaml"), house.live.number + 1)


def described(house: House) -> dict[str, dict]:
    return {each["resource"]: each for each in house.directors.describe()}


def served(house: House, *names: str):
    async def look():
        return set(described(house)) == set(names)

    return until(look)


async def test_an_added_resource_is_served(house):
    await house.start()
    await house.submit(5)
    await until_started(house, 3)
    become(house, TWO)
    await rows_in(house, "Submitted", count=5)

    async def started():
        return house.starts("two") == 2

    await until(started)
    assert house.starts("one") == 3
    assert set(await house.storage.read(holders.served)) == {"one", "two"}


async def test_changed_slots_count_for_what_is_sent_next(house):
    await house.start()
    await house.submit(6)
    await until_started(house, 3)
    become(house, CONFIGURATION.replace("slots: 3", "slots: 5"))
    await until_started(house, 5)
    become(house, CONFIGURATION.replace("slots: 3", "slots: 1"))
    await asyncio.sleep(0.5)
    rows = await rows_in(house, "Submitted", count=5)
    assert len(rows) == 5, "those that run stay"
    for row in rows[:4]:
        end(house, row, 0)
        await house.storage.write(pilots.end, row["stamp"], "Done", house.storage.now(), exit_code=0)
    await asyncio.sleep(1.0)
    assert house.starts() == 5, "no more are sent while one runs"


async def test_a_removed_resource_is_served_until_its_pilots_are_gone(house):
    await house.start()
    await house.submit(1)
    [row] = await rows_in(house, "Submitted")
    await until_started(house, 1)
    await house.register(row["stamp"])
    become(house, NONE)
    await house.submit(2)
    await asyncio.sleep(1.0)
    assert house.starts() == 1, "nothing more is sent"
    assert "no longer configured" in described(house)["one"]["leaving"]
    assert described(house)["one"]["pilots"] == 1
    found = await house.storage.read(pilots.get, row["stamp"])
    assert (found["state"], found["ordered"]) == ("Running", None), "and what runs is left to run"
    end(house, row, 0)
    await served(house)
    found = await house.storage.read(pilots.get, row["stamp"])
    assert found["state"] == "Done" and found["outputs_at"]
    assert await house.storage.objects.get(f"pilots/{row['stamp']}/stdout") == b"out\n"
    assert await house.storage.read(holders.served) == {}


@pytest.mark.parametrize("crash", [False, True])
async def test_also_after_a_restart(house, crash):
    await house.submit(1)
    if crash:  # by kill -9, between the submission and its note
        await house.storage.close()
        program = [sys.executable, director_parts.__file__, str(house.data), "submitted"]
        done = await asyncio.to_thread(subprocess.run, program, capture_output=True, timeout=60, check=False)
        assert done.returncode == -9, done.stderr.decode()
        await house.open()
    else:
        await house.start()
        await rows_in(house, "Submitted")
        await house.stop()
    become(house, NONE)
    await house.start()
    [row] = await rows_in(house, "Submitted")
    await until_started(house, 1)
    end(house, row, 0)
    await served(house)
    found = await house.storage.read(pilots.get, row["stamp"])
    assert "it never registered" in found["reason"] and found["outputs_at"]
    assert not house.place(row["stamp"]).exists()
    assert house.starts() == 1


@pytest.mark.parametrize("step", ["leased", "found", "recovered", "closed", "stored", "marked", "cleaned"])
async def test_a_director_killed_while_it_leaves_a_resource_leaves_it_later(house, step):
    await house.submit(1)
    await house.start()
    [row] = await rows_in(house, "Submitted")
    await until_started(house, 1)
    await house.register(row["stamp"])
    end(house, row, 0)
    await house.stop()
    await house.storage.close()
    program = [sys.executable, director_parts.__file__, str(house.data), step, NONE]
    done = await asyncio.to_thread(subprocess.run, program, capture_output=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr.decode()
    become(house, NONE)
    await house.open()
    await house.start()
    await served(house)
    found = await house.storage.read(pilots.get, row["stamp"])
    assert found["state"] == "Done" and found["outputs_at"]
    assert not house.place(row["stamp"]).exists()
    assert house.starts() == 1
    assert await house.storage.read(holders.served) == {}


async def test_a_resource_that_comes_back_is_served_again(house):
    await house.start()
    await house.submit(1)
    await until_started(house, 1)
    become(house, NONE)

    async def leaves():
        return described(house)["one"]["leaving"]

    await until(leaves)
    await house.submit(1)
    become(house, CONFIGURATION)
    await until_started(house, 2)
    assert described(house)["one"]["leaving"] == ""


async def test_one_that_is_gone_and_comes_back_begins_anew(house):
    await house.start()
    await served(house, "one")
    become(house, NONE)
    await served(house)
    become(house, CONFIGURATION)
    await house.submit(1)
    await until_started(house, 1)


async def test_another_type_begins_when_the_pilots_of_the_old_one_are_gone(house, monkeypatch):
    """Each type knows only its own references."""
    monkeypatch.setattr(resources, "TYPES", ("local", "other"))
    other = CONFIGURATION.replace("type: local", "type: other")
    await house.start()
    await house.submit(1)
    [row] = await rows_in(house, "Submitted")
    await until_started(house, 1)
    become(house, other)
    await house.submit(1)
    await asyncio.sleep(0.5)
    assert house.starts() == 1
    await house.stop()
    await house.start()  # and a restart changes nothing of that
    await asyncio.sleep(0.5)
    assert house.starts() == 1
    assert "type other" in described(house)["one"]["leaving"]
    await house.register(row["stamp"])
    await house.storage.write(pilots.end, row["stamp"], "Done", house.storage.now(), exit_code=0)
    end(house, row, 0)
    await until_started(house, 2)
    assert described(house)["one"]["leaving"] == ""
    assert '"other"' in (await house.storage.read(holders.served))["one"]


async def test_a_type_that_there_is_not_harms_nobody_else(house, monkeypatch):
    stand = resources.make
    choose = lambda name, settings, data: (stand if settings.type == "local" else REAL)(name, settings, data)  # noqa: E731
    monkeypatch.setattr(resources, "make", choose)
    await house.start()
    become(house, TWO.replace("two: {type: local", "two: {type: loacl"))

    async def told():
        return described(house).get("two", {}).get("error")

    assert "did you mean 'local'" in await until(told)
    await house.submit(1)
    await until_started(house, 1)
    become(house, TWO)
    await house.submit(4)

    async def started():
        return house.starts("two") >= 1

    await until(started)
    assert described(house)["two"]["error"] == ""


async def test_shares_follow(house):
    shared = CONFIGURATION + "vos: {demo: {share: %d}, other: {share: %d}}\n"
    become(house, (shared % (1, 1000)).replace("slots: 3", "slots: 0"))
    await house.start()
    await house.engine.submit("other", "bob", [{"command": ["true"]}] * 20)
    await house.submit(20)
    become(house, shared % (1000, 1))
    rows = await rows_in(house, "Submitted", count=3)
    # Each VO begins with nothing: one turn each, then the share of a thousand has it.
    assert sorted(row["vo"] for row in rows) == ["demo", "demo", "other"]


async def test_a_failing_resource_that_is_mended_by_configuration_is_tried_at_once(house, monkeypatch):
    monkeypatch.setattr(site, "LONGEST_PAUSE", 3600.0)
    failing = True

    class Moody(director_parts.Stand):
        async def find(self):
            if failing:
                raise ResourceError("wrong password")
            return await super().find()

    monkeypatch.setattr(resources, "make", lambda name, settings, data: Moody(data / "local" / name, 3))
    become(house, CONFIGURATION.replace("interval_seconds: 0.1", "interval_seconds: 3600"))
    await house.start()

    async def told():
        return described(house)["one"]["error"]

    assert await until(told) == "wrong password"
    await house.submit(1)
    failing = False
    become(house, CONFIGURATION.replace("slots: 3", "slots: 2"))
    await until_started(house, 1)


async def test_a_resource_that_is_left_and_does_not_answer_any_more_is_given_up(house, monkeypatch):
    """Not before the service has closed the records of its pilots."""
    monkeypatch.setattr(site, "GIVE_UP_SECONDS", 0.5)
    dead = False

    class Mortal(director_parts.Stand):
        async def status(self, references):
            if dead:
                raise ResourceError("no route to host")
            return await super().status(references)

    monkeypatch.setattr(resources, "make", lambda name, settings, data: Mortal(data / "local" / name, 3))
    await house.start()
    await house.submit(1)
    [row] = await rows_in(house, "Submitted")
    dead = True
    become(house, NONE)
    await asyncio.sleep(1.5)
    assert described(house)["one"]["error"] == "no route to host"
    await house.storage.write(pilots.end, row["stamp"], "Aborted", house.storage.now(), reason="never_started")
    await served(house)
    assert await house.storage.read(holders.served) == {}


async def test_what_is_kept_and_cannot_be_read_is_told_and_left_to_the_service(house, caplog):
    await house.storage.write(holders.acquire, "old", "somebody", 0.0, 1.0)
    await house.storage.write(holders.remember, "old", '{"type": "local", "colour": "red"}')
    await house.start()
    assert "What resource old was cannot be served to its end" in caplog.text
    await house.submit(1)
    await until_started(house, 1)


async def test_a_canary_is_tried_by_its_share_of_the_stamps(house):
    tried = loads(
        CONFIGURATION.replace("slots: 3", "slots: 12").replace("{cores: 1}", "{cores: 1, wall_seconds: 7777}")
    )
    become(house, CONFIGURATION.replace("slots: 3", "slots: 12"))
    house.live.set_canary(tried, 0.5, "one", "demo")
    await house.start()
    await house.submit(12)
    rows = await rows_in(house, "Submitted", count=12)
    picked = {row["stamp"]: house.live.pick(row["stamp"], "one", "demo").revision for row in rows}
    assert {row["stamp"]: row["revision"] for row in rows} == picked
    assert set(picked.values()) <= {tried.revision, house.configuration.revision}


async def test_what_directors_do_is_in_the_log(house, caplog):
    caplog.set_level("INFO", "pilotage.directors")
    await house.start()
    await house.submit(2)
    rows = await rows_in(house, "Submitted", count=2)
    await until_started(house, 2)
    assert "Resource one: pilots sent: 2 to q: " in caplog.text
    for row in rows:
        end(house, row, 12)

    async def left():
        return caplog.text.count("has left: Aborted, exit code 12") == 2

    await until(left)

    async def rests():
        return "q/demo rests for" in caplog.text

    await until(rests)
