"""The configuration: what counts, its revisions, canaries."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from pilotage.service import bodies
from pilotage.service.access import caller_of
from pilotage.service.bodies import json_answer
from pilotage.service.context import request_id_of, service_of
from pilotage.service.errors import ApiError, not_found
from pilotage.service.models import ApplyRequest, ConfigurationFiles, RollbackRequest, TrialEnd
from pilotage.service.openapi import body, example
from pilotage.service.revisions import brief
from pilotage.service.settings import MIB
from pilotage.storage import configurations, events

router = APIRouter(tags=["configuration"])

MAX_BODY = 32 * MIB
"""Files of 20 MiB with what JSON adds to them."""

Number = Annotated[int, Path(ge=0, lt=2**63, description="0: the embedded defaults")]
Name = Annotated[str | None, Query(max_length=100)]

REVISION = {
    "number": 4,
    "digest": "0a1b2c3d4e5f",
    "parent": 3,
    "author": "vera@physics",
    "vo": "physics",
    "time": 1700000000.0,
    "reason": "more memory",
    "state": "current",
    "canary": None,
}


@router.get("/configuration", summary="Show what counts now")
async def running_configuration(request: Request) -> Response:
    """`number` of the current revision (0: none was applied), its files, `digest` (what its pilots carry), the canary.

    `source` is the file or directory where the service takes it from instead of its database.
    """
    service = service_of(request)
    number, files = await service.revisions.current()
    canary = None if service.live.source else await service.storage.read(configurations.canary)
    found = {
        "number": number,
        "digest": service.live.current.revision,
        "source": service.live.source or None,
        "canary": None if canary is None else brief(canary),
        "files": files,
    }
    return json_answer(found)


@router.get(
    "/configurations", summary="List revisions", responses=example({"configurations": [REVISION], "next": None})
)
async def list_configurations(
    request: Request,
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="the last number of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Revisions without their files, newest first; `next` is the `before` of the next page, null on the last."""
    storage = service_of(request).storage
    found = await storage.read(configurations.listing, before=before, limit=limit)
    return json_answer({"configurations": found, "next": found[-1]["number"] if len(found) == limit else None})


@router.get("/configurations/{number}", summary="Show a revision")
async def show_configuration(request: Request, number: Annotated[int, Path(ge=1, lt=2**63)]) -> Response:
    """A revision with its files and events: who changed what, when, why, by which request."""
    service = service_of(request)
    row = await service.revisions.get(number)
    return json_answer({**row, "events": await service.storage.read(events.of, "configuration", str(number))})


@router.get("/configurations/{number}/diff/{other}", summary="Compare two revisions")
async def diff_configurations(
    request: Request,
    number: Number,
    other: Number,
    pilots: Annotated[bool, Query(description="also which resources get another pilot, and what differs")] = False,
) -> Response:
    """`files`: {name, change, diff} of each that differs. With `pilots` also those: {resource, queue, vo, ...}."""
    from pilotage.configuration.revisions import changes, differing

    revisions = service_of(request).revisions
    old, new = await revisions.files(number), await revisions.files(other)
    found = await revisions.look(lambda: list(changes(old, new)))
    files = [{"name": name, "change": what, "diff": diff} for name, what, diff in found]
    answer: dict[str, Any] = {"old": number, "new": other, "files": files}
    if pilots:
        before, after = await revisions.load(number), await revisions.load(other)
        answer["pilots"] = await revisions.look(lambda: differing(before, after))
    return json_answer(answer)


@router.post(
    "/configuration/validate",
    summary="Check files",
    openapi_extra=body("ConfigurationFiles"),
    responses=example({"valid": False, "digest": None, "problems": ["site.yaml:3:5: unknown key 'slot'"]}),
)
async def validate_configuration(request: Request) -> Response:
    """Whether you could apply these files (but for the base), and all that is wrong with them. Changes nothing."""
    service = service_of(request)
    wanted = await _body(request, ConfigurationFiles)
    try:
        configuration = await service.revisions.validate(caller_of(request), wanted.files)
    except ApiError as error:
        if error.status != 422 or error.more is None:
            raise
        return json_answer({"valid": False, "digest": None, **error.more})
    return json_answer({"valid": True, "digest": configuration.revision, "problems": []})


