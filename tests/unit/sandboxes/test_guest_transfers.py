"""Files as streams over a channel: credit as they are taken, and an end whoever breaks off."""

import asyncio
import itertools

import pytest

from handiwork.model.errors import GuestError, SandboxUnavailableError
from handiwork.sandboxes import frames, guest_files, guest_transfers
from handiwork.sandboxes.guest_client import GuestSandbox
from stand_in_agent import connected

PIECE = b"x" * 65_536


@pytest.fixture
async def pair():
    async with connected() as found:
        yield found


def files_of(channel):
    return GuestSandbox("sbx_standin000", channel, {}).files


async def endless():
    for _ in itertools.count():
        yield PIECE


def started(work):
    return asyncio.get_running_loop().create_task(work)


async def test_what_is_read_is_given_credit_as_it_is_taken(pair):
    channel, agent = pair
    stream = files_of(channel).read_stream("/f", offset=7)
    first = started(anext(stream))
    request_id, asked = await agent.next(frames.Read)
    assert (asked.offset, asked.limit, asked.path) == (7, 0, b"/f")
    agent.send(request_id, *[frames.Body(PIECE)] * 4)
    assert await first == PIECE
    assert not agent.queue
    assert await anext(stream) == PIECE
    assert (await agent.next(frames.Credit))[1].amount == 2 * len(PIECE)
    agent.send(request_id, frames.End(4 * len(PIECE)))
    assert [len(piece) async for piece in stream] == [len(PIECE)] * 2
    assert not channel.requests


async def test_more_than_was_asked_for_ends_the_sandbox(pair):
    channel, agent = pair
    call = started(anext(files_of(channel).read_stream("/f", limit_bytes=10)))
    request_id, _ = await agent.next(frames.Read)
    agent.send(request_id, frames.Body(b"x" * 11))
    await asyncio.wait([call])
    assert "more of a file" in (channel.reason or "")


async def test_a_read_that_fails_on_its_way_is_told(pair):
    channel, agent = pair
    stream = files_of(channel).read_stream("/f")
    first = started(anext(stream))
    request_id, _ = await agent.next(frames.Read)
    agent.send(request_id, frames.Body(b"x"), frames.Failed(5, b"read"))
    assert await first == b"x"
    with pytest.raises(GuestError) as told:
        await anext(stream)
    assert told.value.errno == 5


async def test_a_read_that_is_left_is_cancelled(pair):
    channel, agent = pair
    stream = files_of(channel).read_stream("/f")
    first = started(anext(stream))
    request_id, _ = await agent.next(frames.Read)
    agent.send(request_id, frames.Body(b"x"))
    await first
    await stream.aclose()
    await agent.next(frames.Cancel)


async def test_only_the_agent_has_a_deadline(pair, monkeypatch):
    monkeypatch.setattr(guest_transfers, "STEP_SECONDS", 0.2)
    channel, agent = pair
    stream = files_of(channel).read_stream("/f")
    first = started(anext(stream))
    request_id, _ = await agent.next(frames.Read)
    agent.send(request_id, frames.Body(b"x"))
    await first
    await asyncio.sleep(0.5)
    assert channel.reason is None
    with pytest.raises(SandboxUnavailableError, match=r"within 0\.2 s"):
        await anext(stream)


async def test_what_is_written_waits_for_room(pair):
    channel, agent = pair

    async def pieces():
        yield b""
        yield PIECE * 5
        yield b"end"

    call = started(files_of(channel).write_stream("/f", pieces(), mode=0o600, parents=False))
    request_id, asked = await agent.next(frames.Write)
    assert (asked.mode, asked.flags, asked.path) == (0o600, 0, b"/f")
    for _ in range(4):
        assert (await agent.next(frames.Data))[1].data == PIECE
    await asyncio.sleep(0.05)
    assert not agent.queue
    agent.send(request_id, frames.Grant(2 * len(PIECE)))
    assert [(await agent.next(frames.Data))[1].data for _ in range(3)] == [PIECE, b"end", b""]
    agent.send(request_id, frames.Ok())
    await call
    assert not channel.requests


