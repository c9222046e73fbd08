"""A live response ends with its body, its caller or the server, whichever is first."""

import asyncio
from typing import Any

import pytest

from handiwork.api.streams import CallerLeft, Emit, LiveResponse, while_called


class Connection:
    """One end of an ASGI connection."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.left = asyncio.Event()

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def complete(self) -> bool:
        return self.sent[-1].get("more_body") is False


class Endless:
    """A body that emits once and then waits; it tells when it is cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = False

    async def __call__(self, emit: Emit) -> None:
        await emit(b"a")
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.cancelled = True


def response(body: Any, stopping: asyncio.Event) -> LiveResponse:
    return LiveResponse(body, media_type="text/x", stopping=stopping)


async def run(answer: LiveResponse, connection: Connection) -> None:
    await answer({}, connection.receive, connection.send)  # type: ignore[arg-type]


async def test_a_body_ends_the_response() -> None:
    async def body(emit: Emit) -> None:
        await emit(b"a")
        await emit(b"b")

    connection = Connection()
    await run(response(body, asyncio.Event()), connection)
    assert connection.body == b"ab"
    assert connection.complete
    headers = dict(connection.sent[0]["headers"])
    assert headers[b"content-type"] == b"text/x"
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize("end", ["caller", "server"])
async def test_an_end_from_outside_cancels_the_body(end: str) -> None:
    connection, stopping, body = Connection(), asyncio.Event(), Endless()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(run(response(body, stopping), connection))
        await body.begun.wait()
        (connection.left if end == "caller" else stopping).set()
    assert body.cancelled
    assert connection.complete


async def test_an_error_of_the_body_is_its_own() -> None:
    async def body(_emit: Emit) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await run(response(body, asyncio.Event()), Connection())


async def test_a_call_is_cancelled_with_its_caller() -> None:
    connection, cancelled = Connection(), False

    async def work() -> None:
        nonlocal cancelled
        try:
            connection.left.set()
            await asyncio.Event().wait()
        finally:
            cancelled = True

    with pytest.raises(CallerLeft):
        await while_called(connection, work())  # type: ignore[arg-type]
    assert cancelled


async def test_a_call_that_ends_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert await while_called(Connection(), work()) == 7  # type: ignore[arg-type]
