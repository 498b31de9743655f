"""What the machine is, and what part of it is ours: ``facts.node``.

Everything is read from files below ``root`` and from ``environment``, so that a tree of files can play any machine.
Sources: proc(5), os-release(5), the kernel's documents cgroup-v1/memory, scheduler/sched-bwc and cgroup-v2.
"""

import os
import re
import sys

from pilotage_node.processes import quietly


def gather_node(profile, workdir, root="/", environment=os.environ):
    """The facts of this node, each already the smaller of what is there and of ``profile["limits"]``.

    :return: dict: hostname, system, release, machine, python, platform, user (str), uid, cores, gpus (int),
        memory_mib, disk_mib (int, free in ``workdir``), seconds_left (float, from the pilot's start to the moment it
        must begin to leave; None when it has no limit)
    """
    limits, name, groups = profile.get("limits") or {}, os.uname(), control_groups(root)
    node = {
        "hostname": name.nodename,
        "system": name.sysname,
        "release": name.release,
        "machine": name.machine,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "platform": profile.get("platform") or platform_of(name.machine, read(root, "etc/os-release")),
        "user": user_name(environment),
        "uid": os.getuid(),
    }
    there = {
        "cores": cores(groups),
        "memory_mib": memory_mib(root, groups),
        "disk_mib": disk_mib(workdir),
        "gpus": gpus(root, environment.get("CUDA_VISIBLE_DEVICES")),
    }
    for key in there:
        node[key] = min((size for size in (there[key], limits.get(key)) if size is not None), default=None)
    wall = limits.get("wall_seconds")
    node["seconds_left"] = wall - reserve(wall) if wall else None
    return node


def reserve(wall):
    """The last part of a pilot's ``wall`` seconds, kept for ending and reporting: a minute, or 5 % of short ones."""
    return min(60.0, 0.05 * wall)


def read(*path):
    """The text of a file, "" where it cannot be read."""
    try:
        with open(os.path.join(*path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def platform_of(machine, release):
    """Like "x86_64-el9", "aarch64-ubuntu22.04": the machine, and the system that binaries are built for."""
    fields = {"ID": "linux", "VERSION_ID": "", "ID_LIKE": ""}
    fields.update(re.findall(r"""(?m)^(\w+)=["']?(.*?)["']?\s*$""", release))
    system, version = fields["ID"], fields["VERSION_ID"]
    if re.search("rhel|centos", system + fields["ID_LIKE"]):
        system, version = "el", version.partition(".")[0]
    return "%s-%s%s" % (machine, system, version)


def user_name(environment):
    """The account's name; its number where it has none, as on many grid and container hosts."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return environment.get("USER") or str(os.getuid())


def control_groups(root):
    """Directories with limits of this process, of version 1 and 2, from its own group up to the top.

    In a container the path that /proc/self/cgroup names may not exist: then the nearest that does counts.
    """
    found = set()
    for line in read(root, "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if {"", "cpu", "memory"}.intersection(names):
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for top in {controllers or "unified", *names}:
                for depth in range(len(parts) + 1):
                    found.add(os.path.join(root, "sys/fs/cgroup", top, *parts[:depth]))
    return [directory for directory in found if os.path.isdir(directory)]


def numbers(*path):
    """The whole numbers in a limit's file; "max" (cgroup v2) and -1 (v1) are none."""
    return [int(word) for word in read(*path).split() if word.isdigit()]


def cores(groups):
    """Cores that this process may use: affinity and CPU quota, at least one."""
    least = len(os.sched_getaffinity(0))
    for group in groups:
        quota = numbers(group, "cpu.max") or numbers(group, "cpu.cfs_quota_us") + numbers(group, "cpu.cfs_period_us")
        if len(quota) == 2 and quota[1]:
            least = min(least, quota[0] / quota[1])
    return max(1, int(least + 0.001))


def memory_mib(root, groups):
    """Memory of the node or of our control groups, whichever is less [MiB]; None when neither says."""
    sizes = [memory("MemTotal", root)]
    for group in groups:
        sizes += [size >> 20 for size in numbers(group, "memory.max") + numbers(group, "memory.limit_in_bytes")]
    return min((size for size in sizes if size is not None), default=None)


def memory(name, root="/"):
    """A figure of /proc/meminfo [MiB]; None where the kernel does not say."""
    found = re.search(name + r": +(\d+)", read(root, "proc/meminfo"))
    return found and int(found.group(1)) >> 10


def disk_mib(path):
    """Disk that an ordinary user may still fill in ``path`` [MiB]; None when it cannot be asked."""
    disk = quietly(os.statvfs, path)
    return disk and disk.f_bavail * disk.f_frsize >> 20


def gpus(root, visible):
    """NVIDIA GPUs: device files that are ours to see, else those the driver knows; fewer where CUDA_VISIBLE_DEVICES
    names fewer (its list ends at the first invalid entry, such as -1 or NoDevFiles)."""
    count = 0
    for place, name in (("proc/driver/nvidia/gpus", ""), ("dev", r"nvidia\d+$")):
        entries = quietly(os.listdir, os.path.join(root, place)) or ()
        count = sum(1 for entry in entries if re.match(name, entry)) or count
    if visible is not None:
        valid = re.match(r"(\s*(\d|GPU-|MIG-)[^,]*(,|$))*", visible).group()
        count = min(count, len(re.findall("[^,]+", valid)))
    return count
