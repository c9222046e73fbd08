"""Serves the application on sockets that the composition root bound: TCP and the unix socket."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from handiwork.api.application import Api
from handiwork.api.gate import PEER_UID
from handiwork.model.wire import MAX_MESSAGE_BYTES

STOP_SECONDS = 5.0
"""How long requests under way may take when the server stops."""
MAX_CONNECTIONS = 1000

_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


class _Protocol(HttpToolsProtocol):
    """HTTP that knows who is at the other end of a unix socket."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base does
        super().connection_made(transport)
        end: socket.socket = transport.get_extra_info("socket")
        if end.family == socket.AF_UNIX:
            ucred = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            self.app_state = {**self.app_state, PEER_UID: _UCRED.unpack(ucred)[1]}


class _Server(uvicorn.Server):
    """Tells when it listens. Signals are the composition root's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(
    api: Api, listeners: Sequence[socket.socket], *, stop_seconds: float = STOP_SECONDS
) -> AsyncIterator[None]:
    """Serve on bound sockets while the body runs; they are closed at the end.

    The end: no new connections, streams end, requests under way get `stop_seconds`, then are
    cancelled.
    """
    server = _Server(_config(api, stop_seconds))
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(list(listeners)))
        await server.listening.wait()
        try:
            yield
        finally:
            api.state.stopping.set()
            server.should_exit = True


def _config(api: Any, stop_seconds: float) -> uvicorn.Config:
    return uvicorn.Config(
        api,
        http=_Protocol,
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=max(1, round(stop_seconds)),
    )
