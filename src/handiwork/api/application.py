"""The application: every route, behind the gate."""

import asyncio
import time
from typing import Any

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import HTTPScope, Message, Receive, Send, WebSocketScope

from handiwork import __version__
from handiwork.api import (
    agents,
    audit,
    code,
    environments,
    errors,
    exec,
    files,
    health,
    hooks,
    images,
    metrics,
    models,
    outputs,
    policies,
    ports,
    processes,
    runs,
    sandboxes,
    secrets,
    sessions,
    snapshots,
    terminal,
    trees,
    watching,
    webhooks,
)
from handiwork.api.control import Control
from handiwork.api.gate import Gate, caller_of, refuse
from handiwork.model.errors import HandiworkError
from handiwork.observe import log

MAX_BODY_BYTES = 1024 * 1024

_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Api(Litestar):
    """Litestar behind the gate; `state.stopping` ends its streams."""

    gate: Gate

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let a request in, or answer with why not; then write its line of the log."""
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _http(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        refusal = self.gate.check(caller_of(scope))
        try:
            if refusal is not None:
                await refuse(refusal, noting)
            else:
                await super().__call__(scope, receive, noting)
        except asyncio.CancelledError:
            # Only the server's stop cancels a request; its task ends here either way.
            if status or not self.state.stopping.is_set():
                raise
            await errors.answer(503, errors.STOPPING, noting)
        finally:
            # The path alone: a query may hold what belongs to the guest or the operator.
            log.get("api").info(
                "request",
                method=scope["method"],
                path=scope["path"][:200],
                status=status,
                milliseconds=round((time.perf_counter() - started) * 1000, 1),
            )

    async def _websocket(self, scope: WebSocketScope, receive: Receive, send: Send) -> None:
        refusal = self.gate.check(caller_of(scope))
        if refusal is not None:
            await refuse(refusal, _as_refused_upgrade(send))
        else:
            await super().__call__(scope, receive, send)
        # The path alone, as of a request.
        log.get("api").info(
            "websocket",
            path=scope["path"][:200],
            status=101 if refusal is None else refusal.status,
        )


def _as_refused_upgrade(send: Send) -> Send:
    """Return what sends a plain response in answer to a WebSocket's request."""

    async def renamed(message: Any) -> None:
        renamed_message: Any = {**message, "type": f"websocket.{message['type']}"}
        await send(renamed_message)

    return renamed


def create_api(control: Control) -> Api:
    """Return the application that serves this control plane."""
    api = Api(
        route_handlers=[
            sandboxes.routes,
            snapshots.routes,
            code.routes,
            exec.routes,
            terminal.routes,
            ports.routes,
            processes.routes,
            files.routes,
            trees.routes,
            watching.routes,
            agents.routes,
            sessions.routes,
            outputs.routes,
            policies.routes,
            secrets.routes,
            hooks.routes,
            images.routes,
            images.registries,
            models.routes,
            audit.routes,
            environments.routes,
            runs.routes,
            webhooks.receive,
            webhooks.routes,
            *health.routes,
            *metrics.routes,
        ],
        dependencies={"control": Provide(lambda: control, sync_to_thread=False)},
        exception_handlers={HandiworkError: errors.respond, Exception: errors.respond},
        response_headers=_HEADERS,
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=_openapi(),
        logging_config=None,
        state=State({"stopping": asyncio.Event(), "webhooks": webhooks.Admission()}),
    )
    api.gate = Gate(control.admin_key_hash, control.settings.api.host)
    return api


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Handiwork",
        version=__version__,
        description="The control plane of Handiwork.",
        path="/openapi.json",
        render_plugins=[JsonRenderPlugin(path="/")],
        use_handler_docstrings=True,
        components=Components(
            security_schemes={"admin key": SecurityScheme(type="http", scheme="bearer")}
        ),
        security=[{"admin key": []}],
    )
