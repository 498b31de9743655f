"""A hostile payload in a real pilot: it looks for the pilot's credentials and other jobs' files, and gets nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.allinone import AllInOne
from tests.faults.conftest import configuration

SECRETS = ("credentials.json", "client.json", "keys.json", "admin.token", "pilotage.sqlite")

PAYLOAD = r"""
import glob, json, os, re, signal, ctypes, urllib.request, urllib.error

found = {"descriptors": [], "processes": [], "secrets": [], "files": [], "killed": [], "traced": [], "service": []}
own = {os.getpid(), os.getppid()}
for name in os.listdir("/proc/self/fd"):
    try:
        target = os.readlink("/proc/self/fd/" + name)
    except OSError:
        continue
    if int(name) > 2 and not target.startswith("/proc/"):
        found["descriptors"].append(target)
libc = ctypes.CDLL(None, use_errno=True)
tokens = set()
for pid in [int(n) for n in os.listdir("/proc") if n.isdigit()]:
    if pid in own:
        continue
    try:
        line = open("/proc/%d/cmdline" % pid).read()
    except OSError:
        continue
    if "pilot" in line:
        found["processes"].append(line.replace("\0", " "))
        for part in ("environ", "mem", "maps"):
            try:
                if open("/proc/%d/%s" % (pid, part), "rb").read(100):
                    found["secrets"].append("%d/%s" % (pid, part))
            except OSError:
                pass
        if libc.ptrace(16, pid, None, None) == 0:
            found["traced"].append(pid)
for pid in range(2, 40000):
    if pid in own:
        continue
    try:
        os.kill(pid, 0)
        found["killed"].append(pid)
    except OSError:
        pass
here = os.getcwd()
for top in (HOME, os.path.dirname(here), os.path.dirname(os.path.dirname(here))):
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            if path.startswith(here):
                continue
            try:
                text = open(path, "rb").read(1 << 20)
            except OSError:
                continue
            if b"the neighbour's secret" in text or name in SECRETS:
                found["files"].append(path)
for value in os.environ.values():
    tokens.update(re.findall(r"[A-Za-z0-9_\-.]{20,}", value))
for token in tokens:
    request = urllib.request.Request(URL + "/jobs", headers={"Authorization": "Bearer " + token})
    try:
        urllib.request.urlopen(request, timeout=10)
        found["service"].append(token[:8])
    except (urllib.error.URLError, OSError, ValueError):
        pass
print(json.dumps(found))
"""


@pytest.fixture
def one() -> Iterator[AllInOne]:
    """A service whose data is not below /tmp, which isolated jobs have of their own."""
    home = Path(__file__).parents[2] / "build" / "hostile"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    service = AllInOne(home, configuration()).start()
    yield service
    service.stop()
    shutil.rmtree(home)


def test_a_hostile_payload_finds_nothing(one: AllInOne) -> None:
    [neighbour] = one.submit(
        {"command": ["sh", "-c", 'echo "the neighbour\'s secret" > mine; sleep 8'], "isolation": "required"}
    )
    one.wait([neighbour], ("Running", "Done"))
    script = f"SECRETS = {SECRETS!r}\nHOME = {str(one.home)!r}\nURL = {str(one.client().base_url)!r}\n{PAYLOAD}"
    [hostile] = one.submit({"command": ["python3", "-c", script], "isolation": "required"})
    [job] = one.wait([hostile])
    assert job["state"] == "Done", job
    assert job["isolation"] in ("bwrap", "unshare", "apptainer")
    found = json.loads(job["stdout"])
    assert found == {key: [] for key in found}
