"""The facts of a node, from trees of files that play machines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pilotage_node import facts


def machine(root: Path, **files: str) -> str:
    """A root directory; ``__`` in a name stands for ``/``."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def gather(root: str, limits: dict[str, Any] | None = None, **environment: str) -> dict[str, Any]:
    return facts.gather_node({"limits": limits or {}}, root, root, environment)


@pytest.fixture
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))


MEMINFO = "MemTotal:       16384000 kB\nMemFree:  1 kB\n"


def test_this_very_node(tmp_path: Path) -> None:
    node = facts.gather_node({"limits": {"wall_seconds": 86400}}, str(tmp_path))
    assert node["cores"] == len(os.sched_getaffinity(0)) or node["cores"] >= 1
    assert node["memory_mib"] > 0 and node["disk_mib"] > 0 and node["gpus"] >= 0
    assert node["hostname"] == os.uname().nodename and node["uid"] == os.getuid() and node["user"]
    assert node["python"].startswith("3.") and node["platform"].startswith(os.uname().machine)
    assert node["seconds_left"] == 86340


def test_bare_machine(tmp_path: Path, sixteen: None) -> None:
    node = gather(machine(tmp_path, proc__meminfo=MEMINFO))
    assert (node["cores"], node["memory_mib"], node["seconds_left"]) == (16, 16000, None)


@pytest.mark.usefixtures("sixteen")
def test_version_2_groups_the_least_on_the_path_counts(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/batch/job\n",
        **{
            "sys__fs__cgroup__batch__memory.max": str(4 << 30),
            "sys__fs__cgroup__batch__cpu.max": "350000 100000",
            "sys__fs__cgroup__batch__job__memory.max": "max",
            "sys__fs__cgroup__batch__job__cpu.max": "max 100000",
            "sys__fs__cgroup__other__memory.max": "1",
        },
    )
    node = gather(root)
    assert (node["cores"], node["memory_mib"]) == (3, 4096)


@pytest.mark.usefixtures("sixteen")
def test_version_1_groups(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="5:memory:/a/b\n4:cpu,cpuacct:/a\n3:freezer:/\n1:name=systemd:/\n0::/\n",
        **{
            "sys__fs__cgroup__memory__a__b__memory.limit_in_bytes": str(2 << 30),
            "sys__fs__cgroup__memory__a__memory.limit_in_bytes": "9223372036854771712",
            "sys__fs__cgroup__cpu,cpuacct__a__cpu.cfs_quota_us": "50000",
            "sys__fs__cgroup__cpu,cpuacct__a__cpu.cfs_period_us": "100000",
            "sys__fs__cgroup__cpu,cpuacct__cpu.cfs_quota_us": "-1",
            "sys__fs__cgroup__cpu,cpuacct__cpu.cfs_period_us": "100000",
        },
    )
    node = gather(root)
    assert (node["cores"], node["memory_mib"]) == (1, 2048)


@pytest.mark.usefixtures("sixteen")
def test_container_whose_group_path_is_not_mounted(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/../../kubepods/pod1\n",
        **{"sys__fs__cgroup__memory.max": str(1 << 30), "sys__fs__cgroup__cpu.max": "200000 100000"},
    )
    node = gather(root)
    assert (node["cores"], node["memory_mib"]) == (2, 1024)


def test_ceilings_lower_and_never_raise(tmp_path: Path, sixteen: None) -> None:
    root = machine(tmp_path, proc__meminfo=MEMINFO, dev__nvidia0="")
    node = gather(root, {"cores": 2, "memory_mib": 99999999, "disk_mib": 5, "gpus": 0, "wall_seconds": 100})
    assert (node["cores"], node["memory_mib"], node["disk_mib"], node["gpus"]) == (2, 16000, 5, 0)
    assert node["seconds_left"] == 95


@pytest.mark.parametrize(
    "files,environment,count",
    [
        ({}, {}, 0),
        ({"dev__nvidia0": "", "dev__nvidia1": "", "dev__nvidiactl": "", "dev__nvidia-uvm": ""}, {}, 2),
        ({"proc__driver__nvidia__gpus__0000:01:00.0__information": ""}, {}, 1),
        ({"dev__nvidia0": "", "proc__driver__nvidia__gpus__a__i": "", "proc__driver__nvidia__gpus__b__i": ""}, {}, 1),
        ({"dev__nvidia0": "", "dev__nvidia1": ""}, {"CUDA_VISIBLE_DEVICES": "1"}, 1),
        ({"dev__nvidia0": "", "dev__nvidia1": ""}, {"CUDA_VISIBLE_DEVICES": "GPU-4b2f,1,2"}, 2),
        ({"dev__nvidia0": ""}, {"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"dev__nvidia0": ""}, {"CUDA_VISIBLE_DEVICES": "-1"}, 0),
    ],
)
def test_gpus(tmp_path: Path, files: dict[str, str], environment: dict[str, str], count: int) -> None:
    assert gather(machine(tmp_path, **files), **environment)["gpus"] == count


@pytest.mark.parametrize(
    "release,expected",
    [
        ('ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.3"\n', "m-el9"),
        ("ID=rhel\nVERSION_ID=8.10\n", "m-el8"),
        ("ID=fedora\nVERSION_ID=40\n", "m-fedora40"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="22.04"\n', "m-ubuntu22.04"),
        ("# nothing\n", "m-linux"),
        ("", "m-linux"),
    ],
)
def test_platform(release: str, expected: str) -> None:
    assert facts.platform_of("m", release) == expected


def test_platform_of_the_profile_wins(tmp_path: Path) -> None:
    profile = {"platform": "x86_64-el9", "limits": {}}
    assert facts.gather_node(profile, str(tmp_path), str(tmp_path), {})["platform"] == "x86_64-el9"


def test_account_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4000000)
    assert gather(str(tmp_path))["user"] == "4000000"
    assert gather(str(tmp_path), USER="grid007")["user"] == "grid007"


def test_nothing_can_be_read(tmp_path: Path) -> None:
    node = gather(str(tmp_path / "missing"))
    assert node["memory_mib"] is None and node["disk_mib"] is None and node["cores"] >= 1
