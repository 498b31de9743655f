"""Jobs, as users and programs see them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field, TypeAdapter, ValidationError
from starlette.responses import Response

from pilotage.service import bodies
from pilotage.service.access import Caller, Vo, caller_of, hide
from pilotage.service.bodies import json_answer
from pilotage.service.context import Service, request_id_of, service_of
from pilotage.service.errors import ApiError, check_states, forbidden, from_validation
from pilotage.service.files import download_headers, safe_path, send
from pilotage.service.models import MAX_JOBS, JobSpec, KillRequest
from pilotage.service.openapi import BYTES, body, example
from pilotage.service.settings import MIB
from pilotage.storage import events, files, jobs
from pilotage.storage.objects import file_key
from pilotage.wms.jobs import STATES

router = APIRouter(tags=["jobs"])

MANY: TypeAdapter[list[JobSpec]] = TypeAdapter(list[JobSpec])

JobId = Annotated[int, Path(ge=1, lt=2**63)]
Number = Annotated[int, Field(ge=1, lt=2**63)]


@router.post("/jobs", status_code=201, summary="Submit jobs", openapi_extra=body("JobSpec", "JobSpec[]"))
async def submit_jobs(
    request: Request,
    vo: Vo = None,
    check: Annotated[bool, Query(description="only check them, before their inputs are uploaded: no ids")] = False,
) -> Response:
    """Takes one job description, or a list of at most 10,000, and answers `{"ids": [...]}` in their order.

    All are taken or none. Input files are uploaded before (`PUT /files/{sha256}`): 409 `input_missing` names those that
    are not there. The same `Pilotage-Request` again answers the same ids.
    """
    service, caller = service_of(request), caller_of(request)
    target = caller.acts_for(vo, service.configuration.vos)
    if target not in service.configuration.vos:
        raise ApiError(422, "invalid", f"vo: there is no VO {target!r} here; nothing would ever run its jobs.")
    service.require_capacity()
    settings = service.settings
    one, many = "The job description", "The request"
    data = await bodies.read_by_kind(request, settings.max_job_bytes, settings.max_bulk_mib * MIB, one, many)
    specs = await bodies.checked(_checked, data, settings.max_job_bytes)
    if check:
        return json_answer({"ids": []})
    await _require_inputs(service, target, specs)
    ids = await service.engine.submit(target, caller.owner, specs, request_id_of(request))
    service.on_demand()
    return json_answer({"ids": ids}, 201)


def _checked(data: bytes, limit: int) -> list[dict[str, Any]]:
    text = bodies.text_of(data)
    try:
        if not text.lstrip().startswith("["):
            return [JobSpec.model_validate_json(text).model_dump()]
        found = MANY.validate_json(text)
    except ValidationError as error:
        raise from_validation(error) from None
    if not 1 <= len(found) <= MAX_JOBS:
        raise ApiError(422, "invalid", f"A request has 1 to {MAX_JOBS} jobs, not {len(found)}.")
    if len(data) > limit:
        for index, spec in enumerate(found):
            if len(spec.model_dump_json()) > limit:
                raise bodies.too_large(f"The job description [{index}]", limit)
    return [spec.model_dump() for spec in found]


async def _require_inputs(service: Service, vo: str, specs: list[dict[str, Any]]) -> None:
    """Raises ApiError 409 naming what was not uploaded, or has another size; notes that the rest is in use."""
    wanted = {item["sha256"]: item for spec in specs for item in spec["inputs"]}
    if not wanted:
        return
    stored = await service.storage.read(files.sizes, vo, wanted)
    lacking = [item for digest, item in wanted.items() if digest not in stored]
    if lacking:
        names = ", ".join(f"{item['name']} (sha256 {item['sha256']})" for item in lacking[:3])
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise ApiError(409, "input_missing", f"Upload the input files first; not there: {names}{more}.")
    for item in (item for spec in specs for item in spec["inputs"]):
        if stored[item["sha256"]] != item["size"]:
            text = f"{item['name']}: the file with this digest has {stored[item['sha256']]} bytes, not {item['size']}."
            raise ApiError(422, "invalid", f"inputs: {text}")
    await service.storage.write(files.touch, vo, list(wanted), service.storage.now())


@router.get("/jobs", summary="List jobs", responses=example({"jobs": [{"id": 7, "state": "Running"}], "next": None}))
async def list_jobs(
    request: Request,
    vo: Vo = None,
    state: Annotated[list[str] | None, Query(description=f"of {', '.join(STATES)}; may be repeated")] = None,
    owner: str | None = None,
    id: Annotated[list[Number] | None, Query(description="only these; may be repeated")] = None,
    batch: Annotated[str | None, Query(description="the request id that they were submitted with")] = None,
    after: Annotated[Number | None, Query(description="the last id of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Jobs of your VO, newest first; `next` is the `after` of the next page, null on the last."""
    service, scope = service_of(request), caller_of(request).scope(vo)
    check_states(state, STATES)
    found = await service.storage.read(
        jobs.search, vo=scope, owner=owner, states=state, ids=id, batch=batch, after=after, limit=limit
    )
    return json_answer({"jobs": found, "next": found[-1]["id"] if len(found) == limit else None})


