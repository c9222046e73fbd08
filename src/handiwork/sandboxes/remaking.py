"""A state made anew from elsewhere: beside the one that is there, and swapped in whole.

Until the swap nobody sees it; what fails, or ends with us, leaves what was there.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from handiwork.model.errors import NotFoundError, SandboxUnavailableError
from handiwork.sandboxes import disks
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.protocol import Make
from handiwork.sandboxes.snapshots.stoppable import in_thread
from handiwork.sandboxes.states import Staged, States
from handiwork.sandboxes.trees import flush_open, remove_tree

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@asynccontextmanager
async def installed(states: States, staged: Staged) -> AsyncIterator[None]:
    """Put a staged state in place when the body has made it whole; what fails leaves nothing of it."""
    try:
        yield
        replaced = await in_thread(None, threading.Event(), lambda: states.install(staged))
    except BaseException as error:
        states.drop(staged)
        await asyncio.shield(asyncio.to_thread(remove_tree, staged.path))
        if isinstance(error, OSError):
            raise SandboxUnavailableError(
                f"the files of {staged.meta.id} could not be made: {error.strerror}"
            ) from error
        raise
    if replaced is not None:
        await asyncio.to_thread(remove_tree, replaced)


@dataclass(frozen=True, kw_only=True)
class Remaking:
    """One state to make. `disk_mib` is not used where there are no disks.

    `forked`: its files were another's; one that takes the place of such a state is one still.
    """

    states: States
    disks: disks.Disks | None
    sandbox_id: str
    image: str
    disk_mib: int
    now: datetime
    forked: bool = False

    async def run(self, make: Make) -> None:
        """Make it and put it in place; the caller sees to it that the sandbox does not run."""
        on_disk = self.disks is not None
        forked = self.forked or self._was_forked()
        staged = self.states.stage(
            self.sandbox_id, self.image, self.now, on_disk=on_disk, forked=forked
        )
        async with installed(self.states, staged):
            await self._fill(staged, make)

    def _was_forked(self) -> bool:
        with contextlib.suppress(NotFoundError, SandboxUnavailableError):  # that is put right now
            return self.states.seen(self.sandbox_id).forked
        return False

    async def _fill(self, staged: Staged, make: Make) -> None:
        base = staged.meta.id_base
        place = await self._place(staged.path, base)
        try:
            await make(place, Range(base, os.geteuid()))
            await asyncio.to_thread(flush_open, place)
        finally:
            os.close(place)

    async def _place(self, state: Path, base: int) -> int:
        """Return the open directory that `upper` is to be made in: a new disk, or the state itself."""
        if self.disks is None:
            return os.open(state, _DIRECTORY)
        mount = await self.disks.take(state / "disk.img", self.disk_mib)
        try:
            disks.give_uppers(mount, base)
            os.rmdir("upper", dir_fd=mount)  # it is made by `make`, whole
            (state / "upper").mkdir(0o755)  # its disk goes over it
        except BaseException:
            os.close(mount)
            raise
        return mount
