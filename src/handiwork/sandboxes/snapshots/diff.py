"""What differs between two generations of a sandbox, by path; pure."""

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from handiwork.sandboxes.snapshots.manifest import Body, Entry, path_of

IsSame = Callable[[bytes, Entry, Entry], bool]
"""Says whether a file, at a path, has the same content in both."""
Change = Literal["added", "removed", "changed"]


class Difference(msgspec.Struct, frozen=True):
    """One path, as bytes: a guest's names need not be text."""

    path: bytes
    change: Change


def differences(
    before: Body, after: Body, is_same: IsSame, *, below: bytes = b""
) -> Iterator[Difference]:
    """Yield what was added, removed or changed, by path; `below` a path, or everywhere.

    Kinds, owners, modes, sizes, times, attributes and contents count. A time says nothing of a content,
    for whoever has the file sets it: `is_same` is asked of a file that differs in its chunks alone.
    """
    old, new = _by_path(before), _by_path(after)
    for path in sorted(one for one in old.keys() | new.keys() if _is_below(one, below)):
        if path not in old:
            yield Difference(path, "added")
        elif path not in new:
            yield Difference(path, "removed")
        elif _facts(before, old[path]) != _facts(after, new[path]):
            yield Difference(path, "changed")
        elif _pieces(before, old[path]) == _pieces(after, new[path]):
            continue
        elif not is_same(path, old[path], new[path]):
            yield Difference(path, "changed")


def _by_path(body: Body) -> dict[bytes, Entry]:
    return {path_of(body.entries, number): entry for number, entry in enumerate(body.entries)}


def _is_below(path: bytes, below: bytes) -> bool:
    return not below or path == below or path.startswith(below + b"/")


def _facts(body: Body, entry: Entry) -> tuple[object, ...]:
    """Return what a name is, apart from its content."""
    where = path_of(body.entries, entry.link) if entry.link >= 0 else b""
    owner = (entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime_ns)
    return (*owner, entry.size, entry.target, entry.xattrs, where)


def _pieces(body: Body, entry: Entry) -> list[tuple[int, bytes, int, int]]:
    """Return its extents with the names of their chunks, which are those of their contents."""
    found, chunks = entry.extents, body.chunks
    return [
        (found[at], chunks[found[at + 1]].name, found[at + 2], found[at + 3])
        for at in range(0, len(found), 4)
    ]
