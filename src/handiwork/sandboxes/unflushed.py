"""Disks that are in use before they lie on the host's own: copies of which most is in memory yet.

The kernel writes a file out before it puts it on a loop device, and again whenever the file system on
it asks for what it wrote to last. So a copy's file is on its device before anything is in it, and is
mounted without such requests (barriers). As long as that is so it counts as whole in this boot alone:
its mark goes when all of it lies on the host's disk, and either barriers are on or nobody has it.
"""

import asyncio
import contextlib
import errno
import fcntl
import functools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError
from handiwork.observe import log
from handiwork.sandboxes import disks
from handiwork.sandboxes.copying import Copying
from handiwork.sandboxes.disk_files import LOOK_SECONDS, RELEASE_SECONDS, is_free
from handiwork.sandboxes.marks import Mark
from handiwork.sandboxes.states import States

FIRST_START_SECONDS = 2.0
"""So long the disk of a new fork is not written out: who starts it would wait for all of that."""
FLUSH_SECONDS = 20.0
"""So long who wants a disk waits for a flush that holds it."""
AGAIN_SECONDS = (2.0, 10.0, 60.0, 600.0)
"""So long after a flush that failed it is tried again."""
SLOW = "its disk is mounted as any other, once it is written out"
_BLKFLSBUF = 0x1261
_LOG = log.get("sandboxes")


@dataclass(frozen=True)
class _Attached:
    device: int
    name: str
    file: int
    """Its number: what was put in its place since is not on this device."""


class _Used:
    """A mount that somebody has; `mount` is a descriptor of it, ours, until it is let go or `safe`."""

    def __init__(self, mount: int) -> None:
        self.mount: int | None = mount
        self.safe = False


