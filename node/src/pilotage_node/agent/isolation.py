"""Namespaces for jobs: what works on this node, found by trying it, and the command line that does it.

An isolated job sees the whole system read-only, its own directory, a private /tmp and /var/tmp, and a /proc with
nothing but its own processes. It does not see the pilot's directory (other jobs are in it), other pilots beside it,
the usual places of credentials, or what $PILOTAGE_HIDE names (the data of a resource). It has no capabilities, and
everything of it dies with the outer process.

Two kinds, the first that works is used: ``bwrap`` (bubblewrap, also where it is setuid; /dev is a small one) and
``unshare`` (util-linux; the job believes to be root; not offered to a real root, who would keep the devices). A shell
is the first process inside and waits for the job, so that the kernel tells us the resources used; a job ended by
signal N is therefore seen as exit code 128 + N.
"""

import os
import subprocess

from pilotage_node.agent.files import remove

HIDDEN = [".ssh", ".globus", ".gnupg", ".aws", ".netrc", ".config/pilotage", ".local/share/pilotage"]
NAMED = ["X509_USER_PROXY", "X509_USER_KEY", "BEARER_TOKEN_FILE", "KRB5CCNAME", "PILOTAGE_CREDENTIALS", "PILOTAGE_HIDE"]
BWRAP = """bwrap --unshare-user --unshare-pid --unshare-ipc --as-pid-1 --die-with-parent --new-session --cap-drop ALL
--ro-bind / / --dev /dev --proc /proc"""
UNSHARE = "unshare --user --map-root-user --mount --pid --ipc --fork --kill-child --mount-proc /bin/sh -c"
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


def wrap(kind, directory, hide, gpus, arguments):
    """The command line that runs ``arguments`` isolated.

    :param directory: the job's, the only one that stays writable; ``.tmp`` in it is what it sees as /tmp and /var/tmp
    :param hide: paths that it must not see, besides those always hidden
    :param gpus: does it need the device files of GPUs?
    """
    private, hidden = directory + "/.tmp", hidden_paths(os.path.dirname(os.path.dirname(directory)), hide)
    if kind == "unshare":
        return UNSHARE.split() + [SETUP, "sh", directory, private] + hidden + ["--"] + INIT + arguments
    line = BWRAP.split()
    if not os.getuid():  # who owns /proc/sys, with capabilities or without
        line += ["--remount-ro", "/proc"]
    line += ["--bind", private, "/tmp", "--bind", private, os.path.realpath("/var/tmp")]
    for name in os.listdir("/dev") if gpus else ():
        if name.startswith(("nvidia", "dri", "kfd")):
            line += ["--dev-bind", "/dev/" + name, "/dev/" + name]
    for path in hidden:
        line += ["--tmpfs", path] if os.path.isdir(path) else ["--ro-bind", "/dev/null", path]
    return line + ["--bind", directory, directory, "--chdir", directory, "--"] + INIT + arguments


def find(room, secret, hide):
    """The kinds that work here, each really tried; at most one, the best.

    :param room: the directory of a job
    :param secret: a path below a hidden one
    """
    os.makedirs(room + "/.tmp")
    probe = ["/bin/sh", "-c", PROBE, "sh", secret, os.readlink("/proc/self/ns/pid")]
    works = []
    for kind in ("bwrap", "unshare") if os.getuid() else ("bwrap",):
        try:
            if not works and not subprocess.call(wrap(kind, room, hide, False, probe), timeout=10, **QUIET):
                works.append(kind)
        except (OSError, subprocess.TimeoutExpired):
            pass
    remove(room)
    return works
