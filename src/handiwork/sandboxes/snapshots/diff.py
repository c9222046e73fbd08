"""What differs between two generations of a sandbox, by path; pure."""

from collections.abc import Iterator
from typing import Literal

import msgspec

from handiwork.sandboxes.snapshots.manifest import Body, Entry, path_of

Change = Literal["added", "removed", "changed"]


class Difference(msgspec.Struct, frozen=True):
    """One path, as bytes: a guest's names need not be text."""

    path: bytes
    change: Change


def differences(before: Body, after: Body) -> Iterator[Difference]:
    """Yield what was added, removed or changed, by path; kinds, owners, sizes, times and attributes count."""
    old, new = _by_path(before), _by_path(after)
    for path in sorted(old.keys() | new.keys()):
        if path not in old:
            yield Difference(path, "added")
        elif path not in new:
            yield Difference(path, "removed")
        elif _facts(before, old[path]) != _facts(after, new[path]):
            yield Difference(path, "changed")


def _by_path(body: Body) -> dict[bytes, Entry]:
    return {path_of(body.entries, number): entry for number, entry in enumerate(body.entries)}


def _facts(body: Body, entry: Entry) -> tuple[object, ...]:
    """Return what a name is. Contents of one size are told apart by their time of change inside."""
    where = path_of(body.entries, entry.link) if entry.link >= 0 else b""
    owner = (entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime_ns)
    return (*owner, entry.size, entry.target, entry.xattrs, where)
