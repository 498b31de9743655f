"""What seeds fetch: manifests and blobs, as files and from the service; and the making of seeds."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from service_parts import house

from pilotage.configuration import ConfigurationError, compose_pilot, publish, seeds
from pilotage.configuration.loader import loads
from pilotage.service import seeds as service_seeds
from pilotage.service.tls import ensure
from pilotage_node.compose import compose, read_script

URL = "https://pilots.example:8842"
CONFIGURATION = """
service: {url: "https://pilots.example:8842"}
vos:
  demo: {}
  other: {pilot: {options: {RunJobAgent: {idle_seconds: 7.0}}}}
sites:
  HOME:
    pilot: {tags: [home]}
    resources:
      vac: {type: local, flavour: VAC, vos: [demo], queues: {default: {}}}
      box: {type: local, flavour: LOCAL, queues: {default: {}}}
"""


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def configuration() -> Any:
    return loads(CONFIGURATION)


def from_blobs(manifest: dict[str, Any], read: Any) -> str:
    """The script that a seed makes: by JSON alone."""
    toolboxes = [json.loads(read(name)) | {"digest": name} for name in manifest["toolboxes"]]
    return str(compose(json.loads(read(manifest["profile"])), toolboxes))


# --- the static form


def test_the_static_form_holds_what_makes_the_servers_pilot(configuration: Any, tmp_path: Path) -> None:
    items = list(publish.everything(configuration, ["demo", "other"], ["VAC"], [], []))
    publish.write(tmp_path, items)
    found = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("manifest.json"))
    assert found == [
        "demo/VAC/HOME/manifest.json",
        "demo/VAC/HOME/vac/default/manifest.json",
        "demo/VAC/manifest.json",
        "other/VAC/HOME/manifest.json",
        "other/VAC/manifest.json",
    ], "the other resource is of no published flavour, and vac does not admit the VO other"
    manifest = json.loads((tmp_path / "demo/VAC/HOME/vac/default/manifest.json").read_text())
    expected = compose_pilot(configuration, "demo", "vac", "default")
    assert from_blobs(manifest, lambda name: (tmp_path / "blobs" / name).read_bytes()) == expected.script
    assert manifest["script"] == expected.digest
    for blob in (tmp_path / "blobs").iterdir():
        assert blob.name == sha(blob.read_bytes())
        assert blob.stat().st_mode & 0o777 == 0o644, "a web server must be able to read it"


def test_what_is_published_can_be_read_whatever_the_umask(vac: publish.Published, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        publish.write(tmp_path / "new" / "pub", [vac])
    finally:
        os.umask(before)
    made = [tmp_path / "new", *(tmp_path / "new").rglob("*")]
    assert {oct(path.stat().st_mode & 0o777) for path in made if path.is_dir()} == {"0o755"}
    assert {oct(path.stat().st_mode & 0o777) for path in made if path.is_file()} == {"0o644"}


def test_publishing_again_adds_what_is_new_and_keeps_what_was(configuration: Any, tmp_path: Path) -> None:
    def write(text: str) -> tuple[int, int]:
        return publish.write(tmp_path, publish.everything(loads(text), ["demo"], ["VAC"], [], []))

    manifests, blobs = write(CONFIGURATION)
    assert (manifests, blobs) == (3, 5), "three profiles, and two toolboxes for all"
    before = {file.name for file in (tmp_path / "blobs").iterdir()}
    assert write(CONFIGURATION) == (0, 0)
    assert write(CONFIGURATION.replace("tags: [home]", "tags: [away]")) == (3, 3)
    assert before < {file.name for file in (tmp_path / "blobs").iterdir()}
    assert not list(tmp_path.rglob(".*")), "no drafts are left"


def test_what_is_published_holds_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2-of-the-database")
    (tmp_path / "key").write_text("hunter2-of-the-store")
    text = (
        CONFIGURATION.replace(
            'url: "https://pilots.example:8842"',
            """
  url: "https://pilots.example:8842"
  database: {url: "postgresql://pilotage@db/pilotage", password: {env: DATABASE_PASSWORD}}
  objects: {url: "s3://bucket", access_key_id: {file: KEY}, secret_access_key: {file: KEY}}
