"""Connections over a channel: bytes, ends, limits, what a guest may not say."""

import asyncio
import errno

import pytest

from handiwork.model.errors import GuestError, SandboxUnavailableError
from handiwork.sandboxes import frames
from handiwork.sandboxes.guest_client import MAX_CONNECTIONS, GuestSandbox
from stand_in_agent import connected


@pytest.fixture
async def pair():
    async with connected() as found:
        yield found


async def until(condition):
    while not condition():  # noqa: ASYNC110  what is told is a dict
        await asyncio.sleep(0)


async def rest(connection):
    while await connection.read():
        pass


async def opened(channel, agent, sandbox=None):
    """Return a connection that stands, and the id of its request."""
    box = sandbox or GuestSandbox("sbx_standin000", channel, {})
    async with asyncio.TaskGroup() as group:
        call = group.create_task(box.connect(8000))
        request_id, asked = await agent.next(frames.Connect)
        assert (asked.family, asked.port) == (0, 8000)
        agent.send(request_id, frames.Connected(4))
    return call.result(), request_id


async def test_bytes_and_ends_of_both_sides(pair):
    channel, agent = pair
    connection, request_id = await opened(channel, agent)
    await connection.write(b"question")
    assert (await agent.next(frames.Data))[1].data == b"question"
    agent.send(request_id, frames.Body(b"answer"), frames.Finished())
    assert [await connection.read() for _ in range(3)] == [b"answer", b"", b""]
    await connection.finish()
    await connection.finish()
    assert (await agent.next(frames.Data))[1].data == b""
    agent.send(request_id, frames.End(6))
    await until(lambda: not channel.requests)
    assert await connection.read() == b""
    with pytest.raises(GuestError):
        await connection.write(b"more")
    connection.close()


async def test_nobody_listens(pair):
    channel, agent = pair
    box = GuestSandbox("sbx_standin000", channel, {})
    call = asyncio.ensure_future(box.connect(8000))
    request_id, _ = await agent.next(frames.Connect)
    agent.send(request_id, frames.Failed(errno.ECONNREFUSED, b"connection"))
    with pytest.raises(GuestError) as told:
        await call
    assert told.value.errno == errno.ECONNREFUSED


async def test_a_break_is_told_to_who_reads_and_who_writes(pair):
    channel, agent = pair
    connection, request_id = await opened(channel, agent)
    await connection.write(b"x" * frames.WINDOW_BYTES)
    writing = asyncio.ensure_future(connection.write(b"beyond the credit"))
    await asyncio.sleep(0)
    agent.send(request_id, frames.Failed(errno.ECONNRESET, b"connection"))
    with pytest.raises(GuestError):
        await writing
    with pytest.raises(GuestError) as told:
        await connection.read()
    assert told.value.errno == errno.ECONNRESET


async def test_closing_and_cancelling_tell_the_agent(pair):
    channel, agent = pair
    connection, request_id = await opened(channel, agent)
    connection.close()
    assert (await agent.next(frames.Cancel))[0] == request_id
    agent.send(request_id, frames.Body(b"late"), frames.Failed(errno.ECANCELED, b"connection"))
    call = asyncio.ensure_future(GuestSandbox("sbx_standin000", channel, {}).connect(1))
    request_id, _ = await agent.next(frames.Connect)
    call.cancel()
    assert (await agent.next(frames.Cancel))[0] == request_id
    agent.send(request_id, frames.Failed(errno.ECANCELED, b"connection"))
    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.parametrize(
    "said",
    [
        (frames.Connected(4),),
        (frames.Finished(), frames.Finished()),
        (frames.Finished(), frames.Body(b"x")),
        (frames.Body(b""),),
        (frames.Stdout(b"x"),),
        tuple(frames.Body(b"x" * frames.PAYLOAD_BYTES) for _ in range(5)),
    ],
)
async def test_what_a_guest_may_not_say_ends_the_channel(pair, said):
    channel, agent = pair
    connection, request_id = await opened(channel, agent)
    agent.send(request_id, *said)
    assert "broke the protocol" in await channel.closed()
    with pytest.raises(SandboxUnavailableError):
        await rest(connection)


async def test_an_end_of_what_did_not_begin_is_an_error(pair):
    channel, agent = pair
    call = asyncio.ensure_future(GuestSandbox("sbx_standin000", channel, {}).connect(1))
    request_id, _ = await agent.next(frames.Connect)
    agent.send(request_id, frames.End(0))
    with pytest.raises(GuestError):
        await call


async def test_there_are_so_many_and_their_places_come_back(pair):
    channel, agent = pair
    box = GuestSandbox("sbx_standin000", channel, {})
    ids = [(await opened(channel, agent, box))[1] for _ in range(MAX_CONNECTIONS)]
    with pytest.raises(GuestError) as told:
        await box.connect(8000)
    assert told.value.errno == errno.EAGAIN
    agent.send(ids[0], frames.Failed(errno.ECONNRESET, b"connection"))
    await until(lambda: len(channel.requests) < MAX_CONNECTIONS)
    await asyncio.sleep(0)
    await opened(channel, agent, box)


@pytest.mark.parametrize("port", [0, -1, 65_536])
async def test_what_is_no_port_is_not_asked_for(pair, port):
    with pytest.raises(GuestError) as told:
        await GuestSandbox("sbx_standin000", pair[0], {}).connect(port)
    assert told.value.errno == errno.EINVAL
