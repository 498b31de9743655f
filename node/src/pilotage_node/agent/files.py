"""Names and directories of jobs: what is a safe name, what an output pattern matches, how much is there, removal."""

import os
import stat


def checked(name):
    """The name, when it stays inside a job's directory. The service checks it too; a pilot trusts nobody.

    :raises ValueError: it leads out
    """
    if not isinstance(name, str) or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("not a name inside the job's directory: %.200r" % name)
    return name


def tree(directory):
    """(path, lstat) of all in a directory that is not a directory. Links are never followed."""
    for top, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(top, name)
            try:
                yield path, os.lstat(path)
            except OSError:
                pass


def disk_use(directory):
    """Bytes on disk below a directory."""
    return sum(status.st_blocks for _, status in tree(directory)) * 512


def matches(directory, globs):
    """The regular files that the patterns match, as [(path, name)], and the patterns that match nothing.

    ``*``, ``?`` and ``[a-z]`` stay within a directory; in a pattern with ``**/`` they cross any number of directories.

    :raises ValueError: a pattern leads out, or a name is not UTF-8 and so cannot be told
    """
    from fnmatch import fnmatchcase

    found, idle = [], {checked(glob) for glob in globs}
    for path, status in tree(directory):
        name = path[len(directory) + 1 :]
        hits = []
        for glob in globs if stat.S_ISREG(status.st_mode) else ():
            if "**/" in glob:
                hit = fnmatchcase(name, glob) or fnmatchcase(name, glob.replace("**/", ""))
            else:  # with as many slashes, no wildcard can stand for one
                hit = name.count("/") == glob.count("/") and fnmatchcase(name, glob)
            hits += [glob] * hit
        if hits:
            found.append((path, os.fsencode(name).decode()))
            idle.difference_update(hits)
    return sorted(found), sorted(idle)


def remove(path):
    """Remove a job's directory, whatever the job left in it. Cheap for an empty one, the most frequent."""
    try:
        os.rmdir(path)
    except OSError:
        import shutil

        shutil.rmtree(path, ignore_errors=True)
