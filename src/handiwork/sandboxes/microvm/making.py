"""A new disk for a machine, with files on it that `make` makes: without a mount, and without being root.

The files are made in a directory of ours, mkfs.ext4 copies them, and debugfs gives them what they could
not have there: owners of the machine's, modes that would shut us out, billionths of seconds. Neither
says what it could not do, so that afterwards the disk is read, and has to hold what was asked for.
"""

import asyncio
import os
import stat
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.images.tools import run_tool
from handiwork.sandboxes.microvm import disks
from handiwork.sandboxes.microvm.disk_tree import DiskFile, volume_of, walked
from handiwork.sandboxes.microvm.plan import GUEST_FIRST_ID
from handiwork.sandboxes.microvm.states import DISK
from handiwork.sandboxes.snapshots.listing import Rules, shown
from handiwork.sandboxes.snapshots.manifest import Entry, Kind, path_of
from handiwork.sandboxes.snapshots.owners import Range, attribute_outside
from handiwork.sandboxes.snapshots.protocol import Entries, Make
from handiwork.sandboxes.snapshots.stoppable import in_thread
from handiwork.sandboxes.snapshots.walk import DIRECTORY
from handiwork.sandboxes.trees import remove_tree

MAKE_SECONDS = 900.0
"""So long a disk may take to be written, whatever is on it."""
TREE, COMMANDS, VALUES = "tree", "commands", "values"
OWNERS = Range(GUEST_FIRST_ID)
_CAPABILITY = b"security.capability"
_TYPES = {
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FILE: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.WHITEOUT: stat.S_IFCHR,
    Kind.FIFO: stat.S_IFIFO,
}
_SECOND_NS = 1_000_000_000
_LEAST_SECOND, _MOST_SECOND = -(1 << 31), (1 << 34) - (1 << 31) - 1
_ROOT = 2


@dataclass(frozen=True)
class Making:
    """One disk to make, in the directory of a state that nobody uses yet."""

    directory: Path
    mib: int

    async def run(self, make: Make) -> None:
        """Make it; what raises leaves a part of it. SandboxUnavailableError where it has no room."""
        (self.directory / TREE).mkdir(0o755)
        entries = await self._made(make)
        stop = threading.Event()
        try:
            async with asyncio.timeout(MAKE_SECONDS):
                await self._on_disk(entries, stop)
        except TimeoutError:
            raise SandboxUnavailableError(
                f"the disk of {len(entries)} files was not written within {MAKE_SECONDS:g} s"
            ) from None
        for name in (TREE, VALUES, COMMANDS):
            await in_thread(None, stop, partial(remove_tree, self.directory / name))

    async def _made(self, make: Make) -> Entries:
        place = os.open(self.directory / TREE, DIRECTORY)
        try:
            return await make(place, Range(GUEST_FIRST_ID, later=True))
        finally:
            os.close(place)

    async def _on_disk(self, entries: Entries, stop: threading.Event) -> None:
        disks.find_program("debugfs", "e2fsprogs")
        disks.make_sparse(self.directory / DISK, self.mib)
        try:
            argv = ("mkfs.ext4", *disks.FORMAT, "-d", TREE, DISK)
            await run_tool(argv, self.directory)
            await in_thread(None, stop, lambda: self._write_commands(entries, self._found(stop)))
            await run_tool(("debugfs", "-w", "-f", COMMANDS, DISK), self.directory)
        except UnsupportedError as error:
            raise SandboxUnavailableError(
                f"the files have no room on a disk of {self.mib} MiB, or cannot be on one: {error}"
            ) from error
        await in_thread(None, stop, lambda: compare(entries, self._found(stop)))

    def _found(self, stop: threading.Event) -> list[Entry]:
        """Return what is on the disk by now."""
        disk = os.open(self.directory / DISK, os.O_RDONLY | os.O_CLOEXEC)
        try:
            rules = Rules(ids=OWNERS, stopped=stop.is_set)
            return walked(lambda: volume_of(disk, stop.is_set), rules, _take_size).entries
        finally:
            os.close(disk)

    def _write_commands(self, entries: Entries, found: Entries) -> None:
        values = self.directory / VALUES
        values.mkdir(0o700)
        with (self.directory / COMMANDS).open("w", encoding="ascii") as commands:
            for field in ("uid", "gid"):
                commands.write(f"set_inode_field <{_ROOT}> {field} 0\n")
            for number, at in enumerate(paired(entries, found)):
                entry = _itself(entries, number)
                if entries[number].kind == Kind.LINK and entry.kind != Kind.SYMLINK:
                    continue
                inode = found[at].inode
                commands.writelines(_commands(entry, inode))
                if value := _capability(entry):
                    (values / str(inode)).write_bytes(value)
                    name = _CAPABILITY.decode()
                    commands.write(f"ea_set -f {VALUES}/{inode} <{inode}> {name}\n")


