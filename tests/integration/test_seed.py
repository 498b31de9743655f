"""Seeds as machines without a director start them: where they fetch from, what they refuse, what they become."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.server
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.allinone import AllInOne
from tests.interpreters import interpreters

from pilotage.configuration import Configuration, load, load_files, publish, seeds
from pilotage.service.tls import ensure
from pilotage_node.compose import read_script

OK, NO_CREDENTIALS, UNREACHABLE, ALTERED, DISK, INTERNAL = 0, 10, 14, 15, 21, 70
NOBODY = "https://127.0.0.1:1"
"""Where no service is."""
VERSIONS = ["3.6", "3.11", "3.13"]

TOOLBOX = '''
"""A command of the VO's own."""
from pilotage_node.toolbox.RunJobAgent import RunJobAgent as Base


class RunJobAgent(Base):
    """The base command, and a word befôre."""

    def do(self):
        print("grüße")
        Base.do(self)
'''


# --- without a service


class Home:
    """A machine: its home directory, and what it was given."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True)
        self.environment = {"HOME": str(place), "TMPDIR": str(place)}

    def start(self, seed: str, *words: str, version: str = "3.6", **environment: str) -> tuple[int, str]:
        """Run a seed; its exit code, and all that was said."""
        (self.place / "seed").write_text(seed)
        done = subprocess.run(
            ["sh", "seed", *words],
            cwd=self.place,
            env={**self.environment, "PATH": path_of(version), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=200,
        )
        return done.returncode, done.stdout.decode()

    @property
    def pilots(self) -> list[str]:
        """The scripts that were written here."""
        return [file.read_bytes().decode() for file in self.place.glob("pilotage-*/pilot")]

    @property
    def cache(self) -> Path:
        return self.place / ".cache" / "pilotage-seed"


def path_of(version: str) -> str:
    python = interpreters().get(version)
    assert python, f"Python {version} is needed here: `pyenv install {version}`"
    return f"{Path(python).parent}:/usr/bin:/bin"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "a hôme of its own")


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Configuration:
    """With a VO that has a toolbox of its own."""
    place = tmp_path_factory.mktemp("configuration")
    package = place / "mytools"
    package.mkdir()
    (package / "RunJobAgent.py").write_text(TOOLBOX, "utf-8")
    (package / "__init__.py").write_text("")
    (place / "pilotage.yaml").write_text(f"vos: {{mine: {{toolboxes: [{{name: mine, path: {package}}}]}}}}\n")
    return load(place / "pilotage.yaml")


@pytest.fixture(scope="module")
def vac(configuration: Configuration) -> publish.Published:
    return publish.published(configuration, "mine", flavour="VAC", urls=[NOBODY])


@pytest.fixture
def directory(vac: publish.Published, tmp_path: Path) -> Path:
    """What is published, as files."""
    place = tmp_path / "published hère"
    publish.write(place, [vac])
    return place


def script(configuration: Configuration, flavour: str = "VAC") -> str:
    """What the server composes."""
    from pilotage.configuration import compose_pilot

    return compose_pilot(configuration, "mine", flavour=flavour, urls=[NOBODY]).script


@pytest.mark.parametrize("version", VERSIONS)
def test_the_seeds_pilot_is_the_servers_byte_for_byte(
    configuration: Configuration, home: Home, tmp_path: Path, version: str
) -> None:
    for flavour in ("VAC", "BOINC", "LOCAL"):
        item = publish.published(configuration, "mine", flavour=flavour, urls=[NOBODY])
        publish.write(tmp_path / "published", [item])
        seed = seeds.make(item, seeds.Places(trusted=[str(tmp_path / "published")]))
        code, text = home.start(seed, version=version, LANG="C", PYTHONPATH="/nowhere")
        assert code == NO_CREDENTIALS, text
        assert f"no credentials in {home.place}/credentials.json" in text, "of the seed's own directory"
        assert script(configuration, flavour) in home.pilots
        assert read_script(home.pilots[0]).digest
    assert "befôre" not in home.pilots[0] and "grüße" in "".join(home.pilots)
    for pilot in home.place.glob("pilotage-*/pilot"):
        assert (pilot.stat().st_mode & 0o777, pilot.parent.stat().st_mode & 0o777) == (0o755, 0o700)


def test_it_says_what_it_is_and_runs_nothing(vac: publish.Published, home: Home) -> None:
    seed = seeds.make(vac, seeds.Places([NOBODY], [], ["/nowhere"]))
    code, text = home.start(seed, "--inspect")
    assert code == OK and json.loads(text) == read_script(seed).profile
    code, text = home.start(seed, "--help")
    assert code == OK and text.startswith("seed: usage: seed")
    assert sorted(file.name for file in home.place.iterdir()) == ["seed"]


def test_nothing_at_hand_is_one_line_for_each_place_and_an_exit_code(vac: publish.Published, home: Home) -> None:
    places = seeds.Places([NOBODY], [], ["/nowhere/published"], ["http://127.0.0.1:1/mirror"])
    code, text = home.start(seeds.make(vac, places))
    assert code == UNREACHABLE
    assert text.splitlines() == [
        f"seed: {NOBODY}/seed: [Errno 111] Connection refused",
        "seed: /nowhere/published: [Errno 2] No such file or directory: '/nowhere/published/mine/VAC/manifest.json'",
        "seed: no trusted place gives the manifest, and the cache has none",
    ]
    code, text = home.start(seeds.make(vac, places, pin=True))
    sha = vac.manifest["toolboxes"][0]
    assert code == UNREACHABLE
    assert text.splitlines() == [
        "seed: http://127.0.0.1:1/mirror: [Errno 111] Connection refused",
        f"seed: {NOBODY}/seed: [Errno 111] Connection refused",
        f"seed: /nowhere/published: [Errno 2] No such file or directory: '/nowhere/published/blobs/{sha}'",
        f"seed: no place gives the toolbox sha256:{sha} (pilotage publish writes it)",
    ]
    assert not home.pilots


def test_what_was_fetched_once_serves_again_without_any_place(
    vac: publish.Published, directory: Path, home: Home
) -> None:
    seed = seeds.make(vac, seeds.Places([NOBODY], [], [str(directory)]))
    assert home.start(seed)[0] == NO_CREDENTIALS
    assert home.cache.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(directory)
    code, text = home.start(seed, version="3.13")
    assert code == NO_CREDENTIALS
    assert "seed: no trusted place gives the manifest: the cache's is used, of 20" in text
    assert len(set(home.pilots)) == 1 and len(home.pilots) == 2
    [kept] = home.cache.glob("manifest-*")
    kept.write_text('{"format": 1, "profile": "x"}')
    code, text = home.start(seed)
    assert code == UNREACHABLE and "seed: the cache's manifest is damaged: this is not a manifest" in text
    assert "Traceback" not in text
    other = seeds.make(vac, seeds.Places([NOBODY], [], ["/another/place"]))
    code, text = home.start(other)
    assert code == UNREACHABLE, "a manifest that another seed trusted is not this one's"


def test_a_damaged_or_hostile_cache_does_no_harm(vac: publish.Published, directory: Path, home: Home) -> None:
    seed = seeds.make(vac, seeds.Places(trusted=[str(directory)]))
    home.start(seed)
    blob = home.cache / vac.manifest["profile"]
    blob.write_text("{}")
    code, text = home.start(seed)
    assert code == NO_CREDENTIALS and f"the cache's copy of the profile sha256:{blob.name} is damaged" in text
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name, "it is made good"
    home.cache.chmod(0o755)
    code, text = home.start(seed)
    assert code == NO_CREDENTIALS and f"the cache {home.cache} is not used: it must be our own" in text
    shutil.rmtree(home.cache)
    home.cache.symlink_to(directory)
    code, text = home.start(seed)
    assert code == NO_CREDENTIALS and f"the cache {home.cache} is not used: " in text
    assert not (directory / "lock").exists()
    if os.geteuid() == 0:
        home.cache.unlink()
        home.cache.mkdir(mode=0o700)
        os.chown(home.cache, 12345, -1)
        code, text = home.start(seed)
        assert code == NO_CREDENTIALS and "has uid 12345 and mode 700" in text
    assert set(home.pilots) == {home.pilots[0]}


def test_without_a_home_or_with_one_that_cannot_be_written(
    vac: publish.Published, directory: Path, home: Home, tmp_path: Path
) -> None:
    seed = seeds.make(vac, seeds.Places(trusted=[str(directory)]))
    (tmp_path / "no directory").write_text("")
    home.environment["HOME"] = str(tmp_path / "no directory")
    code, text = home.start(seed)
    assert code == NO_CREDENTIALS and "Not a directory" in text
    assert (home.place / f"pilotage-seed-{os.geteuid()}").is_dir(), "in TMPDIR"
    del home.environment["HOME"]
    assert home.start(seed)[0] == NO_CREDENTIALS
    own = seeds.make(vac, seeds.Places(trusted=[str(directory)]), cache_directory=str(home.place / "own" / "cache"))
    assert home.start(own)[0] == NO_CREDENTIALS and (home.place / "own" / "cache" / "lock").exists()


def test_with_nowhere_to_write_the_pilot_it_says_so(vac: publish.Published, directory: Path, home: Home) -> None:
    seed = seeds.make(vac, seeds.Places(trusted=[str(directory)]))
    code, text = home.start(seed, "--workdir", "/proc/nowhere", TMPDIR="/proc")
    assert code == DISK and "seed: the pilot cannot be written: [Errno 2] No such file or directory" in text


def test_seeds_take_turns_at_a_cache(vac: publish.Published, directory: Path, home: Home) -> None:
    seed = seeds.make(vac, seeds.Places(trusted=[str(directory)]))
    home.start(seed)
    with open(home.cache / "lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, text = home.start(seed.replace("SECONDS = 60", "SECONDS = 1"))
        assert code == NO_CREDENTIALS and f"the cache {home.cache} is not used: not within 1 s" in text
        threading.Timer(1.0, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
        started = time.monotonic()
        code, text = home.start(seed)
        assert code == NO_CREDENTIALS and "not used" not in text and time.monotonic() - started > 0.5


def test_a_manifest_that_promises_another_script_is_refused(
    vac: publish.Published, directory: Path, home: Home
) -> None:
    file = directory / "mine/VAC/manifest.json"
    seed = seeds.make(vac, seeds.Places(trusted=[str(directory)]))
    file.write_text(json.dumps(vac.manifest | {"script": "ab" * 32}))
    code, text = home.start(seed)
    assert code == ALTERED and not home.pilots
    assert f"sha256:{vac.manifest['script']} here, and sha256:{'ab' * 32} by its manifest: make a new seed" in text
    shutil.rmtree(home.cache)
    for content, why in [
        ("{", "JSONDecodeError"),
        ("[]", "this is not a manifest: TypeError"),
        (json.dumps(vac.manifest | {"format": 2}), "format 2; this seed reads 1"),
        (json.dumps(vac.manifest | {"profile": "../../etc/passwd"}), "this is not a manifest"),
        (" " * 100_000, "refused: it is larger than 65536 bytes"),
    ]:
        file.write_text(content)
        code, text = home.start(seed)
        assert code == UNREACHABLE and why in text, text


# --- mirrors that lie


class Liar(http.server.BaseHTTPRequestHandler):
    """A web server that gives the bytes of a directory as it pleases."""

    protocol_version = "HTTP/1.1"
    root: Path
    lie: str
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        file = self.root / self.path.lstrip("/")
        data = file.read_bytes() if file.is_file() else b""
        if self.lie == "altered":
            data = data.replace(b"RunJobAgent", b"RunJobAgint")
        if self.lie == "garbage":
            self.wfile.write(b"\x1b[2Jhello\r\n\r\n")
            self.close_connection = True
            return
        self.send_response({"missing": 404, "moved": 301}.get(self.lie, 200) if data else 404)
        if self.lie == "endless":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.lie == "short":
            data = data[:-10]
            self.close_connection = True
        if self.lie == "slow":
            for byte in data:
                self.wfile.write(bytes([byte]))
                time.sleep(0.2)
        self.wfile.write(data)

    def log_message(self, *words: object) -> None:
        pass


Mirror = Callable[[str], tuple[str, type[Liar]]]


@pytest.fixture
def mirror(directory: Path) -> Iterator[Mirror]:
    with contextlib.ExitStack() as stack:

        def start(lie: str) -> tuple[str, type[Liar]]:
            kind = type("One", (Liar,), {"root": directory, "lie": lie, "asked": []})
            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind))
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}", kind

        yield start


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ("altered", "refused: what it gives as toolbox {sha} is sha256:"),
        ("missing", "HTTP status 404"),
        ("moved", "HTTP status 301"),
        ("garbage", "BadStatusLine: ?[2Jhello"),
        ("short", "EOFError: 10 bytes are missing"),
        ("endless", "refused: it is larger than 1048576 bytes"),
        ("slow", "not within 2 s"),
    ],
)
def test_a_mirror_that_lies_is_refused_and_the_next_one_asked(
    vac: publish.Published, home: Home, mirror: Mirror, lie: str, why: str
) -> None:
    bad, _ = mirror(lie)
    good, asked = mirror("")
    places = seeds.Places(mirrors=[bad, good + "/"])
    seed = seeds.make(vac, places, pin=True).replace("SECONDS = 60", "SECONDS = 2")
    seed = seed.replace("BLOB_BYTES = 32 << 20", "BLOB_BYTES = 1 << 20")
    code, text = home.start(seed)
    assert code == NO_CREDENTIALS, text
    sha = vac.manifest["toolboxes"][0]
    assert f"seed: {bad}: " + why.format(sha=sha) in text
    assert f"/blobs/{sha}" in asked.asked
    assert read_script(home.pilots[0]).digest == vac.manifest["script"]
    shutil.rmtree(home.cache)
    alone = seed.replace(f'{{"manifest": null, "place": "{good}", "service": false}}', "")
    code, text = home.start(alone.replace('"service": false},\n  ]', '"service": false}]'))
    assert code == (ALTERED if lie == "altered" else UNREACHABLE), text
    assert text.rstrip().endswith(f"seed: no place gives the toolbox sha256:{sha} (pilotage publish writes it)")
    assert len(home.pilots) == 1


def test_many_seeds_of_one_machine_fetch_once(vac: publish.Published, home: Home, mirror: Mirror) -> None:
    url, kind = mirror("")
    (home.place / "seed").write_text(seeds.make(vac, seeds.Places(mirrors=[url]), pin=True))
    command, environment = ["sh", "seed"], {**home.environment, "PATH": path_of("3.6")}
    started = [subprocess.Popen(command, cwd=home.place, env=environment, stderr=subprocess.DEVNULL) for _ in range(6)]
    assert {process.wait(200) for process in started} == {NO_CREDENTIALS}
    assert sorted(kind.asked) == sorted(f"/blobs/{sha}" for sha in vac.manifest["toolboxes"])
    assert len(home.pilots) == 6 and len(set(home.pilots)) == 1


@pytest.mark.parametrize("version", ["3.6", "3.13"])
def test_a_web_server_is_trusted_when_its_certificate_is_good(
    vac: publish.Published, directory: Path, home: Home, tmp_path: Path, version: str
) -> None:
    files = ensure(tmp_path / "tls", ["127.0.0.1"])
    kind = type("One", (Liar,), {"root": directory, "lie": "", "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"https://127.0.0.1:{server.server_address[1]}"
        code, text = home.start(seeds.make(vac, seeds.Places(trusted=[place])), version=version)
        assert code == UNREACHABLE and "certificate verify failed" in text.lower(), text
        code, text = home.start(seeds.make(vac, seeds.Places([], files.anchors(), [place])), version=version)
        assert code == NO_CREDENTIALS, text
        server.shutdown()


def test_a_mirror_spares_those_that_vouch(
    vac: publish.Published, directory: Path, home: Home, mirror: Mirror, tmp_path: Path
) -> None:
    url, kind = mirror("")
    shutil.copytree(directory, tmp_path / "trusted", ignore=shutil.ignore_patterns("blobs"))
    code, text = home.start(seeds.make(vac, seeds.Places([], [], [str(tmp_path / "trusted")], [url])))
    assert (code, text.count("\n")) == (NO_CREDENTIALS, 1), text
    assert sorted(kind.asked) == sorted(
        f"/blobs/{sha}" for sha in [vac.manifest["profile"], *vac.manifest["toolboxes"]]
    )


def test_a_mirror_is_never_asked_for_a_manifest(
    vac: publish.Published, directory: Path, home: Home, mirror: Mirror
) -> None:
    url, kind = mirror("")
    code, _ = home.start(seeds.make(vac, seeds.Places([NOBODY], [], [], [url])))
    assert (code, kind.asked) == (UNREACHABLE, [])


# --- with the service


HAND_RUN = {
    "service": {"sync_seconds": 1, "published": ["VAC", "LOCAL"]},
    "vos": {"demo": {"pilot": {"options": {"RunJobAgent": {"idle_seconds": 2}}}}},
    "sites": {"VM": {"pilot": {"tags": ["vm"]}}},
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AllInOne]:
    service = AllInOne(tmp_path_factory.mktemp("seeds"), HAND_RUN, "--tls").start()
    yield service
    service.stop()


def credentials(one: AllInOne, home: Home, flavour: str = "VAC") -> None:
    """Those of a pilot that is started by hand, where the seed is."""
    bundle = one.client().post("/pilots/bundle", json={"flavour": flavour}).json()
    (home.place / "credentials.json").write_text(json.dumps(bundle["credentials"]))


def test_a_pilot_from_a_seed_does_jobs(one: AllInOne, home: Home) -> None:
    """The whole way: seed from the command line, manifest and blobs by TLS with a pinned anchor, job done."""
    seed = one.cli("client-pilot", "--vo", "demo", "--flavour", "VAC", "--site", "VM").stdout
    assert "BEGIN CERTIFICATE" in seed
    credentials(one, home)
    [identity] = one.submit({"command": ["/bin/sh", "-c", "echo hello from $PILOTAGE_JOB"]})
    (home.place / "work").mkdir()
    code, text = home.start(seed, "--workdir", str(home.place / "work"))
    assert code == OK, text
    [job] = one.wait([identity])
    assert (job["state"], job["stdout"]) == ("Done", f"hello from {identity}\n"), text
    [pilot] = [pilot for pilot in one.pilots() if pilot["stamp"] == job["pilot"]]
    assert (pilot["state"], pilot["flavour"], pilot["node"]["python"][:4]) == ("Done", "VAC", "3.6.")
    [place] = (home.place / "work").glob("pilotage-*")
    manifest = one.client().get("/seed/demo/VAC/manifest?site=VM").json()
    assert read_script((place / "pilot").read_text()).digest == manifest["script"]
    assert not (home.place / "credentials.json").exists(), "they serve one start"


def test_with_the_service_down_a_seed_lives_on_its_cache(home: Home, tmp_path: Path) -> None:
    one = AllInOne(tmp_path / "service", HAND_RUN, "--tls")
    one.home.mkdir()
    try:
        one.start()
        seed = one.cli("client-pilot", "--vo", "demo", "--flavour", "VAC").stdout
        assert home.start(seed)[0] == NO_CREDENTIALS
    finally:
        one.stop()
    code, text = home.start(seed, version="3.13")
    assert code == NO_CREDENTIALS and "Connection refused" in text and "the cache's is used" in text
    assert len(home.pilots) == 2 and len(set(home.pilots)) == 1
    shutil.rmtree(home.cache)
    assert home.start(seed)[0] == UNREACHABLE


def test_a_service_with_another_certificate_is_not_believed(one: AllInOne, home: Home, tmp_path: Path) -> None:
    stranger = ensure(tmp_path / "stranger", ["127.0.0.1"]).ca
    seed = one.cli("client-pilot", "--vo", "demo", "--flavour", "VAC", "--trust", str(stranger)).stdout
    code, text = home.start(seed)
    assert code == UNREACHABLE and "certificate verify failed" in text.lower(), text
    assert not home.pilots


def test_a_pinned_seed_takes_toolboxes_from_wherever(one: AllInOne, home: Home, tmp_path: Path) -> None:
    seed = one.cli("client-pilot", "--vo", "demo", "--flavour", "VAC", "--pin", "--source", str(tmp_path)).stdout
    manifest = one.client().get("/seed/demo/VAC/manifest").json()
    assert read_script(seed).profile["pinned"]["script"] == manifest["script"]
    code, text = home.start(seed)
    assert code == NO_CREDENTIALS and read_script(home.pilots[0]).digest == manifest["script"], text


def test_what_the_command_line_refuses(one: AllInOne, tmp_path: Path) -> None:
    for words, wrong in [
        (["--flavour", "VAC"], "for which VO? give --vo NAME"),
        (
            ["--vo", "demo", "--flavour", "BOINC", "--site", "VM"],
            "publishes no pilot of flavour BOINC for the VO demo at VM; look for the names, and whether service.publ",
        ),
        (["--vo", "demo", "--flavour", "VAC", "--queue", "q"], "--queue is that of a resource; name it (--resource)"),
        (["--vo", "demo", "--flavour", "VAC", "--url", "pilots.example"], "this is neither an http nor an https URL"),
        (["--vo", "demo", "--flavour", "VAC", "--trusted", "http://x"], "http://x cannot be trusted"),
        (["--vo", "demo", "--flavour", "VAC", "--url", "http://x"], "nothing vouches for what the seed would fetch"),
        (["--vo", "demo", "--flavour", "VAC", "--config", "/nowhere"], "/nowhere"),
    ]:
        done = one.cli("client-pilot", *words, check=False)
        assert done.returncode and not done.stdout and wrong in done.stderr and done.stderr.count("\n") == 1


def test_offline_from_a_configuration_by_way_of_a_published_directory(home: Home, tmp_path: Path) -> None:
    """Without any service: publish, seed, compose; the pilot alone then misses its service."""
    one = AllInOne(tmp_path / "none")
    file = tmp_path / "pilotage.yaml"
    file.write_text(f"service: {{url: '{NOBODY}'}}\nvos: {{demo: {{}}}}\n")
    done = one.cli("publish", "--config", str(file), str(tmp_path / "published"), "--json")
    assert json.loads(done.stdout) == {
        "directory": str(tmp_path / "published"),
        "pilots": 4,
        "manifests": 4,
        "blobs": 6,
    }, "two flavours, with and without the site of the defaults; and two toolboxes"
    words = ["--config", str(file), "--vo", "demo", "--flavour", "VAC", "--trusted", str(tmp_path / "published")]
    seed = one.cli("client-pilot", *words, "-o", str(tmp_path / "seed"))
    assert not seed.stdout and (tmp_path / "seed").stat().st_mode & 0o100
    code, text = home.start((tmp_path / "seed").read_text())
    assert code == NO_CREDENTIALS and "Connection refused" in text and len(home.pilots) == 1
    below = tmp_path / "below.yaml"
    below.write_text(f"service: {{url: '{NOBODY}'}}\npilot: {{tags: [below]}}\n")
    file.write_text("vos: {demo: {}}\n")
    one.cli("publish", "--config", str(file), "--service", str(below), str(tmp_path / "whole"))
    manifest = json.loads((tmp_path / "whole" / "demo" / "VAC" / "manifest.json").read_text())
    profile = json.loads((tmp_path / "whole" / "blobs" / manifest["profile"]).read_text())
    assert (profile["tags"], profile["revision"]) == (
        ["below"],
        load_files({"pilotage.yaml": file.read_text()}, load(below)).revision,
    ), "as a service that was started with this file has it"
    done = one.cli("publish", "--flavour", "VAC", str(tmp_path / "other"), check=False)
    assert done.returncode == 2 and "would not know where the service is" in done.stderr
    assert not (tmp_path / "other").exists()
    assert "SOURCE" in one.cli("inspect", str(tmp_path / "seed")).stdout
