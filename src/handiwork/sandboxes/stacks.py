"""What a sandbox writes on, and what lies below that: its own disk over layers that it shares.

Its own disk has as much room as its layers have left of its limit: what it sees is never more than that.
"""

import functools
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from handiwork.model.errors import NotFoundError, SandboxUnavailableError
from handiwork.sandboxes import disks
from handiwork.sandboxes.host import IMAGE_FD
from handiwork.sandboxes.layers import Layers, Lent
from handiwork.sandboxes.snapshots.stoppable import in_thread
from handiwork.sandboxes.states import Meta, disk_of
from handiwork.sandboxes.unflushed import Unflushed

ROOM_BYTES = 4 << 20
"""Left on a disk however full its layers are: without a few blocks no sandbox starts."""
BALLAST = "ballast"
_COPIED, _OVERLAY = ("user.", "system.posix_acl_"), "user.overlay."

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _nothing() -> None:
    """Do nothing."""


class Stack:
    """A mount of a disk, where there is one, over layers; all descriptors are its own."""

    def __init__(self, disk: int | None, below: Lent) -> None:
        self.disk = disk
        self.below = below
        self.ended: Callable[[], None] = _nothing
        """Called once, when it is let go."""

    def devices(self) -> list[str]:
        """Return the devices of all of it as control groups name them (`7:3`), its disk's first."""
        own = [] if self.disk is None else [self.disk]
        numbers = [os.fstat(one).st_dev for one in (*own, *self.below.uppers)]
        return [f"{os.major(number)}:{os.minor(number)}" for number in numbers]

    def given(self, mount: int | None) -> tuple[list[int], list[str]]:
        """Return what a launcher gets beside its channel, an image's mount first, and the options for it."""
        layers = [("--layer-fd", upper) for upper in self.below.uppers]
        named = [("--image-fd", mount), ("--disk-fd", self.disk), *layers]
        there = [(option, one) for option, one in named if one is not None]
        options = [[option, str(number)] for number, (option, _) in enumerate(there, IMAGE_FD)]
        return [one for _, one in there], [part for option in options for part in option]

    def close(self) -> None:
        """Let go of all of it. No-op when it was called."""
        if self.disk is not None:
            os.close(self.disk)
            self.disk = None
        self.below.close()
        ended, self.ended = self.ended, _nothing
        ended()


class Stacks:
    """Makes stacks of the disks and layers of one driver; `new` None: no disk can be made here."""

    def __init__(self, new: disks.Disks | None, layers: Layers, unflushed: Unflushed) -> None:
        self._new = new
        self._layers = layers
        self._unflushed = unflushed

    async def create(self, meta: Meta, state: Path, disk_mib: int) -> Stack:
        """Make what a new sandbox writes on, where it is a disk."""
        below = await self._layers.lend(())
        if self._new is None:
            return Stack(None, below)
        disk = await self._new.take(disk_of(state), disk_mib)
        stack = Stack(disk, below)
        with closed_on_error(stack):
            disks.give_uppers(disk, meta.id_base)
        return stack

    async def open(self, meta: Meta, state: Path, disk_mib: int) -> Stack:
        """Mount what a state lies on; one that has layers alone gets a disk of its own now."""
        stack = await self._read(meta, state)
        with closed_on_error(stack):
            if stack.disk is None and meta.layers:
                stack.disk = await self._take(meta, disk_of(state), disk_mib)
            if stack.disk is not None:
                below = stack.below.uppers[0] if meta.layers else None
                await _begun(stack.disk, meta.owner_base, below)
        return stack

    async def _take(self, meta: Meta, path: Path, disk_mib: int) -> int:
        if self._new is None:
            raise SandboxUnavailableError(
                f"sandbox {meta.id} shares files with others and needs a disk of its own, which"
                " cannot be made here; `handiwork doctor` tells what is missing"
            )
        return await self._new.take(path, disk_mib)

    async def _read(self, meta: Meta, state: Path) -> Stack:
        stack = Stack(None, await self._layers.lend(meta.layers))
        with closed_on_error(stack):
            if disk_of(state).exists():
                mount = functools.partial(self._unflushed.mount, meta.id)
                stack.disk = await disks.mounted(disk_of(state), mount)
                stack.ended = self._unflushed.use(meta.id, stack.disk)
        return stack

    @asynccontextmanager
    async def read(
        self, meta: Meta, state: Path, running: Stack | None
    ) -> AsyncIterator[tuple[int, ...]]:
        """Yield descriptors of the uppers of a state, topmost first; `running`: it has that now."""
        stack = running or await self._read(meta, state)
        try:
            # Its own copies: who stops the sandbox meanwhile closes the stack.
            found = _own_upper(state, stack)
            try:
                for upper in stack.below.uppers:
                    found.append(os.dup(upper))
                yield tuple(found)
            finally:
                for upper in found:
                    os.close(upper)
        finally:
            if running is None:
                stack.close()


@contextmanager
def closed_on_error(stack: Stack) -> Iterator[None]:
    """Close a stack if the body fails."""
    try:
        yield
    except BaseException:
        stack.close()
        raise


def _own_upper(state: Path, stack: Stack) -> list[int]:
    """Open the upper that is its own; there is none on layers that nobody has written over yet."""
    if stack.disk is None and stack.below.uppers:
        return []
    try:
        if stack.disk is not None:
            return [os.open("upper", _DIRECTORY, dir_fd=stack.disk)]
        return [os.open(state / "upper", _DIRECTORY)]
    except FileNotFoundError:
        raise NotFoundError(f"sandbox {state.name} has no state on this host") from None


async def _begun(mount: int, owner: int, below: int | None) -> None:
    await in_thread(None, threading.Event(), lambda: _begin(mount, owner, below))


def _begin(mount: int, owner: int, below: int | None) -> None:
    """Make a new disk fit its layers: its root is as theirs, and what they hold is taken from its room.

    No-op when that was done: then `work`, which nobody inside reaches, has its owner. Whoever was to
    do it before may have ended at any step.
    """
    disks.make_uppers(mount, 0)
    given = os.stat("work", dir_fd=mount).st_uid
    if below is None and given == 0:
        disks.give_uppers(mount, owner)
    if below is None or given == owner:
        return
    _take_room(mount, below)
    upper = os.open("upper", _DIRECTORY, dir_fd=mount)
    try:
        facts = os.fstat(below)
        os.fchown(upper, facts.st_uid, facts.st_gid)
        os.fchmod(upper, facts.st_mode & 0o7777)
        for name in os.listxattr(below):
            if name.startswith(_COPIED) and not name.startswith(_OVERLAY):
                os.setxattr(upper, name, os.getxattr(below, name))
        os.utime(upper, ns=(facts.st_mtime_ns, facts.st_mtime_ns))
    finally:
        os.close(upper)
    os.chown("work", owner, owner, dir_fd=mount)


def _take_room(mount: int, below: int) -> None:
    """Reserve, on a disk, what the layer below it holds; that one's own reserve stands for those below it."""
    layer, disk = os.fstatvfs(below), os.fstatvfs(mount)
    held = (layer.f_blocks - layer.f_bfree) * layer.f_frsize
    most = disk.f_bavail * disk.f_frsize - ROOM_BYTES
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    ballast = os.open(BALLAST, flags, 0o600, dir_fd=mount)
    try:
        if min(held, most) > 0:
            os.posix_fallocate(ballast, 0, min(held, most))
    finally:
        os.close(ballast)
