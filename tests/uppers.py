"""What sandboxes wrote, seen from the host: in the state directory, or on the disk that lies in it."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes import disks

WAIT_SECONDS = 20.0


@contextlib.contextmanager
def upper(state: Path) -> Iterator[Path]:
    """Yield a path of the upper directory of a sandbox's state, whether it runs or not."""
    disk = state / "disk.img"
    if not disk.exists():
        yield state / "upper"
        return
    mount = _mounted(disk)
    try:
        yield Path(f"/proc/self/fd/{mount}/upper")
    finally:
        os.close(mount)


def _mounted(disk: Path) -> int:
    """Mount a disk, or the device that it is on: a device that is mounted twice is one file system."""
    ends = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            device = _device(disk)
            return disks.mount_device(device) if device else disks.mount_disk(disk)
        except FileNotFoundError:
            raise  # it stood ready, and is a sandbox's by now
        except (OSError, SandboxUnavailableError):  # somebody else has it for a moment
            if time.monotonic() > ends:
                raise
            time.sleep(0.01)


def _device(disk: Path) -> str:
    """Return the loop device that a running sandbox's disk is on; "" when it is free."""
    with disk.open("rb") as file, contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return ""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().strip() == str(disk.resolve()):
                return f"/dev/{backing.parts[3]}"
    raise OSError("the disk is neither free nor on a device")


def written(data: Path, name: str) -> list[str]:
    """Return the texts of the files of that path, in all sandboxes below a directory that have it."""
    found = []
    # Not deeper: an image that is being built comes and goes beside them.
    places = [*data.glob("sandboxes/*/merged"), *data.glob("*/sandboxes/*/merged")]
    states = [place.parent for place in places if not place.parent.name.startswith(".")]
    for state in sorted(states):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), upper(state) as place:
            found.append((place / name).read_text())
    return found


def kept_bytes(path: Path) -> bytes:
    """Return what a file holds without its holes: a disk that is nearly empty is many gigabytes long."""
    found, end = [], 0
    with path.open("rb") as file:
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # ENXIO: there is no more
                return b"".join(found)
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append(os.pread(file.fileno(), end - start, start))
