"""File calls over a channel: cancelling, failures, an agent that sends too much."""

import asyncio

import pytest

from handiwork.model.errors import GuestError, SandboxUnavailableError
from handiwork.sandboxes import frames
from handiwork.sandboxes.guest_client import GuestSandbox
from stand_in_agent import connected

LIMIT = 4096


@pytest.fixture
async def pair():
    async with connected() as found:
        yield found


def sandbox_of(channel):
    return GuestSandbox("sbx_standin000", channel, {"A": "1"})


async def fails(awaitable):
    with pytest.raises(GuestError) as caught:
        await awaitable
    return caught.value


async def test_cancelled_file_call_is_told(pair):
    channel, agent = pair
    call = asyncio.get_running_loop().create_task(sandbox_of(channel).files.read("/f"))
    await agent.next(frames.Read)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await agent.next(frames.Cancel)


async def test_a_failed_answer_is_a_guest_error(pair):
    channel, agent = pair
    async with asyncio.TaskGroup() as group:
        call = group.create_task(fails(sandbox_of(channel).files.stat("/f")))
        request_id, _ = await agent.next(frames.Stat)
        agent.send(request_id, frames.Failed(2, b"open\x1b[31m"))
    assert call.result().errno == 2
    assert "\x1b" not in str(call.result())


async def test_a_read_beyond_the_limit_of_one_call_is_refused(pair, monkeypatch):
    monkeypatch.setattr("handiwork.sandboxes.guest_files.READ_LIMIT_BYTES", LIMIT)
    channel, agent = pair
    call = asyncio.get_running_loop().create_task(fails(sandbox_of(channel).files.read("/f")))
    request_id, asked = await agent.next(frames.Read)
    assert asked.limit == LIMIT + 1
    agent.send(request_id, frames.Body(b"x" * (LIMIT + 1)), frames.End(LIMIT + 1))
    assert "read it in parts" in str(await call)


async def test_more_bytes_than_asked_for_end_the_sandbox(pair):
    channel, agent = pair
    call = asyncio.get_running_loop().create_task(
        sandbox_of(channel).files.read("/f", limit_bytes=10)
    )
    request_id, _ = await agent.next(frames.Read)
    agent.send(request_id, frames.Body(b"x" * 11))
    with pytest.raises(SandboxUnavailableError, match="more of a file"):
        await call


async def test_more_entries_than_asked_for_end_the_sandbox(pair):
    channel, agent = pair
    call = asyncio.get_running_loop().create_task(sandbox_of(channel).files.list("/d", limit=1))
    request_id, _ = await agent.next(frames.List)
    entry = frames.Entry(1, 0o644, 0, 0, 0, 0, b"a")
    agent.send(request_id, frames.Entries((entry, entry)))
    with pytest.raises(SandboxUnavailableError, match="more entries"):
        await call


async def test_a_write_sends_its_data_and_its_end(pair):
    channel, agent = pair
    call = asyncio.get_running_loop().create_task(
        sandbox_of(channel).files.write("/f", b"data", mode=0o600, parents=False)
    )
    request_id, asked = await agent.next(frames.Write)
    assert (asked.mode, asked.flags, asked.path) == (0o600, 0, b"/f")
    assert (await agent.next(frames.Data))[1].data == b"data"
    assert (await agent.next(frames.Data))[1].data == b""
    agent.send(request_id, frames.Ok())
    await call


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0b"])
async def test_names_that_no_directory_can_hold_end_the_sandbox(pair, name):
    channel, agent = pair
    call = asyncio.get_running_loop().create_task(sandbox_of(channel).files.list("/d"))
    request_id, _ = await agent.next(frames.List)
    fine = frames.Entry(1, 0o644, 0, 0, 0, 0, b"\xff\n..a")
    agent.send(request_id, frames.Entries((fine, frames.Entry(1, 0o644, 0, 0, 0, 0, name))))
    with pytest.raises(SandboxUnavailableError, match="no directory can hold"):
        await call


async def test_empty_pieces_end_the_sandbox(pair):
    channel, agent = pair
    call = asyncio.get_running_loop().create_task(sandbox_of(channel).files.read("/f"))
    request_id, _ = await agent.next(frames.Read)
    agent.send(request_id, frames.Body(b""))
    with pytest.raises(SandboxUnavailableError, match="empty piece"):
        await call
