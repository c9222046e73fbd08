"""Code that is run in a sandbox, over the API."""

from collections.abc import AsyncIterator, Callable
from typing import TypedDict

import msgspec

from handiwork.client.link import Link, lines
from handiwork.model.code import CodeLimits, CodeResult, Language, LogLine
from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.wire import CodeAnswer, CodeBody, CodeFrame, error_of

MARGIN_SECONDS = 30.0
"""What a call may take beyond the time its run may take."""


class CodeOptions(TypedDict, total=False):
    """How code is run. `fresh`: its globals are its own. `name`: where its imports start, and what errors say.

    `scope`: whose globals it has and leaves; `restart`: without those of former runs in it. `limits` absent: those of `CodeLimits`.
    """

    fresh: bool
    restart: bool
    scope: str
    name: str
    limits: CodeLimits


def body_of(code: str, language: Language, options: CodeOptions) -> CodeBody:
    """Return what is sent."""
    return CodeBody(code=code, language=language, **options)


async def run(link: Link, path: str, body: CodeBody) -> CodeResult:
    """Run it to its end."""
    seconds = body.limits.wall_seconds + MARGIN_SECONDS
    return _result(await link.send("POST", f"{path}/code", CodeAnswer, body, seconds=seconds))


async def stream(
    link: Link, path: str, body: CodeBody, on_log: Callable[[LogLine], None]
) -> CodeResult:
    """Run it to its end, telling each line that it logs as it comes."""
    seconds = body.limits.wall_seconds + MARGIN_SECONDS
    content = msgspec.json.encode(body)
    async with link.stream("POST", f"{path}/code/stream", content=content, seconds=seconds) as got:
        async for frame in _frames(got):
            if frame.log is not None:
                on_log(frame.log)
            if frame.error is not None:
                raise error_of(frame.error)
            if frame.result is not None:
                return _result(frame.result)
    raise SandboxUnavailableError("the control plane stopped before the run ended")


async def _frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[CodeFrame]:
    async for line in lines(chunks):
        try:
            yield msgspec.json.decode(line, type=CodeFrame)
        except msgspec.DecodeError:
            raise SandboxUnavailableError("the stream of the run was cut off") from None


def _result(answer: CodeAnswer) -> CodeResult:
    return CodeResult(
        value_json=msgspec.json.encode(answer.value),
        error=answer.error,
        logs=answer.logs,
        logs_cut=answer.logs_cut,
        wall_seconds=answer.wall_seconds,
    )
