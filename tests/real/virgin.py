"""Virgin machines: small roots, made once and kept below build/, that a pilot lands in.

A root is entered in mount and process namespaces of its own, on the machine's own network, so that the pilot reaches
the service on loopback. Nothing is ever written into a kept root: it is mounted read-only, but for what a test puts
there.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

KEPT = Path(__file__).parents[2] / "build" / "virgin"
USER = 65534
"""nobody: a pilot is an ordinary user."""
ENTER = r"""
set -e
root=$1; place=$2; user=$3; shift 3
mount --bind -o ro "$root" "$root"; mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom; do : >"$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"; mount -t tmpfs -o mode=755 tmpfs "$root/mnt"
mkdir -p "$root/mnt/$place"; mount --bind "$place" "$root/mnt/$place"
for bound in $BOUND; do mkdir -p "$root/mnt$bound"; mount --bind -o ro "$bound" "$root/mnt$bound"; done
if [ "$TMP_OPTIONS" ]; then mount -o "remount,$TMP_OPTIONS" "$root/tmp"; fi
exec chroot --userspec="$user:$user" "$root" /bin/sh -c "$@"
"""


def mirror() -> tuple[str, str]:
    """(address, suite) of the system's main archive, as this machine's apt is configured; skips where it has none."""
    if shutil.which("apt-get") is None:
        pytest.skip("no apt on this machine: virgin roots are made from Debian's packages")
    asked = ["apt-get", "indextargets", "--no-release-info", "Created-By: Packages"]
    told = subprocess.run(
        [*asked, "--format", "$(SITE) $(RELEASE) $(COMPONENT)"], capture_output=True, text=True, check=True
    )
    release = Path("/etc/os-release").read_text()
    for line in told.stdout.splitlines():
        address, suite, component = line.split()
        if component == "main" and f"VERSION_CODENAME={suite}\n" in release:
            return address, suite
    pytest.skip("this machine's apt has no main archive of its own release: virgin roots are made of it")


def needed(*programs: str) -> None:
    """Skip where a root cannot be made or entered."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (`make provision` installs them)")
    if os.geteuid():
        pytest.skip("a virgin root is entered by root alone")
    probe = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this kernel permits no mount namespaces here: a virgin root cannot be entered")


@functools.cache
def debian(*packages: str) -> Path:
    """The root of a minimal Debian, of this machine's release, with these packages. About 20 s, once."""
    needed("mmdebstrap", "unshare", "chroot")
    address, suite = mirror()
    KEPT.mkdir(parents=True, exist_ok=True)
    root = KEPT / f"{suite}-{'-'.join(packages)}"
    with open(KEPT / "lock", "w") as lock:  # tests may run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            new = Path(tempfile.mkdtemp(dir=KEPT, prefix="new-"))
            new.chmod(0o755)
            make = ["mmdebstrap", "--mode=root", "--variant=essential", "--quiet"]
            made = subprocess.run(
                [*make, f"--include={','.join(packages)}", suite, str(new), f"deb {address} {suite} main"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=600,
            )
            if made.returncode:
                shutil.rmtree(new, ignore_errors=True)
                pytest.fail(f"mmdebstrap failed:\n{made.stderr}")
            new.rename(root)
    return root


def busybox(directory: Path) -> Path:
    """A root with a static BusyBox and nothing else: no Python, no libraries."""
    needed("busybox", "unshare", "chroot")
    program = Path(str(shutil.which("busybox"))).resolve()
    if subprocess.run(["ldd", str(program)], capture_output=True).returncode == 0:
        pytest.skip("the installed busybox is not static (`make provision` installs busybox-static)")
    root = directory / "busybox"
    for name in ("bin", "proc", "dev", "tmp", "mnt"):
        (root / name).mkdir(parents=True)
    shutil.copy(program, root / "bin" / "busybox")
    for name in subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    return root


@dataclass(frozen=True)
class Done:
    """How something ended in a root: exit code, and all that it printed."""

    code: int
    output: str


@dataclass
class Machine:
    """A root, and how it is to be that time: what is bound into it (read-only), how /tmp is mounted."""

    root: Path
    bound: Sequence[Path] = ()
    tmp_options: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def inside(self, path: Path) -> str:
        """Where a directory of the test, or one that is bound, is seen in there."""
        return f"/mnt{path}"

    def run(self, place: Path, script: str) -> Done:
        """Run a shell script as nobody, with the environment and nothing else; ``place`` is its own and writable."""
        place.chmod(0o700)
        for path in [place, *place.rglob("*")]:
            os.chown(path, USER, USER, follow_symlinks=False)
        variables = {
            "PATH": os.environ["PATH"],
            "BOUND": " ".join(str(path) for path in self.bound),
            "TMP_OPTIONS": self.tmp_options,
        }
        plain = {"PATH": "/usr/bin:/bin", **self.environment}
        outer = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--propagation", "private"]
        words = [f"{name}={value}" for name, value in plain.items()]
        start = 'cd "$1" && shift && exec env -i "$@"'
        inner = [start, "sh", self.inside(place), *words, "/bin/sh", "-c", script]
        done = subprocess.run(
            [*outer, "/bin/sh", "-c", ENTER, "enter", str(self.root), str(place), str(USER), *inner],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=200,
        )
        return Done(done.returncode, done.stdout.decode(errors="replace"))
