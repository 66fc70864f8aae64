"""Turns errors into RFC 9457 problems. Only this module knows which HTTP status a gRPC status becomes."""

import math
import re
from typing import Any

import grpc
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from clients.errors import InvalidRequestError, RecallError

MEDIA_TYPE = "application/problem+json"

_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: (400, "The request is not valid"),
    grpc.StatusCode.OUT_OF_RANGE: (400, "The request is not valid"),
    grpc.StatusCode.NOT_FOUND: (404, "Not found"),
    grpc.StatusCode.FAILED_PRECONDITION: (409, "The recall server is in the wrong state for this"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (429, "The recall server is overloaded"),
    grpc.StatusCode.UNIMPLEMENTED: (501, "The recall server does not offer this"),
    # The status is not 401, because the token is the gateway's own and a caller cannot correct it.
    grpc.StatusCode.UNAUTHENTICATED: (502, "The recall server refuses the gateway's token"),
    grpc.StatusCode.PERMISSION_DENIED: (502, "The recall server refuses the gateway's token"),
    grpc.StatusCode.UNAVAILABLE: (503, "The recall server is not available"),
    grpc.StatusCode.CANCELLED: (503, "The recall server is not available"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (504, "The recall server did not answer in time"),
}
_FIELD = re.compile(r"([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+(?:\[\d+\])?)*): ")
"""The path of a field, with which the server's messages about that field begin."""


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """URI of the kind of error. It ends with the reason."""
    title: str
    """The kind of error, for people."""
    status: int
    """The HTTP status."""
    detail: str
    """What went wrong in this request, with the value and the limit."""
    reason: str
    """A stable word for programs. docs/reference/statuses-and-errors.md lists the reasons of the recall server."""
    field: str | None = None
    """Path of the wrong field, such as users[3].hist_item."""


class ProblemError(Exception):
    """A request that the gateway itself refuses."""

    def __init__(self, status: int, title: str, detail: str, reason: str) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.reason = reason


def problem(
    status: int, title: str, detail: str, reason: str, field: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Make the response for a problem."""
    kind = f"urn:mind-recall:problem:{reason.lower().replace('_', '-')}"
    content = Problem(type=kind, title=title, status=status, detail=detail, reason=reason, field=field)
    return JSONResponse(content.model_dump(exclude_none=True), status, headers, MEDIA_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Make the OpenAPI description of problems with these statuses."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {status: {"description": _DESCRIPTIONS[status], "content": {MEDIA_TYPE: schema}} for status in statuses}


_DESCRIPTIONS: dict[int, str] = dict(_STATUS.values()) | {
    403: "Not enabled, not a name of this gateway, or requested by a page of another site",
    408: "The body did not come in time",
    409: "Not possible in the present state",
    413: "The body is too large",
    502: "The recall server failed",
}
OF_EVERY_CALL = responses(400, 403, 408, 409, 413, 429, 501, 502, 503, 504)


def _from_call(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RecallError)  # noqa: S101 - the only ones that are sent here
    status, title = _STATUS.get(error.code, (502, "The recall server failed"))
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and isinstance(error, InvalidRequestError):
        status, title = 413, _DESCRIPTIONS[413]
    field = _FIELD.match(error.message) if status == 400 else None
    headers = {"Retry-After": str(math.ceil(error.retry_after_s or 1))} if status in (429, 503) else None
    reason = error.reason or error.code.name
    return problem(status, title, error.message, reason, field and field[1], headers)


def _from_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - the only ones that are sent here
    first = error.errors()[0]
    where, *path = first["loc"]
    if first["type"] == "json_invalid":
        return problem(400, _STATUS[grpc.StatusCode.INVALID_ARGUMENT][1], "the body is not JSON", "REQUEST_INVALID")
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    field = "".join(parts).lstrip(".") or str(where)
    title = _STATUS[grpc.StatusCode.INVALID_ARGUMENT][1]
    message = first["msg"].removeprefix("Value error, ")
    return problem(400, title, f"{field}: {message}", "REQUEST_INVALID", field)


def _from_refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)  # noqa: S101 - the only ones that are sent here
    return problem(error.status, error.title, str(error), error.reason)


def _from_routing(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - the only ones that are sent here
    reason = {400: "REQUEST_INVALID", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "REFUSED")
    detail = f"{request.method} {request.url.path}: {error.detail}"
    return problem(error.status_code, error.detail, detail, reason, headers=dict(error.headers or {}))


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    return problem(500, "Internal error", "the gateway has a defect; its log has the traceback", "INTERNAL")


def install(app: FastAPI) -> None:
    """Turn every error of the application into a problem."""
    app.add_exception_handler(RecallError, _from_call)
    app.add_exception_handler(RequestValidationError, _from_validation)
    app.add_exception_handler(ProblemError, _from_refusal)
    app.add_exception_handler(HTTPException, _from_routing)
    app.add_exception_handler(Exception, _unexpected)


def describe(schema: dict[str, Any]) -> None:
    """Replace FastAPI's own errors in an OpenAPI description with the schema of problems."""
    schemas = schema["components"]["schemas"]
    schemas["Problem"] = Problem.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
