"""Cells of JavaScript on the real kernel: what code gives, what it may use, and what ends it."""

import asyncio
import os

import msgspec
import pytest

from handiwork.model.code import CodeLimits, CodeRequest, LimitKind, LogLine
from handiwork.model.errors import ConflictError, ToolFailedError
from handiwork.sandboxes.isolate.cells import Cell
from handiwork.sandboxes.isolate.zygotes import Cause, Shape, Zygote

ID = 1 << 29 if os.geteuid() == 0 else 0
QUICK = CodeLimits(cpu_ms=200, wall_seconds=20)


@pytest.fixture
async def zygote():
    async with await Zygote.start(Shape(), user_id=ID) as found:
        yield found
        assert found.alive


@pytest.fixture
async def cell(zygote):
    found = await Cell.fork(zygote)
    yield found
    found.close()
    await found.gone()


async def no_calls(name, argument):
    raise ToolFailedError(f"there is no {name}")


async def run(cell, code, serve=no_calls, **given):
    given.setdefault("limits", CodeLimits())
    return await cell.run(CodeRequest(code=code, **given), serve)


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("1 + 1", 2),
        ("const a = 1; a + 2", 3),
        ("async () => ({ a: [1, null, 'x'] })", {"a": [1, None, "x"]}),
        ("() => 7", 7),
        ("await Promise.resolve(5)", 5),
        ("return 9", 9),
        ("const x = await Promise.resolve(4); return x * 2", 8),
        ("export default 3", 3),
        ("export default async () => 6", 6),
        ("undefined", None),
        ("10n ** 20n", "1" + "0" * 20),
        ("new Map([['a', 1]])", {"a": 1}),
        ("new Set([1, 2])", [1, 2]),
        ("new Uint8Array([1, 2, 255])", {"$bytes": "AQL/"}),
        ("'a\\ud800\\\\ud8'", "a\ufffd\\ud8"),
    ],
)
async def test_what_code_gives(cell, code, value):
    result = await run(cell, code)
    assert (result.error, result.value) == (None, value)


async def test_a_declaration_may_be_made_again_and_globals_stay(cell):
    for _ in range(2):
        assert (await run(cell, "const a = 1; let b = 2; a + b")).value == 3
    await run(cell, "globalThis.kept = 5")
    assert (await run(cell, "kept")).value == 5


async def test_calls_run_side_by_side(cell):
    under_way, most = 0, 0

    async def serve(name, argument):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return {"name": name, "given": msgspec.json.decode(argument)}

    code = (
        "(await Promise.all([1, 2, 3].map((n) => codemode.add({ n })))).map((one) => one.given.n)"
    )
    assert (await run(cell, code, serve)).value == [1, 2, 3]
    assert most == 3


async def test_a_call_that_fails_is_an_error_of_the_code(cell):
    code = "try { await codemode.nothing({}) } catch (error) { `${error.name}: ${error.message}` }"
    assert (await run(cell, code)).value == "ToolFailedError: there is no codemode.nothing"


async def test_errors_have_their_name_place_and_stack(cell):
    error = (await run(cell, "const a = 1;\nnull.x", name="/workspace/a.js")).error
    assert (error.name, error.limit) == ("TypeError", None)
    assert "/workspace/a.js:2" in error.stack
    assert (await run(cell, "const a = ;")).error.name == "SyntaxError"
    assert (await run(cell, "throw 'plain'")).error.message == "plain"


async def test_logs_come_as_they_are_written(cell):
    heard = []
    code = "console.log('a', { b: [1] }); await codemode.wait({}); console.error('c')"

    async def serve(name, argument):
        assert heard == [LogLine(level="log", text="a { b: [1] }")]

    result = await cell.run(CodeRequest(code=code), serve, heard.append)
    assert result.logs == tuple(heard)
    assert [line.level for line in result.logs] == ["log", "error"]


