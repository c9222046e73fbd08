"""The stock search tools: `glob` and `grep`, by programs of the image inside the sandbox."""

import asyncio
import re
import time

from handiwork.model.errors import GuestError, ToolFailedError
from handiwork.model.sandbox import OUT_OF_MEMORY, ExecRequest, ExecResult
from handiwork.tools import cell_search
from handiwork.tools.context import ToolContext
from handiwork.tools.files import ROOT, confined
from handiwork.tools.glob_pattern import glob_expression
from handiwork.tools.registry import tool
from handiwork.tools.spool import Collector
from handiwork.tools.walk import Entry, walked

GLOB_RESULTS = 200
WALK_ENTRIES = 50_000
PATTERN_LIMIT = 1024
LEFT_OUT = (".git", "node_modules")
_MATCHING_SECONDS = 0.01
"""How long names are matched at a stretch: the other sessions are served between."""

_LISTING_LIMIT_BYTES = 16 << 20
_COMPLAINT_BYTES = 1000
_KILL = 9

_GREP = (
    "if command -v rg >/dev/null 2>&1; then"
    ' exec rg --no-config -n --no-heading --with-filename -e "$1" -- "$2"; fi\n'
    'exec grep -rnHIP --exclude-dir=.git --exclude-dir=node_modules -e "$1" -- "$2"'
)
_FIND = "find \"$@\" -printf '%T@ %y %p\\0' 2>/dev/null | head -zn " + str(WALK_ENTRIES)


@tool("glob", keeps_time=True)
async def glob(context: ToolContext, pattern: str, path: str | None = None) -> str:
    """List files matching a glob pattern, newest first."""
    if pattern.startswith("/"):
        raise ToolFailedError(
            "glob: absolute pattern not permitted; pass a relative pattern (and optionally path)"
        )
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ToolFailedError("glob: '..' is not permitted in the pattern")
    if not parts or "\0" in pattern:
        raise ToolFailedError("glob: the pattern is empty")
    root = await confined(context.sandbox.files, "glob", path) if path else ROOT
    if len(pattern) > PATTERN_LIMIT:
        raise ToolFailedError(f"glob: the pattern has over {PATTERN_LIMIT} characters")
    try:
        wanted = re.compile(glob_expression(parts), re.DOTALL)
    except re.error as error:
        raise ToolFailedError(f"glob: the pattern is malformed: {error.msg}") from None
    entries = await _walk(context, root, parts)
    try:
        async with asyncio.timeout(context.timeout_seconds):
            found = await _matching(entries, wanted, root)
    except TimeoutError:
        raise _late(context) from None
    found.sort(key=lambda entry: entry.changed, reverse=True)
    shown: list[str] = []
    for entry in found:
        if len(shown) == GLOB_RESULTS:
            break
        if await _stays(context, entry, root):
            shown.append(entry.path)
    return "\n".join(shown) or "no matches"


@tool("grep", keeps_time=True)
async def grep(context: ToolContext, pattern: str, path: str | None = None) -> str:
    """Search file contents for a regular expression."""
    if "\0" in pattern:
        raise ToolFailedError("grep: invalid regex: it contains a NUL byte")
    root = await confined(context.sandbox.files, "grep", path) if path else ROOT
    output = Collector(context.spool, context.tool_use_id)
    if context.sandbox.languages:
        return await _grep_in_cell(context, pattern, root, output)
    result, complaint = await _collect(
        context, ("/bin/sh", "-c", _GREP, "grep", pattern, root), output
    )
    text = await output.text()
    if result is None:
        late = f"grep: timed out after {context.timeout_seconds:g}s, its limit here"
        raise ToolFailedError(f"{late}\n{text}" if text else late)
    if result.exit_code > 1 and not text:
        raise ToolFailedError(f"grep: {complaint or _ended(result)}")
    return text or "no matches"


