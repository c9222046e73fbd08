"""What a former generation knows of a tree that is being taken: chunks by name, files by their times."""

from collections.abc import Mapping

from handiwork.sandboxes.snapshots.contents import Contents
from handiwork.sandboxes.snapshots.manifest import Entry, Kind, Manifest

RACY_NS = 2_000_000_000
"""A file that changed so shortly before a walk, or during it, may change again under the same time."""
LEAST_USE = 0.25
"""A pack of which a generation uses less is not relied on: what is needed of it is kept anew."""
_DIRECTORY, _FILE = int(Kind.DIRECTORY), int(Kind.FILE)
_NO_FILES: dict[bytes, Entry] = {}


class Former:
    """Gives contents the chunks that there are, and knows files of the same tree by inode and time."""

    def __init__(self, former: Manifest | None, tree: str, contents: Contents) -> None:
        self._files: dict[bytes, dict[bytes, Entry]] = {}
        if former is not None:
            numbers = _remembered(former, contents)
            if former.head.tree == tree:
                self._files = _recognisable(former, numbers)

    def known(self, path: bytes) -> Mapping[bytes, Entry]:
        """Return the files of a directory that can be recognised, by name."""
        return self._files.get(path, _NO_FILES)


def _remembered(former: Manifest, contents: Contents) -> dict[int, int]:
    """Give contents the chunks that can be relied on; return their numbers here, by those there."""
    usable = _usable_packs(former)
    numbers: dict[int, int] = {}
    contents.packs.extend(former.head.packs)
    contents.pack_bytes.extend(former.head.pack_bytes)
    for number, place in enumerate(former.body.chunks):
        if place.pack in usable:
            numbers[number] = len(contents.places)
            contents.known[place.name] = len(contents.places)
            contents.places.append(place)
    return numbers


def _recognisable(former: Manifest, numbers: dict[int, int]) -> dict[bytes, dict[bytes, Entry]]:
    """Return copies of the files that need not be read again while they are as they were, by directory."""
    racy_ns = former.head.started_ns - RACY_NS
    as_they_were = len(numbers) == len(former.body.chunks)
    paths: dict[int, bytes] = {}
    files: dict[int, dict[bytes, Entry]] = {}
    for index, entry in enumerate(former.body.entries):
        if entry.kind == _DIRECTORY:
            paths[index] = paths[entry.parent] + b"/" + entry.name if index else b""
            files[index] = {}
        elif entry.kind == _FILE and entry.inode and entry.ctime_ns < racy_ns:
            ours = entry.__copy__()  # type: ignore[attr-defined]  # its stubs lack what it has
            if as_they_were or renumber(ours, numbers):
                files[entry.parent][entry.name] = ours
    return {paths[index]: held for index, held in files.items()}


def renumber(entry: Entry, numbers: Mapping[int, int]) -> bool:
    """Give the chunks of an entry other numbers; False, and it is as it was, if one has none."""
    extents = entry.extents
    if len(extents) == 4:
        number = numbers.get(extents[1])
        if number is None:
            return False
        if number != extents[1]:
            entry.extents = (extents[0], number, extents[2], extents[3])
        return True
    moved = list(extents)
    for at in range(1, len(extents), 4):
        number = numbers.get(extents[at])
        if number is None:
            return False
        moved[at] = number
    entry.extents = tuple(moved)
    return True


def _usable_packs(former: Manifest) -> set[int]:
    """Return the packs of which enough is used; the others would be kept for a few chunks."""
    used = [0] * len(former.head.packs)
    for place in former.body.chunks:
        used[place.pack] += place.stored
    whole = former.head.pack_bytes
    return {n for n, size in enumerate(whole) if used[n] >= LEAST_USE * size}


def forget_times(entries: list[Entry]) -> None:
    """Let no later generation recognise a file: where a change may leave its time as it was."""
    for entry in entries:
        entry.inode = 0
