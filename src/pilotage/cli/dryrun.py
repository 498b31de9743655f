"""`pilotage generate --dry-run`: what each command of a pilot would do on this machine. Nothing is contacted."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from . import dryrun_child
from .output import clean, print_json

if TYPE_CHECKING:
    from pilotage.configuration import Configuration

    from .generate import Wanted

SECONDS = 10.0
"""Longest that one plan may take."""
MOST = 64 * 1024
"""Of what a plan prints [bytes]."""
CHILD = Path(dryrun_child.__file__)
_ENVIRONMENT = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "CUDA_VISIBLE_DEVICES")


def show(configuration: Configuration, wanted: Wanted, as_json: bool) -> None:
    """Print the plan of a pilot. Raises CliError where it does not compose."""
    commands = _commands(configuration, wanted)
    composed = wanted.compose(configuration)
    profile = composed.profile
    if as_json:
        print_json({"digest": composed.digest, "profile": profile, "commands": commands})
        return
    place = "/".join(profile[name] for name in ("site", "resource", "queue") if profile[name])
    print(f"A pilot of flavour {profile['flavour']} for the VO {profile['vo']} at {place or 'any machine'}")
    print(f"sha256:{composed.digest} (as its text)")
    print(f"service: {', '.join(profile['service']['urls']) or 'none given (--url)'}")
    for number, command in enumerate(commands, 1):
        limit = f", at most {command['timeout']} s" if command["timeout"] else ""
        traits = "".join(f", {trait}" for trait in ("always", "background") if command[trait])
        print(f"\n{number}. {command['name']} ({command['toolbox']}{limit}{traits})")
        for name, value in command["options"].items():
            print(f"     {name} = {json.dumps(value)}")
        for line in (command["plan"] or command["note"]).splitlines():
            print(f"   {'> ' if command['plan'] else ''}{clean(line)}")


def _commands(configuration: Configuration, wanted: Wanted) -> list[dict[str, Any]]:
    """Each command of the pilot: what is configured, and what it tells."""
    from pilotage.configuration import shelf
    from pilotage_node.compose import read_script

    script = read_script(wanted.compose(configuration, plans=True).script)
    entries = {
        toolbox["name"]: toolbox["commands"] for toolbox in shelf.toolboxes_of(configuration, script.profile["vo"])
    }
    found = []
    for command in script.profile["commands"]:
        entry = entries[command["toolbox"]][command["name"]]
        plan, note = _told(script.sections, script.profile, command)
        shown = {key: entry[key] for key in ("timeout", "always", "background", "requires", "wants", "provides")}
        plain = {key: command[key] for key in ("name", "toolbox", "options")}
        found.append({**plain, **shown, "summary": entry["summary"], "plan": plan, "note": note})
    return found


def _told(sections: dict[str, str], profile: dict[str, Any], command: dict[str, Any]) -> tuple[str | None, str]:
    """What the command's `plan` prints, or None and why there is nothing."""
    from pilotage.configuration import sandbox
    from pilotage.configuration.toolboxes import OWN

    message = {
        "sandbox": str(sandbox.CHILD),
        "sections": sections,
        "profile": profile,
        "command": command,
        "trusted": command["toolbox"] in OWN,
    }
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    assert child.stdin and child.stdout and child.stderr
    with child, ThreadPoolExecutor() as threads:
        printed, failed = (threads.submit(_beginning, stream) for stream in (child.stdout, child.stderr))
        threads.submit(_give, child.stdin, json.dumps(message).encode())
        try:
            child.wait(SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()  # and with it what it shut in
            return None, f"its plan did not end within {SECONDS:.0f} s"
        output, errors = printed.result(), failed.result()
    if child.returncode == dryrun_child.NO_PLAN:
        return None, "it has no plan(): it does not tell beforehand"
    if child.returncode == dryrun_child.FORBIDDEN:
        return None, f"its plan is not run: this kernel permits no sandbox ({output.strip()})"
    if child.returncode:
        return None, f"its plan failed: {(errors.strip().splitlines() or ['without a word'])[-1]}"
    return output.rstrip() or None, "its plan says nothing"


def _beginning(stream: IO[bytes]) -> str:
    """What is printed first; the rest is read, and forgotten."""
    kept = b""
    while piece := os.read(stream.fileno(), MOST):
        kept += piece[: MOST - len(kept)]
    return kept.decode(errors="replace")


def _give(stream: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), stream:
        stream.write(data)
