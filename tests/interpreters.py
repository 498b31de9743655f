"""The Python interpreters of this machine, by their minor version."""

from __future__ import annotations

import functools
import glob
import os
import shutil
import subprocess

CLAIMED = ["3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13"]
"""The versions that the node's half claims: each is run in the tests, and the tests fail without it."""


@functools.cache
def interpreters() -> dict[str, str]:
    """{"3.6": "/path/to/python3.6", ...} from pyenv's versions and PATH; only those that really start."""
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    found: dict[str, str] = {}
    for version in CLAIMED:
        candidates = sorted(glob.glob(f"{root}/versions/{version}.*/bin/python"))
        candidates += [path for path in [shutil.which(f"python{version}")] if path]
        for path in candidates:
            script = "import sys; print('%d.%d' % sys.version_info[:2])"
            told = subprocess.run([path, "-c", script], capture_output=True, text=True)
            if told.stdout.strip() == version:
                found[version] = path
                break
    return found
