"""Files of any size over a channel, in bounded memory: read as they are taken, written as they come."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable
from typing import cast

from handiwork.sandboxes import frames
from handiwork.sandboxes.channel import Channel, Request, finish
from handiwork.sandboxes.frames import Frame, FrameError

STEP_SECONDS = 120.0
"""How long the agent may do nothing for a transfer, before its sandbox is taken for broken."""

CANCEL = frames.Cancel()


async def read_pieces(
    channel: Channel, path: bytes, *, offset: int, limit_bytes: int | None
) -> AsyncGenerator[bytes, None]:
    """Yield bytes of a regular file; the agent waits while nobody takes them. GuestError."""
    most = None if limit_bytes is None else max(1, limit_bytes)  # 0 would ask the agent for all
    pieces: deque[bytes] = deque()
    came = asyncio.Event()
    size = 0

    def take(frame: Frame) -> None:
        nonlocal size
        pieces.append(cast("frames.Body", frame).data)
        size += len(pieces[-1])
        if most is not None and size > most:
            raise FrameError("the guest sent more of a file than was asked for")
        came.set()

    asked = frames.Read(offset, most or 0, path)
    request = await channel.open(asked, frames.End, (frames.Body,), sink=take)
    request.done.add_done_callback(lambda _: came.set())
    try:
        while pieces or not request.done.done():
            if not pieces:
                await _step(channel, request, came)
                continue
            piece = pieces.popleft()
            request.consumed(len(piece))
            if limit_bytes != 0:
                yield piece
        await finish(request, CANCEL)
    finally:
        request.abandon(CANCEL)


async def write_pieces(channel: Channel, asked: frames.Write, pieces: AsyncIterable[bytes]) -> None:
    """Write a file whole or not at all: whatever ends this before its pieces end leaves nothing.

    While the channel is held it stands still: somebody copies the sandbox's files.
    """
    room = asyncio.Event()
    request = await channel.open(asked, frames.Ok, (frames.Grant,))
    request.on_room = room.set
    request.done.add_done_callback(lambda _: room.set())
    try:
        async for piece in pieces:
            await _send(channel, request, room, piece)
            if request.done.done():  # it failed
                break
        await channel.unheld()
        if not request.done.done():
            request.outbox_ends = True
            channel.send(request.outgoing())
            channel.expect_end(request, STEP_SECONDS)
        await finish(request, CANCEL)
    except BaseException:
        request.abandon(CANCEL)
        raise


async def _send(channel: Channel, request: Request, room: asyncio.Event, piece: bytes) -> None:
    """Send a piece, a frame at a time, as far as the agent takes it, or until it has failed."""
    for at in range(0, len(piece), frames.PAYLOAD_BYTES):
        await channel.unheld()
        if request.done.done():  # the machine may be asleep by now: nothing more is sent to it
            return
        request.outbox = memoryview(piece)[at : at + frames.PAYLOAD_BYTES]
        channel.send(request.outgoing())
        while request.outbox and not request.done.done():
            await _step(channel, request, room)


async def _step(channel: Channel, request: Request, event: asyncio.Event) -> None:
    """Wait for the agent. While it is we who are waited for it has all the time."""
    event.clear()
    channel.expect_end(request, STEP_SECONDS)
    try:
        await event.wait()
    finally:
        channel.deadlines.clear(request.id)
