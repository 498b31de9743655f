"""Checks what pilots send (the shapes are `pilotage_node.protocol`'s) in one pass of compiled code.

Shapes are checked, meaning is the engine's. Unknown keys are kept: a newer pilot may say more. What a payload can put
into a report (bytes in its stdout, a file's name) must never make a report refused: the pilot would repeat it for ever.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, Required

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from starlette.requests import Request
from typing_extensions import TypedDict

from pilotage.service.bodies import text_of
from pilotage.service.errors import ApiError, from_validation
from pilotage.service.models import Sha256, safe_name
from pilotage_node import protocol

KEEP = ConfigDict(extra="allow")
Int = Annotated[int, Field(ge=-(2**53), le=2**53)]
Size = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Identifier = Annotated[str, Field(min_length=1, max_length=200)]
Short = Annotated[str, Field(max_length=4000)]
Captured = Annotated[str, Field(max_length=8 * protocol.INLINE)]
Usage = dict[str, Any]

NOTED = 3
"""Outputs left out that a report names, each."""


class Output(TypedDict):
    """A file that a job left."""

    name: Annotated[str, Field(max_length=5000)]
    sha256: Sha256
    size: Size


class JobReport(TypedDict, total=False):
    """REPORT of kind job."""

    __pydantic_config__ = KEEP  # type: ignore[misc]
    id: Required[Identifier]
    kind: Required[Literal["job"]]
    lease: Required[Identifier]
    state: Required[Literal["Running", "Done", "Failed", "Killed", "Returned"]]
    exit_code: Int | None
    signal: Int | None
    reason: Short | None
    message: Annotated[str, Field(max_length=100_000)] | None
    wall_seconds: Number | None
    usage: Usage | None
    stdout: Captured | None
    stderr: Captured | None
    outputs: Annotated[list[Output], Field(max_length=100_000)] | None
    isolation: Short | None


class CommandReport(TypedDict, total=False):
    """REPORT of kind command."""

    __pydantic_config__ = KEEP  # type: ignore[misc]
    id: Required[Identifier]
    kind: Required[Literal["command"]]
    name: Required[Identifier]
    index: Required[Int]
    outcome: Required[Literal["done", "failed", "timeout", "crashed", "killed", "skipped"]]
    code: Int | None
    message: Annotated[str, Field(max_length=100_000)] | None
    seconds: Number | None
    usage: Usage | None
    tail: Annotated[list[str], Field(max_length=1000)] | None


class PilotReport(TypedDict, total=False):
    """REPORT of kind pilot: its last."""

    __pydantic_config__ = KEEP  # type: ignore[misc]
    id: Required[Identifier]
    kind: Required[Literal["pilot"]]
    exit_code: Int | None
    reason: Short | None
    usage: Usage | None


class Want(TypedDict, total=False):
    """WANT: room for jobs."""

    __pydantic_config__ = KEEP  # type: ignore[misc]
    cores: Size
    memory_mib: Size | None
    disk_mib: Size | None
    gpus: Size | None
    seconds_left: Number | None
    ahead: Annotated[int, Field(ge=0, le=protocol.AHEAD)]
    total: dict[str, Int | None]
    tags: list[Short]
    platform: Short | None
    isolation: list[Short]


class Log(TypedDict):
    """A piece of the pilot's log; ``offset`` in bytes of UTF-8."""

    offset: Size
    text: Any  # text; pydantic would refuse lone surrogates, which here stand for bytes


class Beat(TypedDict, total=False):
    """That the pilot lives, and what it is at."""

    __pydantic_config__ = KEEP  # type: ignore[misc]
    phase: Short | None
    usage: Usage | None


class Sync(TypedDict, total=False):
    """Body of POST /pilot/sync."""

    __pydantic_config__ = KEEP  # type: ignore[misc]
    protocol: Required[int]
    sequence: Required[Size]
    held: Annotated[list[Identifier], Field(max_length=100_000)]
    reports: Annotated[
        list[Annotated[JobReport | CommandReport | PilotReport, Field(discriminator="kind")]], Field(max_length=100_000)
    ]
    want: Want | None
    log: Log | None
    beat: Beat | None


