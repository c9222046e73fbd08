"""What lies below a directory of a sandbox, by its files alone: for tiers that run no `find`."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Collection
from typing import NamedTuple

from handiwork.model.errors import GuestError
from handiwork.model.sandbox import FileKind
from handiwork.sandboxes.protocol import Files

LISTED = 10_000
"""Of one directory."""


class Entry(NamedTuple):
    """One name; `changed` in seconds since 1970, `size` in bytes where it is a file."""

    changed: float
    path: str
    is_link: bool = False
    is_directory: bool = False
    size: int = 0


async def walked(
    files: Files,
    root: str,
    limit: int,
    deepest: int | None = None,
    *,
    left_out: Collection[str] = (),
) -> AsyncGenerator[Entry, None]:
    """Yield entries below a directory, or a file itself: each directory by name, links not followed.

    Ends after `limit` of them; `deepest` counts directories from the root, `left_out` are names of
    directories not to enter. GuestError when the root is not there.
    """
    if (await files.stat(root)).kind is not FileKind.DIRECTORY:
        yield await _entry(files, root)
        return
    waiting = deque([(root.rstrip("/"), 1)])
    while waiting:
        directory, depth = waiting.popleft()
        for entry in await _listed(files, directory, is_root=depth == 1):
            yield entry
            limit -= 1
            if not limit:
                return
            inner = entry.is_directory and (deepest is None or depth < deepest)
            if inner and entry.path.rpartition("/")[2] not in left_out:
                waiting.append((entry.path, depth + 1))
        await asyncio.sleep(0)


async def _entry(files: Files, path: str) -> Entry:
    info = await files.stat(path)
    return Entry(info.mtime_ns / 1e9, path, size=info.size)


async def _listed(files: Files, directory: str, *, is_root: bool) -> list[Entry]:
    try:
        found = await files.list(directory or "/", limit=LISTED)
    except GuestError:
        if is_root:
            raise
        return []  # it went meanwhile
    return [
        Entry(
            info.mtime_ns / 1e9,
            f"{directory}/{info.name}",
            info.kind is FileKind.LINK,
            info.kind is FileKind.DIRECTORY,
            info.size,
        )
        for info in found
    ]
