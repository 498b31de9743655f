"""Between the configuration, the records and the planner's plain data."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilotage.configuration import ComposedPilot, Configuration, ConfigurationError, compose_pilot, resolve
from pilotage.configuration.live import State
from pilotage.directors.backoff import Rest, rest
from pilotage.directors.plan import Demand, Key, Pilot, Submission, Supply
from pilotage.resources.base import Bundle
from pilotage.storage import pilots
from pilotage_node.facts import reserve

log = logging.getLogger("pilotage.directors")

Row = Mapping[str, Any]

START_SECONDS = 120.0
"""From a pilot's registration to its first jobs, at most; later it is idle."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What directors plan with, exchanged as a whole: one state of the configuration, and what its queues give."""

    state: State
    supply: Sequence[Supply]
    by_key: Mapping[Key, Supply] = field(default_factory=dict)


class Scenery:
    """Makes scenes. What was found for one resource is kept as long as the configuration is the same."""

    def __init__(self) -> None:
        self.nodes: dict[str, Mapping[str, Any]] = {}
        """What resources know of their nodes; one that is not here is not planned for."""
        self._of: Configuration | None = None
        self._parts: dict[str, list[Supply]] = {}

    def scene(self, state: State) -> Scene:
        """The scene of a state; it may take a second per thousand queues and VOs, so call it in a thread, one at a
        time."""
        configuration, nodes = state.current, dict(self.nodes)
        if self._of is not configuration:
            self._of, self._parts = configuration, {}
        supply: list[Supply] = []
        for _, name, _ in configuration.resources():
            if name in nodes:
                if name not in self._parts:
                    self._parts[name] = supply_of(configuration, name, nodes[name])
                supply += self._parts[name]
        return Scene(state, supply, {entrance.key: entrance for entrance in supply})


def supply_of(configuration: Configuration, name: str, node: Mapping[str, Any]) -> list[Supply]:
    """What each queue of a resource gives to each VO: what it knows of its nodes, under the profiles' limits."""
    found = []
    resource, site = configuration.resource(name), configuration.site_of(name) or ""
    for queue, part in resource.queues.items():
        for vo in configuration.vos_of(resource):
            try:
                profile = resolve(configuration, vo, name, queue)
            except ConfigurationError:
                continue  # `check` tells; nothing is sent there
            sizes = {**node}
            limits = profile["limits"]
            for key, limit in limits.items():
                if limit is not None:
                    sizes[key] = min(limit, sizes[key]) if sizes.get(key) is not None else limit
            wall = limits["wall_seconds"]
            found.append(
                Supply(
                    site,
                    name,
                    queue,
                    vo,
                    cores=sizes.get("cores") or 1,
                    memory_mib=sizes.get("memory_mib"),
                    disk_mib=sizes.get("disk_mib"),
                    gpus=sizes.get("gpus"),
                    seconds=wall - reserve(wall) if wall else None,
                    tags=frozenset(profile["tags"]),
                    platform=profile["platform"] or sizes.get("platform"),
                    max_pilots=part.max_pilots,
                    max_waiting=part.max_waiting,
                )
            )
    return found


def pilot_of(row: Row, supply: Mapping[Key, Supply], now: float) -> Pilot:
    """A record as the planner sees it. A pilot that was told to leave takes no more jobs.

    A pilot counts as on its way until it had its first job, or the time for that is over. What of it is idle is taken
    from the number of its jobs: jobs of many cores make it too large, which the planner's patience makes good.
    """
    entrance = supply.get((row["resource"], row["queue"], row["vo"]))
    cores = (row["node"] or {}).get("cores") or (entrance.cores if entrance else 1)
    asked = row["registered"] is not None and (row["jobs"] or now - row["registered"] > START_SECONDS)
    room = max(0, cores - (row["jobs"] - row["done"])) if asked else None
    if row["ordered"]:
        room = 0
    return Pilot(row["vo"], row["site"], row["resource"], row["queue"], row["state"], cores, room)


class Waiting:
    """Remembers since when each task queue has had waiting jobs without a break."""

    def __init__(self) -> None:
        self.since: dict[int, float] = {}

    def update(self, rows: Iterable[Row], now: float) -> list[Demand]:
        """The engine's demand, as the planner's."""
        rows = [row for row in rows if row["waiting"] > 0]
        self.since = {row["id"]: self.since.get(row["id"], now) for row in rows}
        return [
            Demand(
                row["id"],
                row["vo"],
                row["waiting"],
                row["requirements"],
                row["priority"],
                self.since[row["id"]],
                row["owner"],
            )
            for row in rows
        ]


def rests_of(
    supply: Iterable[Supply], alive: Sequence[Row], ended: Sequence[Row], configuration: Configuration, now: float
) -> dict[Key, Rest]:
    """Which queues of a resource rest, from its last pilots."""
    policy = configuration.directors
    last = sorted(ended, key=lambda row: -(row["ended"] or 0.0))
    found = {}
    for entrance in supply:
        rested = rest(
            [row for row in last if (row["queue"], row["vo"]) == (entrance.queue, entrance.vo)],
            [row for row in alive if (row["resource"], row["queue"], row["vo"]) == entrance.key],
            now,
            empty_seconds=policy.empty_seconds,
            failed_seconds=policy.failed_seconds,
            longest=policy.rest_seconds,
        )
        if rested.most is not None:
            found[entrance.key] = rested
    return found


def make(
    state: State,
    submissions: Iterable[Submission],
    urls: Sequence[str],
    trust: Sequence[str],
    now: float,
) -> tuple[list[dict[str, Any]], list[Bundle]]:
    """The records (storage.pilots.plan) and bundles of new pilots: each with its own stamp and one-time secret.

    The stamp comes first: it decides whether the pilot is one of the canary's. Raises ConfigurationError where a pilot
    does not compose.
    """
    records, bundles = [], []
    for submission in submissions:
        for _ in range(submission.count):
            stamp = pilots.new_stamp()
            composed, wait_seconds = _composed(state, stamp, submission, urls, trust)
            record, credentials = pilots.made(composed.profile, composed.digest, now + wait_seconds, stamp)
            limits = composed.profile["limits"]
            sizes = {name: limits[name] for name in ("cores", "memory_mib", "wall_seconds")}
            records.append(record)
            bundles.append(Bundle(stamp, submission.queue, composed.script, json.dumps(credentials), **sizes))
    return records, bundles


def _composed(
    state: State, stamp: str, submission: Submission, urls: Sequence[str], trust: Sequence[str]
) -> tuple[ComposedPilot, float]:
    """The pilot of a stamp, and how long it may wait [s].

    Where the canary's does not compose the current one is sent, and the log says so: what is tried with a small part
    must not stop all.
    """
    vo, resource, queue = submission.vo, submission.resource, submission.queue
    chosen = state.pick(stamp, resource, vo)
    if chosen is not state.current:
        try:
            part = chosen.resource(resource).queues.get(queue)
            if part is not None:
                return compose_pilot(chosen, vo, resource, queue, urls, trust), part.wait_seconds
        except ConfigurationError as error:
            log.error("Resource %s: the canary's pilot is not sent, the current one is: %s", resource, error)
    wait_seconds = state.current.resource(resource).queues[queue].wait_seconds
    return compose_pilot(state.current, vo, resource, queue, urls, trust), wait_seconds