def _take_size(entry: Entry, content: DiskFile) -> None:
    entry.size = content.size


def paired(entries: Entries, found: Entries) -> list[int]:
    """Return, for each entry of a tree, which one of another stands in its place.

    SandboxUnavailableError where there is none, or one too many.
    """
    places = {(entry.parent, entry.name): number for number, entry in enumerate(found)}
    pairs: list[int] = []
    for number, entry in enumerate(entries):
        parent = pairs[entry.parent] if number else -1
        at = places.pop((parent, entry.name), None)
        if at is None:
            raise _differs(entries, number)
        pairs.append(at)
    for at in places.values():
        raise _differs(found, at)
    return pairs


def _itself(entries: Entries, number: int) -> Entry:
    """Return the file that a name is of."""
    entry = entries[number]
    return entries[entry.link] if entry.kind == Kind.LINK else entry


def _commands(entry: Entry, inode: int) -> Iterator[str]:
    """Yield what gives a file what it could not have in a directory of ours."""
    fields = {
        "mode": f"0{_TYPES[Kind(entry.kind)] | entry.mode:o}",
        "uid": OWNERS.outside(entry.uid),
        "gid": OWNERS.outside(entry.gid),
        "mtime": f"@{entry.mtime_ns // _SECOND_NS & 0xFFFFFFFF}",
        "mtime_extra": _later_time(entry.mtime_ns),
    }
    if entry.kind == Kind.SYMLINK:
        del fields["mode"]  # the kernel's own
    for name, value in fields.items():
        yield f"set_inode_field <{inode}> {name} {value}\n"


def _later_time(time_ns: int) -> int:
    """Return what stands beside the 32 bits of a time's seconds: its billionths, and two bits more."""
    seconds, rest = divmod(time_ns, _SECOND_NS)
    low = int(struct.unpack("<i", struct.pack("<I", seconds & 0xFFFFFFFF))[0])
    return rest << 2 | ((seconds - low) >> 32) & 3


def _capability(entry: Entry) -> bytes | None:
    for name, value in entry.xattrs:
        if name == _CAPABILITY:
            return attribute_outside(name, value, OWNERS)
    return None


def compare(entries: Entries, found: Entries) -> None:
    """Raise SandboxUnavailableError unless two trees are one.

    mkfs.ext4 makes a link of its own of each name that a symbolic link has.
    """
    ours: dict[int, int] = {}
    theirs: dict[int, int] = {}
    for number, at in enumerate(paired(entries, found)):
        entry, other = _itself(entries, number), _itself(found, at)
        if _facts(entry) != _facts(other):
            raise _differs(entries, number)
        if entry.kind == Kind.SYMLINK:
            continue
        one, another = _root(entries, number), _root(found, at)
        if ours.setdefault(one, another) != another or theirs.setdefault(another, one) != one:
            raise _differs(entries, number)


def _root(entries: Entries, number: int) -> int:
    return entries[number].link if entries[number].kind == Kind.LINK else number


def _differs(entries: Entries, number: int) -> SandboxUnavailableError:
    path = shown(path_of(entries, number))
    return SandboxUnavailableError(
        f"{path or '/'} is not on the new disk as it was; whether e2fsprogs is whole, and of 2023 or"
        " later, `mkfs.ext4 -V` tells"
    )


def _facts(entry: Entry) -> tuple[object, ...]:
    mode = 0 if entry.kind == Kind.SYMLINK else entry.mode
    in_time = _LEAST_SECOND <= entry.mtime_ns // _SECOND_NS <= _MOST_SECOND
    kept = {name: attribute_outside(name, value, OWNERS) for name, value in entry.xattrs}
    return (
        entry.kind,
        mode,
        entry.uid,
        entry.gid,
        entry.size if entry.kind == Kind.FILE else 0,
        entry.target,
        entry.mtime_ns if in_time else 0,
        {name: value for name, value in kept.items() if value is not None},
    )
