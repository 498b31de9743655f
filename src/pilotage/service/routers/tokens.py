"""Tokens of people and programs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from pilotage.service import bodies
from pilotage.service.access import caller_of
from pilotage.service.bodies import json_answer
from pilotage.service.context import service_of
from pilotage.service.errors import ApiError, not_found
from pilotage.service.models import TokenRequest
from pilotage.service.openapi import body, example
from pilotage.storage import tokens

router = APIRouter(tags=["tokens"])


@router.post(
    "/tokens",
    status_code=201,
    summary="Make a token",
    openapi_extra=body("TokenRequest"),
    responses=example({"id": 3, "token": "...", "vo": "demo", "owner": "anna", "roles": ["user"], "expires": 1}, 201),
)
async def create_token(request: Request) -> Response:
    """Makes a token for a person or a program; `token` is shown this once and kept as a digest only."""
    storage = service_of(request).storage
    wanted = bodies.parse(TokenRequest, await bodies.read(request, 65536))
    if wanted.vo not in service_of(request).configuration.vos:
        raise ApiError(422, "invalid", f"vo: there is no VO {wanted.vo!r} here.")
    now = storage.now()
    expires = now + wanted.seconds
    roles: list[str] = sorted(set(wanted.roles))
    kind = "admin" if "admin" in roles else "user"
    identity, token = await storage.write(
        tokens.create,
        kind,
        now,
        vo=wanted.vo,
        owner=wanted.owner,
        roles=roles,
        expires=expires,
        who=caller_of(request).who,
    )
    made = {"id": identity, "token": token, "vo": wanted.vo, "owner": wanted.owner, "roles": roles, "expires": expires}
    return json_answer(made, 201)


@router.get("/tokens", summary="List tokens")
async def list_tokens(request: Request) -> Response:
    """All tokens ever made that are still kept, without their secrets."""
    return json_answer({"tokens": await service_of(request).storage.read(tokens.listing)})


@router.delete("/tokens/{id}", status_code=204, summary="Revoke a token")
async def revoke_token(request: Request, id: Annotated[int, Path(ge=1, lt=2**63)]) -> Response:
    """Ends a token at once."""
    storage = service_of(request).storage
    if not await storage.write(tokens.revoke, id, storage.now(), who=caller_of(request).who):
        raise not_found(f"There is no live token {id}.")
    return Response(status_code=204)