""".replace("KEY", str(tmp_path / "key")),
        )
        .replace("service: {", "service:")
        .replace("\n}", "\n")
    )
    items = list(publish.everything(loads(text), ["demo", "other"], ["VAC", "BOINC"], [], []))
    everything = b"".join(item.data + b"".join(item.blobs.values()) for item in items)
    for word in (b"hunter2", b"DATABASE_PASSWORD", b"postgresql://", b"s3://", str(tmp_path).encode()):
        assert word not in everything
    allowed = {"format", "vo", "site", "resource", "queue", "flavour", "engine", "minimum_python", "revision"}
    allowed |= {"service", "commands", "limits", "tags", "platform", "python", "log_mib"}
    for item in items:
        assert set(item.profile) <= allowed, "a new part of the profile is published to anybody: may it be?"
        assert set(item.profile["service"]) == {"urls", "trust"}


def test_names_that_are_not_there_are_refused(configuration: Any) -> None:
    for words, text in [
        ({"vo": "nobody", "flavour": "VAC"}, "unknown VO 'nobody'"),
        ({"vo": "demo", "flavour": "VAK"}, "unknown flavour 'VAK'; did you mean 'VAC'?"),
        ({"vo": "demo", "flavour": "VAC", "site": "HOM"}, "unknown site 'HOM'; did you mean 'HOME'?"),
        ({"vo": "other", "resource": "vac"}, "the resource 'vac' does not admit the VO 'other'"),
    ]:
        with pytest.raises(Exception) as caught:
            publish.published(configuration, **words)
        assert text in str(caught.value)


# --- seeds


@pytest.fixture
def vac(configuration: Any) -> publish.Published:
    return publish.published(configuration, "demo", flavour="VAC")


def test_a_seed_is_small_readable_and_reproducible(configuration: Any, tmp_path: Path) -> None:
    anchors = ensure(tmp_path, ["pilots.example"]).anchors()
    vac = publish.published(configuration, "demo", flavour="VAC", trust=anchors)
    places = seeds.Places([URL], anchors, ["/cvmfs/pilots.example"], ["http://mirror.example/pilots"])
    text = seeds.make(vac, places, pin=True)
    assert text == seeds.make(vac, places, pin=True)
    assert len(gzip.compress(text.encode(), 9)) < 12 * 1024, "with anchors and a pinned manifest; user data has 16 KiB"
    assert len(gzip.compress(seeds.make(vac, seeds.Places([URL])).encode(), 9)) < 10 * 1024
    script = read_script(text)
    assert [source["place"] for source in script.profile["sources"]] == [
        "http://mirror.example/pilots",
        "https://pilots.example:8842/seed",
        "/cvmfs/pilots.example",
    ], "a mirror spares the service: it is asked first"
    assert "http://mirror.example/pilots" in text.partition('\n"""\n')[0], "the head shows where it fetches from"
    assert not [name for name in script.sections if "toolbox" in name or "agent" in name]


def test_only_what_can_be_trusted_gives_a_manifest(vac: publish.Published) -> None:
    def manifests(places: seeds.Places) -> list[str | None]:
        return [source["manifest"] for source in read_script(seeds.make(vac, places)).profile["sources"]]

    assert manifests(seeds.Places([URL], [], ["/cvmfs/x"], ["https://mirror", "/data"])) == [
        None,
        None,
        "/demo/VAC/manifest",
        "/demo/VAC/manifest.json",
    ]
    assert manifests(seeds.Places(["http://plain"], [], ["https://web/x/"])) == [None, "/demo/VAC/manifest.json"]


def test_a_seed_that_could_trust_nothing_is_not_made(vac: publish.Published) -> None:
    for places, text in [
        (
            seeds.Places(["http://plain"]),
            "no service with https (http://plain), no trusted place; name one (--trusted)",
        ),
        (seeds.Places([], [], [], ["https://mirror"]), "nothing vouches for what the seed would fetch"),
        (seeds.Places([URL], [], ["http://web"]), "http://web cannot be trusted: anybody on the way may change it"),
        (seeds.Places([URL], [], [], ["https://me:secret@mirror"]), "no user and no password: a seed is no secret"),
        (seeds.Places([URL], [], [], ["mirror/here"]), "mirror/here is neither an absolute path nor an http or https"),
    ]:
        with pytest.raises(seeds.SeedError) as caught:
            seeds.make(vac, places)
        assert text in str(caught.value)
    assert (
        read_script(seeds.make(vac, seeds.Places(["http://plain"]), pin=True)).profile["pinned"]["profile"]["vo"]
        == "demo"
    )


def test_a_place_is_asked_for_by_its_names(configuration: Any) -> None:
    at = publish.published(configuration, "demo", "vac", "default")
    sources = read_script(seeds.make(at, seeds.Places([URL], [], ["/cvmfs/x"]))).profile["sources"]
    assert sources[0]["manifest"] == "/demo/VAC/manifest?site=HOME&resource=vac&queue=default"
    assert sources[1]["manifest"] == "/demo/VAC/HOME/vac/default/manifest.json"


