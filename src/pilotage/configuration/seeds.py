"""Making seeds: one file for machines that nobody sends pilots to. What it does there is in the node's compose/seed.py.

Its form is that of a pilot script: the same head, the same boot, sections of compact sources. In the place of the
runner it has the composer, and in that of a profile what it wants and from where.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pilotage_node
from pilotage.configuration.compaction import compact, parse
from pilotage.configuration.publish import Published, static_path
from pilotage.configuration.resolve import Target
from pilotage.configuration.schema import URL
from pilotage.configuration.toolboxes import core
from pilotage_node.compose import composer, script

FORMAT = 1
ROOT = "pilotage_node.compose.seed"
RUNNER = "pilotage_node/runner/__init__.py"
STARTS = f"from {ROOT} import main\n"
"""What the boot runs: here, the seed."""
SERVICE = "/seed"
"""Where the service has manifests and blobs."""


class SeedError(Exception):
    """Why there can be no such seed: one sentence."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a seed fetches from: manifests from the service, then from trusted places; files from mirrors first.

    :ivar service: addresses of the service; over https its manifest is trusted, over http it only gives blobs
    :ivar trust: PEM texts of the anchors that the service is verified by; none: the node's own store
    :ivar trusted: directories and https URLs of the static form whose manifests are trusted
    :ivar mirrors: directories and URLs of the static form that only give blobs
    """

    service: Sequence[str] = ()
    trust: Sequence[str] = ()
    trusted: Sequence[str] = ()
    mirrors: Sequence[str] = ()


def make(published: Published, places: Places, *, pin: bool = False, cache_directory: str | None = None) -> str:
    """The seed of what is published for a target.

    :param pin: whether it holds the manifest itself: no place need be trusted, and it does not follow the configuration
    :param cache_directory: where it keeps what it fetched; None: in the user's own cache
    :raises SeedError: a place that cannot be one, or none to trust
    """
    target, profile = published.target, published.profile
    sources = list(_sources(target, places))
    if not pin and not any(source["manifest"] for source in sources):
        given = ", ".join(places.service) or "none is known"
        text = f"nothing vouches for what the seed would fetch: no service with https ({given}), no trusted place"
        raise SeedError(text + "; name one (--trusted), or put the manifest into the seed (--pin)")
    if not sources:
        raise SeedError("the seed has no place to fetch toolboxes from: name one (--source)")
    wanted = {
        "seed": FORMAT,
        "vo": target.vo,
        "flavour": target.flavour,
        "site": target.site,
        "resource": target.resource,
        "queue": target.queue,
        "trust": list(places.trust),
        "sources": sources,
        "pinned": dict(published.manifest, profile=profile) if pin else None,
        "cache": cache_directory,
    }
    shown = {key: wanted[key] for key in ("seed", "vo", "flavour", "site", "resource", "queue", "cache")}
    sections = script.MARK + script.PROFILE + "\n" + script.readable(wanted, {}) + _body()
    comments = [script.canonical(item) for item in (shown, *sources)]
    return str(composer.framed(core(), comments, sections, profile["python"], profile["minimum_python"]))


def _sources(target: Target, places: Places) -> Iterator[dict[str, Any]]:
    """The places as the seed reads them: those first that deliver alone, so that they spare the others."""
    place = {name: getattr(target, name) for name in ("site", "resource", "queue")}
    query = "&".join(f"{name}={value}" for name, value in place.items() if value)
    path = f"/{target.vo}/{target.flavour}/manifest" + (f"?{query}" if query else "")
    for mirror in places.mirrors:
        yield {"place": _place(mirror), "manifest": None, "service": False}
    for url in places.service:
        yield {"place": _place(url) + SERVICE, "manifest": path if url.startswith("https:") else None, "service": True}
    for trusted in places.trusted:
        if trusted.startswith("http:"):
            raise SeedError(f"{trusted} cannot be trusted: anybody on the way may change it; use https, or a directory")
        yield {"place": _place(trusted), "manifest": "/" + static_path(target), "service": False}


def _place(text: str) -> str:
    if "@" in text.partition("://")[2].partition("/")[0]:
        raise SeedError("the URL of a place holds no user and no password: a seed is no secret")
    if text.startswith("/") or re.match(URL, text):
        return text.rstrip("/") or "/"
    raise SeedError(f"{text} is neither an absolute path nor an http or https URL")


@cache
def _body() -> str:
    """The modules that a seed carries: the composer, compact, and what it stands on."""
    found: dict[str, str] = {RUNNER: STARTS}
    waiting = [ROOT]
    while waiting:
        name = waiting.pop()
        path = name.replace(".", "/") + ".py"
        if path in found:
            continue
        text = _source(path)
        if text is not None:
            found[path] = text
            waiting += _imported(text)
    return "".join(script.MARK + path + "\n" + found[path] for path in sorted(found))


def _source(path: str) -> str | None:
    """A module of the node's half, compact; None where there is no module of that name."""
    known: dict[str, str] = core()["modules"]
    if path in known:
        return known[path]
    file = Path(pilotage_node.__file__).parent.joinpath(*path.split("/")[1:])
    if not file.is_file():
        return None
    text = file.read_text("utf-8")
    return compact(text, str(file), parse(text, str(file)))


def _imported(text: str) -> Iterator[str]:
    """Names that may be modules of the node's half and that a module imports."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pilotage_node"):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
