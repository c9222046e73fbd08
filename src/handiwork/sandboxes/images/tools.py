"""Programs of the host that work on images: mkfs.erofs, mmdebstrap, buildah, skopeo."""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes.host import start_tool

KEPT_LINES, KEPT_CHARS = 8, 200
LINE_BYTES = 4096
Told = Callable[[str], None]


def _nobody(_line: str) -> None:
    """Take a line that nobody reads."""


async def run_tool(
    argv: Sequence[str],
    directory: Path,
    *,
    stdout: int | None = None,
    told: Told = _nobody,
    network: bool = False,
) -> None:
    """Run a program to its end; UnsupportedError with what it said last when it fails.

    `told` gets each line that it says on the way; as root it has the host's network only where that
    is asked for. Cancelling ends it and all that it started.
    """
    reader, writer = os.pipe()
    lines = _Lines(told)
    try:
        try:
            process = start_tool(argv, directory, stdout, writer, network=network)
        finally:
            os.close(writer)
        try:
            await _read(reader, lines)
            code = await asyncio.shield(process.exited)
        except BaseException:
            process.kill()
            await asyncio.shield(process.exited)
            raise
    finally:
        os.close(reader)
    if code:
        raise UnsupportedError(f"{argv[0]} failed with {code}: {lines.last()}")


async def _read(reader: int, lines: "_Lines") -> None:
    """Read until everything that holds the pipe has ended."""
    loop = asyncio.get_running_loop()
    os.set_blocking(reader, False)
    while True:
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(reader, _settle, ready)
        try:
            await ready
        finally:
            loop.remove_reader(reader)
        try:
            data = os.read(reader, 65_536)
        except BlockingIOError:
            continue
        if not data:
            return
        lines.feed(data)


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


class _Lines:
    """What a program says, as lines of bounded length; the last few are kept."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._rest = b""
        self._kept: deque[str] = deque(maxlen=KEPT_LINES)

    def feed(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        self._rest = self._rest[-LINE_BYTES:]
        for line in whole:
            self._take(line)

    def _take(self, line: bytes) -> None:
        text = line[:LINE_BYTES].decode("utf-8", "replace").strip()
        if text:
            self._kept.append(text[:KEPT_CHARS])
            self._told(text)

    def last(self) -> str:
        """Return what it said last, printable and short: one long line hides no other."""
        self._take(self._rest)
        text = "; ".join(self._kept) or "it said nothing"
        return "".join(c if c.isprintable() else "?" for c in text)
