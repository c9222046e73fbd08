"""Sandboxes that stand still with all their processes, for a while, before they are put to sleep.

One task for each holds it frozen until somebody wants it, its time is over, or memory is short.
"""

import asyncio
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
    kept: bool
    stands: asyncio.Future[None]
    wanted: asyncio.Event
    over: asyncio.Event


class Resting:
    """All that stand still, oldest first. `ripe` is told of one that is to be put to sleep now."""

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

    @property
    def oldest(self) -> str:
        """Return the one that stands longest; KeyError when there is none."""
        return next(iter(self._standing))

    def permitted(self) -> bool:
        """Say whether one more may stand still: the operator wants it and memory is plentiful."""
        return self._settings.freeze_seconds > 0 and self._is_plentiful()

    def kept(self, sandbox_id: str) -> bool:
        """Say whether its files were kept elsewhere before it stood still."""
        one = self._standing.get(sandbox_id)
        return one is not None and one.kept

    async def freeze(self, sandbox_id: str, sandbox: Sandbox, *, kept: bool) -> None:
        """Hold it still; returns when it is. HandiworkError where it cannot be: it goes on then."""
        stands = asyncio.get_running_loop().create_future()
        one = _Standing(sandbox, kept, stands, asyncio.Event(), asyncio.Event())
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
            async with one.sandbox.frozen():
                one.stands.set_result(None)
                await self._until_wanted(sandbox_id, one)
        except HandiworkError as error:
            if one.stands.done():  # its processes were to stand still, no more is lost
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
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._settings.freeze_seconds
        while loop.time() < ends_at and self._is_plentiful():
            try:
                async with asyncio.timeout(min(LOOK_SECONDS, ends_at - loop.time())):
                    await one.wanted.wait()
                return
            except TimeoutError:
                continue
        self._ripe(sandbox_id)
        await one.wanted.wait()

    def _is_plentiful(self) -> bool:
        memory = self._memory_mib()
        return memory is None or memory >= self._settings.freeze_min_free_memory_mib
