"""What the machine is, and what part of it is ours: ``facts.node``.

Everything is read from files below ``root`` and from ``environment``, so that a tree of files can play any machine.
Sources: proc(5), os-release(5), the kernel's documents cgroup-v1/memory, scheduler/sched-bwc and cgroup-v2.
"""

import os

UNLIMITED = 1 << 60
"""A cgroup v1 limit at least this large means that there is none."""


def gather_node(profile, workdir, root="/", environment=None):
    """The facts of this node, each already the smaller of what is there and of ``profile["limits"]``.

    :return: dict: hostname, system, release, machine, python, platform, user (str), uid, cores, gpus (int),
        memory_mib, disk_mib (int, free in ``workdir``), seconds_left (float, from the pilot's start to the moment it
        must begin to leave; None when it has no limit)
    """
    environment = os.environ if environment is None else environment
    limits = profile.get("limits") or {}
    name = os.uname()
    groups = control_groups(root)
    node = {
        "hostname": name.nodename,
        "system": name.sysname,
        "release": name.release,
        "machine": name.machine,
        "python": python_version(),
        "platform": profile.get("platform") or platform_of(name.machine, read(root, "etc/os-release")),
        "user": user_name(environment),
        "uid": os.getuid(),
        "cores": cores(groups),
        "memory_mib": memory_mib(root, groups),
        "disk_mib": disk_mib(workdir),
        "gpus": gpus(root, environment),
    }
    for key in ("cores", "memory_mib", "disk_mib", "gpus"):
        if limits.get(key) is not None:
            node[key] = limits[key] if node[key] is None else min(node[key], limits[key])
    wall = limits.get("wall_seconds")
    node["seconds_left"] = wall - reserve(wall) if wall else None
    return node


def reserve(wall):
    """The last part of a pilot's ``wall`` seconds, kept for ending and reporting: a minute, or 5 % of short ones."""
    return min(60.0, 0.05 * wall)


def python_version():
    import sys

    return "%d.%d.%d" % sys.version_info[:3]


def read(root, *names):
    """The text of a file below ``root``, "" where it cannot be read."""
    try:
        with open(os.path.join(root, *names), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def platform_of(machine, release):
    """Like "x86_64-el9", "aarch64-ubuntu22.04": the machine, and the system that binaries are built for."""
    fields = dict(line.partition("=")[::2] for line in release.splitlines() if "=" in line)
    fields = {key: value.strip("\"' ") for key, value in fields.items()}
    system, version = fields.get("ID", "linux"), fields.get("VERSION_ID", "")
    family = fields.get("ID_LIKE", "").split() + [system]
    if system != "fedora" and ("rhel" in family or "centos" in family):
        system, version = "el", version.partition(".")[0]
    return "%s-%s%s" % (machine, system, version)


def user_name(environment):
    """The account's name; its number where it has none, as on many grid and container hosts."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return environment.get("USER") or environment.get("LOGNAME") or str(os.getuid())


def control_groups(root):
    """Directories with the limits of this process, from its own group up to the top: [(version, path), ...].

    In a container the path that /proc/self/cgroup names may not exist: then the nearest that does counts.
    """
    found = []
    for line in read(root, "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            tops = [(2, "sys/fs/cgroup"), (2, "sys/fs/cgroup/unified")]
        elif {"cpu", "memory"} & set(controllers.split(",")):
            tops = [(1, "sys/fs/cgroup/" + name) for name in {controllers, *controllers.split(",")}]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for version, top in tops:
            for depth in range(len(parts), -1, -1):
                directory = os.path.join(root, top, *parts[:depth])
                if os.path.isdir(directory):
                    found.append((version, directory))
    return found


def numbers(text):
    """The whole numbers in a limit's text; "max" (cgroup v2) and -1 (v1) are none."""
    return [int(word) for word in text.split() if word.isdigit()]


def cores(groups):
    """Cores that this process may use: affinity and CPU quota, at least one."""
    try:
        least = float(len(os.sched_getaffinity(0)))
    except (AttributeError, OSError):
        least = float(os.cpu_count() or 1)
    for version, directory in groups:
        if version == 2:
            quota = numbers(read(directory, "cpu.max"))
        else:
            quota = numbers(read(directory, "cpu.cfs_quota_us")) + numbers(read(directory, "cpu.cfs_period_us"))
        if len(quota) == 2 and quota[0] > 0 and quota[1] > 0:
            least = min(least, quota[0] / quota[1])
    return max(1, int(least + 0.001))


def memory_mib(root, groups):
    """Memory of the node or of our control groups, whichever is less [MiB]; None when neither says."""
    sizes = []
    for line in read(root, "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            sizes.append(int(line.split()[1]) * 1024)
    for version, directory in groups:
        limit = numbers(read(directory, "memory.max" if version == 2 else "memory.limit_in_bytes"))
        sizes.extend(size for size in limit[:1] if 0 < size < UNLIMITED)
    return min(sizes) >> 20 if sizes else None


def disk_mib(path):
    """Disk that an ordinary user may still fill in ``path`` [MiB]; None when it cannot be asked."""
    try:
        disk = os.statvfs(path)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize >> 20


def listed(*path):
    try:
        return os.listdir(os.path.join(*path))
    except OSError:
        return []


def gpus(root, environment):
    """NVIDIA GPUs: device files that are ours to see, else those the driver knows; fewer where CUDA_VISIBLE_DEVICES
    names fewer (its list ends at the first invalid entry, such as -1 or NoDevFiles)."""
    devices = [name for name in listed(root, "dev") if name.startswith("nvidia") and name[6:].isdigit()]
    count = len(devices) or len(listed(root, "proc/driver/nvidia/gpus"))
    if "CUDA_VISIBLE_DEVICES" in environment:
        visible = 0
        for name in environment["CUDA_VISIBLE_DEVICES"].split(","):
            if not (name.strip().isdigit() or name.strip().startswith(("GPU-", "MIG-"))):
                break
            visible += 1
        count = min(count, visible)
    return count
