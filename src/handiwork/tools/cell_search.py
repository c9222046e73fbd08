"""Searching files by a regular expression in a cell: whoever wrote it, it stalls nobody but that cell."""

import base64
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from handiwork.model.code import CodeError, CodeLimits, CodeRequest, LimitKind
from handiwork.model.errors import GuestError, ToolFailedError
from handiwork.tools.context import ToolContext
from handiwork.tools.walk import Entry

BATCH_BYTES = 1 << 20
BATCH_FILES = 256
FILE_BYTES = 16 << 20
"""A longer file is not searched, which is told."""
LINES_CHARACTERS = 1 << 18

_PROGRAM = f"""
import base64, json, re

async def search(pattern):
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        return f"invalid regex: {{error}}"
    while batch := await codemode.batch():
        lines, size = [], 0
        for path, data in batch:
            raw = base64.b64decode(data)
            if b"\\0" in raw:
                continue
            text = raw.decode("utf-8", "replace")
            for number, line in enumerate(text.removesuffix("\\n").split("\\n") if text else (), 1):
                if wanted.search(line):
                    lines.append(f"{{path}}:{{number}}:{{line}}")
                    size += len(lines[-1])
                if size > {LINES_CHARACTERS}:
                    if not await codemode.found(lines=lines):
                        return ""
                    lines, size = [], 0
        if lines and not await codemode.found(lines=lines):
            return ""
    return ""
"""
"""Takes files until there are none, gives lines until nobody wants more; returns what is wrong."""

Take = Callable[[str], Awaitable[bool]]
"""Takes a line `path:line:text`; False when no more are wanted."""


class _Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    lines: tuple[str, ...]


async def searched(
    context: ToolContext, pattern: str, entries: AsyncGenerator[Entry, None], take: Take
) -> str:
    """Give each line that a Python regular expression is found in to `take`; returns what went wrong, or "".

    Files come in the order of the entries; those with a NUL byte have no lines.
    """
    search = _Search(context, entries, take)
    seconds = context.timeout_seconds
    request = CodeRequest(
        code=f"{_PROGRAM}\nawait search(json.loads({_literal(pattern)}))",
        language="python",
        name="/workspace/search",
        fresh=True,
        limits=CodeLimits(
            cpu_ms=round(seconds * 1000), wall_seconds=seconds, calls=1_000_000, call_mib=1 << 12
        ),
    )
    async with aclosing(entries):
        done = await context.sandbox.run_code(request, search.serve)
    if done.error is not None:
        return _told(done.error, seconds)
    problem = done.value if isinstance(done.value, str) else ""
    return problem or search.left_out()


def _literal(text: str) -> str:
    """Return Python's literal of a text's JSON, which is ASCII."""
    return repr(msgspec.json.encode(text.encode("utf-8", "replace").decode()).decode())


def _told(error: CodeError, seconds: float) -> str:
    if error.limit in (LimitKind.CPU, LimitKind.WALL):
        return f"timed out after {seconds:g}s, its limit here"
    return f"{error.name}: {error.message}"


class _Search:
    def __init__(self, context: ToolContext, entries: AsyncIterator[Entry], take: Take) -> None:
        self._files = context.sandbox.files
        self._entries = entries
        self._take = take
        self._too_long: list[str] = []

    async def serve(self, name: str, argument: msgspec.Raw) -> Any:
        """Answer the program's calls: the next files, and whether more lines are wanted."""
        if name == "batch":
            return await self._batch()
        if name == "found":
            return await self._found(argument)
        raise ToolFailedError(f"{name[:40]}: there is no such call")

    def left_out(self) -> str:
        """Say which files were not searched."""
        if not self._too_long:
            return ""
        return f"not searched, as they have over {FILE_BYTES >> 20} MiB: " + ", ".join(
            self._too_long[:10]
        )

    async def _batch(self) -> list[tuple[str, str]]:
        batch: list[tuple[str, str]] = []
        size = 0
        async for entry in self._entries:
            if entry.is_directory or entry.is_link:
                continue
            data = await self._content(entry)
            if data:
                batch.append((entry.path, base64.b64encode(data).decode()))
                size += len(data)
            if size >= BATCH_BYTES or len(batch) >= BATCH_FILES:
                break
        return batch

    async def _content(self, entry: Entry) -> bytes:
        if entry.size > FILE_BYTES:
            self._too_long.append(entry.path)
            return b""
        try:
            return await self._files.read(entry.path, limit_bytes=FILE_BYTES)
        except GuestError:
            return b""  # it went meanwhile

    async def _found(self, argument: msgspec.Raw) -> bool:
        try:
            found = msgspec.json.decode(argument, type=_Found)
        except msgspec.DecodeError as error:
            raise ToolFailedError(f"found: {error}") from None
        for line in found.lines:
            if not await self._take(line):
                return False
        return True
