"""Installations that a pilot makes: DIRACOS2 by its installer, or a virtual environment by pip.

Each is made in the place where it stays, because neither can be moved, and is valid once its mark is written: the mark
says what it was made of and how its files looked, so that another pilot of this node can use it without trusting it.
"""

import fcntl
import hashlib
import json
import os
import time

from pilotage_node.processes import quietly, remove_tree
from pilotage_node.toolboxes.dirac import programs, software
from pilotage_node.toolboxes.dirac.programs import Failed

MARK = "installed-by-pilotage.json"
POLL = 0.2

FETCH = """
import shutil, sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=60) as source, open(sys.argv[2], "wb") as file:
    shutil.copyfileobj(source, file)
"""
"""Run in a process of its own, which can be killed; certificates are verified."""


class Place:
    """Where installations are: one directory each, named for what it is made of.

    :param directory: shared by the pilots of a node, or one pilot's own
    """

    def __init__(self, directory):
        self.directory = directory

    def installed(self, recipe, make, seconds, log):
        """The software of a recipe: what is there and sound, else what `make(directory, seconds)` makes.

        Pilots of a node that want the same wait for the one that makes it.

        :param recipe: dict: all that decides what the installation is
        :raises Failed: it cannot be made; then nothing of it is left. OSError: the directory cannot be used
        """
        end = time.monotonic() + seconds
        os.makedirs(self.directory, mode=0o755, exist_ok=True)
        name = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
        target = os.path.join(self.directory, name)
        with open(target + ".lock", "a") as lock:
            locked(lock, end)
            try:
                found = self.kept(target, recipe, log)
                if found:
                    return dict(found, origin="%s (used again)" % target)
                remove_tree(target)
                try:
                    found = make(target, max(1, end - time.monotonic()))
                    write_mark(target, recipe, found)
                except BaseException:  # also when it is told to end: half an installation is worse than none
                    remove_tree(target)
                    raise
                return found
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)

    def kept(self, target, recipe, log):
        """The software of an installation that was made before and is still as it was, or None."""
        try:
            with open(os.path.join(target, MARK)) as file:
                mark = json.load(file)
            if mark["recipe"] != recipe or mark["files"] != files_digest(target):
                raise ValueError("its files are not those that were installed")
            found = mark["software"]
            return software.looked_at(found["bin"], found["environment"], found["origin"], software.LOOK_SECONDS)
        except (OSError, ValueError, LookupError, TypeError, Failed) as problem:
            if os.path.isdir(target):
                log("the installation in %s is removed: %s" % (target, problem))
            return None


def locked(file, end):
    """Wait for a lock until `end` (monotonic). :raises Failed: another pilot has it longer"""
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise Failed("another pilot has been installing it for too long (%s)" % file.name)
            time.sleep(POLL)


def write_mark(target, recipe, found):
    path = os.path.join(target, MARK)
    with open(path + ".new", "w") as file:
        json.dump({"recipe": recipe, "software": found, "files": files_digest(target)}, file)
    os.replace(path + ".new", path)


def files_digest(directory):
    """The SHA-256 over the names and sizes of all files but bytecode: what is missing or cut short shows."""
    digest = hashlib.sha256()
    for top, directories, files in os.walk(directory):
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        for name in sorted(files):
            if not name.startswith(MARK) and not name.endswith(".pyc"):
                path = os.path.join(top, name)
                digest.update(("%s %d\n" % (path[len(directory) :], os.lstat(path).st_size)).encode("utf-8", "replace"))
    return digest.hexdigest()


def diracos(urls, sha256, requirements, pip, cores):
    """How DIRACOS2 and then DIRAC are installed: (recipe, make), see Place.installed.

    :param urls: where the installer is, tried in this order
    :param sha256: the installer's digest, hex
    :param requirements: for pip, in DIRACOS's own environment
    :param pip: more words for pip
    """

    def make(directory, seconds):
        end = time.monotonic() + seconds
        os.makedirs(directory)
        installer = os.path.join(directory, "installer.sh")
        fetch(urls, sha256, installer, seconds)
        programs.run(["bash", installer], end - time.monotonic(), {}, directory, cores)  # into ./diracos
        quietly(os.unlink, installer)
        root = os.path.join(directory, "diracos")
        pip_install(os.path.join(root, "bin", "python"), requirements, pip, end - time.monotonic(), cores)
        return software.of_script(os.path.join(root, "diracosrc"), "DIRACOS2 in " + root)

    return {"kind": "diracos", "sha256": sha256, "requirements": requirements, "pip": pip}, make


def fetch(urls, sha256, path, seconds):
    """Fetch a file from the first mirror that has the right one. :raises Failed: none has, and why, each"""
    problems = []
    for url in urls:
        try:
            programs.run([python_program(), "-I", "-c", FETCH, url, path], seconds)
            with open(path, "rb") as file:
                found = hashlib.sha256(file.read()).hexdigest()
            if found == sha256.lower():
                return
            problems.append("%s has the SHA-256 %s, not %s" % (url, found, sha256))
        except (Failed, OSError) as problem:
            problems.append("%s: %s" % (url, problem))
    raise Failed("; ".join(problems) or "no URL of the installer is configured")


def virtual(python, requirements, pip, cores):
    """How a virtual environment with DIRAC is made: (recipe, make). Its interpreter is a copy: DIRAC's job agent starts
    job wrappers by the real path of its interpreter, which would lead out of an environment of links."""

    def make(directory, seconds):
        end = time.monotonic() + seconds
        programs.run([python, "-m", "venv", "--copies", directory], seconds, cores=cores)
        pip_install(os.path.join(directory, "bin", "python"), requirements, pip, end - time.monotonic(), cores)
        return software.of_prefix(directory, "pip in " + directory)

    return {"kind": "pip", "python": python, "requirements": requirements, "pip": pip}, make


def pip_install(python, requirements, pip, seconds, cores):
    words = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"]
    programs.run(words + pip + requirements, seconds, {}, None, cores)


def python_program():
    """An interpreter for a process of its own; the pilot's own runs without its site packages."""
    import sys

    return sys.executable or "python3"
