"""Namespaces for jobs: what works on this node, found by trying it, and the command line that does it.

An isolated job sees the whole system read-only, its own directory, a private /tmp and /var/tmp, and a /proc with
nothing but its own processes. It does not see the pilot's directory (other jobs are in it), other pilots beside it,
the usual places of credentials, or what $PILOTAGE_HIDE names (the data of a resource). It has no capabilities, and
everything of it dies with the outer process.

Three kinds, the first that works is used: ``bwrap`` (bubblewrap, also where it is setuid; /dev is a small one),
``unshare`` (util-linux; the job believes to be root; not offered to a real root, who would keep the devices) and
``apptainer`` (the system's directories in an empty image; the dearest to start). A shell is the first process inside
and waits for the job, so that the kernel tells us the resources used; a job ended by signal N is therefore seen as exit
code 128 + N.
"""

import os
import subprocess

from pilotage_node.processes import remove_tree

HIDDEN = [".ssh", ".globus", ".gnupg", ".aws", ".netrc", ".config/pilotage", ".local/share/pilotage"]
NAMED = ["X509_USER_PROXY", "X509_USER_KEY", "BEARER_TOKEN_FILE", "KRB5CCNAME", "PILOTAGE_HIDE"]
BWRAP = """bwrap --unshare-user --unshare-pid --unshare-ipc --as-pid-1 --die-with-parent --new-session --cap-drop ALL
--ro-bind / / --dev /dev --proc /proc"""
UNSHARE = "unshare --user --map-root-user --mount --pid --ipc --fork --kill-child --mount-proc /bin/sh -c"
APPTAINER = "apptainer -s exec --userns --contain --ipc --pid --no-home --no-privs --no-init --no-eval --no-umask"
INIT = ["/bin/sh", "-c", '"$@"; exit $?', "sh"]
SETUP = r"""
set -e
job=$1; cd "$job"; mount --bind "$2" /var/tmp; mount --bind /var/tmp /tmp; shift 2
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mount -t tmpfs none "$1"; else mount --bind /dev/null "$1"; fi; shift
done
shift; mkdir -p "$job"; mount -c --bind . "$job"
while read -r _ _ _ _ point options _; do
  case $point in "$job"|/tmp|/var/tmp|/dev/*) continue; esac
  mount -o "remount,bind,ro${options#r?}" "$(printf %b "$point")" || :
done </proc/self/mountinfo 2>/dev/null
cd "$job"; exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs -- "$@"
"""
QUIET = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
PROBE = r'[ ! -e "$1" ] && [ "$(readlink /proc/self/ns/pid)" != "$2" ] && : >/tmp/ok && : >ok'


def hidden_paths(workdir, extra):
    """What an isolated job must not see; it changes as other pilots come to stand beside this one.

    :param extra: more paths
    """
    parent = os.path.dirname(workdir)
    paths = [os.path.expanduser("~/" + name) for name in HIDDEN] + ["/run/user"] + list(extra)
    paths += [os.environ.get(name, "").replace("FILE:", "", 1) for name in NAMED]
    paths += [os.path.join(parent, name) for name in os.listdir(parent) if name.startswith("pilot-")] + [workdir]
    found = []
    for path in sorted({os.path.realpath(path) for path in paths if path.startswith("/")}):
        # /tmp is another one inside; what lies below a hidden directory is hidden with it
        if os.path.exists(path) and not any(path.startswith(above + "/") for above in ["/tmp", "/var/tmp"] + found):
            found.append(path)
    return found


def wrap(kind, directory, hide, gpus, arguments, environment=os.environ):
    """The command line that runs ``arguments`` isolated.

    :param directory: the job's, the only one that stays writable; ``.tmp`` in it is what it sees as /tmp and /var/tmp
    :param hide: paths that it must not see, besides those always hidden
    :param gpus: does it need the device files of GPUs?
    :param environment: in which the line will be run
    """
    private, hidden = directory + "/.tmp", hidden_paths(os.path.dirname(os.path.dirname(directory)), hide)
    if kind == "unshare":
        return UNSHARE.split() + [SETUP, "sh", directory, private] + hidden + ["--"] + INIT + arguments
    if kind == "apptainer":
        return apptainer(directory, private, hidden, gpus, environment) + INIT + arguments
    line = BWRAP.split()
    if not os.getuid():  # who owns /proc/sys, with capabilities or without
        line += ["--remount-ro", "/proc"]
    line += ["--bind", private, "/tmp", "--bind", private, os.path.realpath("/var/tmp")]
    for path in devices(gpus):
        line += ["--dev-bind", path, path]
    for path in hidden:
        line += ["--tmpfs", path] if os.path.isdir(path) else ["--ro-bind", "/dev/null", path]
    return line + ["--bind", directory, directory, "--chdir", directory, "--"] + INIT + arguments


def devices(gpus):
    """The device files of GPUs, where they are wanted."""
    names = os.listdir("/dev") if gpus else ()
    return ["/dev/" + name for name in names if name.startswith(("nvidia", "dri", "kfd"))]


def apptainer(directory, private, hidden, gpus, environment):
    """Apptainer's command line for ``wrap``. The image is ``.root`` in the job's directory: mount points, no more.

    A path with a colon or a comma cannot be bound: the trial of ``find`` fails then.
    """
    root = directory + "/.root"
    binds = [("/proc/sys", "/proc/sys:ro")] + [(path, path) for path in devices(gpus)]
    for name in ("proc", "sys", "dev", "tmp"):
        os.makedirs(os.path.join(root, name))
    for name in os.listdir("/"):
        path, inside = "/" + name, os.path.join(root, name)
        if os.path.islink(path):
            os.symlink(os.readlink(path), inside)
        elif os.path.isdir(path) and not os.path.exists(inside):
            os.mkdir(inside)
            binds.append((path, path + ":ro"))
    binds += [(private, "/tmp"), (private, os.path.realpath("/var/tmp"))]
    for number, path in enumerate(hidden):
        empty = "/dev/null"
        if os.path.isdir(path):
            empty = "%s/.%d" % (root, number)
            os.makedirs(empty + (directory[len(path) :] if directory.startswith(path + "/") else ""))
        binds.append((empty, path + ":ro"))
    line = APPTAINER.split()
    for bind in binds + [(directory, directory)]:
        line += ["--bind", ":".join(bind)]
    # What it sets anew is put back.
    kept = ["%s=%s" % (key, environment[key]) for key in ("PATH", "HOME", "LD_LIBRARY_PATH") if key in environment]
    return line + ["--pwd", directory, root, "env"] + kept


def find(room, secret, hide):
    """The kinds that work here, each really tried; at most one, the best.

    :param room: the directory of a job
    :param secret: a path below a hidden one
    """
    os.makedirs(room + "/.tmp")
    probe = ["/bin/sh", "-c", PROBE, "sh", secret, os.readlink("/proc/self/ns/pid")]
    works = []
    for kind in ("bwrap", "unshare", "apptainer") if os.getuid() else ("bwrap", "apptainer"):
        try:
            if not works and not subprocess.call(wrap(kind, room, hide, False, probe), timeout=10, **QUIET):
                works.append(kind)
        except (OSError, subprocess.TimeoutExpired):
            pass
    remove_tree(room)
    return works
