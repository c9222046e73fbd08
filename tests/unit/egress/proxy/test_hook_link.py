"""The proxy's end, against a process that answers, hangs, lies, or is not there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from handiwork.egress.hooks.wire import (
    Call,
    Caller,
    Catalog,
    Denied,
    Failed,
    Frames,
    Passed,
    RequestForm,
    decode_call,
    frame,
)
from handiwork.egress.proxy import hook_link
from handiwork.egress.proxy.hook_link import HookDenied, HookFailed, HookLink
from handiwork.model.hook import HookInfo

CALLER = Caller(tenant="t", agent_id="", session_id="", sandbox_id="", tool="", tool_use_id="")
REQUEST = RequestForm(
    method="GET", scheme="https", host="h", port=443, path="/", query="", headers=[], body=None
)
CATALOG = Catalog(hooks=(HookInfo(name="h", stages=("request",)), HookInfo(name="broken")))
Answer = Callable[[Call, asyncio.StreamWriter], Awaitable[None]]


def make(number: int) -> Call:
    return Call(id=number, hook="h", stage="request", caller=CALLER, request=REQUEST)


@asynccontextmanager
async def linked(
    directory: Path, answer: Answer, *, first: bytes = frame(CATALOG), seconds: float = 0.1
) -> AsyncIterator[HookLink]:
    """Yield a link to a process that says `first` and answers each call so."""

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = Frames()
        writers.append(writer)
        writer.write(first)
        while data := await reader.read(65536):
            for payload in frames.take(data):
                await answer(decode_call(payload), writer)
        writer.close()

    async with (
        await asyncio.start_unix_server(serve, directory / "s"),
        asyncio.TaskGroup() as group,
    ):
        tasks: list[asyncio.Task[None]] = []
        yield HookLink(
            str(directory / "s"), seconds, lambda work: tasks.append(group.create_task(work))
        )
        for task in tasks:
            task.cancel()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


async def passes(call: Call, writer: asyncio.StreamWriter) -> None:
    writer.write(frame(Passed(id=call.id, request=call.request)))


async def test_answers_come_to_who_asked(tmp_path: Path) -> None:
    held: list[Call] = []

    async def backwards(call: Call, writer: asyncio.StreamWriter) -> None:
        held.append(call)
        if len(held) == 3:
            for one in held[::-1]:
                await passes(one, writer)

    async with linked(tmp_path, backwards) as link:
        assert link.known("h") is None
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(link.call("b", make)) for _ in range(3)]
        assert [one.result().id for one in asked] == [1, 2, 3]
        assert await link.stages("h") == ("request",) == link.known("h")
        for name in ("broken", "missing"):
            with pytest.raises(HookFailed, match="no such hook"):
                await link.stages(name)


async def test_a_denial_and_a_failure_are_raised(tmp_path: Path) -> None:
    async def answer(call: Call, writer: asyncio.StreamWriter) -> None:
        kind = Denied if call.id == 1 else Failed
        writer.write(frame(kind(id=call.id, reason="because")))

    async with linked(tmp_path, answer) as link:
        with pytest.raises(HookDenied, match="because"):
            await link.call("b", make)
        with pytest.raises(HookFailed, match="because"):
            await link.call("b", make)


async def test_no_answer_in_time_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(call: Call, writer: asyncio.StreamWriter) -> None:
        if call.id > 1:
            await passes(call, writer)

    monkeypatch.setattr(hook_link, "GRACE_SECONDS", 0.1)
    async with linked(tmp_path, hang) as link:
        with pytest.raises(HookFailed, match="in time"):
            await link.call("b", make)
        assert (await link.call("b", make)).id == 2


async def test_an_end_during_calls_fails_them_all_and_the_next_connects_anew(
    tmp_path: Path,
) -> None:
    async def end(call: Call, writer: asyncio.StreamWriter) -> None:
        if call.id == 3:
            writer.transport.abort()
        elif call.id > 3:
            await passes(call, writer)

    async with linked(tmp_path, end) as link:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(failing(link)) for _ in range(3)]
        assert {one.result() for one in asked} == {"the hooks' process ended during the call"}
        assert isinstance(await link.call("b", make), Passed)


async def failing(link: HookLink, binding: str = "b") -> str:
    try:
        await link.call(binding, make)
    except HookFailed as failed:
        return str(failed)
    return ""


@pytest.mark.parametrize("first", [b"\x03\0\0\0abc", b"\xff\xff\xff\xff", b""])
async def test_a_process_that_lies_at_once_is_not_running(
    tmp_path: Path, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_link, "CONNECT_SECONDS", 0.1)
    async with linked(tmp_path, passes, first=first) as link:
        assert await failing(link) == hook_link.NOT_THERE


@pytest.mark.parametrize("data", [b"\x03\0\0\0abc", b"\xff\xff\xff\xff", frame(CATALOG)[:-1]])
async def test_a_process_that_lies_later_passes_nobody(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lie(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    monkeypatch.setattr(hook_link, "GRACE_SECONDS", 0.1)
    async with linked(tmp_path, lie) as link:
        assert await failing(link)


async def test_an_answer_to_another_call_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def other(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(Passed(id=call.id + 1, request=call.request)))

    monkeypatch.setattr(hook_link, "GRACE_SECONDS", 0.1)
    async with linked(tmp_path, other) as link:
        assert await failing(link) == "it did not answer in time"


async def test_without_a_process_there_is_a_reason(tmp_path: Path) -> None:
    assert "hooks are off" in await failing(HookLink("", 1.0, lambda work: work.close()))
    there_is_none = HookLink(str(tmp_path / "none"), 1.0, lambda work: work.close())
    assert await failing(there_is_none) == hook_link.NOT_THERE


async def test_one_binding_has_its_share_of_calls_and_of_bodies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(call: Call, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(hook_link, "GRACE_SECONDS", 0.2)
    async with linked(tmp_path, hang) as link:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(failing(link)) for _ in range(hook_link.MAX_OF_ONE + 2)]
            other = group.create_task(failing(link, "c"))
        told = [one.result() for one in asked]
        assert told.count("too many calls of hooks are under way") == 2
        assert other.result() == "it did not answer in time"
        owners = [object() for _ in range(hook_link.MAX_HELD_OF_ONE + 1)]
        assert [link.reserve(one, "b") for one in owners] == [True] * (len(owners) - 1) + [False]
        assert link.reserve(owners[0], "b")
        assert link.reserve(owners[-1], "c")
        link.release(owners[0])
        link.release(owners[0])
        assert link.reserve(object(), "b")
