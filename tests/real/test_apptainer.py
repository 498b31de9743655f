"""Jobs isolated by a real Apptainer: the same tests as for the other kinds, on a machine that has it.

Debian has Apptainer in its unstable release only. So a small root of that release is made, once, and the agent runs in
there, in a mount namespace of its own: really its root (Apptainer needs user namespaces, which a chroot forbids).
"""

import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from tests.integration.agent_harness import SOURCES, Agent
from tests.integration.test_isolation import (
    NOBODY,
    TOOLS,
    test_a_hostile_payload_finds_nothing,
    test_isolated_jobs_end_as_they_end,
)
from tests.real.virgin import KEPT, mirror, needed

__all__ = ["test_a_hostile_payload_finds_nothing", "test_isolated_jobs_end_as_they_end"]

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = "apptainer,python3,procps,util-linux"
ENTER = r"""
root=$1; place=$2; own=$PATH; PATH=/usr/sbin:/usr/bin:/sbin:/bin; shift 2
mount --bind "$root" "$root"
mount -t tmpfs -o mode=755 tmpfs "$root/opt"; mkdir -p "$root$place"; mount --bind "$place" "$root$place"
mount --rbind /dev "$root/dev"; mount -t proc proc "$root/proc"; mount --rbind /sys "$root/sys"
mount --bind /tmp "$root/tmp"; mount --bind "$root/usr" "$root/usr"; mount -o remount,bind,ro "$root/usr"
cd "$root"; pivot_root . .; umount -l .; cd "$place"; PATH=$own; exec "$@"
"""


@functools.cache
def machine() -> Path:
    """The root of a minimal Debian unstable with Apptainer. About 20 s, once."""
    needed("mmdebstrap", "unshare", "pivot_root")
    address, _ = mirror()
    KEPT.mkdir(parents=True, exist_ok=True)
    root = KEPT / "apptainer"
    with open(KEPT / "lock", "w") as lock:  # tests may run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            new = Path(tempfile.mkdtemp(dir=KEPT, prefix="new-"))
            new.chmod(0o755)
            # An archive's copy that is some days old still is what was signed.
            source = f"deb [signed-by={KEYRING} check-valid-until=no] {address} sid main"
            make = ["mmdebstrap", "--mode=root", "--variant=minbase", "--quiet", f"--include={PACKAGES}", "sid"]
            made = subprocess.run(
                [*make, str(new), source], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
            )
            if made.returncode:
                shutil.rmtree(new, ignore_errors=True)
                pytest.fail(f"mmdebstrap failed:\n{made.stderr}")
            new.rename(root)
    return root


@pytest.fixture(params=["root", "not root"])
def isolated(request):
    """An agent on a machine with Apptainer, in a directory that only its isolation hides (not below /tmp)."""
    root = machine()
    home = Path(tempfile.mkdtemp(prefix="pilotage-test-", dir="/opt"))
    shutil.copytree(Path(SOURCES) / "pilotage_node", home / "sources" / "pilotage_node")
    (home / "bin").mkdir()
    for name in [*TOOLS, "apptainer"]:
        if name != "unshare":  # it would be taken first
            (home / "bin" / name).symlink_to(f"/usr/bin/{name}")
    for path in (home, *home.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    for name in ("pilot", "hidden"):
        (home / name).mkdir()
    (home / "hidden" / "key").write_text("the-mark-of-the-pilot")
    (home / "pilot" / "credentials").write_text("the-mark-of-the-pilot")
    python = ["/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-ec", ENTER, "enter"]
    python += [str(root), str(home)]
    if request.param == "not root":
        python += ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        for path in (home, *(home / name for name in ("pilot", "hidden", "pilot/credentials", "hidden/key"))):
            os.chown(path, NOBODY, NOBODY)
    environment = {
        "PATH": f"{home}/bin",
        "PILOTAGE_SECRET": "the-mark-of-the-pilot",
        "HOME": str(home),
    }
    agent = Agent(
        home / "pilot",
        node={"cores": 3},
        options={"hide": [str(home / "hidden")]},
        python=[*python, "/usr/bin/python3"],
        environment=environment,
        sources=str(home / "sources"),
    )
    agent.kind = "apptainer"
    yield agent
    agent.close()
    shutil.rmtree(home)
