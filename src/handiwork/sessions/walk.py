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
    """
    try:
        if (await files.stat(root, follow=False)).kind is not FileKind.DIRECTORY:
            return None
    except GuestError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    found: list[Found] = []
    await _descend(files, root, "", entries, depth, found)
    return found


async def _descend(
    files: Files, root: str, below: str, entries: int, depth: int, found: list[Found]
) -> None:
    if depth < 0:
        raise HandiworkError(f"{root} is too deep")
    for info in await files.list(f"{root}/{below}".rstrip("/"), limit=entries - len(found) + 1):
        path = f"{below}/{info.name}" if below else info.name
        if info.kind is FileKind.DIRECTORY:
            await _descend(files, root, path, entries, depth - 1, found)
        else:
            found.append(Found(path, info))
        if len(found) > entries:
            raise HandiworkError(f"{root} holds more than {entries} files")
