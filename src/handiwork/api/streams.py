"""Responses that live: streams and long calls end when the caller leaves or the server stops."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from litestar import Request
from litestar.exceptions import HTTPException
from litestar.types import Receive, Scope, Send

from handiwork.model.errors import sole

T = TypeVar("T")

Emit = Callable[[bytes], Awaitable[None]]
"""Sends bytes to the caller; waits while the caller does not read."""

_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class CallerLeft(HTTPException):
    """The caller closed the connection; nobody sees the response."""

    status_code = 408
    detail = "the caller left"


class LiveResponse:
    """An ASGI application that runs `body` while somebody reads what it emits.

    The body is cancelled when the caller leaves or the server stops; a stop ends the response as
    if the body had ended.
    """

    def __init__(
        self,
        body: Callable[[Emit], Awaitable[None]],
        *,
        media_type: str,
        stopping: asyncio.Event,
        whole: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`whole`: what is sent is worth nothing without its end, so that a response whose body is
        stopped, or says Unfinished, is cut off."""
        self._whole = whole
        self._headers = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
        self._body = body
        self._media_type = media_type
        self._stopping = stopping

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, what the body emits, and the end."""

        async def emit(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        content = (b"content-type", self._media_type.encode())
        headers = [content, *_HEADERS, *self._headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        ended = not self._whole
        with contextlib.suppress(CallerLeft, Stopped, Unfinished):
            await first(self._body(emit), _left(receive), stopped(self._stopping))
            ended = True
        if ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def while_called(request: Request[Any, Any, Any], work: Awaitable[T]) -> T:
    """Return what the work gives; cancel it when the caller leaves. The body was read before."""
    return await first(work, _left(request.receive))


class Stopped(Exception):
    """The server stops."""


class Unfinished(Exception):
    """What a body sends has no end: something failed, and there is no place to say so."""


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise CallerLeft


async def stopped(stopping: asyncio.Event) -> None:
    """Raise Stopped when the server stops."""
    await stopping.wait()
    raise Stopped


async def first(work: Awaitable[T], *ends: Coroutine[Any, Any, None]) -> T:
    """Return what the work gives; when an end raises first, cancel the work and raise that."""
    try:
        async with asyncio.TaskGroup() as group:
            ending = [group.create_task(end) for end in ends]
            result = await work
            for task in ending:
                task.cancel()
    except BaseExceptionGroup as raised:
        raise sole(raised) from None
    return result
