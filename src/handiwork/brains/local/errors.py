"""What the server answers when it refuses: the protocol's error envelope. No I/O."""

from typing import Any

import msgspec

from handiwork.model.errors import (
    ConflictError,
    HandiworkError,
    NotFoundError,
    UnauthorizedError,
)

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    412: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class WireError(HandiworkError):
    """An answer other than 200, with the protocol's words."""

    def __init__(
        self,
        status: int,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        kind: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details
        self.kind = kind or TYPES.get(status, "api_error")


def invalid(message: str) -> WireError:
    """The request is wrong (400)."""
    return WireError(400, message)


PREFIXES = {
    "agent": "agent_",
    "environment": "env_",
    "session": "sesn_",
    "thread": "sthr_",
    "memory store": "memstore_",
    "memory": "mem_",
    "memory version": "memver_",
    "skill": "skill_",
    "vault": "vlt_",
    "credential": "vcrd_",
}
UNSERVED = frozenset(
    {
        "deployment_runs",
        "deployments",
        "dreams",
        "files",
        "mcp_servers",
        "messages",
        "organizations",
        "threads",
        "tunnels",
        "user_profiles",
    }
)
"""Groups of the protocol that this server has nothing of."""


def missing(kind: str, name: str) -> WireError:
    """The named thing does not exist, or not for this key (404)."""
    prefix = PREFIXES.get(kind, "")
    hint = "" if name.startswith(prefix) else f": the id of such begins with {prefix}"
    return WireError(404, f"{kind} {name[:100]} does not exist{hint}")


def group_of(path: str) -> str:
    """Return the group of routes that a path belongs to."""
    return path.removeprefix("/v1/").partition("/")[0]


def unrouted(path: str) -> WireError:
    """No route has this path (404)."""
    group = group_of(path)
    if path.startswith("/v1/") and group in UNSERVED:
        return WireError(404, f"this server does not serve /v1/{group}")
    return WireError(404, f"not found: {path[:200]}")


def status_of(error: HandiworkError) -> int:
    """Return the status that an error of the tree is told with."""
    if isinstance(error, WireError):
        return error.status
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, ConflictError):
        return 409
    if isinstance(error, UnauthorizedError):
        return 401
    return 500


def envelope(error: HandiworkError, request_id: str) -> bytes:
    """Return the body of a refusal."""
    status, details = status_of(error), None
    kind = TYPES.get(status, "api_error")
    if isinstance(error, WireError):
        kind, details = error.kind, error.details
    told: dict[str, Any] = {"type": kind, "message": str(error)}
    if details is not None:
        told["details"] = details
    return msgspec.json.encode({"type": "error", "error": told, "request_id": request_id})
