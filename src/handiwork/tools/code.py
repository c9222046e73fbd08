"""Tools that run code in a sandbox of a tier that does: `execute` and `run_file`."""

import base64
import posixpath
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from handiwork.model.code import CodeLimits, CodeRequest, CodeResult, Language, LogLine
from handiwork.model.errors import GuestError, ToolFailedError
from handiwork.model.tool import Block, DocumentBlock, ImageBlock, TextBlock
from handiwork.tools import cell_shell
from handiwork.tools.code_calls import CALLS, CodeCalls, workspace_tools
from handiwork.tools.code_interface import CodeTool, python, typescript
from handiwork.tools.code_text import broken, imports_awaited, unfenced
from handiwork.tools.context import ToolContext
from handiwork.tools.files import ROOT
from handiwork.tools.media import PDF, examined
from handiwork.tools.registry import tool

CPU_MS = 30_000
PARALLEL_CALLS = 32
FILE_BYTES = 4 << 20
LANGUAGE_OF: dict[str, Language] = {
    ".js": "javascript",
    ".mjs": "javascript",
    ".py": "python",
    ".sh": "bash",
}
"""By the end of a file's name."""

EXAMPLES = (
    'async () => {\n  await codemode.write({ path: "data.json", content: "[1, 2, 3]" });\n'
    '  const numbers = JSON.parse(await codemode.read({ path: "data.json" }));\n'
    "  return numbers.map((n) => n * 2);\n}",
    'const files = await codemode.find({ pattern: "**/*.json" });\n'
    "const sizes = await Promise.all(files.map(async (path) =>"
    " (await codemode.read({ path })).length));\nsizes",
)
"""What a model is shown of JavaScript."""
PYTHON_EXAMPLES = (
    'import json\nawait codemode.write(path="data.json", content=json.dumps([1, 2, 3]))\n'
    'sum(json.loads(await codemode.read(path="data.json")))',
)
INTERFACE_CHARACTERS = 30_000
"""The most of a description that shows what code can call; there is `codemode.search` for more."""
_INTRODUCTION = """Run code in the sandbox: JavaScript, or Python with language "python".

Each call is a fresh program: a function, a script whose last expression is the result, or a body with \
`return`. `await` works at the top. Answered are its result (what can be JSON; bytes of an image are shown as \
one) and its log (console.log, print). Calls that are awaited together run side by side. `workspace.*` has the \
same files (read, readBytes, write, append, list, stat, exists, mkdir, delete, move), `fetch` goes where the \
policy of this session permits.

"""
_MORE = """
There are more: `await codemode.search({ query: "words" })` lists names and descriptions, \
`await codemode.describe({ name: "one" })` gives the types of one."""


def described(tools: Sequence[CodeTool] = ()) -> str:
    """Return the description of `execute` for an agent with these tools beside the workspace's.

    As many are shown as there is room for; a model finds the others by `codemode.search`.
    """
    shown = workspace_tools()
    for one in tools:
        if len(typescript([*shown, one])) > INTERFACE_CHARACTERS:
            break
        shown.append(one)
    more = _MORE if len(shown) - len(CALLS) < len(tools) else ""
    parts = [
        _INTRODUCTION,
        "For example:",
        *(f"```js\n{example}\n```" for example in EXAMPLES),
        *(f"```python\n{example}\n```" for example in PYTHON_EXAMPLES),
        f"What code can call, in JavaScript and in Python:\n```ts\n{typescript(shown)}\n```",
        f"```python\n{python(shown)}\n```{more}",
    ]
    return "\n".join(parts)


class _Boxed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"data": "$bytes"}):
    data: bytes


@tool("execute", description=described(), keeps_time=True)
async def execute(
    context: ToolContext, code: str, language: Literal["javascript", "python"] = "javascript"
) -> tuple[Block, ...]:
    """Run code."""
    code = unfenced(code)
    problem = broken(code)
    if problem is not None:
        raise ToolFailedError(f"execute: code: {problem}")
    if language == "javascript":
        code = imports_awaited(code)
    return await _run(context, code, language, posixpath.join(ROOT, "code"))


@tool("run_file", keeps_time=True)
async def run_file(context: ToolContext, path: str) -> tuple[Block, ...]:
    """Run a file of the sandbox as `execute` runs code: .js and .mjs as JavaScript, .py as Python, .sh as bash."""
    target = posixpath.normpath(posixpath.join(ROOT, path))
    language = LANGUAGE_OF.get(posixpath.splitext(target)[1].lower())
    if language is None:
        raise ToolFailedError(
            f"run_file: {path}: its name tells no language; use one that ends in"
            f" {', '.join(LANGUAGE_OF)}"
        )
    try:
        data = await context.sandbox.files.read(target, limit_bytes=FILE_BYTES + 1)
        text = data.decode()
    except GuestError as error:
        raise ToolFailedError(f"run_file: {error}") from None
    except UnicodeDecodeError:
        raise ToolFailedError(f"run_file: {path}: it is no UTF-8 text") from None
    if len(data) > FILE_BYTES:
        raise ToolFailedError(f"run_file: {path}: more than {FILE_BYTES >> 20} MiB")
    if language == "bash":
        return (TextBlock(text=await cell_shell.run_script(context, text)),)
    return await _run(context, text, language, target)


async def _run(context: ToolContext, code: str, language: Language, name: str) -> tuple[Block, ...]:
    limits = CodeLimits(
        cpu_ms=min(CPU_MS, round(context.timeout_seconds * 1000)),
        wall_seconds=context.timeout_seconds,
        parallel_calls=PARALLEL_CALLS,
    )
    request = CodeRequest(code=code, language=language, name=name, fresh=True, limits=limits)
    done = await context.sandbox.run_code(request, CodeCalls(context).serve)
    return _told(done)


def _told(done: CodeResult) -> tuple[Block, ...]:
    """Return what the model reads: one object of result and log, and what can be looked at beside it."""
    shown = _media(done.value_json)
    result: Any = msgspec.Raw(done.value_json) if shown is None else "(shown below)"
    told: dict[str, Any] = {"result": result}
    if done.logs:
        told["logs"] = [_line(one) for one in done.logs]
    if done.logs_cut:
        told["logs_cut"] = "there was more than a run may log"
    if done.error is None:
        text = TextBlock(text=msgspec.json.encode(told).decode())
        return (text,) if shown is None else (text, shown)
    del told["result"]
    error = f"{done.error.name}: {done.error.message}"
    told = {"error": error, **({"stack": done.error.stack} if done.error.stack else {}), **told}
    raise ToolFailedError(msgspec.json.encode(told).decode())


def _line(line: LogLine) -> str:
    return line.text if line.level == "log" else f"[{line.level}] {line.text}"


def _media(value_json: bytes) -> Block | None:
    """Return what a result of bytes shows, None where it is something else."""
    if not value_json.startswith(b'{"$bytes":'):
        return None
    try:
        data = msgspec.json.decode(value_json, type=_Boxed).data
    except msgspec.DecodeError:
        return None
    found = examined(data)
    if not found.type or found.problem:
        return None
    block = DocumentBlock if found.type == PDF else ImageBlock
    return block(media_type=found.type, data=base64.b64encode(data).decode())
