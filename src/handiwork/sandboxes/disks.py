"""Disks that bound what a sandbox may write: sparse ext4 images, mounted without a place in any tree.

As root each sandbox's upper directory lies on a disk of its own, so that the kernel refuses the block
over the limit. A disk is copied from a formatted template (only what is not a hole), put on a loop
device that clears itself, and mounted; the mount and the device live as long as a descriptor of the
mount or a sandbox that was launched with it, so nothing is left when we are killed. Making one costs
more than all the rest of a sandbox, so some are made before they are needed.

The guest never writes the image itself: all that the kernel reads there is what mkfs and it have made.
"""

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError
from handiwork.process import is_root
from handiwork.sandboxes.disk_files import copy_file, lock
from handiwork.sandboxes.host import TOOL_PATH
from handiwork.sandboxes.images.mounted import can_mount_files
from handiwork.sandboxes.images.tools import run_tool
from handiwork.sandboxes.trees import remove_tree

CONTROL = Path("/dev/loop-control")
READY = 4
"""Disks that wait for their sandboxes, unless the settings say otherwise."""
JOURNAL_MIB = 16
LEAST_MIB = 64
"""Smaller than this a file system is more journal than files."""
UPPERS = ("upper", "work")
ATTACH_TRIES = 64

# The same on every architecture.
_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT, _SYS_FSPICK = 430, 431, 432, 433
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CREATE, _RECONFIGURE = 0, 1, 6, 7
_FSPICK_CLOEXEC, _FSPICK_EMPTY_PATH = 0x1, 0x8
_RDONLY, _NOSUID, _NODEV, _NOATIME = 0x1, 0x2, 0x4, 0x10
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LOOP_CONFIG_BYTES, _FLAGS_OFFSET, _BLOCK_BYTES = 304, 60, 4096  # struct loop_config
_AUTOCLEAR, _DIRECT_IO = 4, 16
_INCOMPATIBLE_OFFSET, _NEEDS_RECOVERY = 1024 + 0x60, 4  # of ext4's superblock


def can_limit_disks() -> bool:
    """Say whether disks can be had here: root, loop devices, mkfs, a kernel that mounts without a place."""
    formats = shutil.which("mkfs.ext4", path=TOOL_PATH) is not None
    return is_root() and CONTROL.exists() and formats and can_mount_files()


class Disks:
    """The disks of one driver. `ready` are kept made; what a former run left ready is removed."""

    def __init__(self, directory: Path, *, ready: int = READY) -> None:
        self._directory = directory
        self._most = ready
        self._ready: dict[int, list[tuple[Path, int]]] = {}
        self._names = itertools.count()
        self._making = asyncio.Lock()
        if directory.exists():
            remove_tree(directory)
        directory.mkdir(mode=0o700, parents=True)

    async def take(self, target: Path, mib: int) -> int:
        """Make a disk of that size at `target`, with uppers that are to be given to their owner.

        Returns a descriptor of its mount, the caller's.
        """
        ready = self._ready.get(mib)
        if ready:
            path, mount = ready.pop()
            path.rename(target)
            return mount
        await self._make(target, mib)
        return await mounted(target, mount_new)

    async def prepare(self, mib: int) -> None:
        """Make disks of this size ready, one by one, until as many are as are to be."""
        while len(self._ready.setdefault(mib, [])) < self._most:
            path = self._directory / f"{next(self._names)}.img"
            await self._make(path, mib)
            try:
                mount = await mounted(path, mount_new)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            self._ready[mib].append((path, mount))

    def close(self) -> None:
        """Let go of those that were ready."""
        for path, mount in itertools.chain(*self._ready.values()):
            os.close(mount)
            path.unlink(missing_ok=True)
        self._ready.clear()

    async def _make(self, target: Path, mib: int) -> None:
        template = await self._template(mib)
        beside = target.with_name(f".{target.name}")
        try:
            beside.unlink(missing_ok=True)  # of one that ended while it was copied
            await asyncio.to_thread(copy_file, template, beside)
            beside.rename(target)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise SandboxUnavailableError(
                f"no disk of {mib} MiB could be made at {target}: {error.strerror}"
            ) from error

    async def _template(self, mib: int) -> Path:
        if mib < LEAST_MIB:
            raise SandboxUnavailableError(f"disk_mib = {mib} is too small: use {LEAST_MIB} or more")
        path = self._directory / f"template-{mib}.img"
        async with self._making:
            if not path.exists():
                await _format(path, mib)
        return path


