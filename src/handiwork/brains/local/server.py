"""The application behind the gate, and the HTTP server that runs it on an inherited listener."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from litestar import Litestar, Response, get
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from handiwork.brains.local import (
    routes_catalog,
    routes_environment_keys,
    routes_memory,
    routes_models,
    routes_resources,
    routes_sessions,
    routes_skills,
    routes_threads,
    routes_vaults,
    routes_webhooks,
    routes_work,
)
from handiwork.brains.local.errors import WireError, envelope, status_of, unrouted
from handiwork.brains.local.gate import Gate
from handiwork.brains.local.services import Answer, AnyRequest, Services, answer
from handiwork.model.errors import HandiworkError
from handiwork.observe import log

MAX_BODY_BYTES = 40 * 1024 * 1024
"""A 20 MiB document in base64, and some."""
STOP_SECONDS = 3

_log = log.get("server")


@get("/healthz")
async def healthz(request: AnyRequest) -> Answer:
    """Say that the server answers."""
    return answer({"status": "ok"})


def application(services: Services) -> Gate:
    """Return the ASGI application."""
    inner = Litestar(
        route_handlers=[
            healthz,
            *routes_catalog.ROUTES,
            *routes_environment_keys.ROUTES,
            *routes_memory.ROUTES,
            *routes_models.ROUTES,
            *routes_resources.ROUTES,
            *routes_sessions.ROUTES,
            *routes_skills.ROUTES,
            *routes_threads.ROUTES,
            *routes_vaults.ROUTES,
            *routes_webhooks.ROUTES,
            *routes_work.ROUTES,
        ],
        state=State({"services": services}),
        exception_handlers={
            HandiworkError: _refused,
            HTTPException: _not_routed,
            Exception: _defect,
        },
        openapi_config=None,
        logging_config=None,
        request_max_body_size=MAX_BODY_BYTES,
    )
    return Gate(inner, services.keyring, services.new_id)


def _refused(request: AnyRequest, error: HandiworkError) -> Answer:
    request_id = request.scope["state"].get("request_id", "")
    body = envelope(error, request_id)
    return Response(body, media_type="application/json", status_code=status_of(error))


def _not_routed(request: AnyRequest, error: HTTPException) -> Answer:
    if error.status_code == 404:
        return _refused(request, unrouted(request.scope["path"]))
    return _refused(request, WireError(error.status_code, error.detail or "refused"))


def _defect(request: AnyRequest, error: Exception) -> Answer:
    _log.error("defect", path=request.scope["path"], error=type(error).__name__, exc_info=error)
    return _refused(request, WireError(500, "internal error; the server's log has the cause"))


class Server(uvicorn.Server):
    """uvicorn on a listener that is given, told by its owner when to stop."""

    def __init__(self, gate: Gate, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                gate,
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        self._on_ready = on_ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell."""
        await super().startup(sockets=sockets)
        self._on_ready()