# --- the service


async def test_the_service_gives_manifest_and_blobs_to_anybody(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        answer = await at.client.get("/seed/demo/VAC/manifest")
        assert answer.status_code == 200
        manifest = answer.json()
        blobs = {}
        for name in [manifest["profile"], *manifest["toolboxes"]]:
            blob = await at.client.get(f"/seed/blobs/{name}")
            assert (blob.status_code, sha(blob.content)) == (200, name)
            assert "immutable" in blob.headers["cache-control"]
            blobs[name] = blob.content
        settings = at.app.state.service.settings
        expected = compose_pilot(
            at.app.state.service.configuration, "demo", None, None, settings.urls, settings.trust, flavour="VAC"
        )
        assert from_blobs(manifest, blobs.__getitem__) == expected.script
        again = await at.client.get("/seed/demo/VAC/manifest", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_only_published_flavours_are_there_and_nothing_is_told_of_others(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        texts = set()
        for path in (
            "/seed/demo/LOCAL/manifest",  # there, but not published
            "/seed/demo/NOWHERE/manifest",
            "/seed/nobody/VAC/manifest",
            "/seed/demo/VAC/manifest?site=NOWHERE",
            "/seed/demo/VAC/manifest?resource=box",  # of another flavour
        ):
            answer = await at.client.get(path)
            assert answer.status_code == 404, path
            texts.add(answer.text)
        assert len(texts) == 1
        assert (await at.client.get(f"/seed/blobs/{'ab' * 32}")).status_code == 404
        assert (await at.client.get("/seed/demo/VAC/manifest?site=HOME")).status_code == 200


async def test_why_a_pilot_does_not_compose_is_not_for_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*words: object, **more: object) -> None:
        raise ConfigurationError("secret.yaml:7: the toolbox 'mine' cannot be used")

    monkeypatch.setattr(publish, "published", broken)
    async with house(tmp_path) as at:
        answer = await at.client.get("/seed/demo/VAC/manifest")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "secret.yaml" not in answer.text and "secret.yaml:7" in caplog.text


async def test_a_service_that_has_just_started_has_the_toolboxes(tmp_path: Path) -> None:
    """A seed with a pinned manifest asks for nothing else."""
    async with house(tmp_path) as at:
        known = (await at.client.get("/seed/demo/VAC/manifest")).json()
    async with house(tmp_path / "again") as at:
        for name in known["toolboxes"]:
            assert (await at.client.get(f"/seed/blobs/{name}")).status_code == 200


def test_what_the_service_keeps_and_does_for_strangers_is_bounded(
    configuration: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_seeds, "KEPT", 4)
    monkeypatch.setattr(service_seeds, "PER_MINUTE", 8)
    kept = service_seeds.Seeds()
    target = service_seeds.wanted(configuration, "demo", "VAC", None, None, None)
    assert target is not None
    first = json.loads(kept.manifest(configuration, target, ["https://0"], []))
    for number in range(1, 8):
        made = json.loads(kept.manifest(configuration, target, [f"https://{number}"], []))
        for name in (made["profile"], *made["toolboxes"]):
            assert kept.blob(name, configuration, [], []) is not None
    assert kept.blob(first["profile"], configuration, [], []) is None
    kept.manifest(configuration, target, ["https://7"], [])  # is known: costs nothing
    with pytest.raises(service_seeds.Busy):
        kept.manifest(configuration, target, ["https://8"], [])


def test_who_asks_while_the_service_finds_out_waits_for_it(
    configuration: Any, vac: publish.Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many machines with a pinned manifest start together, right after the service: all get the toolbox."""
    real = publish.published

    def published(*arguments: Any, **more: Any) -> publish.Published:
        time.sleep(0.1)
        return real(*arguments, **more)

    monkeypatch.setattr(publish, "published", published)
    kept = service_seeds.Seeds()
    name = vac.manifest["toolboxes"][0]
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(kept.blob, name, configuration, [], []) for _ in range(4)]
        assert all(answer.result() == vac.blobs[name] for answer in asked)


def test_the_page_about_it_has_a_configuration_that_is_good() -> None:
    page = Path(__file__).parents[2] / "docs" / "howto" / "machines-without-a-director.md"
    [block] = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S)
    configuration = loads(block)
    targets = [item.target for item in publish.everything(configuration, ["biology"], ["VAC", "CLOUD"], [], [])]
    assert [(target.flavour, target.site) for target in targets] == [
        ("VAC", ""),
        ("VAC", "OXFORD"),
        ("CLOUD", ""),
        ("CLOUD", "OXFORD"),
    ]
