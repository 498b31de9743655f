"""A worker node that a test makes up: its facts, its environment, its files and its programs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RELEASE = 'ID="almalinux"\nVERSION_ID="9.4"\nID_LIKE="rhel centos fedora"\n'


class FakeNode:
    """What a pilot finds where it lands. The processes are real and run on this machine; what the node *is* is made up.

    Example::

        node = FakeNode(cores=8, files={"opt/mine/version": "7.1"}, programs={"nvidia-smi": "echo GPU 0"})
        run_command("toolbox", "CheckMySoftware", node=node, options={"path": str(node.path("opt/mine"))})

    :param directory: where its files are; None: a temporary directory, removed by ``close``
    :param cores, memory_mib, disk_mib, gpus: ``facts.node`` says these, or the pilot's limits where they are lower
    :param wall_seconds: how long the pilot may run; None: no limit. The runner keeps to it, ``seconds_left`` follows
    :param environment: variables of the pilot's environment, beside PATH, HOME, USER, LANG; None removes one of these
    :param files: {path on the node: text}; such paths have no place on this machine: ``path`` says where they are.
        ``etc/os-release`` and ``proc/meminfo`` are what facts are gathered from
    :param programs: {name: shell script}: first in PATH, in the place of the machine's own
    :param facts: what else ``facts.node`` shall say, e.g. ``platform="aarch64-el9"``
    """

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        cores: int = 4,
        memory_mib: int = 8192,
        disk_mib: int = 51200,
        gpus: int = 0,
        wall_seconds: int | None = None,
        environment: Mapping[str, str | None] | None = None,
        files: Mapping[str, str] | None = None,
        programs: Mapping[str, str] | None = None,
        **facts: Any,
    ) -> None:
        self._temporary = directory is None
        self.root = Path(directory or tempfile.mkdtemp(prefix="fake-node-")).resolve()
        self.facts = dict(facts, cores=cores, memory_mib=memory_mib, disk_mib=disk_mib, gpus=gpus)
        self.facts.setdefault("hostname", "fake-node")
        self.wall_seconds = wall_seconds
        self.home = self.path("home/pilot")
        self.home.mkdir(parents=True, exist_ok=True)
        self.write("etc/os-release", RELEASE)
        for name, text in (files or {}).items():
            self.write(name, text)
        for name, text in (programs or {}).items():
            self.program(name, text)
        path = f"{self.path('bin')}:{os.environ.get('PATH') or os.defpath}"
        usual = {"PATH": path, "HOME": str(self.home), "USER": "pilot", "LANG": "C.UTF-8"}
        both: dict[str, str | None] = {**usual, **(environment or {})}
        self.environment = {name: value for name, value in both.items() if value is not None}

    def path(self, name: str) -> Path:
        """Where a path of the node is on this machine."""
        found = self.root.joinpath(name.lstrip("/"))
        if ".." in found.parts:
            raise ValueError(f"{name} leads out of the node")
        return found

    def write(self, name: str, text: str) -> Path:
        """Write a file of the node."""
        file = self.path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def program(self, name: str, script: str) -> Path:
        """Write a program of the node: a shell script without its first line."""
        file = self.write(f"bin/{name}", f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    def close(self) -> None:
        """Remove its files, where the directory is its own."""
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)