class Register(TypedDict, total=False):
    """Body of POST /pilot/register."""

    __pydantic_config__ = KEEP  # type: ignore[misc]
    protocol: Required[int]
    stamp: Required[Identifier]
    secret: Required[Identifier]
    nonce: Required[Identifier]
    digest: Short | None
    node: dict[str, Any] | None
    log: str | None
    profile: dict[str, Any] | None


SYNC: TypeAdapter[Sync] = TypeAdapter(Sync)
REGISTER: TypeAdapter[Register] = TypeAdapter(Register)


def check_version(request: Request) -> None:
    """The version in the header, when there is one: known before the body is read. Raises ApiError 426."""
    version = request.headers.get(protocol.VERSION_HEADER)
    if version is not None and version not in map(str, protocol.SUPPORTED):
        raise unsupported(version)


def unsupported(version: object) -> ApiError:
    """426, naming what is spoken here."""
    known = ", ".join(map(str, protocol.SUPPORTED))
    text = f"Protocol version {str(version)[:20]} is not spoken here; supported: {known}."
    return ApiError(426, "protocol", text, {"Upgrade": f"pilotage/{protocol.VERSION}"})


def sync(body: bytes) -> dict[str, Any]:
    """A sync's body, complete: what was left out has its empty value. Raises ApiError 400, 422, 426."""
    message = _parse(SYNC, body)
    for key, empty in (("held", []), ("reports", []), ("want", None), ("log", None), ("beat", None)):
        message.setdefault(key, empty)
    if message["log"] and not isinstance(message["log"]["text"], str):
        raise ApiError(422, "invalid", "log.text: Input should be a valid string")
    for report in message["reports"]:
        if report.get("outputs"):
            _safe_outputs(report)
    return message


def register(body: bytes) -> dict[str, Any]:
    """A registration's body. Raises ApiError 400, 422, 426."""
    message = _parse(REGISTER, body)
    for key, empty in (("digest", None), ("node", {}), ("log", ""), ("profile", {})):
        message.setdefault(key, empty)
    return message


def _parse(adapter: TypeAdapter[Any], body: bytes) -> dict[str, Any]:
    try:
        if b"\\u0000" in body or b"\\ud" in body or b"\\uD" in body or b"NaN" in body or b"Infinity" in body:
            message: dict[str, Any] = adapter.validate_python(_cleaned(body))
        else:
            message = adapter.validate_json(body)
    except ValidationError as error:
        _refuse_version(body)
        text_of(body)
        raise from_validation(error) from None
    if message["protocol"] not in protocol.SUPPORTED:
        raise unsupported(message["protocol"])
    return message


def _refuse_version(body: bytes) -> None:
    """Another version's message has another shape: then the version is what is wrong, not the shape."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict) and found.get("protocol") not in protocol.SUPPORTED:
        raise unsupported(found.get("protocol"))


def _cleaned(body: bytes) -> Any:
    try:
        return _clean(json.loads(text_of(body)))
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "not_json", f"The body is not JSON: {str(error)[:200]}.") from None


def _clean(value: Any, key: str = "") -> Any:
    """What a database or UTF-8 cannot hold (NUL, lone surrogates, NaN) replaced by what it can.

    The log is left as it is: it is kept as bytes, and lone surrogates stand for bytes that were no UTF-8.
    """
    if isinstance(value, str):
        if key == "text":
            return value
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {_clean(name): _clean(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def _safe_outputs(report: dict[str, Any]) -> None:
    """Leaves out outputs whose names nobody could store safely, and says so in the report."""
    kept: list[Any] = []
    notes: list[str] = []
    for output in report["outputs"]:
        try:
            safe_name(output["name"])
            kept.append(output)
        except ValueError as error:
            notes.append(f"output {output['name'][:200]!r} was left out: {error}")
    report["outputs"] = kept
    if notes:
        more = f"and {len(notes) - NOTED} more outputs were left out" if len(notes) > NOTED else None
        report["message"] = "; ".join(filter(None, [report.get("message"), *notes[:NOTED], more]))
