"""The regular files below one directory of a sandbox, as its agent tells: hostile, so bounded."""

import errno

import msgspec

from handiwork.model.errors import GuestError, HandiworkError
from handiwork.model.sandbox import FileInfo, FileKind
from handiwork.sandboxes.protocol import Files

MAX_ENTRIES = 10_000
MAX_DEPTH = 32


class Found(msgspec.Struct, frozen=True):
    """One entry that is no directory; `path` is relative to where the walk began."""

    path: str
    info: FileInfo

    @property
    def is_named(self) -> bool:
        """Say whether the path is text: a guest's names need not be."""
        try:
            self.path.encode()
        except UnicodeEncodeError:
            return False
        return True


async def walk(
    files: Files, root: str, *, entries: int = MAX_ENTRIES, depth: int = MAX_DEPTH
) -> list[Found] | None:
    """Return what is below a directory, links not followed; None when the directory is missing.

    HandiworkError when there is more than the limits allow: a part would pass for the whole.
    Directories count as entries: a tree of nothing else would never end.
    """
    try:
        if (await files.stat(root, follow=False)).kind is not FileKind.DIRECTORY:
            return None
    except GuestError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    found: list[Found] = []
    left = entries
    waiting = [("", depth)]
    while waiting:
        below, levels = waiting.pop()
        if levels < 0:
            raise HandiworkError(f"{root} is too deep")
        listed = await files.list(f"{root}/{below}".rstrip("/"), limit=left + 1)
        left -= len(listed)
        if left < 0:
            raise HandiworkError(f"{root} holds more than {entries} files and directories")
        for info in listed:
            path = f"{below}/{info.name}" if below else info.name
            if info.kind is FileKind.DIRECTORY:
                waiting.append((path, levels - 1))
            else:
                found.append(Found(path, info))
    return sorted(found, key=lambda one: one.path)
