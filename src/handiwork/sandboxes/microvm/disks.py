"""Disks and memory files: sparse, of a size that is the quota, never opened by a guest's path."""

import os
import shutil
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.host import capture

FORMAT_SECONDS = 60.0
FORMAT = ("-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COPY_BYTES = 1 << 24


def find_program(name: str, package: str) -> str:
    """Return the path of a program of this host; UnsupportedError names the package that has it."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise UnsupportedError(f"{name} is not installed: apt-get install {package}")
    return found


async def blank_disk(directory: Path, mib: int) -> Path:
    """Return an empty file system of a size, made once; sandboxes get copies of it."""
    path = directory / f"blank-{mib}"
    if path.is_file():
        return path
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = directory / f".blank-{mib}-{os.getpid()}"
    make_sparse(beside, mib)
    program = find_program("mkfs.ext4", "e2fsprogs")
    code, told = await capture([program, *FORMAT, str(beside)], FORMAT_SECONDS)
    if code:
        beside.unlink()
        raise SandboxUnavailableError(f"mkfs.ext4 of {beside} ended with {code}: {told[:200]}")
    beside.rename(path)
    return path


def make_sparse(path: Path, mib: int) -> None:
    """Make a new file of zeros that takes no room, in the place of an earlier one."""
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(file, mib << 20)
    finally:
        os.close(file)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy what a sparse file holds; blocks."""
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(reader).st_size
        make_sparse(target, size >> 20)
        writer = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
        try:
            _copy_parts(reader, writer, size)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_parts(reader: int, writer: int, size: int) -> None:
    at = 0
    while at < size:
        try:
            at = os.lseek(reader, at, os.SEEK_DATA)
        except OSError:
            return  # nothing but a hole is left
        end = os.lseek(reader, at, os.SEEK_HOLE)
        while at < end:
            copied = os.copy_file_range(reader, writer, min(end - at, COPY_BYTES), at, at)
            if not copied:
                return
            at += copied