@router.get("/jobs/{id}", summary="Show a job")
async def show_job(request: Request, id: JobId) -> Response:
    """Everything about one job: description, state, times, usage, events, begin and end of stdout and stderr."""
    service = service_of(request)
    job = await _visible(service, caller_of(request), id)
    job["events"] = await service.storage.read(events.of, "job", str(id))
    return json_answer(job)


async def _visible(service: Service, caller: Caller, id: int) -> dict[str, Any]:
    job: dict[str, Any] | None = await service.storage.read(jobs.get, id)
    if job is None or not caller.sees(job["vo"]):
        raise hide(f"job {id}", caller)
    return job


@router.post(
    "/jobs/kill",
    summary="Kill jobs",
    openapi_extra=body("KillRequest"),
    responses=example({"killed": [7], "ordered": [8], "ended": [], "unknown": []}),
)
async def kill_jobs(request: Request) -> Response:
    """Waiting jobs are `killed` at once; for those at a pilot it is `ordered`; others `ended` before, or are `unknown`.

    A user kills own jobs, a VO administrator any of the VO. One job that is not yours refuses the whole request.
    """
    service, caller = service_of(request), caller_of(request)
    service.require_capacity()
    wanted = bodies.parse(KillRequest, await bodies.read(request, 4 * MIB))
    ids = list(dict.fromkeys(wanted.ids))
    visible: list[int] = []
    whole_vo = bool(caller.roles & {"vo_admin", "admin"})
    for start in range(0, len(ids), 1000):
        part = ids[start : start + 1000]
        for job in await service.storage.read(jobs.search, vo=caller.scope(None), ids=part, limit=len(part)):
            if not whole_vo and job["owner"] != caller.owner:
                raise forbidden(f"The job {job['id']} belongs to {job['owner']}; you may kill your own jobs only.")
            visible.append(job["id"])
    found = await service.engine.kill(sorted(visible), caller.who, wanted.reason, request_id_of(request))
    unknown = sorted((set(ids) - set(visible)) | set(found.get("unknown", ())))
    return json_answer({**found, "unknown": unknown})


@router.get(
    "/jobs/{id}/output",
    summary="List what a job left",
    responses=example({"outputs": [{"name": "stdout", "sha256": None, "size": 6}]}),
)
async def list_job_outputs(request: Request, id: JobId) -> Response:
    """Output files, and `stdout` and `stderr`; the `sha256` of what is kept with the job itself is null."""
    job = await _visible(service_of(request), caller_of(request), id)
    return json_answer({"outputs": list(_outputs(job).values())})


def _outputs(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {item["name"]: item for item in job["outputs"] or ()}
    for name in ("stdout", "stderr"):
        if name not in found and job[name] is not None:
            found[name] = {"name": name, "sha256": None, "size": len(job[name].encode("utf-8", "replace"))}
    return found


@router.get("/jobs/{id}/output/{name:path}", summary="Fetch what a job left", response_class=Response, responses=BYTES)
async def download_job_output(request: Request, id: JobId, name: str) -> Response:
    """One output file, or `stdout` or `stderr`, as bytes."""
    service, caller = service_of(request), caller_of(request)
    job = await _visible(service, caller, id)
    output = _outputs(job).get(safe_path(name))
    if output is None:
        raise hide(f"output {name!r} of job {id}", caller)
    if output["sha256"] is None:
        content = job[name].encode("utf-8", "replace")
        return Response(content, headers=download_headers(name, len(content)))
    return await send(service.storage.objects, file_key(job["vo"], output["sha256"]), name)
