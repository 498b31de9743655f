"""Between the configuration, the records and the planner's plain data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pilotage.configuration import Configuration, ConfigurationError, compose_pilot, resolve
from pilotage.directors.backoff import Rest, rest
from pilotage.directors.plan import Demand, Key, Pilot, Submission, Supply
from pilotage.resources.base import Bundle
from pilotage.storage import pilots
from pilotage_node.facts import reserve

Row = Mapping[str, Any]

START_SECONDS = 120.0
"""From a pilot's registration to its first jobs, at most; later it is idle."""


def supply_of(configuration: Configuration, nodes: Mapping[str, Mapping[str, Any]]) -> list[Supply]:
    """What each queue gives to each VO: what resources know of their nodes, under the profiles' limits."""
    found = []
    for site, name, resource in configuration.resources():
        for queue, part in resource.queues.items():
            for vo in configuration.vos_of(resource):
                try:
                    profile = resolve(configuration, vo, name, queue)
                except ConfigurationError:
                    continue  # `check` tells; nothing is sent there
                node = {**nodes.get(name, {})}
                limits = profile["limits"]
                for key, limit in limits.items():
                    if limit is not None:
                        node[key] = min(limit, node[key]) if node.get(key) is not None else limit
                wall = limits["wall_seconds"]
                found.append(
                    Supply(
                        site,
                        name,
                        queue,
                        vo,
                        cores=node.get("cores") or 1,
                        memory_mib=node.get("memory_mib"),
                        disk_mib=node.get("disk_mib"),
                        gpus=node.get("gpus"),
                        seconds=wall - reserve(wall) if wall else None,
                        tags=frozenset(profile["tags"]),
                        platform=profile["platform"] or node.get("platform"),
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
    configuration: Configuration,
    submissions: Iterable[Submission],
    urls: Sequence[str],
    trust: Sequence[str],
    now: float,
) -> tuple[list[dict[str, Any]], list[Bundle]]:
    """The records (storage.pilots.plan) and bundles of new pilots: each with its own stamp and one-time secret.

    Raises ConfigurationError where a pilot does not compose.
    """
    records, bundles = [], []
    for submission in submissions:
        queue = configuration.resource(submission.resource).queues[submission.queue]
        composed = compose_pilot(configuration, submission.vo, submission.resource, submission.queue, urls, trust)
        limits = composed.profile["limits"]
        sizes = {name: limits[name] for name in ("cores", "memory_mib", "wall_seconds")}
        for _ in range(submission.count):
            record, credentials = pilots.made(composed.profile, composed.digest, now + queue.wait_seconds)
            records.append(record)
            bundles.append(Bundle(record["stamp"], submission.queue, composed.script, json.dumps(credentials), **sizes))
    return records, bundles
