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
        may_rest: Callable[[str], Awaitable[bool]],
        rest: Callable[[str], None],
    ) -> None:
        """`rest` is called once for each that may and that nobody used for so long; 0: for none."""
        self._seconds = seconds
        self._is_used = is_used
        self._may_rest = may_rest
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
                    await self._let_rest(sandbox_id, at)

    async def _let_rest(self, sandbox_id: str, at: float) -> None:
        may = False
        with contextlib.suppress(NotFoundError):  # it was closed meanwhile
            may = await self._may_rest(sandbox_id)
        if self._used_at.get(sandbox_id) != at or self._is_used(sandbox_id):
            return  # somebody came while it was asked
        del self._used_at[sandbox_id]
        if may:
            self._rest(sandbox_id)
