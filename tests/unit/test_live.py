"""The configuration that counts: exchanged as a whole, tried by a share of the stamps, followed from its source."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import pytest

from pilotage.cli.configured import Files, Revisions
from pilotage.cli.errors import CliError
from pilotage.configuration import Configuration, load, loads
from pilotage.configuration.live import Live
from pilotage.directors.plan import Submission
from pilotage.directors.supply import Scenery, make
from pilotage.storage import Storage, configurations

pytest_plugins = ["storage_fixtures"]

TEXT = """\
vos: {a: {}, b: {}}
sites:
  HERE:
    resources:
      one: {type: local, flavour: LOCAL, queues: {q: {wall_seconds: %d, wait_seconds: 100}}}
      two: {type: local, flavour: LOCAL, vos: [a], queues: {q: {}}}
"""
BROKEN = "flavours:\n  LOCAL:\n    commands: [RunNothing]\n"


def configured(wall_seconds: int = 1000) -> Configuration:
    return loads(TEXT % wall_seconds, "x.yaml")


class TestLive:
    def test_a_replaced_one_counts_and_everybody_is_told(self) -> None:
        old, new = configured(), configured(2000)
        live = Live(old, 3)
        heard: list[tuple[str, int]] = []
        end = live.subscribe(lambda: heard.append((live.current.revision, live.number)))
        before = live.state
        live.replace(new, 4)
        assert (live.current, live.number) == (new, 4)
        assert heard == [(new.revision, 4)]
        assert before.current is old, "who has begun to decide goes on with what it saw"
        end()
        live.replace(old, 5)
        assert len(heard) == 1

    def test_one_that_fails_keeps_nobody_from_hearing(self, caplog: pytest.LogCaptureFixture) -> None:
        live = Live(configured())
        heard: list[int] = []
        live.subscribe(lambda: heard.remove(0))
        live.subscribe(lambda: heard.append(live.number))
        live.replace(configured(2000), 1)
        assert heard == [1]
        assert "ValueError" in caplog.text

    def test_a_canary_gets_its_share_of_the_stamps_and_always_the_same(self) -> None:
        old, new = configured(), configured(2000)
        live = Live(old)
        live.set_canary(new, 0.2)
        stamps = [secrets.token_hex(16) for _ in range(4000)]
        first = [live.pick(stamp, "one", "a") for stamp in stamps]
        assert 600 < sum(one is new for one in first) < 1000, "800 on the average; wrong once in 10^14"
        assert [live.pick(stamp, "one", "a") for stamp in stamps] == first
        live.set_canary(new, 0.4)
        more = [live.pick(stamp, "one", "a") for stamp in stamps]
        assert all(now is new for now, then in zip(more, first, strict=True) if then is new), "a larger share adds"
        live.clear_canary()
        assert all(live.pick(stamp, "one", "a") is old for stamp in stamps)

    @pytest.mark.parametrize(
        "scope,tries",
        [
            ({}, {("one", "a"), ("one", "b"), ("two", "a")}),
            ({"resource": "one"}, {("one", "a"), ("one", "b")}),
            ({"vo": "a"}, {("one", "a"), ("two", "a")}),
            ({"resource": "two", "vo": "b"}, set()),
        ],
    )
    def test_only_pilots_of_its_resource_and_vo_try_it(self, scope: dict[str, Any], tries: set[Any]) -> None:
        live, new = Live(configured()), configured(2000)
        live.set_canary(new, 1.0, **scope)
        pairs = [("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")]
        assert {pair for pair in pairs if live.pick("s" * 32, *pair) is new} == tries

    def test_one_that_leaves_a_resource_out_says_nothing_of_its_pilots(self) -> None:
        old = configured()
        live = Live(old)
        live.set_canary(loads("vos: {a: {}, b: {}}\nsites: {}\n"), 1.0)
        assert live.pick("s" * 32, "one", "a") is old

    @pytest.mark.parametrize("share", [0.0, -1.0, 1.1])
    def test_a_share_is_a_part(self, share: float) -> None:
        with pytest.raises(ValueError, match="share"):
            Live(configured()).set_canary(configured(), share)


class TestMaking:
    def test_each_new_pilot_is_of_the_configuration_that_its_stamp_decides(self) -> None:
        old, new = configured(), configured(2000)
        live = Live(old)
        live.set_canary(new, 0.5)
        records, bundles = make(live.state, [Submission("one", "q", "a", 60)], ["http://x"], [], 0.0)
        found = {record["stamp"]: record["revision"] for record in records}
        assert {stamp: live.pick(stamp, "one", "a").revision for stamp in found} == found
        assert set(found.values()) == {old.revision, new.revision}
        walls = {bundle.wall_seconds for bundle in bundles if found[bundle.stamp] == new.revision}
        assert walls == {2000}
        assert {record["secret_expires"] for record in records} == {100.0}

    def test_a_canary_that_does_not_compose_stops_nobody_and_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        old = configured()
        live = Live(old)
        live.set_canary(loads(TEXT % 2000 + BROKEN, "x.yaml"), 1.0)
        records, _ = make(live.state, [Submission("one", "q", "a", 1)], ["http://x"], [], 0.0)
        assert [record["revision"] for record in records] == [old.revision]
        assert "RunNothing" in caplog.text

    def test_a_queue_that_only_the_current_one_has(self) -> None:
        old = configured()
        live = Live(old)
        live.set_canary(loads((TEXT % 2000).replace("{q: {wall", "{other: {wall"), "x.yaml"), 1.0)
        records, _ = make(live.state, [Submission("one", "q", "a", 1)], ["http://x"], [], 0.0)
        assert [record["revision"] for record in records] == [old.revision]

    def test_what_is_not_known_of_a_resource_is_not_planned_with(self) -> None:
        live, scenery = Live(configured()), Scenery()
        assert scenery.scene(live.state).supply == []
        scenery.nodes["one"] = {"cores": 4}
        assert {each.key for each in scenery.scene(live.state).supply} == {("one", "q", "a"), ("one", "q", "b")}
        live.replace(configured(2000))
        [first, _] = scenery.scene(live.state).supply
        assert first.cores == 4
        assert first.seconds is not None and first.seconds > 1000


async def settle(source: Files | Revisions, live: Live) -> None:
    """What the service does every few seconds: one look sees that something was written, the next that all is."""
    for _ in range(2):
        await source.look(live)


class TestFiles:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        (tmp_path / "conf" / "sites").mkdir(parents=True)
        (tmp_path / "conf" / "vos.yaml").write_text("vos: {a: {share: 1}}\n")
        (tmp_path / "conf" / "sites" / "here.yaml").write_text("sites: {}\n")
        return tmp_path / "conf"

    async def test_a_changed_file_counts(self, place: Path) -> None:
        source = Files(place, load(place))
        live = await source.first()
        await settle(source, live)
        assert live.source == str(place)
        first = live.current
        (place / "vos.yaml").write_text("vos: {a: {share: 2}}\n")
        await source.look(live)
        assert live.current is first, "somebody may still be writing"
        await source.look(live)
        assert live.current.vos["a"].share == 2
        (place / "sites" / "there.yaml").write_text("vos: {b: {}}\n")
        await settle(source, live)
        assert set(live.current.vos) == {"a", "b"}
        (place / "sites" / "there.yaml").unlink()
        await settle(source, live)
        assert set(live.current.vos) == {"a"}

    async def test_what_says_the_same_changes_nothing(self, place: Path) -> None:
        source = Files(place, load(place))
        live = await source.first()
        heard: list[int] = []
        live.subscribe(lambda: heard.append(1))
        await settle(source, live)
        os.utime(place / "vos.yaml", (1, 1))
        (place / ".hidden.yaml").write_text("no configuration at all")
        await settle(source, live)
        assert heard == []

    async def test_what_is_broken_is_told_once_and_what_runs_goes_on(
        self, place: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = Files(place, load(place))
        live = await source.first()
        first = live.current
        for text in ("vos: {a: {sahre: 2}}\n", "vos: {a: {sahre: 2}}\n# here?\n"):
            (place / "vos.yaml").write_text(text)
            await settle(source, live)
            await settle(source, live)
        assert live.current is first
        [record] = caplog.records
        assert "vos.yaml:1" in record.getMessage() and "'share'" in record.getMessage()
        (place / "vos.yaml").write_text("vos: {a: {share: 1}}\n")
        await settle(source, live)
        assert live.current is first
        assert "as it runs again" in capsys.readouterr().err
        (place / "vos.yaml").write_text("vos: {a: {share: 3}}\n")
        await settle(source, live)
        assert live.current.vos["a"].share == 3

    async def test_pilots_that_do_not_compose_are_refused(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = tmp_path / "one.yaml"
        file.write_text(TEXT % 1000)
        source = Files(file, load(file))
        live = await source.first()
        first = live.current
        file.write_text(TEXT % 1000 + BROKEN)
        await settle(source, live)
        assert live.current is first
        assert "RunNothing" in caplog.text
        file.write_text((TEXT % 1000).replace("type: local", "type: loacl"))
        await settle(source, live)
        assert live.current is first
        assert "did you mean 'local'" in caplog.text

    async def test_a_file_that_is_gone_is_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        file = tmp_path / "one.yaml"
        file.write_text(TEXT % 1000)
        source = Files(file, load(file))
        live = await source.first()
        file.unlink()
        await settle(source, live)
        assert "one.yaml" in caplog.text
        assert live.current.site_of("one") == "HERE"


async def apply(storage: Storage, text: str, base: int, canary: dict[str, Any] | None = None) -> int:
    """A revision, as another process would apply it."""
    digest = loads(text).revision
    return await storage.write(
        configurations.apply, {"x.yaml": text}, digest, base, storage.now(), who="ann", why="test", canary=canary
    )


def heads(live: Live) -> tuple[int, int | None]:
    """The numbers of what counts and of what is tried."""
    return live.number, live.canary.number if live.canary else None


class TestRevisions:
    async def test_at_first_the_embedded_defaults(self, storage: Storage) -> None:
        live = await Revisions(storage, None, None).first()
        assert (live.number, live.source, live.current.revision) == (0, "", load(None).revision)

    async def test_the_current_one_and_what_another_process_applies(self, storage: Storage) -> None:
        number = await apply(storage, TEXT % 1000, 0)
        source = Revisions(storage, None, None)
        live = await source.first()
        assert (live.number, live.current.site_of("one")) == (number, "HERE")
        heard: list[int] = []
        live.subscribe(lambda: heard.append(live.number))
        await source.look(live)
        assert heard == []
        later = await apply(storage, TEXT % 2000, number)
        await source.look(live)
        assert heard == [later]
        assert live.current.resource("one").queues["q"].wall_seconds == 2000

    async def test_a_canary_is_tried_promoted_and_withdrawn(self, storage: Storage) -> None:
        number = await apply(storage, TEXT % 1000, 0)
        tried = await apply(storage, TEXT % 2000, number, {"share": 0.25, "resource": "one", "vo": None})
        source = Revisions(storage, None, None)
        live = await source.first()
        found = live.canary
        assert found is not None
        assert (found.number, found.share, found.resource, found.vo) == (tried, 0.25, "one", None)
        assert live.number == number
        await storage.write(configurations.promote, tried, storage.now(), who="ann")
        await source.look(live)
        assert heads(live) == (tried, None)
        other = await apply(storage, TEXT % 3000, tried, {"share": 1.0, "resource": None, "vo": None})
        await source.look(live)
        assert heads(live) == (tried, other)
        await storage.write(configurations.retire, other, storage.now(), who="ann")
        await source.look(live)
        assert heads(live) == (tried, None)

    async def test_what_is_below_every_revision(self, storage: Storage) -> None:
        await apply(storage, "vos: {a: {}}\nsites: {}\n", 0)
        below = loads("service: {lease_seconds: 77}\n", "service.yaml")
        live = await Revisions(storage, below, None).first()
        assert (live.current.service.lease_seconds, list(live.current.vos)) == (77.0, ["a"])

    async def test_a_broken_one_is_told_and_an_earlier_one_can_be_chosen(self, storage: Storage) -> None:
        good = await apply(storage, TEXT % 1000, 0)
        broken = await apply(storage, TEXT % 1000 + BROKEN, good)
        with pytest.raises(CliError, match=f"revision {broken} .*RunNothing.*--revision N"):
            await Revisions(storage, None, None).first()
        with pytest.raises(CliError, match="no revision 99"):
            await Revisions(storage, None, 99).first()
        live = await Revisions(storage, None, good).first()
        assert live.number == broken + 1
        row = await storage.read(configurations.current)
        assert row is not None
        assert row["files"] == {"x.yaml": TEXT % 1000}
        assert (await Revisions(storage, None, 0).first()).current.revision == load(None).revision

    async def test_a_broken_one_of_another_process_is_told_once(
        self, storage: Storage, caplog: pytest.LogCaptureFixture
    ) -> None:
        good = await apply(storage, TEXT % 1000, 0)
        source = Revisions(storage, None, None)
        live = await source.first()
        broken = await apply(storage, TEXT % 1000 + BROKEN, good)
        await settle(source, live)
        assert live.number == good
        [record] = caplog.records
        assert f"Revision {broken}" in record.getMessage()
        later = await apply(storage, TEXT % 2000, broken)
        await source.look(live)
        assert live.number == later
