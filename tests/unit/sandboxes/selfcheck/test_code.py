"""A tier that runs code wrongly is found out."""

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest

from handiwork.model.code import CodeError, CodeRequest, CodeResult, LimitKind, LogLine
from handiwork.model.errors import HandiworkError
from handiwork.sandboxes.selfcheck import names, selfcheck
from handiwork.testing.sandbox import FakeDriver, FakeSandbox

GOOD = {
    "[6 * 7, 'ü']": b'[42,"\xc3\xbc"]',
    "typeof kept": b'"undefined"',
    "echo $((6 * 7)) ü; cat nothing": (
        b'{"exit_code":1,"stdout":"42 \xc3\xbc\\n",'
        b'"stderr":"cat: nothing: No such file or directory"}'
    ),
}


class Tier(FakeDriver):
    """Plays the code of the checks, but for what it is told to do wrongly."""

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.wrong = wrong
        self.kept = False

    async def create(self, spec: Any) -> FakeSandbox:
        box = await super().create(spec)

        async def run(request: CodeRequest, tools: Any, on_log: Any) -> CodeResult:
            return await self.play(box, request, tools, on_log)

        box.code = run
        return box

    async def play(
        self, box: FakeSandbox, request: CodeRequest, tools: Any, on_log: Any
    ) -> CodeResult:
        code, wrong = request.code, self.wrong
        if code in GOOD and not (code == "typeof kept" and self.kept and not request.fresh):
            spoilt = wrong == "value" and code != "typeof kept"
            return CodeResult(value_json=b"null" if spoilt else GOOD[code])
        if code == "typeof kept":
            return CodeResult(value_json=b'"undefined"' if wrong == "globals" else b'"number"')
        if code.startswith(("throw", "raise")) and wrong != "errors":
            name = "TypeError" if code.startswith("throw") else "KeyError"
            return CodeResult(error=CodeError(name=name, message="no"))
        if code.startswith("console"):
            lines = (LogLine(level="log", text="one"), LogLine(level="error", text="two"))
            for line in () if wrong == "log" else lines:
                on_log(line)
            return CodeResult(logs=lines)
        if code.startswith("for") and wrong != "limits":
            kind = LimitKind.CPU if request.limits.cpu_ms == 50 else LimitKind.WALL
            return CodeResult(error=CodeError(name="LimitError", message="x", limit=kind))
        return await self.play_more(box, code, tools)

    async def play_more(self, box: FakeSandbox, code: str, tools: Any) -> CodeResult:
        if "codemode" in code and self.wrong != "tools":
            try:
                value = await tools("twice", msgspec.Raw(b'{"n":1}'))
            except HandiworkError as error:
                return CodeResult(error=CodeError(name="Error", message=str(error)))
            return CodeResult(value_json=msgspec.json.encode(value))
        if "workspace" in code and self.wrong != "files":
            await box.files.write("/workspace/out", await box.files.read("/workspace/in") + b"2")
        if code.startswith("cat out") and self.wrong != "bash":
            await box.files.write("/workspace/more", b"3")
            await box.files.remove("/workspace/in")
            return CodeResult(value_json=b'{"exit_code":0,"stdout":"12","stderr":""}')
        if "kept = 1" in code:
            self.kept = True
        if "mine" in code:
            await asyncio.sleep(0)
            return CodeResult(value_json=b"1" if self.wrong == "apart" else b"null")
        return CodeResult()


CHECKS = names(["code"])


@pytest.mark.parametrize(
    ("wrong", "found_by"),
    [
        ("", None),
        ("value", "code gives its value"),
        ("errors", "code that fails says why"),
        ("log", "what code logs is told as it comes"),
        ("tools", "code calls tools"),
        ("files", "code and files see the same"),
        ("bash", "code and files see the same"),
        ("globals", "globals stay but in a fresh cell"),
        ("limits", "code without end is ended"),
        ("apart", "runs at once are apart"),
    ],
)
async def test_what_is_done_wrongly_is_found(wrong: str, found_by: str | None) -> None:
    made = selfcheck(Tier(wrong), areas=["code"])
    async with contextlib.aclosing(made) as checks:
        failed = [one.name async for one in checks if not one.ok]
    assert failed == ([found_by] if found_by else [])
    assert len(CHECKS) == 8
