"""A real DIRAC server on loopback, from nothing: environments, database, certificates, configuration, services.

What is built once (the environments, minutes) stays below the build directory; all else is made anew at each start.
Traps that were found, so that nobody has to find them again:

* gfal2-python has no wheel and DIRAC requires it; only its GFAL2 plug-ins import it. An empty wheel satisfies pip.
* rootPath is the real prefix of the interpreter: DIRAC_ROOT_PATH is always set.
* The job agent starts wrappers by the real path of its interpreter, which leaves an environment of links: --copies.
* The configuration master needs its own service's section in a local file; the sandboxes' Path is the service's name.
* JobScheduling/RescheduleDelays, when set, is a list of texts that DIRAC compares with numbers: the executors die of
  the first job that is rescheduled, and no job is optimized any more. It is left to its default.
* DIRAC 9 keeps the status of sites in ResourceStatus and parameters of jobs in OpenSearch; DIRAC 8 both in MySQL.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.dirac import settings

from pilotage.testing.processes import eventually
from pilotage_node.toolboxes.dirac import cfg

VERSIONS = {"8": "8.0.86", "9": "9.1.22"}
INSIDE = Path(__file__).parent / "inside"
STANDIN = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "gfal2-python"
version = "1.13.99"
description = "Satisfies DIRAC's requirement; provides no module"
[tool.setuptools]
py-modules = []
"""
DATABASE = """
[mysqld]
user={user}
datadir={place}/data
socket={place}/socket
pid-file={place}/pid
log-error={place}/log
bind-address=127.0.0.1
port={port}
innodb_buffer_pool_size=128M
innodb_flush_log_at_trx_commit=2
skip-name-resolve
max_connections=300
sql_mode=STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION
"""


def run(*words: str | Path, **more: Any) -> str:
    """Run a program; what it printed. An assertion tells what went wrong."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800, **more)
    assert done.returncode == 0, f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout[-5000:]}"
    return done.stdout


class Environments:
    """The Python environments of one version: of the server, and the client's, which is what a pilot would install."""

    def __init__(self, version: str, build: Path) -> None:
        self.version, self.build = version, build
        self.server, self.client = build / version / "server", build / version / "client"
        self.wheels = build / "wheels"

    def missing(self) -> str:
        """What is not built, in words; empty when all is there."""
        programs = (self.server / "bin/dirac-service", self.client / "bin/dirac-agent")
        return ", ".join(str(program) for program in programs if not program.exists())

    def make(self) -> None:
        """Build what is missing; the packages of `make provision` are needed."""
        if not self.missing():
            return
        self.wheels.mkdir(parents=True, exist_ok=True)
        if not list(self.wheels.glob("gfal2_python-*.whl")):
            source = self.wheels / "gfal2"
            source.mkdir(exist_ok=True)
            (source / "pyproject.toml").write_text(STANDIN)
            run("python3", "-m", "pip", "wheel", "-q", "--no-deps", "-w", self.wheels, source)
        # DIRAC 9 imports these two on the worker node, too, and does not require them
        more = [] if self.version.startswith("8.") else ["mysqlclient", "opensearch-py"]
        for place, wanted in (
            (self.server, [f"DIRAC[server]=={self.version}"]),
            (self.client, [*more, self.requirement]),
        ):
            program = "dirac-service" if place == self.server else "dirac-agent"
            if (place / "bin" / program).exists():
                continue
            shutil.rmtree(place, ignore_errors=True)
            run("python3", "-m", "venv", "--copies", place)
            run(place / "bin/pip", "install", "-q", "--find-links", self.wheels, *wanted)

    @property
    def requirement(self) -> str:
        return f"DIRAC=={self.version}"


