"""Code in a sandbox of a tier that runs it: its value, its errors, its calls, its limits."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from handiwork.model.code import CodeLimits, CodeRequest, CodeResult, Language, LimitKind, LogLine
from handiwork.sandboxes.selfcheck.table import Bench, check, expect, hold

_OF: Mapping[Language, tuple[str, Any]] = {
    "javascript": ("[6 * 7, 'ü']", [42, "ü"]),
    "python": ("[6 * 7, 'ü']", [42, "ü"]),
    "bash": (
        "echo $((6 * 7)) ü; cat nothing",
        {
            "exit_code": 1,
            "stdout": "42 ü\n",
            "stderr": "cat: nothing: No such file or directory",
        },
    ),
}
"""Code of each language, and what it gives."""


async def _run(bench: Bench, code: str, language: Language = "javascript") -> CodeResult:
    return await (await bench.box()).run_code(CodeRequest(code=code, language=language, fresh=True))


@check("code")
async def _code_gives_its_value(bench: Bench) -> None:
    for language in (await bench.box()).languages:
        code, value = _OF[language]
        done = await _run(bench, code, language)
        expect((done.error, done.value), (None, value), language)


@check("code")
async def _code_that_fails_says_why(bench: Bench) -> None:
    thrown = await _run(bench, "throw new TypeError('no')")
    hold(thrown.error is not None, "an error that was thrown is the end of it")
    raised = await _run(bench, "raise KeyError('no')", "python")
    found = [one.error and (one.error.name, one.error.limit) for one in (thrown, raised)]
    expect(found, [("TypeError", None), ("KeyError", None)], "errors")


@check("code")
async def _what_code_logs_is_told_as_it_comes(bench: Bench) -> None:
    heard: list[LogLine] = []
    box = await bench.box()
    request = CodeRequest(code="console.log('one'); console.error('two')", fresh=True)
    done = await box.run_code(request, on_log=heard.append)
    lines = [LogLine(level="log", text="one"), LogLine(level="error", text="two")]
    expect((heard, [*done.logs]), (lines, lines), "lines")


@check("code")
async def _code_calls_tools(bench: Bench) -> None:
    async def doubled(name: str, argument: msgspec.Raw) -> list[str]:
        return [name, bytes(argument).decode()]

    box = await bench.box()
    request = CodeRequest(code="await codemode.twice({n: 1})", fresh=True)
    expect((await box.run_code(request, doubled)).value, ["twice", '{"n":1}'], "the answer")
    refused = await box.run_code(request)
    hold(refused.error is not None, "a tool that is not there was called")


@check("code")
async def _code_and_files_see_the_same(bench: Bench) -> None:
    box = await bench.box()
    await box.files.write("/workspace/in", b"1")
    code = "await workspace.write('/workspace/out', await workspace.read('/workspace/in') + 2)"
    expect((await _run(bench, code)).error, None, "writing")
    expect(await box.files.read("/workspace/out"), b"12", "what was written")
    done = await _run(bench, "cat out; echo -n 3 > more; rm in", "bash")
    expect((done.error, done.value and done.value["stdout"]), (None, "12"), "what bash read")
    expect(await box.files.read("/workspace/more"), b"3", "what bash wrote")
    names = [one.name for one in await box.files.list("/workspace")]
    expect(names, ["more", "out"], "what bash left")


@check("code")
async def _globals_stay_but_in_a_fresh_cell(bench: Bench) -> None:
    box = await bench.box()
    await box.run_code(CodeRequest(code="globalThis.kept = 1"))
    kept = await box.run_code(CodeRequest(code="typeof kept"))
    fresh = await box.run_code(CodeRequest(code="typeof kept", fresh=True))
    expect((kept.value, fresh.value), ("number", "undefined"), "a global")


@check("code")
async def _code_without_end_is_ended(bench: Bench) -> None:
    box = await bench.box()
    for limits, kind in (
        (CodeLimits(cpu_ms=50), LimitKind.CPU),
        (CodeLimits(wall_seconds=0.05), LimitKind.WALL),
    ):
        done = await box.run_code(CodeRequest(code="for (;;) {}", fresh=True, limits=limits))
        expect(done.error and done.error.limit, kind, "the limit")


@check("code")
async def _runs_at_once_are_apart(bench: Bench) -> None:
    box = await bench.box()
    code = "const one = globalThis.mine; globalThis.mine = 1; await new Promise(r => setTimeout(r, 50)); one"
    async with asyncio.TaskGroup() as group:
        runs = [
            group.create_task(box.run_code(CodeRequest(code=code, fresh=True))) for _ in range(4)
        ]
    expect([run.result().value for run in runs], [None] * 4, "what each found")
