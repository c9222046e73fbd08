"""Errors to status codes: the one table, and the envelope that every error travels in."""

import http
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import Send

from handiwork.model import errors
from handiwork.model.wire import ErrorBody, ErrorEnvelope, error_body, tree_class
from handiwork.observe import log

STATUS: dict[type[errors.HandiworkError], int] = {
    errors.ConfigError: 400,
    errors.UnauthorizedError: 401,
    errors.BadSignatureError: 401,
    errors.ForbiddenError: 403,
    errors.PolicyDeniedError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.LeaseLostError: 409,
    errors.SecretMissingError: 409,
    errors.GuestError: 422,
    errors.ToolFailedError: 422,
    errors.UnsupportedError: 422,
    errors.HandiworkError: 500,
    errors.BrainRefusedError: 502,
    errors.BrainUnavailableError: 503,
    errors.SandboxUnavailableError: 503,
}

# What the framework itself refuses, in the words of the tree.
_TYPES = {400: "config", 401: "unauthorized", 403: "unauthorized", 404: "not_found"}
STOPPING = ErrorBody(
    type="sandbox_unavailable", message="the control plane is stopping; ask again when it is back"
)
_INTERNAL = ErrorBody(type="internal", message="the control plane failed; its log says where")


async def answer(
    status: int, body: ErrorBody, send: Send, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Send an error from outside of any route, and close the connection."""
    content = msgspec.json.encode(ErrorEnvelope(error=body))
    fixed = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def told(error: Exception) -> tuple[int, ErrorBody]:
    """Return the status and what is told of an error; of one that is not ours, nothing."""
    if isinstance(error, errors.HandiworkError):
        return STATUS[tree_class(error)], error_body(error)
    if isinstance(error, HTTPException):
        return error.status_code, _refusal(error)
    log.get("api").error("request failed", error=repr(error), exc_info=error)
    return 500, _INTERNAL


def respond(_request: Request[Any, Any, Any], error: Exception) -> Response[ErrorEnvelope]:
    """Turn whatever a route raised into its response."""
    status, body = told(error)
    return Response(ErrorEnvelope(error=body), status_code=status)


def _refusal(error: HTTPException) -> ErrorBody:
    message = error.detail
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        message = "; ".join(_field(entry) for entry in error.extra) or message
    elif error.status_code in (404, 405, 413):
        message = http.HTTPStatus(error.status_code).phrase.lower()
    return ErrorBody(type=_TYPES.get(error.status_code, "request"), message=message)


def _field(entry: dict[str, Any]) -> str:
    name = entry.get("key", "data")
    return f"{'body' if name == 'data' else name}: {entry.get('message', 'not valid')}"
