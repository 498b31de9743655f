"""A whole service for the tests of service/: real storage on SQLite, real engine, real application, no socket."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from storage_parts import recent

from pilotage.configuration.live import Live
from pilotage.configuration.loader import loads
from pilotage.engines.builtin import BuiltinEngine
from pilotage.service import credentials
from pilotage.service.app import create_app
from pilotage.service.settings import Settings
from pilotage.storage import Storage, jobs, pilots, tokens
from pilotage.storage.objects import Objects

CONFIGURATION = """
vos: {demo: {}, other: {}}
sites:
  HOME:
    resources:
      box: {type: local, flavour: LOCAL, queues: {default: {}}}
"""
NODE = {"hostname": "node", "python": "3.6.15", "cores": 2, "memory_mib": 4000, "disk_mib": 9000, "gpus": 0}
WANT = {
    "cores": 2,
    "memory_mib": 4000,
    "disk_mib": 9000,
    "gpus": 0,
    "seconds_left": None,
    "ahead": 0,
    "total": {"cores": 2, "memory_mib": 4000, "disk_mib": 9000, "gpus": 0},
    "tags": [],
    "platform": "x86_64-any",
    "isolation": ["bwrap"],
}


def sha(data: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(data).hexdigest()


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


class House:
    """The parts, a client without a token, and short ways to what tests need."""

    def __init__(self, storage: Storage, settings: Settings, clock: Clock, keys: credentials.Keys) -> None:
        self.storage = storage
        self.clock = clock
        self.engine = BuiltinEngine(storage, keys.engine)
        self.woken = 0
        self.live = Live(loads(CONFIGURATION))
        self.described: list[dict[str, Any]] = []
        self.app = create_app(storage, self.engine, self.live, keys, settings, self._wake, lambda: self.described)
        # Nothing of the environment's proxies, and a failure of the application is an answer, as it is over a socket.
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://service", trust_env=False)

    def _wake(self) -> None:
        self.woken += 1

    async def token(self, owner: str = "anna", vo: str | None = "demo", roles: tuple[str, ...] = ("user",)) -> str:
        """A user's token, good for an hour."""
        kind = "admin" if "admin" in roles else "user"
        expires = self.storage.now() + 3600
        _, token = await self.storage.write(
            tokens.create, kind, self.storage.now(), vo=vo, owner=owner, roles=list(roles), expires=expires
        )
        return token

    async def person(self, owner: str = "anna", vo: str | None = "demo", roles: tuple[str, ...] = ("user",)) -> Person:
        """A client that speaks as a person."""
        return Person(self.client, await self.token(owner, vo, roles))

    async def pilot(self, stamp: str = "aa" * 16, vo: str = "demo", *, resource: str = "box") -> Pilot:
        """A pilot that was planned, and not yet registered."""
        record = {
            "stamp": stamp,
            "secret_hash": tokens.digest(f"secret-of-{stamp}"),
            "secret_expires": self.storage.now() + 3600,
            "vo": vo,
            "site": "HOME",
            "resource": resource,
            "queue": "default",
            "flavour": "LOCAL",
        }
        await self.storage.write(pilots.plan, [record], self.storage.now())
        return Pilot(self, stamp)

    async def everything(self) -> dict[str, Any]:
        """What the database holds of jobs, pilots and tokens: equal before and after a request that was refused."""
        return {
            "jobs": await self.storage.read(jobs.search, limit=1000),
            "pilots": await self.storage.read(pilots.search, limit=1000),
            "tokens": await self.storage.read(tokens.listing),
            "events": await self.storage.read(recent, limit=10_000),
        }


class Person:
    """Requests with a token."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self.client = client
        self.token = token

    async def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **more)

    async def submit(self, *specs: dict[str, Any]) -> list[int]:
        """Submits jobs that are right; `true` by default."""
        answer = await self("POST", "/jobs", json=list(specs or ({"command": ["true"]},)))
        assert answer.status_code == 201, answer.text
        return answer.json()["ids"]

    async def upload(self, data: bytes) -> str:
        """Uploads a file; its digest."""
        answer = await self("PUT", f"/files/{sha(data)}", content=data)
        assert answer.status_code == 201, answer.text
        return sha(data)


class Pilot:
    """A pilot that speaks the protocol by hand."""

    def __init__(self, house: House, stamp: str) -> None:
        self.house = house
        self.stamp = stamp
        self.token = ""
        self.sequence = 0
        self.held: list[str] = []

    async def post(self, path: str, body: Any, token: str | None = None, **headers: str) -> httpx.Response:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return await self.house.client.post(path, json=body, headers=headers)

    def registration(self, **changes: Any) -> dict[str, Any]:
        """The body of a registration."""
        return {
            "protocol": 1,
            "stamp": self.stamp,
            "secret": f"secret-of-{self.stamp}",
            "nonce": "nonce-1",
            "digest": "ab" * 32,
            "node": NODE,
            "log": "",
            "profile": {"vo": "demo"},
            **changes,
        }

    async def register(self, **changes: Any) -> dict[str, Any]:
        """Registers; the answer."""
        answer = await self.post("/pilot/register", self.registration(**changes))
        assert answer.status_code == 200, answer.text
        self.token = answer.json()["token"]
        return answer.json()

    def message(self, **changes: Any) -> dict[str, Any]:
        """The body of the next sync."""
        self.sequence += 1
        base = {"protocol": 1, "sequence": self.sequence, "held": self.held, "reports": [], "want": None, "log": None}
        return {**base, "beat": {"phase": "RunJobAgent", "usage": {}}, **changes}

    async def sync(self, **changes: Any) -> dict[str, Any]:
        """Synchronises; the answer."""
        answer = await self.post("/pilot/sync", self.message(**changes), self.token)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def take(self, **want: Any) -> list[dict[str, Any]]:
        """Asks for jobs and holds them; the grants."""
        granted = (await self.sync(want={**WANT, **want}))["granted"]
        self.held += [grant["lease"] for grant in granted]
        return granted


@asynccontextmanager
async def house(directory: Path, **settings: Any) -> AsyncIterator[House]:
    """A started house in ``directory``."""
    clock = Clock()
    storage = Storage(f"sqlite:///{directory}/pilotage.db", Objects(str(directory / "objects")), clock=clock)
    await storage.start()
    found = House(storage, Settings(**settings), clock, credentials.load(directory / "keys.json"))
    await found.engine.start()
    try:
        yield found
    finally:
        await found.client.aclose()
        await storage.close()
