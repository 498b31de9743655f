"""The API's description, made when somebody asks for it: bodies that routes read by hand, who may call, errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from pilotage.service.access import ACCESS, OPEN, may_call

DESCRIPTION = """
Pilotage takes jobs and sends pilots that run them.

Every error is `{"error": one sentence, "code": word}`. A request may carry its own id in the header `Pilotage-Request`
(1 to 64 of `A-Z a-z 0-9 . _ : -`); the answer carries it, and events and logs name it. Sending `POST /jobs` again with
the same id gives the same job ids and makes no second jobs.

People and programs send `Authorization: Bearer TOKEN` (see *tokens*); they see what belongs to their VO.
503 with `Retry-After` means: come again later, nothing was changed.
"""

TAGS = [
    {"name": "jobs", "description": "Submit jobs, see what became of them, kill them, fetch what they left."},
    {"name": "files", "description": "Input files, content-addressed within a VO: uploaded once, used by any job."},
    {"name": "pilots", "description": "What pilots do and did; orders to them."},
    {"name": "configuration", "description": "Revisions: what they say, who changed it and why; canaries."},
    {"name": "tokens", "description": "Who may speak to the service."},
    {"name": "system", "description": "Whether the service works, and how much."},
    {"name": "pilots' side", "description": "The protocol between pilot and service, see `pilotage_node.protocol`."},
]

BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}

ERROR = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {
        "error": {"type": "string"},
        "code": {"type": "string"},
        "problems": {"type": "array", "items": {"type": "string"}, "description": "of a configuration: all of them"},
    },
    "example": {"error": "inputs[0].name: a file name is relative to the job's directory", "code": "invalid"},
}


def body(*models: str) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads a JSON body; "Model[]" is a list of it."""
    shapes: list[dict[str, Any]] = []
    for name in models:
        shape = {"$ref": f"#/components/schemas/{name.removesuffix('[]')}"}
        shapes.append({"type": "array", "items": shape} if name.endswith("[]") else shape)
    schema = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def binary() -> dict[str, Any]:
    """``openapi_extra`` of a route that takes a file."""
    schema = {"type": "string", "format": "binary"}
    return {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": schema}}}}


def example(content: Any, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route, by an example of what it answers."""
    return {status: {"content": {"application/json": {"example": content}}}}


def describe(app: FastAPI) -> None:
    """Makes ``app.openapi`` give the whole description."""
    plain = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(plain())
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas |= _bodies()
    schemas["Error"] = ERROR
    refusal = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    for operations in document["paths"].values():
        for operation in operations.values():
            name = operation["operationId"]
            who = may_call(name)
            operation["description"] = f"{operation.get('description', '')}\n\nWho may call: {who}.".strip()
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {"description": "Refused or failed", **refusal}
            if ACCESS[name] == OPEN:
                operation.pop("security", None)
    return document


def _bodies() -> dict[str, Any]:
    from pydantic import TypeAdapter

    from pilotage.service import models, wire

    kinds: list[Any] = [
        models.JobSpec,
        models.KillRequest,
        models.MissingRequest,
        models.OrderRequest,
        models.TokenRequest,
        models.BundleRequest,
        models.ConfigurationFiles,
        models.ApplyRequest,
        models.RollbackRequest,
        models.TrialEnd,
        wire.Sync,
        wire.Register,
    ]
    _, found = TypeAdapter.json_schemas(
        [(index, "validation", TypeAdapter(kind)) for index, kind in enumerate(kinds)],
        ref_template="#/components/schemas/{model}",
    )
    schemas: dict[str, Any] = found["$defs"]
    return schemas
