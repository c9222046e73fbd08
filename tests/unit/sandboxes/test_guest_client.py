"""Commands over a channel: streams, credit, cancelling, limits."""

import asyncio

import pytest

from handiwork.model.errors import GuestError, SandboxUnavailableError, UnsupportedError
from handiwork.model.sandbox import ExecRequest, TerminalSize
from handiwork.sandboxes import frames
from handiwork.sandboxes.guest_client import GuestSandbox
from stand_in_agent import connected

EXIT = frames.Exit(0, 0, 0, 0, 0)


@pytest.fixture
async def pair():
    async with connected() as found:
        yield found


def sandbox_of(channel):
    return GuestSandbox("sbx_standin000", channel, {"A": "1"})


async def test_exec_gives_both_streams(pair):
    channel, agent = pair
    async with asyncio.TaskGroup() as group:
        call = group.create_task(sandbox_of(channel).exec(ExecRequest(argv=("x", "y"))))
        request_id, sent = await agent.next(frames.Exec)
        assert sent.argv == (b"x", b"y")
        assert sent.env == (b"A=1",)
        out = (frames.Started(2), frames.Stdout(b"o"), frames.Stderr(b"e"), frames.Stdout(b"p"))
        agent.send(request_id, *out, frames.Exit(3, frames.EXIT_STDERR_CUT, 0, 0, 0))
    result = call.result()
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"op", b"e")
    assert result.truncated
    assert not channel.requests


async def test_input_waits_for_credit(pair):
    channel, agent = pair
    data = bytes(range(256)) * 2048
    async with asyncio.TaskGroup() as group:
        group.create_task(sandbox_of(channel).exec(ExecRequest(argv=("cat",), stdin=data)))
        request_id, _ = await agent.next(frames.Exec)
        received = b""
        while len(received) < frames.WINDOW_BYTES:
            received += (await agent.next(frames.Stdin))[1].data
        assert len(received) == frames.WINDOW_BYTES
        agent.send(request_id, frames.Grant(len(data)))
        while chunk := (await agent.next(frames.Stdin))[1].data:
            received += chunk
        assert received == data
        agent.send(request_id, frames.Started(2), EXIT)


async def test_output_is_credited_as_it_is_taken(pair):
    channel, agent = pair
    process_input = ExecRequest(argv=("yes",), output_limit_bytes=0)
    async with asyncio.TaskGroup() as group:
        start = group.create_task(sandbox_of(channel).start(process_input))
        request_id, _ = await agent.next(frames.Exec)
        agent.send(request_id, frames.Started(2))
        process = await start
    for _ in range(4):
        agent.send(request_id, frames.Stdout(b"x" * frames.PAYLOAD_BYTES))
    got = 0
    async for stream, chunk in process.output():
        assert stream == "stdout"
        got += len(chunk)
        if got == frames.WINDOW_BYTES // 2:
            _, credit = await agent.next(frames.Credit)
            assert credit.amount == got
        if got == frames.WINDOW_BYTES:
            agent.send(request_id, EXIT)
    assert (await process.wait()).exit_code == 0


async def test_letting_go_of_a_flood_ends_it(pair):
    """All that nobody reads is let through, else the agent could never tell its end."""
    channel, agent = pair
    async with asyncio.TaskGroup() as group:
        flood = ExecRequest(argv=("yes",), output_limit_bytes=0)
        start = group.create_task(sandbox_of(channel).start(flood))
        request_id, _ = await agent.next(frames.Exec)
        agent.send(request_id, frames.Started(2))
        process = await start
    agent.send(request_id, *[frames.Stdout(b"x" * frames.PAYLOAD_BYTES)] * 4)
    async for _ in process.output():
        break
    process.close()
    assert (await agent.next(frames.Signal))[1].signal == 9
    assert (await agent.next(frames.Credit))[1].amount >= frames.WINDOW_BYTES // 2
    agent.send(request_id, frames.Stdout(b"late"), frames.Exit(137, 0, 0, 0, 0))
    assert (await process.wait()).exit_code == 137
    assert not channel.requests
    process.close()


async def test_output_that_is_collected_needs_a_limit(pair):
    with pytest.raises(GuestError, match="needs a limit"):
        await sandbox_of(pair[0]).exec(ExecRequest(argv=("yes",), output_limit_bytes=0))


