"""Disks that are in use before they lie on the host's own: copies of which most is in memory yet.

The kernel writes a file out before it puts it on a loop device, and again whenever the file system on
it asks for what it wrote to last. So a copy's file is on its device before anything is in it, and is
mounted without such requests (barriers). As long as that is so it counts as whole in this boot alone:
its mark goes when all of it lies on the host's disk, and either barriers are on or nobody has it.
"""

import asyncio
import contextlib
import fcntl
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from handiwork.observe import log
from handiwork.sandboxes import disks
from handiwork.sandboxes.copying import Copying
from handiwork.sandboxes.disk_files import LOOK_SECONDS, RELEASE_SECONDS, is_free
from handiwork.sandboxes.states import States
from handiwork.sandboxes.trees import flush_one, flush_open

FIRST_START_SECONDS = 2.0
"""So long the disk of a new fork is not written out: who starts it would wait for all of that."""
FLUSH_SECONDS = 300.0
"""So long who wants a disk waits for a flush that holds it."""
_BLKFLSBUF = 0x1261
_LOG = log.get("sandboxes")


@dataclass(frozen=True)
class _Attached:
    device: int
    name: str
    file: int
    """Its number: what was put in its place since is not on this device."""


class _Used:
    """A mount that somebody has; `mount` is a descriptor of it, ours, until it is let go."""

    def __init__(self, mount: int) -> None:
        self.mount: int | None = mount


class Unflushed:
    """Those of one driver. Called from its threads too; what waits does so in these."""

    def __init__(self, states: States, copying: Copying) -> None:
        self._states = states
        self._copying = copying
        self._changed = threading.Condition()
        self._attached: dict[str, _Attached] = {}
        self._used: dict[str, _Used] = {}
        self._held: set[str] = set()

    def attach(self, sandbox_id: str, path: Path, size_bytes: int) -> None:
        """Make the file of a disk, all hole, and put it on a device, which waits for its mount; OSError."""
        with path.open("xb") as file:
            file.truncate(size_bytes)
            number = os.fstat(file.fileno()).st_ino
        device, name = disks.attach(path)
        with self._changed:
            self._attached[sandbox_id] = _Attached(device, name, number)

    def mount(self, sandbox_id: str, path: Path) -> int:
        """Mount a disk, as `disks.mount_disk`; as fast as may be where it was attached by us."""
        with self._changed:
            attached = self._attached.pop(sandbox_id, None)
        if attached is not None:
            with contextlib.suppress(OSError):  # then it is mounted as any other
                return _mounted(attached, path)
        self._wait(sandbox_id)
        return disks.mount_disk(path)

    def use(self, sandbox_id: str, mount: int) -> Callable[[], None]:
        """Have barriers turned on on a mount when its disk is flushed; call what is returned at its end."""
        if self._states.is_flushed(sandbox_id):
            return lambda: None
        used = _Used(os.dup(mount))
        with self._changed:
            self._used[sandbox_id] = used
        return lambda: self._end(sandbox_id, used)

    def let_go(self, sandbox_id: str) -> None:
        """Give up the device that waits for its mount: what is mounted from now on takes longer. No-op else."""
        with self._changed:
            attached = self._attached.pop(sandbox_id, None)
        if attached is not None:
            os.close(attached.device)

    def leave(self, sandbox_id: str) -> None:
        """Let go, and wait until no flush has the disk of one that does not run."""
        self.let_go(sandbox_id)
        self._wait(sandbox_id)

    def close(self) -> None:
        """Let go of all that waits."""
        for sandbox_id in list(self._attached):
            self.let_go(sandbox_id)

    def flush_later(self, *sandbox_ids: str, seconds: float = 0) -> None:
        """Flush disks of new states while nobody waits, so much later; a sleep tries again what failed."""
        for sandbox_id in sandbox_ids:
            if not self._states.is_flushed(sandbox_id):
                asyncio.get_running_loop().call_later(seconds, self._flush_beside, sandbox_id)

    def _flush_beside(self, sandbox_id: str) -> None:
        failed = functools.partial(_tell, sandbox_id)
        self._copying.later(functools.partial(self.flush, sandbox_id), failed)

    def flush(self, sandbox_id: str) -> None:
        """Have a disk lie on the host's, and what is written to it from now on when its sandbox asks.

        No-op for one that is flushed, or gone. OSError: it is not, call it again.
        """
        if self._states.is_flushed(sandbox_id):
            return
        with contextlib.suppress(FileNotFoundError):
            disk = self._states.disk(sandbox_id)
            flush_one(disk)  # most of it, while it is written to
            self.let_go(sandbox_id)
            self._turn_on(sandbox_id, disk)
        self._states.flush(sandbox_id)

    def _turn_on(self, sandbox_id: str, disk: Path) -> None:
        """Return when barriers are on, or nobody has it; OSError."""
        ends = time.monotonic() + RELEASE_SECONDS
        while True:
            with self._holding(sandbox_id) as mount:
                if mount is not None:
                    flush_open(mount)  # most of it, while nobody waits for it
                    disks.set_barriers(mount)
                    flush_open(mount)
                    return
            if is_free(disk):
                return
            if time.monotonic() > ends:
                raise BlockingIOError(f"{disk} is in use, and not by us")
            time.sleep(LOOK_SECONDS)

    @contextlib.contextmanager
    def _holding(self, sandbox_id: str) -> Iterator[int | None]:
        """Yield the mount that is used, which stays meanwhile."""
        with self._changed:
            used = self._used.get(sandbox_id)
            mount = None if used is None or used.mount is None else os.dup(used.mount)
            if mount is not None:
                self._held.add(sandbox_id)
        try:
            yield mount
        finally:
            if mount is not None:
                os.close(mount)
                with self._changed:
                    self._held.discard(sandbox_id)
                    self._changed.notify_all()

    def _wait(self, sandbox_id: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: sandbox_id not in self._held, FLUSH_SECONDS)

    def _end(self, sandbox_id: str, used: _Used) -> None:
        with self._changed:
            mount, used.mount = used.mount, None
            if self._used.get(sandbox_id) is used:
                del self._used[sandbox_id]
        if mount is not None:
            os.close(mount)


def _mounted(attached: _Attached, path: Path) -> int:
    """Mount what was attached, and close it; OSError."""
    try:
        if attached.file != path.stat().st_ino:
            raise FileNotFoundError(f"{path} is another file by now")
        # Whoever looks at new devices has read it while there was nothing in it.
        fcntl.ioctl(attached.device, _BLKFLSBUF)
        return disks.mount_device(attached.name, barriers=False)
    finally:
        os.close(attached.device)


def _tell(sandbox_id: str, reason: str) -> None:
    _LOG.warning("its disk is not flushed", sandbox=sandbox_id, reason=reason)
