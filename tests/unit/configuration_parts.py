"""For the tests of revisions over HTTP: a service with an administrator, one of a VO, and a person."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from service_parts import House, Person, house

SITE = """\
vos: {demo: {}, other: {}}
sites:
  HOME:
    resources:
      box: {type: local, flavour: LOCAL, queues: {default: {}}}
"""
OWN = "vos:\n  demo:\n    pilot: {options: {RunJobAgent: {idle_seconds: 5}}}\n"


class Setting:
    """A house with an administrator, and two of VOs."""

    def __init__(self, at: House, root: Person, vera: Person, anna: Person) -> None:
        self.at, self.root, self.vera, self.anna = at, root, vera, anna

    async def apply(self, who: Person, files: dict[str, str], base: int = 0, **more: Any) -> httpx.Response:
        body = {"files": files, "base": base, "reason": "because", **more}
        return await who("POST", "/configurations", json=body)

    async def applied(self, who: Person, files: dict[str, str], base: int = 0, **more: Any) -> dict[str, Any]:
        answer = await self.apply(who, files, base, **more)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def running(self) -> dict[str, Any]:
        return dict((await self.anna("GET", "/configuration")).json())


@asynccontextmanager
async def setting(directory: Path) -> AsyncIterator[Setting]:
    async with house(directory) as at:
        root = await at.person("root", None, ("admin",))
        vera = await at.person("vera", "demo", ("vo_admin",))
        yield Setting(at, root, vera, await at.person("anna", "demo"))


async def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return str(answer.json()["error"])
