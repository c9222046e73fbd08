"""Disks of machines for tests: made of a directory by mkfs.ext4, read as a machine's are."""

import os
import subprocess
from pathlib import Path

from handiwork.sandboxes.microvm import disks
from handiwork.sandboxes.microvm.disk_tree import DiskTree
from handiwork.sandboxes.microvm.ext4.names import find
from handiwork.sandboxes.microvm.ext4.volume import ROOT, Inode, Volume
from handiwork.sandboxes.snapshots.contents import Content
from handiwork.sandboxes.snapshots.listing import Listing, Rules
from handiwork.sandboxes.snapshots.manifest import Entry, Kind
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.protocol import Tree

ENV = {"PATH": disks.PATH}


def make_disk(path: Path, files: Path | None, mib: int = 16, *options: str) -> Path:
    """Make a disk with what lies below a directory, with the options of mkfs.ext4 besides."""
    disks.make_sparse(path, mib)
    content = ("-d", str(files)) if files else ()
    argv = ["mkfs.ext4", *disks.FORMAT, *options, *content, str(path)]
    subprocess.run(argv, check=True, capture_output=True, env=ENV)
    return path


def change(path: Path, *commands: str) -> None:
    """Change a disk with debugfs."""
    for command in commands:
        argv = ["debugfs", "-w", "-R", command, str(path)]
        subprocess.run(argv, check=True, capture_output=True, env=ENV)


def volume(content: bytes) -> Volume:
    return Volume(lambda at, size: content[at : at + size], len(content))


def inode_at(disk: Volume, path: str) -> Inode:
    """Return the inode of a path."""
    found = disk.inode(ROOT)
    for name in path.strip("/").split("/"):
        inner = find(disk, found, name.encode())
        assert inner is not None, path
        found = inner
    return found


def contents(tree: Tree, ids: Range, **rules: object) -> tuple[Listing, dict[bytes, bytes]]:
    """Walk a tree; return its listing and what each file holds, by its number and name."""
    found: dict[bytes, bytes] = {}

    def read(entry: Entry, content: Content) -> None:
        entry.size = content.size
        data = bytearray(content.size)
        whole = [(0, content.size)]
        for start, end in content.segments() if content.is_sparse else whole:
            data[start:end] = content.read(end - start, start)
        found[b"%d %s" % (entry.inode, entry.name)] = bytes(data)

    return tree.listed(Rules(ids=ids, **rules), read), found


def told(listing: Listing) -> list[tuple[object, ...]]:
    """Return what is to be the same of a tree however it is read; times of directories too."""
    return [
        (
            one.parent,
            one.name,
            Kind(one.kind),
            one.mode,
            one.uid,
            one.gid,
            one.mtime_ns,
            one.ctime_ns,
            one.inode,
            one.size,
            one.target,
            sorted(one.xattrs),
            one.link,
            one.linked,
        )
        for one in listing.entries
    ]


def read_disk(path: Path, ids: Range, **rules: object) -> tuple[Listing, dict[bytes, bytes]]:
    """Walk what a sandbox wrote on a disk."""
    disk = os.open(path, os.O_RDONLY)
    try:
        return contents(DiskTree(disk), ids, **rules)
    finally:
        os.close(disk)