async def _format(path: Path, mib: int) -> None:
    """Make an empty file system: no block is reserved for root, nothing but its head is written."""
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        file.truncate(mib << 20)
    options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"
    # Room to grow the table of groups would be most of what is copied; no disk ever grows.
    features = "^resize_inode"
    argv = [
        "mkfs.ext4",
        "-q",
        "-F",
        "-b",
        str(_BLOCK_BYTES),
        "-m",
        "0",
        "-O",
        features,
        "-E",
        options,
    ]
    argv += ["-J", f"size={JOURNAL_MIB}", str(beside)]
    try:
        await run_tool(argv, path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    beside.rename(path)


async def mounted(path: Path, mount: Callable[[Path], int] | None = None) -> int:
    """Mount a disk beside the event loop, as `mount_disk`; a caller that is cancelled leaves no mount."""
    mounting = asyncio.get_running_loop().run_in_executor(None, mount or mount_disk, path)
    try:
        return await asyncio.shield(mounting)
    except asyncio.CancelledError:
        mounting.add_done_callback(_let_go)
        raise


def _let_go(mounting: "asyncio.Future[int]") -> None:
    if not mounting.cancelled() and mounting.exception() is None:
        os.close(mounting.result())


def mount_disk(path: Path, *, writable: bool = True) -> int:
    """Mount a disk; return a descriptor of the mount, which ends with it. SandboxUnavailableError."""
    try:
        device, name = attach(path, writable=writable)
        try:
            return mount_device(name, writable=writable)
        finally:
            os.close(device)  # the mount holds it now, or nobody does and it clears itself
    except OSError as error:
        raise SandboxUnavailableError(
            f"the disk {path} could not be mounted: {error.strerror}; `handiwork doctor` tells more"
        ) from error


def mount_layer(path: Path) -> int:
    """Mount, as `mount_disk`, one that nobody writes to; others may do so too."""
    return mount_disk(path, writable=False)


def mount_new(path: Path) -> int:
    """Mount a disk that no sandbox had, and make its uppers: the first change of a disk reads from it."""
    mount = mount_disk(path)
    try:
        make_uppers(mount, 0)
    except BaseException:
        os.close(mount)
        raise
    return mount


def attach(path: Path, *, writable: bool = True) -> tuple[int, str]:
    """Put a file on a free loop device; return a descriptor and the name of it. OSError.

    It ends with the last of its descriptors and mounts. Another process may take the device that was
    offered first.
    """
    config = bytearray(_LOOP_CONFIG_BYTES)
    with (
        path.open("r+b" if writable else "rb") as file,
        CONTROL.open("r+b", buffering=0) as control,
    ):
        lock(file.fileno(), alone=writable)
        struct.pack_into("II", config, 0, file.fileno(), _BLOCK_BYTES)
        struct.pack_into("I", config, _FLAGS_OFFSET, _AUTOCLEAR | _DIRECT_IO)
        for _ in range(ATTACH_TRIES):
            name = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(name, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, bytes(config))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device, name
    raise OSError(errno.EBUSY, "no loop device is free")


def mount_device(device: str, *, writable: bool = True, barriers: bool = True) -> int:
    """Mount a device; return a descriptor of the mount. OSError when the kernel refuses.

    Without `barriers` nothing that is written there waits until it is on the host's disk.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    context = _called(libc, _SYS_FSOPEN, b"ext4", _FSOPEN_CLOEXEC)
    try:
        _called(libc, _SYS_FSCONFIG, context, _SET_STRING, b"source", device.encode(), 0)
        # What is deleted inside is the host's again.
        flags = [b"noinit_itable", b"discard"] if writable else [b"ro"]
        for flag in (*flags, *([] if barriers else [b"nobarrier"])):
            _called(libc, _SYS_FSCONFIG, context, _SET_FLAG, flag, None, 0)
        _called(libc, _SYS_FSCONFIG, context, _CREATE, None, None, 0)
        attributes = _NOSUID | _NODEV | _NOATIME | (0 if writable else _RDONLY)
        return _called(libc, _SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def set_barriers(mount: int) -> None:
    """Have what is written to a mount reach the host's disk when it is asked for; OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    context = _called(libc, _SYS_FSPICK, mount, b"", _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH)
    try:
        _called(libc, _SYS_FSCONFIG, context, _SET_FLAG, b"barrier", None, 0)
        _called(libc, _SYS_FSCONFIG, context, _RECONFIGURE, None, None, 0)
    finally:
        os.close(context)


def _called(libc: ctypes.CDLL, *arguments: object) -> int:
    result: int = libc.syscall(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def make_clean(path: Path) -> None:
    """Wait until nobody has a disk, and see to it that it can be mounted without being written to."""
    with path.open("rb") as file:
        lock(file.fileno())
        os.fsync(file.fileno())
        file.seek(_INCOMPATIBLE_OFFSET)
        (features,) = struct.unpack("<I", file.read(4))
    if features & _NEEDS_RECOVERY:
        os.close(mount_disk(path))  # reads its journal
        with path.open("rb") as file:
            lock(file.fileno())


def make_uppers(mount: int, owner: int) -> None:
    """Make `upper` and `work` on a disk that has none; they belong to the sandbox's first id."""
    for name in UPPERS:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=mount)
            os.chown(name, owner, owner, dir_fd=mount)


def give_uppers(mount: int, owner: int) -> None:
    """Give those of a disk that no sandbox had to the first id of one."""
    for name in UPPERS:
        os.chown(name, owner, owner, dir_fd=mount)
