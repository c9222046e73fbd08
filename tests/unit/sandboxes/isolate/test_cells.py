"""What a cell does with what its guest says, whose end of the socket is ours here."""

import asyncio
import struct

import msgspec
import pytest

from handiwork.model.code import CodeLimits, CodeRequest, LimitKind
from handiwork.model.errors import (
    ConfigError,
    ConflictError,
    SandboxUnavailableError,
    ToolFailedError,
)
from handiwork.sandboxes.isolate.cells import Cell
from handiwork.sandboxes.isolate.zygotes import Cause, End
from stand_in_zygote import StandInZygote

HELD = End(Cause.ITSELF, 0, 0.0)


@pytest.fixture
async def zygote():
    with StandInZygote() as found:
        yield found


@pytest.fixture
async def cell(zygote):
    found = await Cell.fork(zygote)
    yield found
    found.close()


async def answer(name, argument):
    if name == "codemode.fail":
        raise ToolFailedError("it failed")
    return [name, msgspec.json.decode(argument)]


async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


def begin(cell, *, limits=None, on_log=lambda line: None):
    request = CodeRequest(code="1", limits=limits or CodeLimits())
    return asyncio.create_task(cell.run(request, answer, on_log))


async def test_a_run_from_its_code_to_its_value(zygote, cell):
    heard = []
    running = begin(cell, on_log=heard.append)
    guest = zygote.guests[0]
    begun = await guest.heard()
    assert begun == {"t": "run", "code": "1", "name": "/workspace/code", "env": {}}
    guest.say(
        {"t": "turn", "l": [["log", "hello"]], "c": [{"id": 7, "n": "codemode.a", "a": {"x": 1}}]}
    )
    assert await guest.heard() == {
        "t": "settled",
        "s": [{"id": 7, "ok": True, "v": ["codemode.a", {"x": 1}]}],
    }
    guest.say({"t": "done", "ok": True, "v": {"y": 2}})
    result = await running
    assert (result.value, [line.text for line in result.logs], result.logs) == (
        {"y": 2},
        ["hello"],
        tuple(heard),
    )
    assert cell.alive


async def test_its_limits_are_watched_from_the_first_moment(zygote, cell):
    running = begin(cell, limits=CodeLimits(cpu_ms=1500, wall_seconds=7))
    await zygote.guests[0].heard()
    assert zygote.asked == [("watch", 1, 1.5, 7)]
    zygote.guests[0].say({"t": "done", "ok": True})
    assert (await running).value is None


async def test_a_call_that_fails_is_told_to_the_code(zygote, cell):
    running = begin(cell)
    guest = zygote.guests[0]
    await guest.heard()
    guest.say({"t": "turn", "c": [{"id": 1, "n": "codemode.fail", "a": None}]})
    told = (await guest.heard())["s"][0]
    assert (told["ok"], told["e"]["name"], told["e"]["message"]) == (
        False,
        "ToolFailedError",
        "it failed",
    )
    guest.say({"t": "done", "ok": False, "e": {"name": "Error", "message": "no", "stack": "at 1"}})
    error = (await running).error
    assert (error.name, error.message, error.stack, error.limit) == ("Error", "no", "at 1", None)


@pytest.mark.parametrize(
    "said",
    [b"\xff\xff\xff\xff", struct.pack("<I", 2) + b"{}", struct.pack("<I", 4) + b"null"],
    ids=["too long", "nothing", "null"],
)
async def test_what_is_no_frame_ends_it(zygote, cell, said):
    running = begin(cell)
    guest = zygote.guests[0]
    await guest.heard()
    guest.socket.send(said)
    error = (await running).error
    assert (error.name, error.limit) == ("CellError", None)
    assert "said what it must not" in error.message
    assert not cell.alive
    assert ("end", 1) in zygote.asked


LIMITS = CodeLimits(calls=3, parallel_calls=2, output_kib=1, call_mib=1, frames_per_second=50)


def calls(count):
    return {"t": "turn", "c": [{"id": n, "n": "codemode.a", "a": 0} for n in range(count)]}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ([calls(3)], LimitKind.CALLS),
        ([{"t": "done", "ok": True, "v": "x" * 2000}], LimitKind.OUTPUT),
        ([{"t": "turn"}] * 51, LimitKind.FRAMES),
        (
            [{"t": "turn", "c": [{"id": 1, "n": "codemode.a", "a": "x" * (1 << 20)}]}],
            LimitKind.CALLS,
        ),
    ],
    ids=["calls", "output", "frames", "bytes"],
)
async def test_who_says_too_much_is_ended(zygote, cell, said, kind):
    running = begin(cell, limits=LIMITS)
    guest = zygote.guests[0]
    await guest.heard()
    await asyncio.to_thread(guest.say, *said)
    error = (await running).error
    assert (error.name, error.limit) == ("LimitError", kind)
    assert not cell.alive