@router.get("/configuration/explain", summary="Explain a pilot")
async def explain_configuration(
    request: Request,
    vo: Name = None,
    resource: Name = None,
    queue: Name = None,
    flavour: Name = None,
    number: Annotated[int | None, Query(ge=0, lt=2**63, description="of this revision; null: what counts now")] = None,
) -> Response:
    """Every value and command of a pilot's profile, with the layer, file and line that set it."""
    from pilotage.configuration.revisions import explained

    service, caller = service_of(request), caller_of(request)
    configuration = service.live.current if number is None else await service.revisions.load(number)
    chosen = vo or caller.own(configuration.vos)
    found = await service.revisions.look(lambda: explained(configuration, chosen, resource, queue, flavour))
    return json_answer({"vo": chosen, "explained": found})


@router.post(
    "/configurations",
    status_code=201,
    summary="Apply a configuration",
    openapi_extra=body("ApplyRequest"),
    responses=example(REVISION, 201),
)
async def apply_configuration(request: Request) -> Response:
    """Makes the files a new revision: current at once, or tried by a share of the new pilots (`canary`).

    All or nothing: what does not validate, or whose pilots do not compose for a resource, is refused (422 with
    `problems`), and so is what was made from another `base` than the current revision (409). An administrator's files
    are the whole configuration; a VO administrator's replace those below `vos/VO/`.
    """
    service = service_of(request)
    service.require_capacity()
    wanted = await _body(request, ApplyRequest)
    return json_answer(await service.revisions.apply(caller_of(request), wanted, request_id_of(request)), 201)


@router.post(
    "/configuration/rollback",
    status_code=201,
    summary="Go back to a revision",
    openapi_extra=body("RollbackRequest"),
    responses=example(REVISION, 201),
)
async def rollback_configuration(request: Request) -> Response:
    """Makes the files of an earlier revision current again, as a new one; of a VO administrator the VO's files."""
    service = service_of(request)
    service.require_capacity()
    wanted = bodies.parse(RollbackRequest, await bodies.read(request, 65536))
    return json_answer(await service.revisions.roll_back(caller_of(request), wanted, request_id_of(request)), 201)


@router.get("/configuration/canary", summary="Compare the canary with the current revision")
async def show_canary(
    request: Request,
    number: Annotated[int | None, Query(ge=1, lt=2**63, description="an earlier canary; null: the present one")] = None,
) -> Response:
    """What became of the pilots of both since it began: by state, and as good, failed and still waiting ones.

    `likelihood`: how likely such a difference, or a larger one, is by chance (Fisher's exact test, one-sided).
    """
    from pilotage.wms.canary import likelihood

    service = service_of(request)
    if number is None:
        row = await service.storage.read(configurations.canary)
    else:
        row = await service.revisions.get(number)
    if row is None or row["canary"] is None:
        raise not_found(
            "No revision is tried as a canary now." if number is None else f"Revision {number} was never a canary."
        )
    found = await service.storage.read(configurations.outcomes, row)
    tallies = {side: configurations.tallied(states) for side, states in found.items()}
    sides = {
        side: {
            "states": states,
            "good": tallies[side].good,
            "failed": tallies[side].failed,
            "waiting": configurations.waiting(states),
            "failure_rate": tallies[side].rate,
        }
        for side, states in found.items()
    }
    chance = likelihood(tallies["canary"], tallies["current"])
    return json_answer({"revision": brief(row), "base": row["parent"], **sides, "likelihood": chance})


@router.post("/configuration/canary/promote", summary="Promote the canary", openapi_extra=body("TrialEnd"))
async def promote_canary(request: Request) -> Response:
    """Makes the canary the current revision."""
    service = service_of(request)
    wanted = bodies.parse(TrialEnd, await bodies.read(request, 65536))
    return json_answer(await service.revisions.promote(caller_of(request), wanted, request_id_of(request)))


@router.post("/configuration/canary/withdraw", summary="Withdraw the canary", openapi_extra=body("TrialEnd"))
async def withdraw_canary(request: Request) -> Response:
    """No more pilots get the canary; those that have it go on."""
    service = service_of(request)
    wanted = bodies.parse(TrialEnd, await bodies.read(request, 65536))
    return json_answer(await service.revisions.withdraw(caller_of(request), wanted, request_id_of(request)))


async def _body(request: Request, model: Any) -> Any:
    return await bodies.checked(
        lambda data: bodies.parse(model, data), await bodies.read(request, MAX_BODY, "The configuration")
    )
