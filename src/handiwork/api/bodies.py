"""Bodies of requests, piece by piece or whole, from senders that may stand still."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from litestar import Request
from litestar.exceptions import InternalServerException

from handiwork.api.streams import CallerLeft
from handiwork.model.errors import ConfigError

STALL_SECONDS = 120.0
"""So long a sender may send nothing; the sandbox's tar, or a file of ours, waits meanwhile."""


async def body_of(request: Request[Any, Any, Any]) -> AsyncGenerator[bytes, None]:
    """Yield what a request's body brings; ConfigError when nothing of it comes for too long.

    CallerLeft where the connection ends before it does.
    """
    pieces = request.stream()
    while True:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise ConfigError(
                f"nothing of the request's body came for {STALL_SECONDS:g} s; send it anew, whole"
            ) from None
        except InternalServerException:  # litestar's word for it, which would be a fault of ours
            raise CallerLeft from None
        if piece is None:
            return
        yield piece


async def whole_body(request: Request[Any, Any, Any]) -> bytes:
    """Return a request's body; ConfigError when nothing of it comes for too long."""
    return b"".join([piece async for piece in body_of(request)])
