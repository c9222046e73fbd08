"""More of one machine: the state of a new one that has another's disk, and nothing else of it.

Memory is never copied: it holds what is the other one's alone (its name, its randomness, what its
processes were told, the ends of its connections). The copy lies beside until it is whole; what fails,
or ends with us, leaves the other one alone.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.copying import Copying
from handiwork.sandboxes.disk_files import copy_file
from handiwork.sandboxes.microvm import orders
from handiwork.sandboxes.microvm.holding import held_still
from handiwork.sandboxes.microvm.running import Running
from handiwork.sandboxes.microvm.states import DISK, Staged, States
from handiwork.sandboxes.snapshots.stoppable import in_thread
from handiwork.sandboxes.trees import remove_tree


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
            source, target = self.states.path(self.source) / DISK, staged.path / DISK
            still = held_still(alive, self.moment) if alive else nullcontext()
            async with still:
                await in_thread(threads, stop, lambda: copy_file(source, target, stop))
            self.states.own(staged.path / DISK, staged.meta)
            named = self.states.name(staged, self.target, self.now)
            await in_thread(threads, stop, lambda: self.states.flush(named))
            self.states.settle(named)
            await in_thread(threads, stop, self.states.flush_names)
