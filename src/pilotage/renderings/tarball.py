"""The bundle as one file: the script, what travels beside it, and a manifest with checksums."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile

from pilotage.renderings.form import Material, Rendering, RenderingError
from pilotage_node.compose import digest_of

MANIFEST = "manifest.json"
PILOT = "pilot"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_PRIVATE = ("credentials.json",)


def render(material: Material) -> Rendering:
    """A gzipped tar of `pilot`, `manifest.json` and the files: the same bytes for the same content.

    The manifest: {"format": 1, "digest": the script's, "files": {name: {"sha256", "size"}}}, itself not in it.
    """
    material.only("tarball", "files")
    for name in material.files:
        if not _NAME.fullmatch(name) or name in (PILOT, MANIFEST):
            raise RenderingError(f"a file beside the pilot cannot be called '{name}'")
    files = {PILOT: material.script.encode(), **material.files}
    sums = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()}
    manifest = {"format": 1, "digest": digest_of(material.script), "files": sums}
    files[MANIFEST] = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    packed = io.BytesIO()
    # Neither names nor times of the machine that packs may be seen in it.
    with gzip.GzipFile("", "wb", 9, packed, mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mode = 0o755 if name == PILOT else 0o600 if name in _PRIVATE else 0o644
            tar.addfile(entry, io.BytesIO(files[name]))
    return Rendering(packed.getvalue(), "pilot.tar.gz", "application/gzip")