async def test_modules_are_asked_for_by_path(cell):
    files = {
        "/workspace/lib/b.mjs": "export const two = 2",
        "/workspace/a.mjs": "import { two } from './lib/b.mjs'; export const four = two * two",
    }

    async def serve(name, argument):
        assert name == "workspace.module"
        path = msgspec.json.decode(argument)["path"]
        if path not in files:
            raise ToolFailedError("no such file")
        return files[path]

    found = await run(
        cell, "import { four } from './a.mjs'; export default four", serve, name="/workspace/x.mjs"
    )
    assert found.value == 4
    lost = await run(cell, "import './none.mjs'", serve, name="/workspace/x.mjs")
    assert "cannot import /workspace/none.mjs: no such file" in lost.error.message


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("while (true) {}", LimitKind.CPU),
        ("/^(a+)+$/.test('a'.repeat(60) + 'b')", LimitKind.CPU),
        ("const f = () => { for (;;) {} }; f()", LimitKind.CPU),
    ],
)
async def test_a_runaway_is_ended_from_outside(cell, zygote, code, kind):
    result = await run(cell, code, limits=QUICK)
    assert result.error.limit is kind
    assert (await cell.gone()).cause is Cause.CPU
    assert not cell.alive
    other = await Cell.fork(zygote)
    assert (await run(other, "1")).value == 1
    other.close()


async def test_a_wait_that_takes_too_long_is_ended(cell):
    code = "await new Promise((resolve) => setTimeout(resolve, 60000))"
    result = await run(cell, code, limits=CodeLimits(wall_seconds=0.2))
    assert result.error.limit is LimitKind.WALL


async def test_a_promise_that_nothing_settles_is_told_at_once(cell):
    error = (await run(cell, "await new Promise(() => {})")).error
    assert "never ends" in error.message
    assert (await run(cell, "1")).value == 1


@pytest.mark.parametrize(
    "code",
    [
        "const a = []; for (;;) a.push(new Array(1000).fill(a.length))",
        "const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))",
        "let s = 'x'; for (;;) s += s + 'y'",
        "let n = 2n; for (;;) n *= n",
        "const f = () => f() + 1; f()",
        "let s = '['.repeat(1e6); JSON.parse(s)",
    ],
)
async def test_bombs_end_themselves_alone(cell, zygote, code):
    neighbour = await Cell.fork(zygote)
    result = await run(cell, code, limits=CodeLimits(cpu_ms=20_000))
    assert result.error is not None
    assert (await run(neighbour, "'here'")).value == "here"
    neighbour.close()


async def test_one_runs_one_thing_at_a_time(cell):
    first = asyncio.create_task(run(cell, "await new Promise((r) => setTimeout(r, 100)); 1"))
    await asyncio.sleep(0.02)
    with pytest.raises(ConflictError):
        await run(cell, "2")
    assert (await first).value == 1


async def test_who_gives_up_ends_it(cell):
    task = asyncio.create_task(run(cell, "while (true) {}", limits=CodeLimits(cpu_ms=60_000)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await cell.gone()).cause is Cause.DEMAND


async def test_each_cell_has_random_numbers_of_its_own(zygote):
    cells = [await Cell.fork(zygote) for _ in range(4)]
    code = "[Math.random(), crypto.randomUUID()]"
    found = [(await run(one, code)).value for one in cells]
    assert len({number for number, _ in found}) == len({text for _, text in found}) == 4
    for one in cells:
        one.close()


async def test_what_is_large_goes_both_ways(cell):
    async def serve(name, argument):
        return msgspec.json.decode(argument)["text"] * 2

    code = "const text = 'x'.repeat(3e6); (await codemode.twice({ text })).length"
    assert (await run(cell, code, serve)).value == 6_000_000
    code = "for (let i = 0; i < 3; i++) console.log('\\u0001'.repeat(1e5)); 1"
    result = await run(cell, code)
    assert (result.value, len(result.logs)) == (1, 3)
    assert result.logs[0].text.endswith("… (100000 characters)")


async def test_a_result_that_is_too_large_is_told(cell):
    result = await run(cell, "'x'.repeat(2e6)")
    assert result.error.limit is LimitKind.OUTPUT
    assert not cell.alive


async def test_a_call_that_cannot_be_sent_fails_alone(cell):
    code = "const text = 'x'.repeat(4e7); try { await codemode.take({ text }) } catch (error) { error.message }"
    assert "32 MiB" in (await run(cell, code)).value


async def test_a_call_that_is_nested_too_deeply_to_be_read_fails_alone(cell):
    async def serve(name, argument):
        raise RecursionError

    code = "try { await codemode.a({}) } catch (error) { error.message }"
    assert (await run(cell, code, serve)).value == "codemode.a: it is nested too deeply"


@pytest.mark.parametrize("seconds", [1e6, 9.2e9, 1e12])
async def test_limits_that_are_as_good_as_none_end_nothing(cell, seconds):
    limits = CodeLimits(cpu_ms=round(seconds * 1000), wall_seconds=seconds)
    done = await run(cell, "await new Promise(ok => setTimeout(ok, 20)); 7", limits=limits)
    assert done.value == 7
