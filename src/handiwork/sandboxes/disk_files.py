"""The files that disks are: one user at a time, and copied without their holes.

What a copy is of holds still: a template, a disk that nobody has, or one whose sandbox is frozen. The
last is flushed first; should its file system write all the same, the copy is made again.
"""

import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.trees import flush_open

RELEASE_SECONDS, LOOK_SECONDS = 10.0, 0.005
"""The kernel lets a disk go a moment after its last user; so long it is waited for."""
PIECE_BYTES = 16 << 20
COPY_TRIES = 3

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHECKPOINT = 0x4004_662B
"""EXT4_IOC_CHECKPOINT: what its journal holds is put where it belongs."""
_WRITES, _SECTORS = 4, 6
"""Where a block device's `stat` counts what was written to it."""


def lock(file: int, *, alone: bool = True) -> None:
    """Take a disk for this opening of it, which its loop device keeps.

    Mounted twice it would break, unless nobody writes to it, which is what not `alone` means.
    """
    ends = time.monotonic() + RELEASE_SECONDS
    how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends:
                raise
            time.sleep(LOOK_SECONDS)
        else:
            return


def is_free(disk: Path) -> bool:
    """Say whether nobody has a disk to write to at the moment."""
    with disk.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def copy_idle(source: Path, target: Path, stop: threading.Event) -> None:
    """Copy a disk that nobody has, which it is kept from being taken meanwhile; OSError."""
    with source.open("rb") as held:
        lock(held.fileno())
        copy_over(source, target, stop)


def copy_still(mount: int, source: Path, target: Path, stop: threading.Event) -> None:
    """Copy a mounted disk while nobody writes to its files; OSError, SandboxUnavailableError."""
    for _ in range(COPY_TRIES):
        _settle(mount)
        before = _written(mount)
        copy_over(source, target, stop)
        if _written(mount) == before:
            return
    raise SandboxUnavailableError(f"the disk {source} was written to while it was copied")


def copy_file(source: Path, target: Path, stop: threading.Event | None = None) -> None:
    """Copy what is not a hole to a new file; SandboxUnavailableError when it was stopped."""
    target.open("xb").close()
    copy_over(source, target, stop)


def copy_over(source: Path, target: Path, stop: threading.Event | None = None) -> None:
    """Copy as `copy_file`, to a file that is there, and may be on a device; what it held goes."""
    with source.open("rb") as read, target.open("r+b") as written:
        # Not needlessly: what was cut to nothing is written out when it is closed.
        if os.fstat(written.fileno()).st_blocks:
            os.ftruncate(written.fileno(), 0)
        os.ftruncate(written.fileno(), os.fstat(read.fileno()).st_size)
        for start, end in segments(read.fileno()):
            _copy_range(read.fileno(), written.fileno(), start, end, stop)


def segments(file: int) -> Iterator[tuple[int, int]]:
    """Yield where a file is not a hole."""
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # there is no more
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


def _copy_range(
    source: int, target: int, start: int, end: int, stop: threading.Event | None
) -> None:
    while start < end:
        if stop is not None and stop.is_set():
            raise SandboxUnavailableError("the copy was stopped")
        copied = os.copy_file_range(source, target, min(end - start, PIECE_BYTES), start, start)
        if not copied:
            return
        start += copied


def _settle(mount: int) -> None:
    """Have all that was written to a file system lie on its disk, each block where it belongs."""
    flush_open(mount)
    directory = os.open(".", _DIRECTORY, dir_fd=mount)
    try:
        fcntl.ioctl(directory, _CHECKPOINT, struct.pack("I", 0))
    finally:
        os.close(directory)


def _written(mount: int) -> tuple[str, str]:
    """Return what was ever written to the device of a mount."""
    device = os.stat(mount).st_dev
    place = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    counts = place.read_text().split()
    return counts[_WRITES], counts[_SECTORS]
