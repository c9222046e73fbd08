"""File tools by the names and words that agents made for isolates elsewhere know them by.

Paths are absolute in the sandbox, or of /workspace. `cf_` stands before names that the stock toolset
has too. What could not be done is an error here, with the same words.
"""

import errno
import itertools
import os
import posixpath
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from handiwork.model.errors import GuestError, ToolFailedError
from handiwork.model.sandbox import FileKind
from handiwork.tools import cell_search
from handiwork.tools.context import ToolContext
from handiwork.tools.files import ROOT
from handiwork.tools.glob_pattern import glob_expression
from handiwork.tools.registry import tool
from handiwork.tools.walk import Entry, walked

READ_CHARACTERS = 1_000_000
READ_BYTES = 4 * READ_CHARACTERS
LISTED, MOST_LISTED = 200, 500
FOUND = 500
GREPPED = 200
LINE_CHARACTERS = 2_000
WALKED = 50_000
PATTERN_CHARACTERS = 1024


@tool("cf_read")
async def cf_read(context: ToolContext, path: str) -> str:
    """Read a text file of the workspace."""
    return await text_of(context, path)


@tool("cf_write", ordered=True)
async def cf_write(context: ToolContext, path: str, content: str) -> str:
    """Write a file of the workspace, making the directories above it."""
    size = await write_text(context, path, content)
    return f"wrote {size} bytes to {path}"


@tool("cf_edit", ordered=True)
async def cf_edit(context: ToolContext, path: str, old_string: str, new_string: str) -> str:
    """Replace a text that occurs exactly once in a file of the workspace by another, as it stands."""
    await edit_text(context, path, old_string, new_string)
    return f"edited {path}"


@tool("list")
async def list_directory(context: ToolContext, path: str = "/", limit: int = LISTED) -> str:
    """List a directory of the workspace: `d` before a directory, `-` before anything else."""
    found = await listed(context, path, limit)
    return "\n".join(f"{'d' if one.is_directory else '-'} {one.path}" for one in found) or "(empty)"


@tool("find")
async def find(context: ToolContext, pattern: str) -> str:
    """Find files of the workspace by a glob pattern, as `**/*.ts`."""
    return "\n".join(await found_by(context, pattern)) or "(no matches)"


@tool("cf_grep", keeps_time=True)
async def cf_grep(context: ToolContext, pattern: str, path: str | None = None) -> str:
    """Search files of the workspace by a regular expression; `path` is a glob pattern of files."""
    return "\n".join(await grepped(context, pattern, path)) or "(no matches)"


@tool("delete", ordered=True)
async def delete(context: ToolContext, path: str, recursive: bool = False) -> str:
    """Delete a file of the workspace, or a directory with all in it if `recursive`."""
    await remove(context, path, recursive=recursive)
    return f"deleted {path}"


async def text_of(context: ToolContext, path: str) -> str:
    """Return a file's text, cut where it is too long; ToolFailedError."""
    try:
        data = await context.sandbox.files.read(absolute(path), limit_bytes=READ_BYTES)
    except GuestError as error:
        raise _failed(path, error) from None
    try:
        text = data.decode() if len(data) < READ_BYTES else data.decode("utf-8", "ignore")
    except UnicodeDecodeError:
        raise ToolFailedError(f"error: {path}: it is no UTF-8 text") from None
    if len(text) <= READ_CHARACTERS and len(data) < READ_BYTES:
        return text
    return f"{text[:READ_CHARACTERS]}\n[the first {READ_CHARACTERS} characters; there is more]"


async def write_text(context: ToolContext, path: str, content: str) -> int:
    """Write a file and return how many bytes; ToolFailedError."""
    data = content.encode("utf-8", "replace")
    try:
        await context.sandbox.files.write(absolute(path), data)
    except GuestError as error:
        raise _failed(path, error) from None
    return len(data)


async def edit_text(context: ToolContext, path: str, old: str, new: str) -> None:
    """Replace what occurs exactly once, letter by letter; ToolFailedError."""
    if not old:
        raise ToolFailedError("error: old_string is empty")
    try:
        data = await context.sandbox.files.read(absolute(path), limit_bytes=READ_BYTES + 1)
    except GuestError as error:
        raise _failed(path, error) from None
    if len(data) > READ_BYTES:
        raise ToolFailedError(f"error: {path}: over {READ_BYTES} bytes; change it by code")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ToolFailedError(f"error: {path}: it is no UTF-8 text") from None
    count = text.count(old)
    if count == 0:
        raise ToolFailedError(f"error: old_string not found in {path}")
    if count > 1:
        raise ToolFailedError(
            f"error: old_string occurs {count} times in {path}; give more of what is around it"
        )
    await write_text(context, path, text.replace(old, new))


