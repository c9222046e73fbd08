"""Sandboxes that stand still with all their processes, for a while, before they are put to sleep.

One task for each holds it frozen until somebody wants it, its time is over, or memory is short.
"""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from handiwork.config import SandboxSettings
from handiwork.model.errors import HandiworkError
from handiwork.observe import log
from handiwork.sandboxes.protocol import Sandbox
from handiwork.sessions.room import available_memory_mib

LOOK_SECONDS = 1.0
"""So often each looks at the memory that is free."""


class _Standing(msgspec.Struct, eq=False):
    """One of them. `stands`: done when it is frozen, or why it cannot be; `over`: it goes on."""

    sandbox: Sandbox
    ends_at: float
    stands: asyncio.Future[None]
    wanted: asyncio.Event
    over: asyncio.Event


class Resting:
    """All that stand still. `ripe` is told of one that is to sleep, again and again until it does."""

    def __init__(
        self,
        settings: SandboxSettings,
        group: asyncio.TaskGroup,
        ripe: Callable[[str], None],
        memory_mib: Callable[[], float | None] = available_memory_mib,
    ) -> None:
        self._settings = settings
        self._group = group
        self._ripe = ripe
        self._memory_mib = memory_mib
        self._standing: dict[str, _Standing] = {}
        self._log = log.get("sandboxes")

    def __len__(self) -> int:
        return len(self._standing)

    def __contains__(self, sandbox_id: str) -> bool:
        return sandbox_id in self._standing

    def oldest_first(self) -> list[str]:
        """Return all, those that stand longest first."""
        return list(self._standing)

    def permitted(self) -> bool:
        """Say whether one more may stand still: the operator wants it and memory is plentiful."""
        return self._settings.freeze_seconds > 0 and self._is_plentiful()

    async def freeze(self, sandbox_id: str, sandbox: Sandbox, ends_at: float) -> None:
        """Hold it still until then, by the loop's clock; returns when it is.

        HandiworkError where it cannot be: it goes on then.
        """
        stands = asyncio.get_running_loop().create_future()
        one = _Standing(sandbox, ends_at, stands, asyncio.Event(), asyncio.Event())
        self._standing[sandbox_id] = one
        self._group.create_task(self._hold(sandbox_id, one))
        await asyncio.shield(stands)

    async def thaw(self, sandbox_id: str) -> bool:
        """Let it go on; returns when it does. False: it did not stand still."""
        one = self._standing.get(sandbox_id)
        if one is None:
            return False
        one.wanted.set()
        await one.over.wait()
        return True

    async def _hold(self, sandbox_id: str, one: _Standing) -> None:
        try:
            async with one.sandbox.resting():
                one.stands.set_result(None)
                await self._until_wanted(sandbox_id, one)
        except HandiworkError as error:
            if one.stands.done():
                self._log.warning("did not stand still", sandbox=sandbox_id, reason=str(error))
            else:
                one.stands.set_exception(error)
        finally:
            one.stands.cancel()
            if self._standing.get(sandbox_id) is one:
                del self._standing[sandbox_id]
            one.over.set()

    async def _until_wanted(self, sandbox_id: str, one: _Standing) -> None:
        """Wait for `thaw`; who is ripe before is told of, and stands until that comes to it."""
        now = asyncio.get_running_loop().time
        while not one.wanted.is_set():
            left = one.ends_at - now()
            if left <= 0 or not self._is_plentiful():
                self._ripe(sandbox_id)
                left = LOOK_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_SECONDS, left)):
                    await one.wanted.wait()

    def _is_plentiful(self) -> bool:
        try:
            memory = self._memory_mib()
        except OSError:  # too many files are open, perhaps: nothing is plentiful then
            return False
        return memory is None or memory >= self._settings.freeze_min_free_memory_mib
