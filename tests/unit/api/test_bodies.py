"""A sender that stands still in the middle of a body is not waited for without end."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
from litestar import Request

from api_stand_in import Served
from handiwork.api import bodies
from handiwork.api.files import write_file
from handiwork.api.streams import CallerLeft
from image_archives import entry, tar

ARCHIVE = tar(entry("a", b"x" * 5000), entry("b", b"y"))
BODIES = {
    "tree": ("PUT", "{box}/files/tree?path=/workspace"),
    "image": ("POST", "/api/images/one/import"),
    "snapshot": ("POST", "/api/sandboxes/import"),
    "file": ("PUT", "{box}/files?path=/workspace/one"),
    "recipe": ("POST", "/api/images/one/recipe"),
    "policy": ("PUT", "/api/policies/one"),
}


async def pieces() -> AsyncIterator[bytes]:
    for at in range(0, len(ARCHIVE), 1000):
        await asyncio.sleep(0.05)
        yield ARCHIVE[at : at + 1000]


async def ask(served: Served, method: str, path: str) -> tuple[bytes, bytes]:
    """Send half of a body and stand still; the status line and the rest, to the connection's end."""
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = {"host": "127.0.0.1", "content-length": str(len(ARCHIVE)), **served.authorization}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + ARCHIVE[:2048])
    try:
        async with asyncio.timeout(20):
            return await reader.readline(), await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("kind", BODIES)
async def test_one_that_stands_still_is_told(
    kind: str, served: Served, box: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "STALL_SECONDS", 0.3)
    method, path = BODIES[kind]
    status, rest = await ask(served, method, path.format(box=box))
    assert b" 400 " in status
    assert b"nothing of the request's body came for 0.3 s" in rest
    if kind == "tree":
        assert b"what could be of the" in rest
        (sandbox,) = served.sandboxes.live.values()
        assert sandbox.signals == [signal.SIGKILL]


async def test_one_that_leaves_is_no_fault_of_ours() -> None:
    left = [{"type": "http.request", "body": b"half", "more_body": True}]

    async def receive() -> dict[str, object]:
        return left.pop() if left else {"type": "http.disconnect"}

    scope = {"type": "http", "headers": [], "route_handler": write_file}
    body = bodies.body_of(Request(scope, receive=receive))
    assert await anext(body) == b"half"
    with pytest.raises(CallerLeft):
        await anext(body)


async def test_a_slow_one_is_taken(
    served: Served, box: str, http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "STALL_SECONDS", 5.0)
    answer = await http.put(f"{box}/files/tree?path=/workspace", content=pieces())
    assert (answer.status_code, answer.json()["entries"]) == (200, 2)
