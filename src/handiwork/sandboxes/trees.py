"""Deleting a directory tree that a guest made, and putting one in the place of another.

Deleting: links are never followed, depth is no limit.

Every step opens one name below an open directory, so no path of the guest's is ever walked; what
lies deeper than a few levels is first moved up.
"""

import ctypes
import errno
import itertools
import os
from pathlib import Path

MAX_DEPTH = 32
BATCH = 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_C = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_WRITING_BACK = {0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs", 0xF2F52010: "f2fs"}
"""By the numbers of <linux/magic.h>."""


def exchange(one: Path, other: Path) -> None:
    """Swap two names of one filesystem in one step: a crash leaves both as before or both swapped."""
    names = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    if _C.renameat2(*names, ctypes.c_uint(_RENAME_EXCHANGE)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


def flush_filesystem(path: Path) -> None:
    """Make all that a filesystem was told durable; blocks."""
    _flush(os.open(path, _DIRECTORY))


def flush_one(path: Path) -> None:
    """Do so for one file, or the names in one directory; blocks."""
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def flush_open(directory: int) -> None:
    """Do so for the filesystem of a directory that is open, if only to look names up in it."""
    _flush(os.open(".", _DIRECTORY, dir_fd=directory))


def _flush(directory: int) -> None:
    """Flush the filesystem of an open directory, and close that."""
    try:
        if _C.syncfs(directory):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(directory)


def writes_back(directory: int) -> bool:
    """Say whether an open directory's file system is known to tell each write after a flush by its time.

    Memory file systems never write back, so that what is written through a mapping shows nowhere.
    """
    facts = ctypes.create_string_buffer(256)
    if _C.fstatfs(directory, facts):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return ctypes.c_long.from_buffer(facts).value & 0xFFFFFFFF in _WRITING_BACK


def remove_tree(path: Path) -> None:
    """Delete a tree whose parent directory is ours. No-op when it is not there; blocks."""
    parent = os.open(path.parent, _DIRECTORY)
    try:
        _Removal(parent, path.name).run()
    finally:
        os.close(parent)


class _Removal:
    def __init__(self, parent: int, name: str) -> None:
        self._parent = parent
        self._name = name
        self._moved = 0

    def run(self) -> None:
        try:
            self._top = _open(self._parent, self._name)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            os.unlink(self._name, dir_fd=self._parent)
            return
        try:
            while names := _subnames(self._top):
                for name in names:
                    self._remove(self._top, name, 1)
        finally:
            os.close(self._top)
        os.rmdir(self._name, dir_fd=self._parent)

    def _remove(self, parent: int, name: str, depth: int) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except (IsADirectoryError, PermissionError):
            self._remove_directory(parent, name, depth)

    def _remove_directory(self, parent: int, name: str, depth: int) -> None:
        directory = _open(parent, name)
        try:
            if depth >= MAX_DEPTH:
                # Its own directories become children of the top, which removes them later.
                self._lift(directory)
            while names := _subnames(directory):
                for child in names:
                    self._remove(directory, child, depth + 1)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=parent)

    def _lift(self, directory: int) -> None:
        while names := _subnames(directory, directories=True):
            for name in names:
                os.close(_open(directory, name))  # gives us the mode that moving it needs
                while not self._moved_up(directory, name):
                    continue

    def _moved_up(self, directory: int, name: str) -> bool:
        """Move a directory to the top under the next name; False where the guest took that name."""
        self._moved += 1
        target = f".lifted-{self._moved}"
        try:
            os.rename(name, target, src_dir_fd=directory, dst_dir_fd=self._top)
        except (FileExistsError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            return False
        return True


def _subnames(directory: int, *, directories: bool = False) -> list[str]:
    """Return some of the names there, [] when there are none: a guest may make millions."""
    with os.scandir(directory) as found:
        wanted = (e.name for e in found if not directories or e.is_dir(follow_symlinks=False))
        return list(itertools.islice(wanted, BATCH))


def _open(parent: int, name: str) -> int:
    """Open a directory to read and change it, whatever its mode; never through a link."""
    found = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        path = Path(f"/proc/self/fd/{found}")
        if path.stat().st_mode & 0o700 != 0o700:
            path.chmod(0o700)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(found)