async def test_a_log_without_end_is_cut_and_the_run_goes_on(zygote, cell):
    running = begin(cell, limits=CodeLimits(log_kib=1))
    guest = zygote.guests[0]
    await guest.heard()
    guest.say({"t": "turn", "l": [["log", "x" * 600]] * 3}, {"t": "done", "ok": True})
    result = await running
    assert (len(result.logs), result.logs_cut, result.error) == (1, True, None)


@pytest.mark.parametrize(
    ("end", "kind", "text"),
    [
        (End(Cause.CPU, 137, 1.0), LimitKind.CPU, "5000 ms of processor time"),
        (End(Cause.WALL, 137, 1.0), LimitKind.WALL, "longer than 120 s"),
        (End(Cause.ITSELF, 4, 1.0), LimitKind.MEMORY, "more memory"),
        (End(Cause.ITSELF, 139, 1.0), None, "in the midst of it (139)"),
    ],
)
async def test_why_it_ended_is_told(zygote, cell, end, kind, text):
    running = begin(cell)
    await zygote.guests[0].heard()
    zygote.guests[0].socket.close()
    zygote.end_of(1, end)
    error = (await running).error
    assert error.limit is kind
    assert text in error.message
    with pytest.raises(SandboxUnavailableError):
        await cell.run(CodeRequest(code="1"), answer)


async def test_one_that_ended_is_not_ended_again(zygote, cell):
    zygote.end_of(1, HELD)
    cell.close()
    cell.close()
    assert zygote.asked == []
    assert await cell.gone() == HELD


async def test_it_runs_one_thing_at_a_time(zygote, cell):
    running = begin(cell)
    await zygote.guests[0].heard()
    with pytest.raises(ConflictError):
        await cell.run(CodeRequest(code="2"), answer)
    zygote.guests[0].say({"t": "done", "ok": True})
    await running


async def test_who_gives_up_ends_it(zygote, cell):
    running = begin(cell)
    await zygote.guests[0].heard()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert zygote.asked[-1] == ("end", 1)


async def test_answers_that_nobody_waits_for_are_given_up(zygote, cell):
    begun, ended = asyncio.Event(), []

    async def slow(name, argument):
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)

    running = asyncio.create_task(cell.run(CodeRequest(code="1"), slow))
    guest = zygote.guests[0]
    await guest.heard()
    guest.say({"t": "turn", "c": [{"id": 1, "n": "codemode.a", "a": 0}]})
    await begun.wait()
    guest.say({"t": "done", "ok": True, "v": 1})
    assert (await running).value == 1
    assert ended == ["codemode.a"]


async def test_a_warm_up_changes_nothing_and_meets_an_empty_workspace(zygote, cell):
    running = asyncio.create_task(cell.warm_up())
    guest = zygote.guests[0]
    assert (await guest.heard())["code"] == "null"
    guest.say(
        {
            "t": "turn",
            "c": [
                {"id": 1, "n": "workspace.tree", "a": {}},
                {"id": 2, "n": "codemode.a", "a": {}},
            ],
        }
    )
    answers = [*(await guest.heard())["s"], *(await guest.heard())["s"]]
    assert {one["id"]: one.get("v") for one in answers} == {
        1: {"entries": [], "more": False},
        2: None,
    }
    guest.say({"t": "done", "ok": True})
    await running
    assert cell.alive


async def test_one_that_fails_to_warm_up_is_told(zygote, cell):
    running = asyncio.create_task(cell.warm_up())
    await zygote.guests[0].heard()
    zygote.guests[0].say({"t": "done", "ok": False, "e": {"name": "Error", "message": "no"}})
    with pytest.raises(SandboxUnavailableError, match="a new cell failed: no"):
        await running


async def test_code_that_cannot_be_sent_is_refused(cell, monkeypatch):
    monkeypatch.setattr("handiwork.sandboxes.isolate.frames.FRAME_BYTES", 100)
    with pytest.raises(ConfigError, match=r"this code cannot be run: .* too many for a cell"):
        await cell.run(CodeRequest(code="x" * 100), answer)


async def test_code_of_any_length_is_sent_whole(zygote, cell):
    running = asyncio.create_task(cell.run(CodeRequest(code="x" * 3_000_000), answer))
    assert len((await zygote.guests[0].heard())["code"]) == 3_000_000
    zygote.guests[0].say({"t": "done", "ok": True, "v": 1})
    assert (await running).value == 1


async def test_one_that_says_something_unasked_is_not_at_rest(zygote, cell):
    assert cell.is_at_rest()
    zygote.guests[0].say({"t": "done", "ok": True, "v": 1})
    await until(lambda: not cell.is_at_rest())
    assert not cell.alive
    assert not cell.is_at_rest()
