"""Copies of disks that are mounted before they are written out.

The kernel writes a file out before it puts it on a loop device, and whenever a file system there asks
for a flush; for a copy that has just been made, and is in memory, that takes longer than copying did.
So its device is made while the file is empty, and its first mount asks for no flush until the copy was
written out. Before that a power cut loses it, which its state tells (`states.UNFLUSHED`); whatever else
ends leaves it as it leaves every disk.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.disk_files import lock
from handiwork.sandboxes.disks import attach, flush_from_now, mount_device

_LOOP_SET_CAPACITY, _LOOP_SET_DIRECT_IO = 0x4C07, 0x4C08


class FreshCopy:
    """A new file on a device of its own: filled once, mounted once at most. `close` it.

    Calls may come from any thread; one that blocks for long holds no other up.
    """

    def __init__(self, target: Path) -> None:
        """Make it, empty. OSError; blocks."""
        self._guard = threading.Lock()
        self._mount: int | None = None
        self._device: int | None = None
        self._target = target
        with target.open("x+b") as file:
            lock(file.fileno())
            self._device, self._name = attach(file.fileno(), direct=False)

    def fill(self, write: Callable[[int], None]) -> None:
        """Let `write` write it to a descriptor. OSError; blocks.

        Its device has no block before that, so that nobody can have read one.
        """
        with self._target.open("r+b") as file:
            write(file.fileno())
        device = self._own(self._device)
        if device is None:
            raise OSError(errno.EBADF, "the copy is closed")
        try:
            fcntl.ioctl(device, _LOOP_SET_CAPACITY)
        finally:
            os.close(device)

    def mount(self) -> int | None:
        """Mount it, without flushes; None where it was closed: then it is like any other. Blocks.

        Returns a descriptor of the mount, the caller's. SandboxUnavailableError.
        """
        device = self._own(self._device)
        if device is None:
            return None
        try:
            mount = mount_device(self._name, flushes=False)
        except OSError as error:
            raise SandboxUnavailableError(
                f"the copy on {self._name} could not be mounted: {error.strerror}"
            ) from error
        finally:
            os.close(device)
        with self._guard:
            if self._device is not None:
                self._mount = os.dup(mount)
                return mount
        os.close(mount)
        return None

    def settle(self) -> bool:
        """Have its mount flush from now on, like that of any disk; False where there is none. OSError.

        It is closed then: call it when the file was written out, else its guest waits for that. Blocks.
        """
        mount, device = self._own(self._mount), self._own(self._device)
        try:
            if mount is None or device is None:
                return False
            flush_from_now(mount)
            _go_direct(device)
            return True
        finally:
            for one in (mount, device):
                if one is not None:
                    os.close(one)
            self.close()

    def _own(self, descriptor: int | None) -> int | None:
        with self._guard:
            if descriptor is None or self._device is None:
                return None
            return os.dup(descriptor)

    def close(self) -> None:
        """Let go of it; its device goes with its mount, where there is one. No-op when it was called."""
        with self._guard:
            for one in (self._mount, self._device):
                if one is not None:
                    os.close(one)
            self._mount = self._device = None


def _go_direct(device: int) -> None:
    """Keep nothing of a device in memory twice any more, where the file's file system can do that."""
    try:
        fcntl.ioctl(device, _LOOP_SET_DIRECT_IO, 1)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


class FreshCopies:
    """Those that wait for their first mount, by the sandbox whose disk they are."""

    def __init__(self) -> None:
        self._waiting: dict[str, FreshCopy] = {}

    def keep(self, sandbox_id: str, copy: FreshCopy) -> None:
        """Keep one until it is taken, let go, or written out."""
        self._waiting[sandbox_id] = copy

    def take(self, sandbox_id: str) -> FreshCopy | None:
        """Return that of a sandbox, the caller's now; None where its disk is like any other."""
        return self._waiting.pop(sandbox_id, None)

    def let_go(self, sandbox_id: str) -> None:
        """Close that of a sandbox, whose disk is to be used otherwise. No-op where there is none."""
        copy = self.take(sandbox_id)
        if copy is not None:
            copy.close()
