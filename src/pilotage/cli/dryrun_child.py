"""Lets one command of a pilot tell what it would do here: a program of its own, started by dryrun.py.

It has nothing but the modules that a pilot script carries, and shuts itself in as the sandbox of toolboxes does: no
network, every file system read-only. In: JSON on standard input. Out: what `plan` prints, and an exit status.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any

NO_PLAN, FORBIDDEN = 3, 4
"""Exit statuses: the command has no `plan`; the kernel permits no sandbox."""


def main() -> int:
    """Exit status 0: it has told; 1: it failed, the last line of standard error says why."""
    wanted = json.loads(sys.stdin.buffer.read())
    sandbox = _module("sandbox_child", wanted["sandbox"])
    modules = {path: [text, path] for path, text in wanted["sections"].items() if path.endswith(".py")}
    sys.meta_path.insert(0, sandbox.Toolbox(modules))
    profile, entry = wanted["profile"], wanted["command"]
    facts, work = _import("pilotage_node.facts"), _import("pilotage_node.runner.work")
    node = facts.gather_node(profile, os.getcwd())
    try:
        sandbox.confine()
    except OSError as error:
        if not wanted["trusted"]:
            print(error.strerror or error)
            return FORBIDDEN
    sandbox.limit()
    kind = work.load(entry["module"], entry["name"])
    plan = getattr(kind, "plan", None)
    if plan is None:
        return NO_PLAN
    known = dict.fromkeys([*entry["requires"], *entry["wants"]]) | {"node": node}
    one = kind()
    one.options = SimpleNamespace(**entry["options"])
    one.facts = work.Facts(known, entry["provides"], {})
    one.pilot = SimpleNamespace(
        profile=profile, workdir=os.getcwd(), pid=os.getpid(), started=time.monotonic(), registration=None,
    )  # fmt: skip
    files = entry.get("files") or {}
    one.read = lambda name: wanted["sections"][files[name]]
    one.plan()
    sys.stdout.flush()
    return 0


def _module(name: str, path: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType:
    __import__(name)
    return sys.modules[name]


if __name__ == "__main__":
    sys.exit(main())