async def test_nothing_is_written_while_the_files_are_copied(pair):
    channel, agent = pair
    going = asyncio.Event()

    async def pieces():
        yield b"x"
        await going.wait()
        yield b"y"

    call = started(files_of(channel).write_stream("/f", pieces()))
    request_id, _ = await agent.next(frames.Write)
    assert (await agent.next(frames.Data))[1].data == b"x"
    channel.hold()
    going.set()
    asked = started(agent.next())
    await asyncio.sleep(0.05)
    assert not asked.done()
    channel.release()
    assert (await asked)[1].data == b"y"
    assert (await agent.next(frames.Data))[1].data == b""
    agent.send(request_id, frames.Ok())
    await call


async def test_a_slow_source_is_waited_for_and_a_silent_agent_is_not(pair, monkeypatch):
    monkeypatch.setattr(guest_transfers, "STEP_SECONDS", 0.2)
    channel, _ = pair

    async def slow():
        yield b"x"
        await asyncio.sleep(0.5)
        assert channel.reason is None
        async for piece in endless():
            yield piece

    with pytest.raises(SandboxUnavailableError, match=r"within 0\.2 s"):
        await files_of(channel).write_stream("/f", slow())


async def test_a_write_that_fails_is_told_before_its_source_ends(pair):
    channel, agent = pair
    call = started(files_of(channel).write_stream("/f", endless()))
    request_id, _ = await agent.next(frames.Write)
    agent.send(request_id, frames.Failed(28, b"write"))
    with pytest.raises(GuestError) as told:
        await call
    assert told.value.errno == 28


async def test_nothing_is_sent_of_a_write_that_failed_while_its_source_was_waited_for(pair):
    """As when its machine was put to sleep: half a frame would be the first thing it wakes to."""
    channel, agent = pair
    more = asyncio.Event()

    async def pieces():
        yield b"first"
        await more.wait()
        yield b"second"

    call = started(files_of(channel).write_stream("/f", pieces()))
    request_id, _ = await agent.next(frames.Write)
    await agent.next(frames.Data)
    agent.send(request_id, frames.Failed(5, b"asleep"))
    await asyncio.sleep(0.05)
    more.set()
    with pytest.raises(GuestError):
        await call
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await agent.next(frames.Data)


@pytest.mark.parametrize("how", ["broken", "cancelled"])
async def test_a_write_that_breaks_off_is_cancelled(pair, how):
    channel, agent = pair
    going = asyncio.Event()

    async def pieces():
        yield b"x"
        going.set()
        if how == "cancelled":
            await asyncio.Event().wait()
        raise ValueError(how)

    call = started(files_of(channel).write_stream("/f", pieces()))
    await going.wait()
    if how == "cancelled":
        call.cancel()
    with pytest.raises((ValueError, asyncio.CancelledError)):
        await call
    await agent.next(frames.Write)
    await agent.next(frames.Data)
    await agent.next(frames.Cancel)


async def test_one_stream_too_many_waits(pair, monkeypatch):
    monkeypatch.setattr(guest_files, "MAX_TRANSFERS", 2)
    channel, agent = pair
    files = files_of(channel)
    streams = [files.read_stream(f"/{number}") for number in range(2)]
    reads = [started(anext(stream)) for stream in streams]
    ids = [(await agent.next(frames.Read))[0] for _ in streams]
    waits = started(files.write_stream("/third", endless()))
    await asyncio.sleep(0.05)
    assert not agent.queue
    assert len(channel.requests) == 2
    agent.send(ids[0], frames.Body(b"x"))
    await reads[0]
    await streams[0].aclose()
    await agent.next(frames.Cancel)
    await agent.next(frames.Write)
    for one in (waits, reads[1]):
        one.cancel()
        await asyncio.wait([one])
