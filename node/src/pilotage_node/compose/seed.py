"""The seed: on a machine that nobody sends pilots to, fetch what a pilot is made of, compose it, become it.

What is trusted: the seed itself, and the manifest that it holds or has from a place that it names as trusted (the
service over verified TLS, a directory). All else is bytes from anywhere, good when their SHA-256 is the manifest's.
A manifest is JSON, ``{"format": 1, "profile": SHA-256, "toolboxes": [SHA-256 of each, in order], "script": digest}``.
"""

import hashlib
import json
import os
import re
import sys
import time

from pilotage_node import exitcodes
from pilotage_node.compose.composer import ComposeError, compose
from pilotage_node.compose.script import canonical, digest_of
from pilotage_node.compose.seed_places import Cache, Refused, Source, say

FORMAT = 1
MANIFEST_BYTES = 1 << 16
BLOB_BYTES = 32 << 20
USAGE = "usage: seed [ARGUMENT OF THE PILOT]...; --inspect shows what it fetches, and from where"

_SHA256 = re.compile("[0-9a-f]{64}")


class Failed(Exception):
    """Why there is no pilot: (exit code, text)."""


def main(script):
    """Become the pilot that a seed stands for; where that fails, leave with a code of ``pilotage_node.exitcodes``.

    :param script: the seed as ``boot.Script``; its profile says what is wanted::

        {"seed": 1, "vo", "flavour", "site", "resource", "queue",
         "trust": [PEM of the service's anchors, none: the node's own store],
         "sources": [{"place": directory or URL, "service": whether it is the service,
                      "manifest": where its trusted manifest is, or null: it only gives bytes}],
         "pinned": manifest with the profile itself in the place of its digest, or null,
         "cache": directory, or null: one of the user's own}
    """
    words = sys.argv[1:]
    while os.open(os.devnull, os.O_RDWR) < 3:  # as in the pilot: no other file may be 0, 1, 2
        pass
    if words == ["--help"]:
        say(USAGE)
        return
    try:
        pilot = write(composed(script.profile), dict(zip(words[::2], words[1::2])).get("--workdir", "."))
    except Failed as failure:
        say(failure.args[1])
        sys.exit(failure.args[0])
    except Exception:
        import traceback

        traceback.print_exc()
        sys.exit(exitcodes.INTERNAL)
    # The pilot's own head takes this Python before all others, and gives it the locale that it needs.
    os.environ["PILOTAGE_PYTHON"] = sys.executable or ""
    beside = os.path.dirname(os.path.abspath(script.path))
    os.environ.setdefault("PILOTAGE_CREDENTIALS", os.path.join(beside, "credentials.json"))
    os.execv("/bin/sh", ["sh", pilot] + words)


def composed(seed):
    """The pilot script; raises Failed."""
    cache = Cache(seed["cache"])
    sources = [Source(entry, seed["trust"]) for entry in seed["sources"]]
    manifest = seed["pinned"] or trusted_manifest(seed, sources, cache)
    profile = manifest["profile"]
    if not isinstance(profile, dict):
        profile = json.loads(blob(profile, "profile", sources, cache))
    toolboxes = [dict(json.loads(blob(sha, "toolbox", sources, cache)), digest=sha) for sha in manifest["toolboxes"]]
    cache.close()
    try:
        script = compose(profile, toolboxes)
    except ComposeError as error:
        raise Failed(exitcodes.INTERNAL, "the pilot does not compose: %s" % error)
    digest = digest_of(script)
    if digest != manifest["script"]:
        text = "the pilot is sha256:%s here, and sha256:%s by its manifest: make a new seed (pilotage client-pilot)"
        raise Failed(exitcodes.ALTERED, text % (digest, manifest["script"]))
    return script


def trusted_manifest(seed, sources, cache):
    """What the first trusted place says, else what one of them said before; raises Failed."""
    kept = "manifest-" + hashlib.sha256(canonical(seed).encode()).hexdigest()
    for source in sources:
        if source.manifest:
            try:
                data = source.read(source.manifest, MANIFEST_BYTES)
                manifest = checked(data)
            except Refused as why:
                say("%s: %s" % (source.place, why))
            else:
                cache.save(kept, data)
                return manifest
    data, seconds = cache.load(kept)
    if data is None:
        raise Failed(exitcodes.UNREACHABLE, "no trusted place gives the manifest, and the cache has none")
    say("no trusted place gives the manifest: the cache's is used, of " + time.strftime("%FT%TZ", time.gmtime(seconds)))
    try:
        return checked(data)
    except Refused as why:
        raise Failed(exitcodes.UNREACHABLE, "the cache's manifest is damaged: %s" % why)


def checked(data):
    """A manifest, from its bytes; raises Refused."""
    try:
        manifest = json.loads(data.decode())
        shas = [manifest["profile"], manifest["script"]] + manifest["toolboxes"]
        if manifest["format"] == FORMAT and all(_SHA256.fullmatch(sha) for sha in shas):
            return manifest
        why = "format %.20r; this seed reads %d" % (manifest["format"], FORMAT)
    except (ValueError, LookupError, TypeError) as error:
        why = "%s: %s" % (type(error).__name__, error)
    raise Refused("this is not a manifest: " + why)


def blob(sha, what, sources, cache):
    """The text of which a SHA-256 is known: from the cache, else from the first place that really has it."""
    data, _ = cache.load(sha)
    if data is not None:
        if hashlib.sha256(data).hexdigest() == sha:
            return data.decode()
        say("the cache's copy of the %s sha256:%s is damaged" % (what, sha))
    code = exitcodes.UNREACHABLE
    for source in [source for source in sources if not source.lost]:
        try:
            data = source.read("/blobs/" + sha, BLOB_BYTES)
        except Refused as why:
            say("%s: %s" % (source.place, why))
            continue
        found = hashlib.sha256(data).hexdigest()
        if found == sha:
            cache.save(sha, data)
            return data.decode()
        code = exitcodes.ALTERED
        say("%s: refused: what it gives as %s %s is sha256:%s" % (source.place, what, sha, found))
    raise Failed(code, "no place gives the %s sha256:%s (pilotage publish writes it)" % (what, sha))


def write(script, workdir):
    """The script in a file of its own, in a directory of its own: its path; raises Failed."""
    causes = []
    for place in (workdir, os.environ.get("TMPDIR") or "/tmp"):
        try:
            directory = os.path.join(os.path.abspath(place), "pilotage-" + os.urandom(4).hex())
            os.mkdir(directory, 0o700)
            path = os.path.join(directory, "pilot")
            with open(path, "w", encoding="utf-8", newline="") as file:
                file.write(script)
            os.chmod(path, 0o755)
            return path
        except OSError as error:
            causes.append(str(error))
    raise Failed(exitcodes.DISK, "the pilot cannot be written: " + "; ".join(causes))