async def test_a_failure_after_the_start_is_an_error_of_the_command(pair):
    channel, agent = pair
    async with asyncio.TaskGroup() as group:
        start = group.create_task(sandbox_of(channel).start(ExecRequest(argv=("x",))))
        request_id, _ = await agent.next(frames.Exec)
        agent.send(request_id, frames.Started(2))
        process = await start
    agent.send(request_id, frames.Failed(5, b"later"))
    with pytest.raises(GuestError, match="later"):
        await process.wait()


async def test_cancelled_exec_is_killed_and_keeps_its_id(pair):
    channel, agent = pair
    call = asyncio.get_running_loop().create_task(
        sandbox_of(channel).exec(ExecRequest(argv=("sleep",)))
    )
    request_id, _ = await agent.next(frames.Exec)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await agent.next(frames.Signal))[1].signal == 9
    assert request_id in channel.requests
    agent.send(request_id, frames.Started(2), frames.Stdout(b"late"), frames.Exit(137, 0, 0, 0, 0))
    for _ in range(1000):
        if not channel.requests:
            break
        await asyncio.sleep(0.001)
    assert not channel.requests
    assert channel.reason is None


async def test_an_overdue_request_ends_the_sandbox(pair, monkeypatch):
    channel, agent = pair
    monkeypatch.setattr("handiwork.sandboxes.guest_client.GRACE_SECONDS", 0.02)
    call = asyncio.get_running_loop().create_task(
        sandbox_of(channel).exec(ExecRequest(argv=("x",), timeout_seconds=0.01))
    )
    await agent.next(frames.Exec)
    with pytest.raises(SandboxUnavailableError, match="did not end"):
        await call


async def test_too_long_a_command_is_refused_before_it_is_sent(pair):
    channel, _ = pair
    with pytest.raises(GuestError, match="too large"):
        await sandbox_of(channel).exec(ExecRequest(argv=("x" * 70_000,)))
    assert not channel.requests


async def started(sandbox, agent, **fields):
    loop = asyncio.get_running_loop()
    call = loop.create_task(sandbox.start(ExecRequest(argv=("x",), **fields), stdin=True))
    request_id, _ = await agent.next(frames.Exec)
    agent.send(request_id, frames.Started(2))
    return await call, request_id


async def test_a_command_that_cannot_start_is_told(pair):
    channel, agent = pair
    call = asyncio.get_running_loop().create_task(
        sandbox_of(channel).start(ExecRequest(argv=("x",)))
    )
    request_id, _ = await agent.next(frames.Exec)
    agent.send(request_id, frames.Failed(2, b"x"))
    with pytest.raises(GuestError) as caught:
        await call
    assert caught.value.errno == 2


async def test_writing_waits_for_room_and_stops_at_the_end(pair):
    channel, agent = pair
    process, request_id = await started(sandbox_of(channel), agent)
    writing = asyncio.get_running_loop().create_task(process.write(b"x" * 300_000))
    received = 0
    while received < frames.WINDOW_BYTES:
        received += len((await agent.next(frames.Stdin))[1].data)
    assert not writing.done()
    agent.send(request_id, EXIT)
    with pytest.raises(GuestError, match="no input"):
        await writing
    await process.close_stdin()
    await process.signal(15)
    assert (await process.wait()).exit_code == 0
    with pytest.raises(GuestError):
        await process.write(b"x")


async def test_closing_input_and_signals_are_sent(pair):
    channel, agent = pair
    process, request_id = await started(sandbox_of(channel), agent)
    await process.write(b"line")
    await process.close_stdin()
    await process.close_stdin()
    await process.signal(15)
    assert (await agent.next(frames.Stdin))[1].data == b"line"
    assert (await agent.next(frames.Stdin))[1].data == b""
    assert (await agent.next(frames.Signal))[1].signal == 15
    agent.send(request_id, EXIT)
    assert [chunk async for chunk in process.output()] == []


async def test_a_cancelled_wait_only_stops_waiting(pair):
    channel, agent = pair
    process, request_id = await started(sandbox_of(channel), agent)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.wait(), 0.01)
    assert (process.has_ended, channel.requests.keys()) == (False, {request_id})
    agent.send(request_id, frames.Exit(5, 0, 0, 0, 0))
    assert (await process.wait()).exit_code == 5
    assert process.has_ended
    assert not channel.requests


