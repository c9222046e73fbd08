"""Whole trees of a sandbox's files as a tar, of any size: to a file of this machine, and from one."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import IO

import msgspec

from handiwork.client.link import Link, Query, lines
from handiwork.client.new_file import new_file
from handiwork.client.snapshots import TAKE_SECONDS, pieces_of
from handiwork.model.errors import ConfigError, HandiworkError, SandboxUnavailableError
from handiwork.model.sandbox import TreeReport
from handiwork.model.wire import NOT_WHOLE, TreeFrame, error_of

Place = str | os.PathLike[str] | IO[bytes]
"""A path here, or a binary file that is open."""
NDJSON = "application/x-ndjson"


async def fetch(link: Link, route: str, query: Query, target: Place) -> TreeReport:
    """Write a tar to a new file, whole or not at all, or to an open one as it comes."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_new(target))
        async with link.stream(
            "GET", route, query=query, accept=NDJSON, seconds=TAKE_SECONDS
        ) as chunks:
            return await _written(file, chunks)


async def send(link: Link, route: str, query: Query, source: Place) -> TreeReport:
    """Send a tar from a file, or from an open one as it can be read."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_opened(source))
        async with link.stream(
            "PUT",
            route,
            query=query,
            content=pieces_of(file),
            media_type="application/x-tar",
            seconds=TAKE_SECONDS,
        ) as chunks:
            body = b"".join([chunk async for chunk in chunks])
    try:
        return msgspec.json.decode(body, type=TreeReport)
    except msgspec.DecodeError as error:
        raise HandiworkError(f"the answer is not what this client expects: {error}") from None


async def _written(file: IO[bytes], chunks: AsyncIterator[bytes]) -> TreeReport:
    """Write what comes; where it ends too soon, in a way that no reader of it takes for its end."""
    last = TreeFrame()
    try:
        async for frame in _frames(chunks):
            if frame.report is not None:
                return frame.report
            last = frame
            await asyncio.to_thread(file.write, frame.data)
    except HandiworkError:
        if not last.inside:
            await asyncio.to_thread(file.write, NOT_WHOLE)
        raise
    raise AssertionError("frames end with a report or an error")


async def _frames(chunks: AsyncIterator[bytes]) -> AsyncGenerator[TreeFrame, None]:
    """Yield the frames up to the report; raise the error that comes in its place."""
    async for line in lines(chunks):
        try:
            frame = msgspec.json.decode(line, type=TreeFrame)
        except msgspec.DecodeError:
            break
        if frame.error is not None:
            raise error_of(frame.error)
        yield frame
        if frame.report is not None:
            return
    raise SandboxUnavailableError("the tree was cut short: the control plane stopped")


@contextlib.contextmanager
def _new(place: Place) -> Iterator[IO[bytes]]:
    """Open a new file, which is whole or not at all; leave an open one open."""
    if not isinstance(place, str | os.PathLike):
        yield place
        return
    with new_file(Path(place)) as file:
        yield file


@contextlib.contextmanager
def _opened(place: Place) -> Iterator[IO[bytes]]:
    if not isinstance(place, str | os.PathLike):
        yield place
        return
    try:
        with Path(place).open("rb") as file:
            yield file
    except OSError as error:
        raise ConfigError(f"{os.fspath(place)}: {error.strerror}") from None
