"""The stock file tools: `read`, `write`, `edit`.

Paths are confined to /workspace after every link is resolved, inside the sandbox. That keeps the
model's file tools where its work is; the wall is the sandbox, not this check.
"""

import base64
import contextlib
import errno
import os
import posixpath
from collections.abc import AsyncGenerator

from handiwork.model.errors import GuestError, ToolFailedError
from handiwork.model.sandbox import FileInfo, FileKind
from handiwork.model.tool import Block, DocumentBlock, ImageBlock
from handiwork.sandboxes.protocol import Files
from handiwork.tools.context import ToolContext
from handiwork.tools.media import PDF, examined
from handiwork.tools.registry import tool

ROOT = "/workspace"
TEXT_LIMIT_BYTES = 256 * 1024
IMAGE_LIMIT_BYTES = 5 * 1024 * 1024 // 4 * 3
PDF_LIMIT_BYTES = 20 * 1024 * 1024
RANGE_LIMIT_BYTES = 1 << 30
LINE_LIMIT_BYTES = 16 << 20
_CHUNK = 1 << 20
_PATH_LIMIT = 4096
_MEDIA = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".pdf": PDF,
}


@tool("read")
async def read(
    context: ToolContext, file_path: str, view_range: list[int] | None = None
) -> str | Block:
    """Read a file rooted at the working directory."""
    if view_range and len(view_range) != 2:
        raise ToolFailedError("read: view_range must be [start_line, end_line]")
    files = context.sandbox.files
    target = await confined(files, "read", file_path)
    info = await _regular(files, "read", target, file_path)
    media = _MEDIA.get(posixpath.splitext(target)[1].lower())
    if media is not None:
        if view_range:
            raise ToolFailedError("read: view_range is not supported for image/PDF files")
        return await _media_block(files, target, file_path, info.size, media)
    if view_range:
        return await _lines(files, target, file_path, view_range[0], view_range[1])
    if info.size > TEXT_LIMIT_BYTES:
        raise ToolFailedError(
            f"read: {file_path} is {info.size} bytes, exceeds {TEXT_LIMIT_BYTES}-byte limit. "
            "Use the view_range parameter to read specific line ranges, e.g. view_range: [1, 500]."
        )
    return _text("read", file_path, await _content(files, "read", target, file_path))


@tool("write", ordered=True)
async def write(context: ToolContext, file_path: str, content: str) -> str:
    """Write a file, creating parent directories as needed."""
    files = context.sandbox.files
    target = await confined(files, "write", file_path)
    await _put(files, "write", target, file_path, content)
    return f"wrote {len(content)} bytes to {file_path}"


@tool("edit", ordered=True)
async def edit(
    context: ToolContext,
    file_path: str,
    old_string: str,
    new_string: str,
    replace_all: bool | None = None,
) -> str:
    """Replace text in a file by exact string match."""
    if not old_string:
        raise ToolFailedError("edit: old_string must not be empty")
    files = context.sandbox.files
    target = await confined(files, "edit", file_path)
    info = await _regular(files, "edit", target, file_path)
    if info.size > TEXT_LIMIT_BYTES:
        raise ToolFailedError(
            f"edit: {file_path} is {info.size} bytes, exceeds {TEXT_LIMIT_BYTES}-byte limit. "
            "The edit tool loads the whole file and cannot modify a file this large."
        )
    text = _text("edit", file_path, await _content(files, "edit", target, file_path))
    count = text.count(old_string)
    if count == 0:
        raise ToolFailedError(f"edit: old_string not found in {file_path}")
    if not replace_all and count > 1:
        raise ToolFailedError(
            f"edit: old_string appears {count} times in {file_path} (must be unique)"
        )
    await _put(files, "edit", target, file_path, text.replace(old_string, new_string))
    return f"edited {file_path} ({count} replacement(s))"


async def confined(files: Files, name: str, path: str) -> str:
    """Return the real path inside the sandbox, or refuse one that is not under /workspace.

    `.` and `..` are collapsed first; then every link is followed. Parts that do not exist yet stay
    as they are spelled.
    """
    if not path or "\0" in path or len(path) > _PATH_LIMIT:
        raise ToolFailedError(f"{name}: path {path[:80]!r} is not a valid path")
    prefix, missing = posixpath.normpath(posixpath.join(ROOT, path)), ""
    while (real := await _real(files, name, path, prefix)) is None:
        prefix, last = posixpath.split(prefix)
        missing = posixpath.join(last, missing) if missing else last
    full = posixpath.join(real, missing) if missing else real
    if full != ROOT and not full.startswith(ROOT + "/"):
        raise _outside(name, path)
    return full