class Unflushed:
    """Those of one driver. Called from its threads too; what waits does so in these."""

    def __init__(self, states: States, copying: Copying) -> None:
        self._states = states
        self._copying = copying
        self._changed = threading.Condition()
        self._attached: dict[str, _Attached] = {}
        self._marks: dict[str, Mark] = {}
        self._used: dict[str, _Used] = {}
        self._held: Counter[str] = Counter()
        self._trying: set[str] = set()

    def attach(self, sandbox_id: str, path: Path, size_bytes: int) -> None:
        """Make the file of a disk, all hole, and put it on a device, which waits for its mount; OSError.

        Where no device is to be had it is mounted as any other.
        """
        with path.open("xb") as file:
            file.truncate(size_bytes)
            number = os.fstat(file.fileno()).st_ino
        with contextlib.suppress(FileNotFoundError):
            self._keep(sandbox_id, Mark.of(path.parent))
        try:
            device, name = disks.attach(path)
        except OSError as error:
            _LOG.warning(SLOW, sandbox=sandbox_id, reason=str(error))
            return
        with self._changed:
            self._attached[sandbox_id] = _Attached(device, name, number)

    def mount(self, sandbox_id: str, path: Path) -> int:
        """Mount a disk, as `disks.mount_disk`; as fast as may be where it was attached by us."""
        with self._changed:
            attached = self._attached.pop(sandbox_id, None)
        if attached is not None:
            try:
                return _mounted(attached, path)
            except OSError as error:
                _LOG.warning(SLOW, sandbox=sandbox_id, reason=str(error))
        self._wait(sandbox_id)
        self._write_out(sandbox_id)
        return disks.mount_disk(path)

    def _write_out(self, sandbox_id: str) -> None:
        """Before whoever mounts it has that done, and hears of what goes wrong."""
        try:
            with contextlib.suppress(FileNotFoundError), self._mark(sandbox_id) as mark:
                mark.write_out()
        except OSError as error:
            raise SandboxUnavailableError(
                f"the disk of sandbox {sandbox_id} was not written: {error.strerror}"
            ) from error

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

    def forget(self, sandbox_id: str) -> None:
        """Let go of one that goes, or gets another disk."""
        self.let_go(sandbox_id)
        self._keep(sandbox_id, None)

    def _keep(self, sandbox_id: str, mark: Mark | None) -> None:
        with self._changed:
            former = self._marks.pop(sandbox_id, None)
            if mark is not None:
                self._marks[sandbox_id] = mark
        if former is not None:
            former.close()

    @contextlib.contextmanager
    def _mark(self, sandbox_id: str) -> Iterator[Mark]:
        """Yield that of a state; FileNotFoundError where there is none, or it is lost."""
        with self._changed:
            kept = self._marks.get(sandbox_id)
            mark = kept.copy() if kept is not None else None
        with contextlib.closing(mark or Mark.of(self._states.path(sandbox_id))) as found:
            yield found

    def leave(self, sandbox_id: str) -> None:
        """Let go, and wait until no flush has the disk of one that does not run."""
        self.let_go(sandbox_id)
        self._wait(sandbox_id)

    def close(self) -> None:
        """Let go of all that waits."""
        with self._changed:
            waiting = {*self._attached, *self._marks}
        for sandbox_id in waiting:
            self.forget(sandbox_id)

    def flush_later(self, *sandbox_ids: str, seconds: float = 0) -> None:
        """Flush disks of new states while nobody waits, so much later; what fails is tried again."""
        for sandbox_id in sandbox_ids:
            if not self._states.is_flushed(sandbox_id):
                self._call(seconds, sandbox_id, 0)

    def _call(self, seconds: float, sandbox_id: str, tries: int) -> None:
        asyncio.get_running_loop().call_later(seconds, self._flush_beside, sandbox_id, tries)

    def _flush_beside(self, sandbox_id: str, tries: int) -> None:
        failed = functools.partial(self._try_again, sandbox_id, tries)
        self._copying.later(functools.partial(self.flush, sandbox_id), failed)

    def _try_again(self, sandbox_id: str, tries: int, reason: str) -> None:
        """One of a kind: a sleep and a failure may both have asked for it."""
        _LOG.warning("its disk is not flushed", sandbox=sandbox_id, reason=reason)
        if sandbox_id not in self._trying:
            self._trying.add(sandbox_id)
            seconds = AGAIN_SECONDS[min(tries, len(AGAIN_SECONDS) - 1)]
            loop = asyncio.get_running_loop()
            loop.call_later(seconds, self._trying.discard, sandbox_id)
            self._call(seconds, sandbox_id, tries + 1)

    def flush(self, sandbox_id: str) -> None:
        """Have a disk lie on the host's, and what is written to it from now on when its sandbox asks.

        No-op for one that is flushed, gone, or was lost. OSError: it is not, call it again.
        """
        with contextlib.suppress(FileNotFoundError), self._mark(sandbox_id) as mark:
            mark.write_out()  # most of it, while it is written to
            self.let_go(sandbox_id)
            try:
                self._turn_on(sandbox_id, self._states.disk(sandbox_id))
            except OSError as error:
                if error.errno == errno.EIO:
                    mark.lose(error)
                raise
            mark.write_out()
            mark.clear()
            self._keep(sandbox_id, None)

    def _turn_on(self, sandbox_id: str, disk: Path) -> None:
        """Return when barriers are on, or nobody has it; OSError."""
        ends = time.monotonic() + RELEASE_SECONDS
        while not self._states.is_flushed(sandbox_id):
            with self._holding(sandbox_id) as mount:
                if mount is not None:
                    disks.set_barriers(mount)
                    _commit(mount)
            if self._is_safe(sandbox_id) or is_free(disk):
                return
            if time.monotonic() > ends:
                raise OSError(errno.EBUSY, f"{disk} is in use, and not by us")
            time.sleep(LOOK_SECONDS)

    @contextlib.contextmanager
    def _holding(self, sandbox_id: str) -> Iterator[int | None]:
        """Yield the mount that is used, which stays meanwhile; what was done to it is not done again."""
        with self._changed:
            used = self._used.get(sandbox_id)
            mount = None if used is None or used.mount is None else os.dup(used.mount)
            if mount is not None:
                self._held[sandbox_id] += 1
        if used is None or mount is None:
            yield None
            return
        try:
            yield mount
            used.safe = True
            self._close(used)
        finally:
            os.close(mount)
            with self._changed:
                self._held.subtract((sandbox_id,))
                self._held = +self._held
                self._changed.notify_all()

    def _wait(self, sandbox_id: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._held[sandbox_id], FLUSH_SECONDS)

    def _is_safe(self, sandbox_id: str) -> bool:
        with self._changed:
            used = self._used.get(sandbox_id)
            return used is not None and used.safe

    def _end(self, sandbox_id: str, used: _Used) -> None:
        with self._changed:
            if self._used.get(sandbox_id) is used:
                del self._used[sandbox_id]
        self._close(used)

    def _close(self, used: _Used) -> None:
        with self._changed:
            mount, used.mount = used.mount, None
        if mount is not None:
            os.close(mount)


def _commit(mount: int) -> None:
    """End what its journal has begun, so that it waits for the disk from now on."""
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    try:
        os.utime(directory)  # so that there is something to end, after what is under way
        os.fsync(directory)
    finally:
        os.close(directory)


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