async def listed(context: ToolContext, path: str, limit: int = LISTED) -> list[Entry]:
    """Return the entries of a directory by name; ToolFailedError."""
    if not 1 <= limit <= MOST_LISTED:
        raise ToolFailedError(f"error: limit: use 1 to {MOST_LISTED}")
    where = absolute(path)
    try:
        found = await context.sandbox.files.list(where, limit=limit)
    except GuestError as error:
        raise _failed(path, error) from None
    return [
        Entry(
            one.mtime_ns / 1e9,
            posixpath.join(where, one.name),
            one.kind is FileKind.LINK,
            one.kind is FileKind.DIRECTORY,
            one.size,
        )
        for one in found
    ]


async def found_by(context: ToolContext, pattern: str) -> list[str]:
    """Return the paths of files that a glob pattern fits, at most FOUND; ToolFailedError."""
    found: list[str] = []
    async with aclosing(_chosen(context, pattern)) as entries:
        async for entry in entries:
            found.append(entry.path)
            if len(found) == FOUND:
                break
    return found


async def grepped(context: ToolContext, pattern: str, scope: str | None = None) -> list[str]:
    """Return lines `path:line:text` that an expression is found in, at most GREPPED; ToolFailedError."""
    lines: list[str] = []

    async def take(line: str) -> bool:
        lines.append(line[:LINE_CHARACTERS])
        return len(lines) < GREPPED

    chosen = _chosen(context, scope or "/**")
    problem = await cell_search.searched(context, pattern, chosen, take)
    if problem and len(lines) < GREPPED:
        raise ToolFailedError("\n".join((f"error: {problem}", *lines)))
    return lines


async def remove(context: ToolContext, path: str, *, recursive: bool) -> None:
    """Delete what a path names; what is not there is deleted already. ToolFailedError."""
    try:
        await context.sandbox.files.remove(absolute(path), recursive=recursive)
    except GuestError as error:
        if error.errno != errno.ENOENT:
            raise _failed(path, error) from None


def absolute(path: str) -> str:
    """Return the path in the sandbox."""
    return path if path.startswith("/") else posixpath.join(ROOT, path)


_WILD = frozenset("*?[")


async def _chosen(context: ToolContext, pattern: str) -> AsyncGenerator[Entry, None]:
    """Yield the files that a glob pattern fits; one that is not absolute is of /workspace, or of the root."""
    wanted = _expression(pattern)
    is_absolute = pattern.startswith("/")
    root = _fixed(pattern) if is_absolute else "/" if context.sandbox.languages else ROOT
    try:
        async with aclosing(walked(context.sandbox.files, root, WALKED)) as entries:
            async for entry in entries:
                inner = "" if is_absolute else entry.path.removeprefix(ROOT)
                fits = wanted.fullmatch(entry.path) or wanted.fullmatch(inner)
                if fits and not entry.is_directory:
                    yield entry
    except GuestError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise _failed(root, error) from None


def _expression(pattern: str) -> re.Pattern[str]:
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in pattern or len(pattern) > PATTERN_CHARACTERS:
        raise ToolFailedError(f"error: {pattern[:80]!r} is no glob pattern of the workspace")
    try:
        return re.compile("/" + glob_expression(parts), re.DOTALL)
    except re.error as error:
        raise ToolFailedError(f"error: {pattern[:80]!r}: {error.msg}") from None


def _fixed(pattern: str) -> str:
    """Return the directory below which all is that an absolute pattern fits."""
    parts = [part for part in pattern.split("/") if part]
    plain = itertools.takewhile(lambda part: not _WILD & set(part), parts[:-1])
    return "/" + "/".join(plain)


def _failed(path: str, error: GuestError) -> ToolFailedError:
    why = "no such file" if error.errno == errno.ENOENT else os.strerror(error.errno).lower()
    return ToolFailedError(f"error: {path}: {why}")