async def _real(files: Files, name: str, path: str, prefix: str) -> str | None:
    """Return the real path of the prefix; None when it is not there, unless a link names it."""
    try:
        return await files.realpath(prefix)
    except GuestError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR) or prefix == "/":
            raise _failed(name, f"path {path!r}", error) from None
    try:
        info = await files.stat(prefix, follow=False)
    except GuestError:
        return None
    if info.kind is FileKind.LINK:
        raise _outside(name, path)
    return None


def _outside(name: str, path: str) -> ToolFailedError:
    return ToolFailedError(f"{name}: path {path!r} is outside the session's working directory")


async def _regular(files: Files, name: str, target: str, told: str) -> FileInfo:
    try:
        info = await files.stat(target)
    except GuestError as error:
        raise _failed(name, told, error) from None
    if info.kind is not FileKind.FILE:
        raise ToolFailedError(f"{name}: {told}: not a regular file")
    return info


async def _content(files: Files, name: str, target: str, told: str) -> bytes:
    try:
        return await files.read(target, limit_bytes=TEXT_LIMIT_BYTES)
    except GuestError as error:
        raise _failed(name, told, error) from None


def _text(name: str, told: str, data: bytes) -> str:
    what = {
        "read": "binary files are only supported for image/PDF extensions",
        "edit": "cannot edit binary files",
    }[name]
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ToolFailedError(f"{name}: {told}: not valid UTF-8 text ({what})") from None


async def _put(files: Files, name: str, target: str, told: str, text: str) -> None:
    """Write the text, keeping the mode of a file that is there; never onto anything else."""
    mode = 0o644
    try:
        info = await files.stat(target)
        mode = info.mode & 0o7777
        if info.kind is FileKind.DIRECTORY:
            raise ToolFailedError(f"{name}: {told}: is a directory")
        if info.kind is not FileKind.FILE:
            raise ToolFailedError(f"{name}: {told}: not a regular file")
    except GuestError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise _failed(name, told, error) from None
    try:
        await files.write(target, text.encode("utf-8", "replace"), mode=mode)
    except GuestError as error:
        raise _failed(name, told, error) from None


async def _media_block(files: Files, target: str, told: str, size: int, media: str) -> Block:
    limit = PDF_LIMIT_BYTES if media == PDF else IMAGE_LIMIT_BYTES
    if size > limit:
        raise ToolFailedError(
            f"read: {told} is {size} bytes, exceeds {limit}-byte limit for image/PDF files."
        )
    try:
        data = await files.read(target, limit_bytes=limit)
    except GuestError as error:
        raise _failed("read", told, error) from None
    found = examined(data)
    if not found.type or (found.type == PDF) != (media == PDF):
        raise ToolFailedError(f"read: {told}: it does not hold what its name says ({media})")
    if found.problem:
        raise ToolFailedError(f"read: {told}: it cannot be shown: {found.problem}")
    coded = base64.b64encode(data).decode()
    block = DocumentBlock if found.type == PDF else ImageBlock
    return block(media_type=found.type, data=coded)


async def _lines(files: Files, target: str, told: str, first: int, last: int) -> str:
    """Return lines `first` to `last`, from 1, read in pieces; `last` below 1 is the file's end."""
    taken: list[bytes] = []
    size = number = 0
    async with contextlib.aclosing(_whole_lines(files, target, told)) as pieces:
        async for piece in pieces:
            before, number = number, number + piece.count(b"\n") + 1
            if number < first:  # counted and not split: a million empty lines are one piece
                continue
            end = last - before if last > 0 else None
            for line in piece.split(b"\n")[max(0, first - before - 1) : end]:
                taken.append(line)
                size += len(line) + 1
                if size > TEXT_LIMIT_BYTES:
                    raise ToolFailedError(
                        f"read: lines {first} to {last} of {told} exceed {TEXT_LIMIT_BYTES}-byte"
                        " limit. Ask for fewer lines."
                    )
            if 0 < last <= number:
                break
    return _text("read", told, b"\n".join(taken))


async def _whole_lines(files: Files, target: str, told: str) -> AsyncGenerator[bytes, None]:
    """Yield the file in pieces of whole lines, without the line feed at a piece's end."""
    pending, offset = b"", 0
    while chunk := await _piece(files, target, told, offset):
        offset += len(chunk)
        whole, line_feed, rest = chunk.rpartition(b"\n")
        if line_feed:
            yield pending + whole
            pending = rest
        else:
            pending += chunk
        if offset > RANGE_LIMIT_BYTES or len(pending) > LINE_LIMIT_BYTES:
            raise ToolFailedError(f"read: {told}: too long to look through; use bash instead")
    yield pending


async def _piece(files: Files, target: str, told: str, offset: int) -> bytes:
    try:
        return await files.read(target, offset=offset, limit_bytes=_CHUNK)
    except GuestError as error:
        raise _failed("read", told, error) from None


def _failed(name: str, told: str, error: GuestError) -> ToolFailedError:
    return ToolFailedError(f"{name}: {told}: {os.strerror(error.errno).lower()}")
