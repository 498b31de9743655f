"""Every error that leaves the service: ``{"error": one sentence, "code": word}``.

Codes are part of the API: a client decides on the code, a person reads the sentence.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pilotage.storage import errors as refusals

if TYPE_CHECKING:
    from pilotage.configuration import ConfigurationError

log = logging.getLogger("pilotage.service")

STATUS: dict[type[refusals.Refused], int] = {
    refusals.Unknown: 401,
    refusals.Expired: 401,
    refusals.StampUsed: 409,
    refusals.Ended: 410,
    refusals.Stale: 409,
    refusals.Conflict: 409,
    refusals.TooLarge: 413,
    refusals.Mismatch: 422,
    refusals.Missing: 404,
}
MOST_PROBLEMS = 100
"""Problems of a configuration that are listed."""

WORDS = {400: "bad_request", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}


class ApiError(Exception):
    """An answer other than success: HTTP status, code word, one clear sentence, further headers and keys."""

    def __init__(
        self,
        status: int,
        code: str,
        text: str,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text
        self.headers = headers
        self.more = more


def answer(
    status: int,
    code: str,
    text: str,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """The response that says ``text``; a line break in it would break the promise of one line."""
    body = json.dumps({"error": " ".join(text.split()), "code": code, **(more or {})})
    return Response(body, status, dict(headers or {}), "application/json")


def unauthenticated(code: str, text: str) -> ApiError:
    """401: who you are is not known, or no longer."""
    return ApiError(401, code, text, {"WWW-Authenticate": "Bearer"})


def forbidden(text: str) -> ApiError:
    """403: it is known who you are, and you may not."""
    return ApiError(403, "forbidden", text)


def not_found(text: str) -> ApiError:
    """404; also what a caller learns of another VO's things: nothing."""
    return ApiError(404, "not_found", text)


def check_states(wanted: Sequence[str] | None, known: Sequence[str]) -> None:
    """Raises ApiError 422 for a state to filter by that there is not."""
    for name in wanted or ():
        if name not in known:
            raise ApiError(422, "invalid", f"state: there is no state {name!r}; there are: {', '.join(known)}")


def wrong_configuration(error: ConfigurationError) -> ApiError:
    """422: the first problem as the sentence, all of them (as far as a person reads) under ``problems``."""
    problems = [" ".join(str(problem).split()) for problem in error.problems]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ApiError(422, "invalid", f"{problems[0]}{more}", more={"problems": problems[:MOST_PROBLEMS]})


def field_path(location: Sequence[Any]) -> str:
    """``("inputs", 0, "name")`` as a person writes it: ``inputs[0].name``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def one_line(problems: Sequence[Mapping[str, Any]]) -> str:
    """The first of pydantic's problems in one line: the field's path, the reason, how many more there are."""
    first = problems[0]
    reason = str(first["msg"]).removeprefix("Value error, ")
    path = field_path(first["loc"])
    value = first.get("input")
    if first["type"] == "extra_forbidden":
        reason = "this key is not known"
    elif first["type"] == "missing":
        reason = "this key is missing"
    elif first["type"] != "value_error" and isinstance(value, (str, int, float)) and len(str(value)) <= 60:
        reason += f", not {json.dumps(value)}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{path}: {reason}{more}" if path else f"{reason}{more}"


def from_validation(error: ValidationError) -> ApiError:
    """What pydantic found in a body, as 400 (not JSON) or 422 (JSON that is not what it should be)."""
    problems = error.errors(include_url=False)
    if problems[0]["type"] == "json_invalid":
        return ApiError(400, "not_json", f"The body is not JSON: {problems[0]['ctx']['error']}.")
    return ApiError(422, "invalid", one_line(problems))


def install(app: FastAPI) -> None:
    """Gives ``app`` the one set of exception handlers."""

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return answer(error.status, error.code, error.text, error.headers, error.more)

    @app.exception_handler(refusals.Refused)
    async def refused(request: Request, error: refusals.Refused) -> Response:
        return answer(STATUS.get(type(error), 400), error.code, str(error) or "This was refused.")

    @app.exception_handler(RequestValidationError)
    async def parameters(request: Request, error: RequestValidationError) -> Response:
        return answer(422, "invalid", one_line(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        text = f"{error.detail}: {request.method} {request.url.path}."
        return answer(error.status_code, WORDS.get(error.status_code, "http"), text, error.headers)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        # The caller learns nothing of the inside but the request id, by which the log has the traceback.
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        request_id = request.scope.get("pilotage_request", "")
        text = f"The service failed on this request; its log tells more under {request_id}."
        return answer(500, "internal", text, {"Pilotage-Request": request_id})
