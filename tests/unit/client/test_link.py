"""What goes wrong on the way: told as an error of the tree, tried again only where that is safe."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_stand_in import Served
from handiwork import Handiwork
from handiwork.client import link
from handiwork.model.errors import ConfigError, GuestError, HandiworkError

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(data: bytes, *, port: int = 0) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers every request with the same bytes, and keeps what was asked."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(data)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def http(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        status.encode(),
        len(body),
        body,
    )


@pytest.mark.parametrize(
    "data",
    [
        http("200 OK", b"not json"),
        http("200 OK", b'{"data": 7}'),
        http("502 Bad Gateway", b"<html>"),
        http("500 Oops", b'{"error": {"type": "internal", "message": "m"}}'),
        http("302 Found", b""),
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"garbage\r\n\r\n",
        b"",
    ],
)
async def test_whatever_comes_back_is_an_error_of_the_tree(data: bytes) -> None:
    async with answering(data) as (url, _), Handiwork(base_url=url) as hw:
        with pytest.raises(HandiworkError):
            await hw.sandboxes.list()


async def test_an_error_of_the_tree_comes_back_as_itself() -> None:
    body = b'{"error": {"type": "guest", "message": "/a: no such file", "errno": 2}}'
    async with answering(http("422 No", body)) as (url, _), Handiwork(base_url=url) as hw:
        with pytest.raises(GuestError, match="no such file") as told:
            await hw.sandboxes.list()
    assert told.value.errno == 2


async def test_an_answer_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_ANSWER_BYTES", 1000)
    async with answering(http("200 OK", b" " * 1001)) as (url, _), Handiwork(base_url=url) as hw:
        with pytest.raises(HandiworkError, match="longer than 1000"):
            await hw.sandboxes.list()


async def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        one = link.Link(base_url=url, api_key=None, socket=None)
        with pytest.raises(HandiworkError, match="did not answer"):
            await one.raw("GET", "/", seconds=0.1)
        await one.close()


async def test_a_refused_get_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "REFUSED_WAITS", (0.3, 0.3))
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    async with Handiwork(base_url=f"http://127.0.0.1:{port}") as hw, asyncio.TaskGroup() as group:
        asking = group.create_task(hw.sandboxes.list())
        await asyncio.sleep(0.1)
        async with answering(http("200 OK", b'{"data": []}'), port=port) as (_, asked):
            assert await asking == []
    assert len(asked) == 1


async def test_nothing_else_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "REFUSED_WAITS", (0.0,))
    async with answering(b"") as (url, asked), Handiwork(base_url=url) as hw:
        with pytest.raises(HandiworkError):
            await hw.sandboxes.list()
        with pytest.raises(HandiworkError):
            await hw.sandboxes.create()
    assert len(asked) == 2


@given(name=st.text())
def test_a_name_is_one_part_of_a_path(name: str) -> None:
    try:
        quoted = link.part(name)
    except (ConfigError, UnicodeEncodeError):
        return
    assert quoted not in ("", ".", "..")
    assert not set(quoted) & set("/?#\\ \r\n")


@given(pieces=st.lists(st.binary(max_size=20), max_size=20))
async def test_lines_do_not_depend_on_how_they_come(pieces: list[bytes]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    whole = b"".join(pieces)
    expected = whole.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [line async for line in link.lines(chunks())] == expected


async def test_a_line_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_LINE_BYTES", 100)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10

    with pytest.raises(HandiworkError, match="longer than 100"):
        [line async for line in link.lines(chunks())]


async def test_a_socket_whose_path_is_longer_than_an_address(
    served: Served, tmp_path: Path
) -> None:
    folder = tmp_path.joinpath(*["folder"] * 20)
    folder.mkdir(parents=True)
    (folder / "api.sock").hardlink_to(served.socket_path)
    async with Handiwork(socket=folder / "api.sock") as hw:
        assert await hw.sandboxes.list() == []
    before = len(list(Path("/proc/self/fd").iterdir()))
    async with Handiwork(socket=folder / "none.sock") as hw:
        with pytest.raises(HandiworkError, match=r"none\.sock cannot be reached"):
            await hw.sandboxes.list()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(ConfigError, match="No such file"):
        Handiwork(socket=folder / "none" / "api.sock")