async def _grep_in_cell(context: ToolContext, pattern: str, root: str, output: Collector) -> str:
    async def take(line: str) -> bool:
        await output.take(f"{line}\n".encode("utf-8", "replace"))
        return True

    entries = walked(context.sandbox.files, root, WALK_ENTRIES, left_out=LEFT_OUT)
    try:
        problem = await cell_search.searched(context, pattern, entries, take)
        text = (await output.text()).rstrip("\n")
    except BaseException:
        await output.abandon()
        raise
    if problem:
        told = f"grep: {problem}"
        raise ToolFailedError(f"{told}\n{text}" if text else told)
    return text or "no matches"


async def _collect(
    context: ToolContext, argv: tuple[str, ...], output: Collector
) -> tuple[ExecResult | None, str]:
    """Run a program, its output into the collector; None when it was out of time. And its complaint."""
    complaint = b""
    request = ExecRequest(argv=argv, timeout_seconds=None, output_limit_bytes=0)
    process = await context.sandbox.start(request)
    try:
        async with asyncio.timeout(context.timeout_seconds):
            async for stream, chunk in process.output():
                if stream == "stdout":
                    await output.take(chunk)
                else:
                    complaint = (complaint + chunk)[:_COMPLAINT_BYTES]
            return await process.wait(), _text(complaint)
    except TimeoutError:
        await process.signal(_KILL)
        return None, _text(complaint)
    except BaseException:
        await process.signal(_KILL)
        await output.abandon()
        raise


async def _walk(context: ToolContext, root: str, parts: list[str]) -> list[Entry]:
    """Return what is below the root, links not followed, at most WALK_ENTRIES."""
    if context.sandbox.languages:
        deepest = None if "**" in parts else len(parts)
        return [one async for one in walked(context.sandbox.files, root, WALK_ENTRIES, deepest)]
    depth = () if "**" in parts else ("-maxdepth", str(len(parts)))
    result = await context.sandbox.exec(
        ExecRequest(
            argv=("/bin/sh", "-c", _FIND, "glob", root, "-mindepth", "1", *depth),
            timeout_seconds=context.timeout_seconds,
            output_limit_bytes=_LISTING_LIMIT_BYTES,
        )
    )
    if result.timed_out:
        raise _late(context)
    if result.exit_code:
        raise ToolFailedError(f"glob: {_complaint(result)}")
    lines = result.stdout.decode("utf-8", "replace").split("\0")[:-1]
    return [_entry(line) for line in lines]


def _late(context: ToolContext) -> ToolFailedError:
    return ToolFailedError(f"glob: timed out after {context.timeout_seconds:g}s, its limit here")


async def _matching(entries: list[Entry], wanted: re.Pattern[str], root: str) -> list[Entry]:
    """Return the entries that the expression matches, letting others run now and then."""
    found: list[Entry] = []
    since = time.monotonic()
    for entry in entries:
        if wanted.fullmatch(entry.path.removeprefix(root).lstrip("/")):
            found.append(entry)
        if time.monotonic() - since > _MATCHING_SECONDS:
            await asyncio.sleep(0)
            since = time.monotonic()
    return found


def _entry(line: str) -> Entry:
    changed, kind, path = line.split(" ", 2)
    return Entry(float(changed), path, kind == "l")


async def _stays(context: ToolContext, entry: Entry, root: str) -> bool:
    """Say whether the entry is inside the root once its link is followed."""
    if not entry.is_link:
        return True
    try:
        real = await context.sandbox.files.realpath(entry.path)
    except GuestError:
        return False
    return real == root or real.startswith(root + "/")


def _complaint(result: ExecResult) -> str:
    return _text(result.stderr[:_COMPLAINT_BYTES]) or _ended(result)


def _ended(result: ExecResult) -> str:
    why = f" ({OUT_OF_MEMORY})" if result.out_of_memory else ""
    return f"exit code {result.exit_code}{why}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").strip()
