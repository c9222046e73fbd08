"""What goes by itself: generations that nobody keeps or told of, and packs that no generation uses.

A pack goes when it was found unused, and still is after the grace, at a moment when nothing is
taken or made. Whatever cannot be read keeps everything.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from handiwork.config import SnapshotSettings
from handiwork.model.errors import HandiworkError
from handiwork.model.snapshot import Snapshot
from handiwork.observe import log
from handiwork.sandboxes.snapshots.garbage import delete_packs, unused_packs
from handiwork.sandboxes.snapshots.retention import expired, outlived
from handiwork.sessions.snapshots.orphans import Orphans
from handiwork.sessions.snapshots.shelf import Shelf

MOST_PACKS = 256
"""Deleted at one time, while takings wait."""


class Upkeep:
    """Looks after a shelf. `now` is a steady clock in seconds; `closed` is set when a sandbox was."""

    def __init__(
        self,
        shelf: Shelf,
        settings: SnapshotSettings,
        *,
        now: Callable[[], float],
        closed: asyncio.Event,
    ) -> None:
        self._shelf = shelf
        self._settings = settings
        self._now = now
        self._closed = closed
        self._orphans = Orphans(shelf, settings, now=now)
        self._unused: dict[str, float] = {}
        self._log = log.get("snapshots")

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._settings.sweep_seconds):
                    await self._closed.wait()
            except TimeoutError:
                pass
            self._closed.clear()
            await self.look()

    async def look(self) -> None:
        """Let go of what nobody keeps. What fails is told, and tried again the next time."""
        await self._tried("snapshots that nobody told of stay", self._orphans.look())
        await self._tried("snapshots are not expired", self.expire_all())
        await self._tried("unused packs are not deleted", self.collect())

    async def _tried(self, failure: str, step: Awaitable[None]) -> None:
        """Wait for one step: whatever comes of it, the next ones and all that we serve go on."""
        try:
            await step
        except HandiworkError as error:
            self._log.error(failure, reason=str(error))
        except Exception:  # noqa: BLE001 - a fault with the store must not end the control plane
            self._log.exception(failure)

    async def expire_all(self) -> None:
        """Let go of the generations of all sandboxes that nobody keeps."""
        for sandbox_id in await self._shelf.store.snapshots.sandboxes():
            await self._tried(f"snapshots of {sandbox_id} are not expired", self.expire(sandbox_id))

    async def expire(self, sandbox_id: str) -> None:
        """Let go of a sandbox's generations that are too many, or whose sandbox is long closed."""
        found = await self._shelf.all(sandbox_id)
        for number in self._expired(found, await self._shelf.closed_at(sandbox_id)):
            await self._shelf.forget(sandbox_id, number)

    def _expired(self, found: list[Snapshot], closed_at: datetime | None) -> list[int]:
        pinned = [one.number for one in found if one.pins]
        numbers = [one.number for one in found]
        if closed_at is None:
            return expired(numbers, pinned, keep=self._settings.keep)
        if not outlived(
            closed_at, self._shelf.clock(), closed_seconds=self._settings.closed_seconds
        ):
            return []
        return [number for number in numbers if number not in pinned]

    async def collect(self) -> None:
        """Delete packs that were unused all through the grace."""
        now = self._now()
        unused = await self._shelf.work(unused_packs)
        self._unused = {key: self._unused.get(key, now) for key in unused}
        grace = self._settings.grace_seconds
        ripe = {key for key, since in self._unused.items() if now - since >= grace}
        if not ripe:
            return
        async with self._shelf.alone():
            gone = await self._shelf.work(lambda all_: delete_packs(all_, ripe, MOST_PACKS))
        self._log.info("unused packs deleted", count=gone, left=len(ripe) - gone)
