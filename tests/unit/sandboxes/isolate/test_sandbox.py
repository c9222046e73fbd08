"""One isolate: whose cell runs what, what its code may ask, and what it has not."""

import asyncio
import json

import pytest

from handiwork.model.code import CodeRequest
from handiwork.model.errors import (
    ConflictError,
    SandboxUnavailableError,
    ToolFailedError,
    UnsupportedError,
)
from handiwork.model.sandbox import ExecRequest, SandboxSpec, TerminalSize
from handiwork.sandboxes.isolate.cells import Cell
from handiwork.sandboxes.isolate.sandbox import IsolateSandbox
from handiwork.sandboxes.isolate.workspace import Workspace
from handiwork.sandboxes.isolate.zygotes import Cause, End
from stand_in_zygote import StandInZygote


@pytest.fixture
async def zygote():
    with StandInZygote() as found:
        yield found


@pytest.fixture
async def box(zygote, tmp_path):
    async def take(language):
        return await Cell.fork(zygote)

    made = IsolateSandbox(
        SandboxSpec(id="sbx_one"), lambda: Workspace(tmp_path / "w.db"), take, runs_at_once=4
    )
    yield made
    made.close()
    made.close()


async def tools(name, argument):
    return f"{name} {bytes(argument).decode()}"


def begin(box, **given):
    return asyncio.create_task(box.run_code(CodeRequest(code="1", **given), tools))


async def heard_by(zygote, number):
    for _ in range(1000):
        if len(zygote.guests) > number:
            break
        await asyncio.sleep(0)
    return await zygote.guests[number].heard()


async def ended(zygote, number, task):
    zygote.guests[number].say({"t": "done", "ok": True, "v": number})
    return (await task).value


async def test_a_cell_is_kept_from_run_to_run(box, zygote):
    for _ in range(3):
        task = begin(box)
        await heard_by(zygote, 0)
        assert box.calls == 1
        await ended(zygote, 0, task)
    assert (len(zygote.guests), box.calls) == (1, 0)


async def test_each_language_has_its_own(box, zygote):
    for number, language in enumerate(("javascript", "python", "javascript")):
        task = begin(box, language=language)
        await heard_by(zygote, number % 2)
        await ended(zygote, number % 2, task)
    assert len(zygote.guests) == 2


async def test_what_runs_beside_has_a_cell_that_ends_with_it(box, zygote):
    first, second = begin(box), begin(box)
    await heard_by(zygote, 0)
    await heard_by(zygote, 1)
    assert await ended(zygote, 1, second) == 1
    assert ("end", 2) in zygote.asked
    assert await ended(zygote, 0, first) == 0
    assert ("end", 1) not in zygote.asked


async def test_as_many_are_kept_as_there_is_room_for_and_no_more(box, zygote):
    """None ends before there is need, and then the one that rested longest."""

    async def run_in(guest, scope):
        task = begin(box, scope=str(scope))
        assert (await heard_by(zygote, guest))["t"] == "run"
        assert await ended(zygote, guest, task) == guest

    for number in (0, 1, 2, 3):
        await run_in(number, number)
    for number in (3, 2, 1, 0):
        await run_in(number, number)
    assert len(zygote.guests) == 4
    await run_in(4, "another")
    assert [asked for asked in zygote.asked if asked[0] == "end"] == [("end", 4)]  # of scope 3
    for number in (0, 1, 2):
        await run_in(number, number)


async def test_no_more_run_at_once_than_its_memory_has_room_for(box, zygote):
    tasks = [begin(box, fresh=True) for _ in range(4)]
    await heard_by(zygote, 3)
    with pytest.raises(ConflictError, match="runs 4 pieces of code"):
        await box.run_code(CodeRequest(code="1"), tools)
    assert await ended(zygote, 2, tasks[2]) == 2
    again = begin(box, fresh=True)
    await heard_by(zygote, 4)
    for number, task in ((0, tasks[0]), (1, tasks[1]), (3, tasks[3]), (4, again)):
        assert await ended(zygote, number, task) == number


async def test_after_one_that_ended_there_is_another(box, zygote):
    task = begin(box)
    await heard_by(zygote, 0)
    zygote.guests[0].socket.close()
    zygote.end_of(1, End(Cause.CPU, 137, 1.0))
    assert (await task).error.limit is not None
    task = begin(box)
    await heard_by(zygote, 1)
    assert await ended(zygote, 1, task) == 1


async def test_what_its_code_may_ask(box, zygote):
    task = begin(box)
    await heard_by(zygote, 0)
    guest = zygote.guests[0]
    asked = [
        ("workspace.write", {"$arguments": ["a", "text"]}),
        ("workspace.read", {"path": "a"}),
        ("codemode.add", {"x": 1}),
        ("net.fetch", {"url": "http://a.test"}),
        ("net.open", {}),
        ("other", {}),
    ]
    answers = []
    for number, (name, argument) in enumerate(asked):
        guest.say({"t": "turn", "c": [{"id": number, "n": name, "a": argument}]})
        answers += (await guest.heard())["s"]
    assert [one.get("v") for one in answers] == [4, "text", 'add {"x":1}', None, None, None]
    assert [one["e"]["message"] for one in answers if not one["ok"]] == [
        "fetch: this sandbox has no way out",
        "net.open: there is no such call",
        "other: there is no such call",
    ]
    await ended(zygote, 0, task)
    assert await box.files.read("/workspace/a") == b"text"


async def test_what_closes_it_ends_its_cells(box, zygote):
    first = begin(box)
    await heard_by(zygote, 0)
    box.close()
    assert (await first).error.name == "CellError"
    assert await box.closed() == ""
    with pytest.raises(SandboxUnavailableError, match="closed"):
        await box.run_code(CodeRequest(code="1"), tools)


async def test_what_it_has_not_is_told_by_name(box):
    request = ExecRequest(argv=("true",))
    for attempt, told in (
        (box.exec(request), "commands"),
        (box.start(request), "commands"),
        (box.terminal(request, TerminalSize()), "terminals"),
        (box.connect(80), "ports"),
    ):
        with pytest.raises(UnsupportedError, match=f"has no {told}"):
            await attempt
    assert (await box.ps()).processes == ()
    assert not await (await box.memory_kills()).rose()
    async with box.frozen(), box.resting():
        pass


async def test_a_tool_that_fails_is_told(zygote, tmp_path):
    async def take(language):
        return await Cell.fork(zygote)

    async def fail(name, argument):
        raise ToolFailedError(json.loads(bytes(argument))["why"])

    box = IsolateSandbox(
        SandboxSpec(id="sbx_one"), lambda: Workspace(tmp_path / "w.db"), take, runs_at_once=4
    )
    task = asyncio.create_task(box.run_code(CodeRequest(code="1"), fail))
    await heard_by(zygote, 0)
    zygote.guests[0].say({"t": "turn", "c": [{"id": 1, "n": "codemode.x", "a": {"why": "no"}}]})
    assert (await zygote.guests[0].heard())["s"][0]["e"]["message"] == "no"
    await ended(zygote, 0, task)
    box.close()
