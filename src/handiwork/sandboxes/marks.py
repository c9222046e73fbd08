"""The mark of a state whose disk may not lie on the host's yet: it counts as whole in one boot alone.

What the kernel could not write it tells once, to whoever has the file open then and asks first. So a
disk is opened before anything is in it, and by this descriptor alone it is found out whether it lies
there; the state of which something was not written is lost from then on.
"""

import contextlib
import errno
import os
import threading
from pathlib import Path
from typing import Self

UNFLUSHED = "unflushed"
"""A file in the state's directory: which boot of the host its disk is whole in, or why it is lost."""
DISK = "disk.img"
BOOT = Path("/proc/sys/kernel/random/boot_id")
LOST = b"not written: "
NOT_WRITTEN = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT})

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MARK = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_DISK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_MARK_BYTES = 200
_TELLING = threading.Lock()


class Mark:
    """One state's, and its disk: of this state, wherever it is by now, and of none that replaced it."""

    def __init__(self, directory: int, mark: int, disk: int) -> None:
        """Take over descriptors of the three."""
        self._directory = directory
        self._mark = mark
        self._disk = disk

    @classmethod
    def of(cls, state: Path) -> Self:
        """Open that of a state. FileNotFoundError: it has none, or is not whole in this boot."""
        with contextlib.ExitStack() as opened:
            directory = os.open(state, _DIRECTORY)
            opened.callback(os.close, directory)
            mark = os.open(UNFLUSHED, _MARK, dir_fd=directory)
            opened.callback(os.close, mark)
            disk = os.open(DISK, _DISK, dir_fd=directory)
            opened.callback(os.close, disk)
            _check(mark)
            opened.pop_all()
        return cls(directory, mark, disk)

    def copy(self) -> "Mark":
        """Return one more of the same, which is closed by itself."""
        with contextlib.ExitStack() as opened:
            copies = []
            for one in (self._directory, self._mark, self._disk):
                copies.append(os.dup(one))
                opened.callback(os.close, copies[-1])
            opened.pop_all()
        return Mark(*copies)

    def close(self) -> None:
        """Let go of it."""
        for one in (self._directory, self._mark, self._disk):
            os.close(one)

    def write_out(self) -> None:
        """Have what the disk holds lie on the host's. OSError: it does not, and may be lost by that."""
        try:
            os.fsync(self._disk)
        except OSError as error:
            if error.errno in NOT_WRITTEN:
                self.lose(error)
            raise

    def lose(self, error: OSError) -> None:
        """Say that it is not whole, and will not be."""
        with _TELLING:
            os.ftruncate(self._mark, 0)
            os.pwrite(self._mark, LOST + f"{error.strerror}\n".encode(), 0)

    def clear(self) -> None:
        """Say that it is whole, durably. FileNotFoundError: it is not its mark any more, or says otherwise."""
        with _TELLING:
            _check(self._mark)
            there = os.stat(UNFLUSHED, dir_fd=self._directory, follow_symlinks=False)
            if not os.path.samestat(there, os.fstat(self._mark)):
                raise FileNotFoundError("it has another mark by now")
            os.unlink(UNFLUSHED, dir_fd=self._directory)
        os.fsync(self._directory)


def why_lost(state: Path) -> str:
    """Return why a state is not whole; "" when it is, as far as its mark tells."""
    try:
        told = (state / UNFLUSHED).read_bytes()
    except FileNotFoundError:
        return ""
    if told == BOOT.read_bytes():
        return ""
    if told.startswith(LOST):
        return (
            "its disk was not written: " + told.removeprefix(LOST).decode(errors="replace").strip()
        )
    return "the host went down before its disk was written"


def _check(mark: int) -> None:
    if os.pread(mark, _MARK_BYTES, 0) != BOOT.read_bytes():
        raise FileNotFoundError("it is not whole in this boot")
