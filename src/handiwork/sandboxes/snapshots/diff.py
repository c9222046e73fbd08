"""What differs between two generations of a sandbox, by path; pure."""

from collections.abc import Callable, Collection, Sequence
from typing import Literal, NamedTuple

import msgspec

from handiwork.sandboxes.snapshots.manifest import Body, Entry, path_of


class Pair(NamedTuple):
    """A file of both generations, at a path, that differs in its chunks alone."""

    path: bytes
    old: Entry
    new: Entry


Differing = Callable[[Sequence[Pair]], Collection[bytes]]
"""Returns the paths of those that have another content."""
Change = Literal["added", "removed", "changed"]


class Difference(msgspec.Struct, frozen=True):
    """One path, as bytes: a guest's names need not be text."""

    path: bytes
    change: Change


def differences(
    before: Body, after: Body, differing: Differing, *, below: bytes = b"", limit: int | None = None
) -> list[Difference]:
    """Return what was added, removed or changed, by path; `below` a path, or everywhere; the first ones.

    Kinds, owners, modes, sizes, times, attributes and contents count. A time says nothing of a content,
    for whoever has the file sets it: `differing` is asked, once, of the files that differ in their chunks
    alone and stand before the last that is wanted.
    """
    old, new = _by_path(before), _by_path(after)
    found: list[Difference] = []
    unsure: list[Pair] = []
    for path in sorted(one for one in old.keys() | new.keys() if _is_below(one, below)):
        if len(found) == limit:
            break
        if path not in old:
            found.append(Difference(path, "added"))
        elif path not in new:
            found.append(Difference(path, "removed"))
        elif _facts(before, old[path]) != _facts(after, new[path]):
            found.append(Difference(path, "changed"))
        elif _pieces(before, old[path]) != _pieces(after, new[path]):
            unsure.append(Pair(path, old[path], new[path]))
    found += [Difference(path, "changed") for path in differing(unsure)] if unsure else []
    return sorted(found, key=lambda one: one.path)[:limit]


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
