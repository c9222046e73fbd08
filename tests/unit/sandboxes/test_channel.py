"""The channel against a stand-in agent: credit, cancelling, hostile frames, death."""

import asyncio
import socket

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.sandbox import ExecRequest
from handiwork.sandboxes import frames
from handiwork.sandboxes.channel import Channel
from handiwork.sandboxes.guest_client import GuestSandbox
from stand_in_agent import connected


@pytest.fixture
async def pair():
    async with connected() as found:
        yield found


def sandbox_of(channel):
    return GuestSandbox("sbx_standin000", channel, {"A": "1"})


HOSTILE = {
    "unknown id": lambda i: (i + 1, frames.Ok()),
    "wrong kind": lambda i: (i, frames.Name(b"/x")),
    "second hello": lambda i: (0, frames.Hello(frames.VERSION, 1)),
    "hello for a request": lambda i: (i, frames.Hello(frames.VERSION, 1)),
    "answer of another call": lambda i: (i, frames.End(0)),
    "output over its limit": lambda i: (i, frames.Stdout(b"x" * 11)),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_hostile_frame_ends_the_sandbox(pair, case):
    channel, agent = pair
    sandbox = sandbox_of(channel)
    call = asyncio.get_running_loop().create_task(
        sandbox.exec(ExecRequest(argv=("x",), output_limit_bytes=10))
    )
    request_id, _ = await agent.next(frames.Exec)
    agent.send(request_id, frames.Started(2))
    target, frame = HOSTILE[case](request_id)
    agent.send(target, frame)
    with pytest.raises(SandboxUnavailableError, match="broke the protocol"):
        await call
    assert "broke the protocol" in await sandbox.closed()
    assert len(agent.lost) == 1


async def test_more_than_the_credit_ends_the_sandbox(pair):
    channel, agent = pair
    start = asyncio.get_running_loop().create_task(
        sandbox_of(channel).start(ExecRequest(argv=("x",), output_limit_bytes=0))
    )
    request_id, _ = await agent.next(frames.Exec)
    agent.send(request_id, frames.Started(2))
    process = await start
    for _ in range(4):
        agent.send(request_id, frames.Stdout(b"x" * frames.PAYLOAD_BYTES))
    agent.send(request_id, frames.Stdout(b"y"))
    with pytest.raises(SandboxUnavailableError, match="credit"):
        await process.wait()


async def test_garbage_ends_the_sandbox(pair):
    channel, agent = pair
    agent.writer.write(b"\xff" * 64)
    assert "broke the protocol" in await channel.closed()


async def test_death_reaches_every_waiter(pair):
    channel, agent = pair
    sandbox = sandbox_of(channel)
    loop = asyncio.get_running_loop()
    calls = [loop.create_task(sandbox.exec(ExecRequest(argv=("x",)))) for _ in range(300)]
    await agent.next(frames.Exec)
    agent.writer.close()
    for call in calls:
        with pytest.raises(SandboxUnavailableError, match="gone"):
            await call
    with pytest.raises(SandboxUnavailableError):
        await sandbox.files.stat("/")


async def test_closing_ourselves_has_no_reason(pair):
    channel, _ = pair
    channel.end()
    assert await channel.closed() == ""


async def test_a_silent_agent_is_given_up():
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel()
        await channel.loop.create_unix_connection(lambda: channel, sock=ours)
        with pytest.raises(SandboxUnavailableError, match="said nothing"):
            await channel.hello(0.02)


async def test_requests_beyond_the_limit_wait(pair):
    channel, agent = pair
    sandbox = sandbox_of(channel)
    loop = asyncio.get_running_loop()
    calls = [loop.create_task(sandbox.files.stat("/")) for _ in range(frames.MAX_REQUESTS + 1)]
    ids = [(await agent.next(frames.Stat))[0] for _ in range(frames.MAX_REQUESTS)]
    assert not agent.queue
    agent.send(ids[0], frames.Info(2, 0o755, 0, 0, 0, 0))
    ids.append((await agent.next(frames.Stat))[0])
    for request_id in ids[1:]:
        agent.send(request_id, frames.Info(2, 0o755, 0, 0, 0, 0))
    for call in calls:
        assert (await call).mode == 0o755


async def test_draining_gives_up_what_is_open_and_waits_for_its_end(pair):
    channel, agent = pair
    loop = asyncio.get_running_loop()
    call = loop.create_task(sandbox_of(channel).exec(ExecRequest(argv=("x",))))
    request_id, _ = await agent.next(frames.Exec)
    drained = loop.create_task(channel.drain(20))
    _, farewell = await agent.next(frames.Signal)
    assert farewell.signal == 9
    with pytest.raises(SandboxUnavailableError):
        await call
    assert not drained.done()
    agent.send(request_id, frames.Exit(137, 0, 0, 0, 0))
    ping_id, _ = await agent.next(frames.Ping)
    agent.send(ping_id, frames.Ok())
    await drained
    assert channel.requests == {}
    assert channel.reason is None


async def test_draining_ends_by_itself(pair):
    channel, _ = pair
    with pytest.raises(TimeoutError):
        await channel.drain(0.05)


async def test_an_agent_that_greeted_before_need_not_again():
    channel = Channel(greeted=True)
    await channel.hello(0.01)
    channel.end()
