"""More of one machine: the state of a new one that has another's disk, and nothing else of it.

Memory is never copied: it holds what is the other one's alone (its name, its randomness, what its
processes were told, the ends of its connections). The copy lies beside until it is whole; what fails,
or ends with us, leaves the other one alone.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.copying import Copying
from handiwork.sandboxes.disk_files import copy_file
from handiwork.sandboxes.microvm import orders
from handiwork.sandboxes.microvm.running import Running
from handiwork.sandboxes.microvm.states import DISK, Staged, States
from handiwork.sandboxes.snapshots.stoppable import in_thread, to_its_end
from handiwork.sandboxes.trees import remove_tree

HOLD_SECONDS = 60.0
"""Within this a machine has written to its disk what it holds, or takes an order."""


@dataclass(frozen=True, kw_only=True)
class Forking:
    """One to make, of a source that nobody starts, stops or deletes meanwhile."""

    states: States
    source: str
    target: str
    now: datetime
    copying: Copying
    moment: Callable[[], orders.Moment]

    async def run(self, alive: Running | None) -> None:
        """Make it; a source that runs is held still while its disk is copied."""
        meta = self.states.load(self.source)
        self.states.refuse_taken(self.target)
        staged = self.states.stage("fork", meta.image, self.now)
        try:
            await self._make(staged, alive)
        except BaseException as error:
            self.states.abandon(staged)
            await asyncio.shield(asyncio.to_thread(remove_tree, staged.path))
            if isinstance(error, OSError):
                raise SandboxUnavailableError(
                    f"the disk of {self.source} could not be copied: {error.strerror}"
                ) from error
            raise

    async def _make(self, staged: Staged, alive: Running | None) -> None:
        stop = threading.Event()
        async with self.copying.place() as threads:

            async def copy() -> None:
                source, target = self.states.path(self.source) / DISK, staged.path / DISK
                await in_thread(threads, stop, lambda: copy_file(source, target, stop))

            if alive is None:
                await copy()
            else:
                await self._uncut(alive, copy, stop)
            self.states.own(staged.path / DISK, staged.meta)
            named = self.states.name(staged, self.target, self.now)
            await in_thread(threads, stop, lambda: self.states.flush(named))
            self.states.settle(named)
            await in_thread(threads, stop, self.states.flush_names)

    async def _uncut(
        self, alive: Running, copy: Callable[[], Awaitable[None]], stop: threading.Event
    ) -> None:
        """Copy, also when we are cancelled: cut short, the machine would stand still for good."""

        async def failure() -> Exception | None:
            try:
                await self._held_still(alive, copy)
            except Exception as error:  # noqa: BLE001 - raised below, not as one of a group
                return error
            return None

        async with asyncio.TaskGroup() as group:
            failed = await to_its_end(group.create_task(failure()), stop)
        if failed is not None:
            raise failed

    async def _held_still(self, alive: Running, copy: Callable[[], Awaitable[None]]) -> None:
        """Copy while nothing of the sandbox runs and all it wrote is on its disk.

        Its agent stands still too, so that what it owes us is not late meanwhile.
        """
        alive.channel.deadlines.pause()
        try:
            await alive.control.order(orders.hold(), HOLD_SECONDS)
            await alive.monitor.run("stop")
            await copy()
        finally:
            try:
                await self._let_go(alive)
            finally:
                alive.channel.deadlines.resume()

    async def _let_go(self, alive: Running) -> None:
        """Have it go on, with its clock set; one that cannot is ended: its files are on its disk."""
        try:
            await alive.monitor.run("cont")
            await alive.control.settle(HOLD_SECONDS)
            await alive.control.order(orders.resume(self.moment()), HOLD_SECONDS)
        except SandboxUnavailableError as error:
            alive.channel.end(f"it did not go on after its disk was copied: {error}")
            raise
