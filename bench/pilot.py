"""One pilot, started by hand beside a real service, stopped at the first line that its first command prints."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import trees
from bench.allinone import PATIENCE, Service, all_in_one
from pilotage.configuration import ComposedPilot, compose_pilot, load
from pilotage_node.compose import read_script

FIRST = "RunEnvironmentTest"
"""The first command of flavour LOCAL."""

IMPORTED = re.compile(r"import time: +\d+ \| +\d+ \| +(\S+)")


def local_pilot(url: str, trust: list[str]) -> ComposedPilot:
    """The pilot of the embedded defaults' resource."""
    configuration = load(None)
    return compose_pilot(configuration, next(iter(configuration.vos)), "local", "default", [url], trust)


def until_first_line(service: Service, before: Sequence[str], path: str) -> tuple[float, str]:
    """Start a new pilot; returns its CPU time from exec to its first command's first line [s], and its log.

    :param before: the words before the script's name: ("sh",) or an interpreter with its flags
    :param path: the PATH on which the script finds its Python

    The log is a named pipe, so the line is seen as it is written; then the whole tree is stopped at once and counted.
    """
    bundle = service.ask("POST", "/pilots/bundle", {"flavour": "LOCAL"})
    with tempfile.TemporaryDirectory(prefix="pilotage-bench-") as directory:
        home = Path(directory)
        (home / "pilot").write_text(bundle["script"], newline="")
        (home / "credentials.json").write_text(json.dumps(bundle["credentials"]))
        (home / "credentials.json").chmod(0o600)
        os.mkfifo(home / "pilot.log")
        log = os.open(home / "pilot.log", os.O_RDONLY | os.O_NONBLOCK)
        with (home / "output").open("wb") as output:
            process = subprocess.Popen(
                [*before, "pilot"],
                cwd=directory,
                env={"PATH": path, "HOME": directory},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        text, until = "", time.monotonic() + PATIENCE
        try:
            while not has_first_line(text):
                if not select.select([log], [], [], 1.0)[0]:
                    if time.monotonic() > until:
                        raise RuntimeError(f"the pilot printed no first line; its log: {text}")
                    continue
                data = os.read(log, 1 << 16)
                text += data.decode(errors="replace")
                if not data:
                    if process.poll() is not None:
                        words = (home / "output").read_text(errors="replace")
                        raise RuntimeError(f"the pilot ended with {process.returncode}: {words}{text}")
                    time.sleep(0.0005)  # nobody has opened the pipe yet
        finally:
            if process.poll() is None:
                cpu = trees.kill_and_count(process.pid)
                process.returncode = -9
            os.close(log)
        return cpu, text + (home / "output").read_text(errors="replace")


def has_first_line(log: str) -> bool:
    """Whether the first command itself has printed something (``-X importtime`` prints before it)."""
    whole = log.rpartition("\n")[0]
    return any(f" {FIRST}: " in line and "import time:" not in line for line in whole.splitlines())


def lines_compiled() -> tuple[int, set[str]]:
    """Lines of a LOCAL pilot that are compiled before the first command's first line, in any of its processes, and the
    modules they are in. What was imported is what the interpreter itself says (``-X importtime``)."""
    with all_in_one() as service:
        flags = ("-I", "-S", "-X", "utf8", "-X", "importtime")
        _, log = until_first_line(service, (sys.executable, *flags), os.environ["PATH"])
        script = local_pilot(service.url, []).script
    sections = read_script(script).sections
    imported = set(IMPORTED.findall(log))
    modules = {}
    for name, text in sections.items():
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if name.endswith(".py") and module in imported:
            modules[module] = text.count("\n")
    _, _, rest = script.partition('\n"""\n')
    boot = rest.partition("\nstart(")[0].count("\n") + 2
    return boot + sum(modules.values()), set(modules)
