"""Watches over a channel: what is told, what it costs, what a guest may not say."""

import asyncio
import errno

import pytest

from handiwork.model.errors import GuestError, SandboxUnavailableError
from handiwork.model.sandbox import FileChange
from handiwork.sandboxes import frames
from handiwork.sandboxes.guest_files import GuestFiles
from stand_in_agent import connected


@pytest.fixture
async def pair():
    async with connected() as found:
        yield found


async def standing(channel, agent):
    """Return a watch that stands, and the id of its request."""
    call = asyncio.ensure_future(GuestFiles(channel).watch("/workspace"))
    request_id, asked = await agent.next(frames.Watch)
    assert (asked.flags, asked.path) == (frames.WATCH_RECURSIVE, b"/workspace")
    agent.send(request_id, frames.Watched(3))
    return await call, request_id


def events(*found):
    return frames.Events(tuple(frames.Event(*one) for one in found))


async def told(watch):
    return [(one.change, one.path, one.directory) async for one in watch.events()]


async def test_what_is_told(pair):
    channel, agent = pair
    watch, request_id = await standing(channel, agent)
    assert watch.directories == 3
    agent.send(request_id, events((1, 1, b"a"), (2, 0, b"a/\xff")), events((7, 0, b"")))
    agent.send(request_id, frames.End(3))
    assert await told(watch) == [
        (FileChange.CREATED, "a", True),
        (FileChange.CHANGED, "a/\udcff", False),
        (FileChange.OVERFLOW, "", False),
    ]


async def test_what_is_taken_is_credited(pair):
    channel, agent = pair
    watch, request_id = await standing(channel, agent)
    one = (2, 0, b"x" * 988)
    count = frames.WINDOW_BYTES // 1000
    for _ in range(count // 50):
        agent.send(request_id, events(*[one] * 50))
    found = watch.events()
    for _ in range(frames.WINDOW_BYTES // 2000 + 1):
        await anext(found)
    _, credit = await agent.next(frames.Credit)
    assert credit.amount >= frames.WINDOW_BYTES // 2
    await found.aclose()


async def test_what_cannot_be_watched(pair):
    channel, agent = pair
    call = asyncio.ensure_future(GuestFiles(channel).watch("/none", recursive=False))
    request_id, asked = await agent.next(frames.Watch)
    assert asked.flags == 0
    agent.send(request_id, frames.Failed(errno.ENOENT, b"watch"))
    with pytest.raises(GuestError) as refused:
        await call
    assert refused.value.errno == errno.ENOENT


async def test_closing_and_cancelling_tell_the_agent(pair):
    channel, agent = pair
    watch, request_id = await standing(channel, agent)
    watch.close()
    assert (await agent.next(frames.Cancel))[0] == request_id
    agent.send(request_id, events((1, 0, b"late")), frames.Failed(errno.ECANCELED, b"watch"))
    call = asyncio.ensure_future(GuestFiles(channel).watch("/workspace"))
    request_id, _ = await agent.next(frames.Watch)
    call.cancel()
    assert (await agent.next(frames.Cancel))[0] == request_id
    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.parametrize(
    "said",
    [
        (frames.Watched(1),),
        (events((0, 0, b"a")),),
        (events((9, 0, b"a")),),
        (events((1, 0, b"../a")),),
        (events((1, 0, b"/a")),),
        (events((1, 0, b"a//b")),),
        (events((1, 0, b"a\0b")),),
        (events((7, 0, b"a")),),
        (frames.Body(b"x"),),
        (events(*[(1, 0, b"x" * 250)] * 200),) * 6,
    ],
)
async def test_what_a_guest_may_not_say_ends_the_channel(pair, said):
    channel, agent = pair
    watch, request_id = await standing(channel, agent)
    agent.send(request_id, *said)
    assert "broke the protocol" in await channel.closed()
    with pytest.raises(SandboxUnavailableError):
        await told(watch)
