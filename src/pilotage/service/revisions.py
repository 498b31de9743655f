"""What becomes of a change of the configuration: who may make it, is it right, then recorded, then in force.

Checking one takes seconds for a large installation, so it is done in a thread, one at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pilotage import resources
from pilotage.configuration import Configuration, ConfigurationError, check
from pilotage.configuration.live import Live
from pilotage.configuration.loader import says_nothing
from pilotage.configuration.revisions import bounded, loaded, own_of, with_own
from pilotage.service.access import Caller
from pilotage.service.errors import ApiError, forbidden, not_found, wrong_configuration
from pilotage.service.models import ApplyRequest, RollbackRequest, Trial, TrialEnd
from pilotage.storage import Storage, configurations

Row = dict[str, Any]
T = TypeVar("T")


def checked(files: Mapping[str, str], below: Configuration | None = None) -> Configuration:
    """The configuration of these files, whose pilots compose for every resource. Raises ConfigurationError."""
    configuration = loaded(files, below)
    resources.check(configuration)
    check(configuration)
    return configuration


class Revisions:
    """Changes of one service's configuration."""

    def __init__(self, storage: Storage, live: Live, below: Configuration | None = None) -> None:
        """
        :param live: where a change takes effect
        :param below: what the service was told at its start, under every revision
        """
        self._storage = storage
        self._live = live
        self._below = below
        self._changing = asyncio.Lock()
        self._looking = asyncio.Lock()  # another one: whoever looks must not keep a change waiting for long

    async def current(self) -> tuple[int, dict[str, str]]:
        """Number (0: none) and files of what counts now."""
        if self._live.source:
            return 0, self._live.current.files
        row = await self._storage.read(configurations.current)
        return (0, {}) if row is None else (row["number"], row["files"])

    async def files(self, number: int) -> dict[str, str]:
        """The files of a revision; of 0, the embedded defaults, there are none. Raises ApiError 404."""
        return {} if number == 0 else dict((await self.get(number))["files"])

    async def get(self, number: int) -> Row:
        """A revision, see `storage.configurations.get`. Raises ApiError 404."""
        row = await self._storage.read(configurations.get, number)
        if row is None:
            raise not_found(f"There is no revision {number} of the configuration.")
        return row

    async def look(self, what: Callable[[], T]) -> T:
        """`what()` in a thread, one at a time. Raises ApiError 422 where the configuration is wrong."""
        async with self._looking:
            return await _aside(what)

    async def load(self, number: int) -> Configuration:
        """The configuration of a revision, under what was told at the start. Raises ApiError."""
        if number == self._live.number and not self._live.source:
            return self._live.current
        files = await self.files(number)
        try:
            return await self.look(lambda: loaded(files, self._below))
        except ApiError as error:  # it was right when it was applied: whose file this is must be clear
            text = f"Revision {number} cannot be used any more: {error.text}"
            raise ApiError(error.status, error.code, text, more=error.more) from None

    async def validate(self, caller: Caller, given: Mapping[str, str]) -> Configuration:
        """Whether the caller could apply these files, but for the base. Raises ApiError 422 with all that is wrong."""
        _, files = await self.current()
        vo = None if "admin" in caller.roles else _vo(caller)
        return await self.look(lambda: self._checked(files, given, vo)[1])

    async def apply(self, caller: Caller, wanted: ApplyRequest, request_id: str) -> Row:
        """Makes the files the current revision, or tries them as a canary. All of it or nothing.

        Raises ApiError: not the caller's to change, wrong, nothing new; storage's Conflict: made from another base.
        """
        self._from_database()
        vo = None if "admin" in caller.roles else _vo(caller)
        async with self._changing:
            await self._storage.read(configurations.expect, wanted.base)  # before the work; the write asks again
            number, files = await self.current()
            new, configuration = await _aside(lambda: self._checked(files, wanted.files, vo))
            if new == files:
                raise _unchanged(number)
            return await self._record(caller, new, configuration, wanted.base, wanted.reason, request_id, wanted.canary)

    async def roll_back(self, caller: Caller, wanted: RollbackRequest, request_id: str) -> Row:
        """Makes the files of an earlier revision current again, as a new revision; a VO's administrator its own ones.

        Raises as `apply` does: what was right once may compose no more.
        """
        self._from_database()
        async with self._changing:
            number, files = await self.current()
            base = number if wanted.base is None else wanted.base
            await self._storage.read(configurations.expect, base)
            new = await self.files(wanted.number)
            if "admin" not in caller.roles:
                new = own_of(new, files, _vo(caller))
            if new == files:
                raise _unchanged(number)
            configuration = await _aside(lambda: checked(new, self._below))
            what = f"rolled back to {wanted.number}"
            return await self._record(caller, new, configuration, base, wanted.reason, request_id, what=what)

    async def promote(self, caller: Caller, wanted: TrialEnd, request_id: str) -> Row:
        """The canary becomes the current revision."""
        self._from_database()
        async with self._changing:
            number = await self._own_canary(caller, wanted.number)
            trial = self._live.canary
            if trial is not None and trial.number == number:
                configuration = trial.configuration
            else:
                files = await self.files(number)
                configuration = await _aside(lambda: loaded(files, self._below))
            row = await self._end(configurations.promote, number, caller, wanted.reason, request_id)
            self._live.replace(configuration, number)
            self._live.clear_canary()
            return brief(row)

    async def withdraw(self, caller: Caller, wanted: TrialEnd, request_id: str) -> Row:
        """The canary gets no more pilots."""
        self._from_database()
        async with self._changing:
            number = await self._own_canary(caller, wanted.number)
            row = await self._end(configurations.retire, number, caller, wanted.reason, request_id)
            self._live.clear_canary()
            return brief(row)

    async def _end(self, how: Callable[..., Row], number: int, caller: Caller, why: str, request_id: str) -> Row:
        now = self._storage.now()
        return await self._storage.write(how, number, now, who=caller.who, why=why, request_id=request_id)

    def _from_database(self) -> None:
        if self._live.source:
            text = f"takes its configuration from {self._live.source} (pilotage up --config): change it there"
            raise ApiError(409, "configured_by_file", f"This service {text}.")

    def _checked(
        self, current: Mapping[str, str], given: Mapping[str, str], vo: str | None
    ) -> tuple[dict[str, str], Configuration]:
        """All files as they would be, and their configuration. ``vo``: whose own parts alone may change."""
        bounded(given)
        new = dict(given) if vo is None else with_own(current, given, vo)
        configuration = checked(new, self._below)
        if vo is None and (not given or says_nothing(configuration)):
            text = "the files say nothing; what is embedded counts again with `pilotage config rollback 0`"
            raise ConfigurationError(text)
        return new, configuration

    async def _record(
        self,
        caller: Caller,
        files: Mapping[str, str],
        configuration: Configuration,
        base: int,
        why: str,
        request_id: str,
        canary: Trial | None = None,
        what: str = "applied",
    ) -> Row:
        vo = None if "admin" in caller.roles else _vo(caller)
        trial = None if canary is None else _scope(canary, configuration, self._live.current, vo)
        number = await self._storage.write(
            configurations.apply,
            files,
            configuration.revision,
            base,
            self._storage.now(),
            who=caller.who,
            why=why,
            vo=vo,
            canary=trial,
            what=what,
            request_id=request_id,
        )
        if trial is None:
            self._live.replace(configuration, number)
        else:
            self._live.set_canary(configuration, trial["share"], trial["resource"], trial["vo"], number)
        return brief(await self.get(number))

    async def _own_canary(self, caller: Caller, number: int | None) -> int:
        """The number of the canary, which the caller may end. Raises ApiError 403, 404, 409."""
        row = await self._storage.read(configurations.canary)
        if row is None:
            raise not_found("No revision is tried as a canary now.")
        if number is not None and number != row["number"]:
            raise ApiError(409, "conflict", f"The canary is revision {row['number']}, not {number}.")
        if "admin" not in caller.roles and row["vo"] != _vo(caller):
            whose = f"the VO {row['vo']}" if row["vo"] else "the operator"
            raise forbidden(f"The canary, revision {row['number']}, is of {whose}: it is not yours to end.")
        return int(row["number"])


