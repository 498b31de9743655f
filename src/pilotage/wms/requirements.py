"""What a job needs of a node, in canonical form: jobs with the same requirements are in the same task queue."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

Requirements = dict[str, Any]
"""{cores, memory_mib, disk_mib, gpus, wall_seconds, tags, platform, sites, banned_sites, isolated}: what is None is not
asked."""


def canonical(spec: Mapping[str, Any]) -> Requirements:
    """The requirements of a job description (JobSpec as a plain dict): defaults filled in, lists sorted, each name
    once.

    >>> canonical({"tags": ["b", "a", "b"]})["tags"]
    ['a', 'b']
    """
    get = spec.get
    return {
        "cores": get("cores") or 1,
        "memory_mib": get("memory_mib") or None,
        "disk_mib": get("disk_mib") or None,
        "gpus": get("gpus") or 0,
        "wall_seconds": get("wall_seconds") or 3600,
        "tags": sorted(set(get("tags") or ())),
        "platform": get("platform") or None,
        "sites": sorted(set(get("sites") or ())),
        "banned_sites": sorted(set(get("banned_sites") or ())),
        "isolated": get("isolation") == "required",
    }


def key(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """A hashable that is equal for descriptions written alike: spares `canonical` for the many jobs of one
    submission."""
    get = spec.get
    return (
        get("cores"),
        get("memory_mib"),
        get("disk_mib"),
        get("gpus"),
        get("wall_seconds"),
        tuple(get("tags") or ()),
        get("platform"),
        tuple(get("sites") or ()),
        tuple(get("banned_sites") or ()),
        get("isolation"),
        get("priority"),
    )


def queue_hash(vo: str, owner: str, priority: int, requirements: Requirements) -> str:
    """The identity of a task queue: SHA-256 (first 32 hex digits) of whose jobs they are, how urgent, and what they
    need.

    The priority is part of it, so that all jobs of a queue are worth the same to the matcher, which never looks at
    jobs.
    """
    text = json.dumps([vo, owner, priority, requirements], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
