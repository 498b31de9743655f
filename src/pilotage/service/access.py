"""Who may call which route: this table, and nothing else. A route without an entry is refused to everyone.

========== ======================================================================================================
open       anybody
pilot      a pilot with its token (Ed25519 JWT, minutes)
job        a job's side of a pilot with the job token, while the lease lives
user       a person of a VO: sees the VO's jobs and pilots, submits, kills own jobs
vo_admin   a VO's administrator: also kills all jobs of the VO, orders its pilots, configures the VO's own parts
admin      the operator: everything, in any VO
========== ======================================================================================================
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from pilotage.service.context import Service, service_of
from pilotage.service.errors import ApiError, forbidden, not_found, unauthenticated

if TYPE_CHECKING:
    from pilotage.service.credentials import PilotClaims

Vo = Annotated[str | None, Query(max_length=100, description="the VO to act in; another than your own: admin only")]

OPEN = frozenset({"open"})
PILOT = frozenset({"pilot"})
JOB = frozenset({"job"})
USER = frozenset({"user", "vo_admin", "admin"})
VO_ADMIN = frozenset({"vo_admin", "admin"})
ADMIN = frozenset({"admin"})

ACCESS: dict[str, frozenset[str]] = {
    "register": OPEN,  # the one-time secret in the body is the credential
    "sync": PILOT,
    "upload_pilot_output": PILOT,
    "download_input": JOB,
    "upload_output": JOB,
    "submit_jobs": USER,
    "list_jobs": USER,
    "show_job": USER,
    "kill_jobs": USER,
    "list_job_outputs": USER,
    "download_job_output": USER,
    "check_file": USER,
    "upload_file": USER,
    "missing_files": USER,
    "list_pilots": USER,
    "show_pilot": USER,
    "read_pilot_log": USER,
    "list_pilot_outputs": USER,
    "download_pilot_output": USER,
    "drain_pilot": VO_ADMIN,
    "kill_pilot": VO_ADMIN,
    "summary": USER,
    "list_flavours": USER,
    "list_resources": USER,  # without what is of other VOs, or the operator's
    "make_bundle": ADMIN,
    "running_configuration": USER,
    "list_configurations": USER,
    "show_configuration": USER,
    "validate_configuration": USER,
    "explain_configuration": USER,
    "diff_configurations": USER,
    "show_canary": USER,
    "apply_configuration": VO_ADMIN,  # of a VO: its own parts only, see `revisions`
    "rollback_configuration": VO_ADMIN,
    "promote_canary": VO_ADMIN,
    "withdraw_canary": VO_ADMIN,
    "create_token": ADMIN,
    "list_tokens": ADMIN,
    "revoke_token": ADMIN,
    "seed_manifest": OPEN,  # only of flavours that the configuration publishes; profiles hold no secrets
    "seed_blob": OPEN,
    "health": OPEN,
    "ready": OPEN,
    "metrics": OPEN,
    "openapi": OPEN,
    "swagger_ui_html": OPEN,
    "swagger_ui_redirect": OPEN,
}

WORDS = {
    "open": "anybody",
    "pilot": "a pilot (pilot token)",
    "job": "a running job's pilot (job token)",
    "user": "users",
    "vo_admin": "VO administrators",
    "admin": "administrators",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. ``vo`` is None only for an administrator whose token names none."""

    kind: str
    vo: str | None = None
    owner: str = ""
    roles: frozenset[str] = OPEN
    claims: PilotClaims | None = None
    lease: str = ""
    job: int = 0

    @property
    def who(self) -> str:
        """The caller in events."""
        return f"{self.owner}@{self.vo}" if self.vo else self.owner

    def sees(self, vo: str) -> bool:
        """Whether things of ``vo`` exist for this caller."""
        return "admin" in self.roles or vo == self.vo

    def scope(self, wanted: str | None) -> str | None:
        """The VO that a listing is limited to; None (all) only for an administrator. Raises ApiError 403."""
        if "admin" in self.roles:
            return wanted
        if self.vo is None:
            raise forbidden("Your token is for no VO.")
        if wanted is not None and wanted != self.vo:
            raise forbidden(f"Your token is for the VO {self.vo}, not for {wanted}.")
        return self.vo

    def acts_for(self, wanted: str | None, vos: Collection[str]) -> str:
        """The VO that a change is made in, of those that there are. Raises ApiError 403 or 422."""
        return self.scope(wanted) or self.own(vos)

    def own(self, vos: Collection[str]) -> str:
        """The VO that is meant where none is named: the token's; for an administrator whose token names none that
        there is, the only one. Raises ApiError 422."""
        if self.vo is not None and (self.vo in vos or "admin" not in self.roles):
            return self.vo
        if len(vos) == 1:
            return next(iter(vos))
        there = ", ".join(sorted(vos)) or "none"
        raise ApiError(422, "invalid", f"vo: for which VO? Name one (--vo NAME, ?vo=NAME); there are: {there}")


def may_call(route: str) -> str:
    """In words, for the API's description: who may call ``route``."""
    roles = ACCESS[route]
    return ", ".join(text for role, text in WORDS.items() if role in roles)


bearer = HTTPBearer(auto_error=False, description="A user, pilot or job token; the route's description says which.")


async def authorise(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
) -> None:
    """The one gate of the API: finds out who calls and whether the table lets them. Runs before the body is read."""
    name = getattr(request.scope.get("route"), "name", "")
    allowed = ACCESS.get(name)
    if allowed is None:
        raise ApiError(403, "forbidden", "This route is open to nobody: access.py does not name it.")
    if "open" in allowed:
        request.state.caller = Caller("open")
        return
    token = credentials.credentials if credentials else ""
    if not token:
        raise unauthenticated("token_missing", "This needs a token: send it as 'Authorization: Bearer TOKEN'.")
    caller = await identify(service_of(request), token)
    if not caller.roles & allowed:
        raise forbidden(f"This is for {may_call(name)}; your token is of kind {caller.kind}.")
    request.state.caller = caller


async def identify(service: Service, token: str) -> Caller:
    """Whose token this is. A JWT has two dots, a job token one, a person's none. Raises ApiError 401."""
    if len(token) > 4096 or not token.isascii():
        raise unauthenticated("token_invalid", "This is not a token of this service.")
    dots = token.count(".")
    if not dots:
        return await _person(service, token)
    if dots == 2:
        claims = service.pilot_tokens.verify(token, service.storage.now())
        return Caller("pilot", claims.vo, claims.stamp, PILOT, claims)
    lease = await service.engine.check_job_token(token)
    if lease is None:
        raise unauthenticated("token_invalid", "This token is not known, or the job that it was for is over.")
    return Caller("job", lease["vo"], lease["pilot"], JOB, lease=lease["id"], job=lease["job"])


async def _person(service: Service, token: str) -> Caller:
    from pilotage.storage import tokens

    found = await service.storage.read(tokens.find, tokens.digest(token), service.storage.now())
    if found is None:
        raise unauthenticated("token_invalid", "This token is not known, has expired or was revoked.")
    return Caller(found["kind"], found["vo"], found["owner"], frozenset(found["roles"]))


def caller_of(request: Request) -> Caller:
    """Who sent this request, as `authorise` found."""
    caller: Caller = request.state.caller
    return caller


def hide(what: str, caller: Caller) -> ApiError:
    """404 for a thing that is not there, or that another VO has: the two are not told apart."""
    return not_found(f"There is no {what} in the VO {caller.vo}." if caller.vo else f"There is no {what}.")


GATE = [Depends(authorise)]