def _scope(canary: Trial, configuration: Configuration, current: Configuration, vo: str | None) -> Row:
    """Whose pilots try a canary, checked; a VO's administrator tries it with pilots of the VO. Raises ApiError."""
    if canary.resource is not None and configuration.site_of(canary.resource) is None:
        raise ApiError(422, "invalid", f"canary.resource: this configuration has no resource {canary.resource!r}.")
    if canary.vo is not None and canary.vo not in configuration.vos:
        raise ApiError(422, "invalid", f"canary.vo: this configuration has no VO {canary.vo!r}.")
    if vo is not None and canary.vo not in (None, vo):
        raise forbidden(f"You may try a canary with pilots of the VO {vo}, not of {canary.vo}.")
    if configuration.revision == current.revision:
        raise ApiError(409, "unchanged", "Its pilots would be those of the current configuration: nothing to try.")
    return {"share": canary.share, "resource": canary.resource, "vo": canary.vo or vo}


def _vo(caller: Caller) -> str:
    if caller.vo is None:
        raise forbidden("Your token is for no VO.")
    return caller.vo


def _unchanged(number: int) -> ApiError:
    what = f"revision {number}, which is current" if number else "the embedded defaults, which count now"
    return ApiError(409, "unchanged", f"These files are those of {what}: there is nothing to change.")


def brief(row: Mapping[str, Any]) -> Row:
    """A revision without its files."""
    return {key: value for key, value in row.items() if key != "files"}


async def _aside(what: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(what)
    except ConfigurationError as error:
        raise wrong_configuration(error) from None
