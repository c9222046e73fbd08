"""Sandboxes of sessions that somebody woke, though their session rests: they rest again when unused.

Whoever serves a session has it rest; who reads a file of it, or runs a command in it, does not.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from handiwork.model.errors import NotFoundError


class Idle:
    """When each was used last; `watch` runs as long as they live."""

    def __init__(
        self,
        seconds: float,
        is_used: Callable[[str], bool],
        rest: Callable[[str], Awaitable[None]],
    ) -> None:
        """`rest` is called once for each that nobody used for so long; 0 seconds: for none."""
        self._seconds = seconds
        self._is_used = is_used
        self._rest = rest
        self._used_at: dict[str, float] = {}

    def used(self, sandbox_id: str) -> None:
        """Somebody uses it now."""
        if self._seconds:
            self._used_at[sandbox_id] = asyncio.get_running_loop().time()

    async def watch(self) -> None:
        """Look four times in each span, until cancelled."""
        while self._seconds:
            await asyncio.sleep(self._seconds / 4)
            now = asyncio.get_running_loop().time()
            for sandbox_id, at in list(self._used_at.items()):
                if self._is_used(sandbox_id):
                    self._used_at[sandbox_id] = now
                elif now - at >= self._seconds:
                    del self._used_at[sandbox_id]
                    with contextlib.suppress(NotFoundError):  # it was closed meanwhile
                        await self._rest(sandbox_id)