class Server:
    """One running DIRAC. ``alice`` runs commands as the user, ``proxy`` makes a pilot's proxy.

    :param place: an empty directory, readable for the database's user
    """

    def __init__(self, environments: Environments, place: Path) -> None:
        self.environments, self.version, self.place = environments, environments.version, place
        self.pki, self.root, self.home = place / "pki", place / "server", place / "alice"
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def security(self) -> dict[str, str]:
        """The variables by which programs find the certificate authority."""
        names = {"X509_CERT_DIR": "certificates", "X509_VOMS_DIR": "vomsdir", "X509_VOMSES": "vomses"}
        return {name: str(self.pki / directory) for name, directory in names.items()}

    def start(self) -> Server:
        """Everything, until alice has a proxy and can submit."""
        for directory in (self.root / "etc", self.root / "work", self.root / "log", self.home / "etc"):
            directory.mkdir(parents=True)
        self._certificates()
        self._database()
        self._configure()
        self._services()
        self._user()
        return self

    def stop(self) -> None:
        """End what was started, the last first."""
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()
                process.wait()

    # -- what the tests use

    def alice(self, *words: str, directory: Path | None = None) -> str:
        """Run a DIRAC command as the user alice; what it printed."""
        return run(
            self.environments.client / "bin" / words[0], *words[1:], cwd=directory or self.home, env=self._alice()
        )

    def submit(self, directory: Path, script: str, **jdl: str) -> int:
        """Submit a job that runs a shell script, with its output in the sandbox; its number. ``jdl``: more lines."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "payload.sh").write_text("#!/bin/sh\n" + script)
        fields = {
            "JobName": '"test"',
            "JobType": '"User"',
            "Executable": '"payload.sh"',
            "InputSandbox": '{"payload.sh"}',
            "StdOutput": '"std.out"',
            "StdError": '"std.err"',
            "OutputSandbox": '{"std.out","std.err"}',
            "CPUTime": "1000",
            "Site": f'"{settings.SITE}"',
        }
        text = "".join(f"{name} = {value};\n" for name, value in {**fields, **jdl}.items())
        (directory / "job.jdl").write_text(text)
        return int(self.alice("dirac-wms-job-submit", "job.jdl", directory=directory).rpartition("JobID = ")[2])

    def status(self, job: int) -> dict[str, str]:
        """DIRAC's own word for a job: {"Status", "MinorStatus", "Site", ...}."""
        text = self.alice("dirac-wms-job-status", str(job))
        line = next(line for line in text.splitlines() if line.startswith(f"JobID={job}"))
        fields = line.replace(f"JobID={job} ", "", 1).split("; ")
        return dict(field.strip().split("=", 1) for field in fields if "=" in field)

    def waiting(self, job: int) -> None:
        """Wait until the optimizers have let a job through to the task queues."""
        eventually(lambda: self.status(job)["Status"] == "Waiting", lambda: f"job {job} waits: {self.status(job)}", 60)

    def output(self, job: int, directory: Path) -> str:
        """A job's standard output, fetched from its sandbox by DIRAC's command."""
        directory.mkdir(parents=True, exist_ok=True)
        self.alice("dirac-wms-job-get-output", str(job), directory=directory)
        return (directory / str(job) / "std.out").read_text()

    def proxy(self, file: Path, valid: str = "24:00") -> Path:
        """A proxy of the generic pilot."""
        words = ["-C", self.pki / "pilotcert.pem", "-K", self.pki / "pilotkey.pem", "-g", "feas_pilot"]
        program = self.environments.client / "bin/dirac-proxy-init"
        run(program, "--nocs", *words, "-u", file, "-v", valid, env=self._alice())
        return file

    def _alice(self) -> dict[str, str]:
        more = {"DIRAC_ROOT_PATH": str(self.home), "X509_USER_PROXY": str(self.home / "proxy")}
        return self._environment(self.environments.client, more)

    def _environment(self, place: Path, more: Mapping[str, str]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        path = f"{place / 'bin'}:{os.environ.get('PATH', os.defpath)}"
        return {**kept, "PATH": path, **self.security, **more}

    # -- the steps of the start

    def _certificates(self) -> None:
        """A certificate authority, the host's certificate, and those of alice and the pilot."""
        for name in ("certificates", "vomsdir", "vomses"):
            (self.pki / name).mkdir(parents=True)
            (self.pki / name / "README").write_text("of a test\n")
        subject = settings.DN[: -len("/CN=")]
        authority = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        new = ["-newkey", "rsa:2048", "-nodes", "-sha256"]
        run(
            *("openssl", "req", "-x509", *new, "-days", "30", "-subj", subject + "/CN=CA", *authority),
            *("-keyout", "ca.key", "-out", "ca.pem"),
            cwd=self.pki,
        )
        name = run("openssl", "x509", "-in", "ca.pem", "-noout", "-hash", cwd=self.pki).strip()
        shutil.copy(self.pki / "ca.pem", self.pki / "certificates" / f"{name}.0")
        server = "extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n"
        for who, common, use in (
            ("host", "localhost", server),
            ("alice", "alice", "extendedKeyUsage=clientAuth\n"),
            ("pilot", "pilot", "extendedKeyUsage=clientAuth\n"),
        ):
            uses = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n" + use
            (self.pki / "uses").write_text(uses)
            request = ["-keyout", f"{who}key.pem", "-out", "request"]
            run("openssl", "req", *new, "-subj", settings.DN + common, *request, cwd=self.pki)
            run(
                *("openssl", "x509", "-req", "-sha256", "-days", "30", "-in", "request", "-extfile", "uses"),
                *("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{who}cert.pem"),
                cwd=self.pki,
            )
            (self.pki / f"{who}key.pem").chmod(0o400)

    def _database(self) -> None:
        """A MariaDB of its own, with DIRAC's tables."""
        place = self.place / "database"
        place.mkdir()
        text = DATABASE.format(user=getpass.getuser(), place=place, port=settings.DATABASE)
        (place / "my.cnf").write_text(text)
        defaults = f"--defaults-file={place / 'my.cnf'}"
        install = ["--auth-root-authentication-method=normal", f"--user={getpass.getuser()}"]
        run("mariadb-install-db", defaults, *install)
        self._spawn(["mariadbd", defaults], dict(os.environ), place)
        root = ["mariadb", "-uroot", "-S", str(place / "socket")]

        def answers() -> bool:
            return subprocess.run([*root, "-e", "select 1"], capture_output=True, check=False).returncode == 0

        eventually(answers, "the database answers", 60)
        grant = "CREATE USER 'Dirac'@'127.0.0.1' IDENTIFIED BY 'Dirac'; GRANT ALL ON *.* TO 'Dirac'@'127.0.0.1';"
        run(*root, "-e", grant)
        python = self.environments.server / "bin/python"
        top = Path(
            run(python, "-c", "import DIRAC, os; print(os.path.dirname(DIRAC.__file__))").strip().splitlines()[-1]
        )
        for name, part in settings.DATABASES.items():
            sql = (top / f"{part}System/DB/{name}.sql").read_text()
            run(*root, input=f"DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name}; USE {name};\n{sql}")
        if self.version.startswith("8."):
            values = f"('{settings.SITE}','Active',UTC_TIMESTAMP(),'test','test')"
            columns = "(Site,Status,LastUpdateTime,Author,Comment)"
            run(*root, "JobDB", "-e", f"INSERT INTO SiteMask {columns} VALUES {values}")
        else:  # its tables are made by the service itself
            run(*root, "-e", "CREATE DATABASE ResourceStatusDB")

    def _configure(self) -> None:
        etc = self.root / "etc"
        (etc / "dirac.cfg").write_text(cfg.text_of(settings.local(self.version, self.pki)))
        (etc / "master.cfg").write_text(cfg.text_of(settings.master(self.version)))
        (etc / f"{settings.SETUP}.cfg").write_text(cfg.text_of(settings.served(self.version, self.root / "sandboxes")))

    def _services(self) -> None:
        """The configuration first, then what others call when they start, then the rest and the executors."""
        services = str(INSIDE / "services.py")
        master = ["--cfg", str(self.root / "etc/master.cfg")]
        if not self.version.startswith("8."):
            self._python([str(INSIDE / "documents.py"), str(settings.DOCUMENTS)], settings.DOCUMENTS)
        self._python([services, "Configuration/Server", *master], settings.PORTS["Configuration/Server"])
        called = ["WorkloadManagement/OptimizationMind"]
        called += settings.of(self.version, "WorkloadManagement/WMSAdministrator")
        called += settings.of(self.version, "ResourceStatus")
        self._python([services, *called], *(settings.PORTS[name] for name in called))
        rest = [name for name in settings.of(self.version, "") if name not in (*called, "Configuration/Server")]
        self._python([services, *rest], *(settings.PORTS[name] for name in rest))
        if not self.version.startswith("8."):
            words = [
                self.environments.server / "bin/python",
                INSIDE / "site_status.py",
                settings.SITE,
                settings.STORAGE,
            ]
            run(*words, env=self._server(), cwd=self.root / "work")
        program = str(self.environments.server / "bin/dirac-executor")
        self._spawn([program, "WorkloadManagement/Optimizers"], self._server(), self.root / "work")

    def _user(self) -> None:
        """alice's configuration and proxy; the proxy is stored at the server, as pilots need it for her jobs."""
        certificate = ["-C", str(self.pki / "alicecert.pem"), "-K", str(self.pki / "alicekey.pem")]
        self.alice("dirac-proxy-init", "--nocs", *certificate, "-g", "feas_user", "-u", str(self.home / "proxy"))
        setup = ["-S", settings.SETUP] if self.version.startswith("8.") else []
        ca = f"/DIRAC/Security/CALocation={self.pki / 'certificates'}"
        self.alice("dirac-configure", *setup, "-C", settings.SERVER, "-D", "-M", "-o", ca)
        self.alice("dirac-login", "feas_user", *certificate, "-T", "24")

    # -- processes

    def _server(self) -> dict[str, str]:
        return self._environment(self.environments.server, {"DIRAC_ROOT_PATH": str(self.root)})

    def _python(self, words: Sequence[str], *ports: int) -> None:
        """Start a program of the server and wait for its ports."""
        self._spawn([str(self.environments.server / "bin/python"), *words], self._server(), self.root / "work")
        process = self.processes[-1]
        for port in ports:
            eventually(lambda port=port: listening(port) or process.poll() is not None, f"port {port} opens", 120)
            assert process.poll() is None, self.log()

    def _spawn(self, words: Sequence[str], environment: Mapping[str, str], directory: Path) -> None:
        with open(self.root / "log" / f"{len(self.processes)}.log", "ab") as log:
            process = subprocess.Popen(
                words,
                env=environment,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)

    def log(self) -> str:
        """The end of what each process of the server printed."""
        files = sorted((self.root / "log").iterdir())
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)


def listening(port: int) -> bool:
    """Whether somebody takes connections at this port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def started(version: str, build: Path, place: Path) -> Server:
    """A running server; what was started of it is ended where it does not come up."""
    server = Server(Environments(version, build), place)
    begin = time.monotonic()
    try:
        server.start()
    except BaseException:
        print(server.log() if (server.root / "log").is_dir() else "")
        server.stop()
        raise
    print(f"DIRAC {version} is up after {time.monotonic() - begin:.0f} s")
    return server