async def test_a_started_command_takes_no_input_of_its_request(pair):
    channel, _ = pair
    with pytest.raises(GuestError):
        await sandbox_of(channel).start(ExecRequest(argv=("x",), stdin=b""))


async def freeze(agent):
    """Answer a freeze; return its id."""
    request_id, _ = await agent.next(frames.Freeze)
    agent.send(request_id, frames.Frozen(3))
    return request_id


async def test_frozen_holds_all_other_calls(pair):
    channel, agent = pair
    box = sandbox_of(channel)
    async with asyncio.TaskGroup() as group:
        answering = group.create_task(freeze(agent))
        async with box.frozen():
            call = group.create_task(box.exec(ExecRequest(argv=("true",))))
            await asyncio.sleep(0.02)
            assert agent.queue == []
            thawing = group.create_task(agent.next(frames.Cancel))
            group.create_task(answer_thaw(agent, thawing))
        request_id, _ = await agent.next(frames.Exec)
        agent.send(request_id, frames.Started(2), EXIT)
    assert call.result().exit_code == 0
    assert answering.result() == thawing.result()[0]


async def answer_thaw(agent, thawing):
    agent.send((await thawing)[0], frames.Ok())


async def test_who_did_not_stand_is_told(pair):
    channel, agent = pair
    box = sandbox_of(channel)
    async with asyncio.TaskGroup() as group:
        group.create_task(refuse_freeze(agent))
        with pytest.raises(GuestError, match="traced"):
            async with box.frozen():
                raise AssertionError
    async with asyncio.TaskGroup() as group:
        group.create_task(ran_meanwhile(agent))
        with pytest.raises(GuestError, match="ran"):
            async with box.frozen():
                pass
    assert not channel.requests


async def refuse_freeze(agent):
    request_id, _ = await agent.next(frames.Freeze)
    agent.send(request_id, frames.Failed(16, b"a process that is being traced"))


async def ran_meanwhile(agent):
    request_id = await freeze(agent)
    await agent.next(frames.Cancel)
    agent.send(request_id, frames.Failed(16, b"a process that ran"))


async def test_an_error_while_frozen_thaws(pair):
    channel, agent = pair
    box = sandbox_of(channel)
    async with asyncio.TaskGroup() as group:
        answering = group.create_task(freeze(agent))
        with pytest.raises(ZeroDivisionError):
            async with box.frozen():
                raise ZeroDivisionError
    request_id, _ = await agent.next(frames.Cancel)
    assert request_id == answering.result()
    agent.send(request_id, frames.Ok())


@pytest.mark.parametrize(("number", "raised"), [(95, UnsupportedError), (5, GuestError)])
async def test_a_kernel_without_terminals_is_told_by_name(pair, number, raised):
    channel, agent = pair
    request = ExecRequest(argv=("sh",), output_limit_bytes=0)
    opening = asyncio.get_running_loop().create_task(
        sandbox_of(channel).terminal(request, TerminalSize())
    )
    request_id, _ = await agent.next(frames.Terminal)
    agent.send(request_id, frames.Failed(number, b"terminal"))
    with pytest.raises(raised):
        await opening


async def test_a_terminal_is_resized_and_typed_into(pair):
    channel, agent = pair
    request = ExecRequest(argv=("sh",), output_limit_bytes=0, env={"A": "2"})
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(
            sandbox_of(channel).terminal(request, TerminalSize(columns=100, rows=30))
        )
        request_id, sent = await agent.next(frames.Terminal)
        agent.send(request_id, frames.Started(2))
    assert (sent.columns, sent.rows, sent.argv) == (100, 30, (b"sh",))
    assert set(sent.env) == {b"A=2", b"TERM=xterm-256color"}
    terminal = opening.result()
    await terminal.write(b"ls\r")
    assert (await agent.next(frames.Stdin))[1].data == b"ls\r"
    await terminal.resize(TerminalSize(columns=1, rows=2))
    assert (await agent.next(frames.Resize))[1] == frames.Resize(1, 2)
    agent.send(request_id, frames.Stdout(b"out"), EXIT)
    assert [piece async for piece in terminal.output()] == [("stdout", b"out")]
    await terminal.resize(TerminalSize())
    assert (await terminal.wait()).exit_code == 0
    with pytest.raises(GuestError):
        await sandbox_of(channel).terminal(ExecRequest(argv=("sh",), stdin=b""), TerminalSize())
