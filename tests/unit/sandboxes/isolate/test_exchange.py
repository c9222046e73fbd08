"""An answer of the egress proxy, which may be an upstream's: real sockets, and a server that says what it is told."""

import asyncio
import gzip
import zlib

import pytest

from handiwork.model.errors import ToolFailedError
from handiwork.sandboxes.isolate.exchange import PIECE_BYTES, READ_BYTES, Exchange
from handiwork.sandboxes.isolate.fetch_rules import Asked, checked

ASKED = checked(Asked(url="http://a.test/"))


@pytest.fixture
async def answering(tmp_path):
    """Return a call that makes the next connection answer so; `heard` is what was asked."""
    said, heard = [], []

    async def serve(reader, writer):
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        for part in said:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "exit")

    async def begin(*parts, asked=ASKED):
        said[:] = parts
        return await Exchange.begin(str(tmp_path / "exit"), asked)

    begin.heard = heard
    async with server:
        yield begin


async def whole(exchange):
    pieces = []
    while (piece := await exchange.read()) is not None:
        pieces.append(piece)
    assert await exchange.read() is None
    return b"".join(pieces)


@pytest.mark.parametrize(
    "parts",
    [
        (b"HTTP/1.1 200 Fine\r\ncontent-length: 5\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello",),
        (b"HTTP/1.1 200 Fine\r\nX-A: 1\r\nx-a: 2\r\n\r\nhel", b"lo"),
        (
            b"HTTP/1.1 200 Fi",
            b"ne\r\nX-A: 1\r\nx-a: 2\r\ntransfer-",
            b"encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 200 Fine\r\nX-A: 1\r\nx-a: 2\r\ncontent-length: 5\r\n\r\nhello",
        ),
    ],
)
async def test_an_answer_in_each_framing(answering, parts):
    exchange = await answering(*parts)
    assert (exchange.status, exchange.reason, exchange.values("x-a")) == (200, "Fine", ["1", "2"])
    assert await whole(exchange) == b"hello"
    assert answering.heard[0].startswith(b"GET http://a.test/ HTTP/1.1\r\nhost: a.test\r\n")


async def test_answers_without_a_body(answering):
    exchange = await answering(b"HTTP/1.1 204 No\r\n\r\n")
    assert await whole(exchange) == b""
    asked = checked(Asked(url="http://a.test/", method="HEAD"))
    exchange = await answering(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", asked=asked)
    assert await whole(exchange) == b""


async def test_a_body_that_is_packed_comes_unpacked_in_pieces(answering):
    packed = gzip.compress(b"x" * (5 << 20))
    exchange = await answering(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", packed)
    assert exchange.headers == []
    pieces = []
    while (piece := await exchange.read()) is not None:
        pieces.append(len(piece))
    assert (sum(pieces), max(pieces)) == (5 << 20, PIECE_BYTES)


async def test_who_asks_for_it_packed_gets_it_packed(answering):
    packed = gzip.compress(b"hello")
    asked = checked(Asked(url="http://a.test/", headers=(("accept-encoding", "gzip"),)))
    exchange = await answering(
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", packed, asked=asked
    )
    assert exchange.values("content-encoding") == ["gzip"]
    assert zlib.decompress(await whole(exchange), 31) == b"hello"


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ((), "before there was an answer"),
        ((b"HTTP/1.1 200",), "before there was an answer"),
        ((b"SSH-2.0-x\r\n",), "is no HTTP"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",), "is no HTTP"),
        ((b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,), "too large"),
        ((b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"\r\n",), "too large"),
        (
            (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",),
            "another protocol",
        ),
    ],
)
async def test_what_is_no_answer(answering, parts, told):
    with pytest.raises(ToolFailedError, match=told):
        await answering(*parts)


@pytest.mark.parametrize(
    "parts",
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", b"zz\r\n"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nhello, this is not packed",),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", gzip.compress(b"hello")[:-1]),
    ],
)
async def test_a_body_that_breaks_off_is_no_whole_one(answering, parts):
    async def asked():
        exchange = await answering(*parts)
        try:
            await whole(exchange)
        finally:
            exchange.close()

    with pytest.raises(ToolFailedError):
        await asked()


async def test_what_follows_an_answer_is_none_of_it(answering):
    second = b"HTTP/1.1 302 No\r\nlocation: http://b.test/\r\ncontent-length: 3\r\n\r\nbad"
    trailer = b"5\r\nhello\r\n0\r\nx-a: 9\r\n\r\n"
    exchange = await answering(
        b"HTTP/1.1 200 OK\r\nx-a: 1\r\ntransfer-encoding: chunked\r\n\r\n" + trailer + second
    )
    assert (exchange.status, exchange.values("x-a"), exchange.values("location")) == (
        200,
        ["1"],
        [],
    )
    assert await whole(exchange) == b"hello"
    asked = checked(Asked(url="http://a.test/", method="HEAD"))
    exchange = await answering(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", asked=asked)
    assert await whole(exchange) == b""


async def test_what_follows_a_packed_body_is_not_kept(answering):
    more = [bytes(1 << 16)] * 64
    packed = gzip.compress(b"hello")
    exchange = await answering(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", packed, *more)
    assert await whole(exchange) == b"hello"
    assert len(exchange._inflate.unused_data) <= READ_BYTES


async def test_answers_on_the_way_without_end_are_too_many(answering):
    with pytest.raises(ToolFailedError, match="too large"):
        await answering(*[b"HTTP/1.1 100 \r\n\r\n" * 1000] * 20)


async def test_where_nobody_answers(tmp_path):
    with pytest.raises(ToolFailedError, match="way out"):
        await Exchange.begin(str(tmp_path / "none"), ASKED)


async def test_who_gives_up_leaves_no_connection(tmp_path):
    ended = asyncio.Event()

    async def serve(reader, writer):
        await reader.read()
        writer.close()
        ended.set()

    async with await asyncio.start_unix_server(serve, tmp_path / "exit"):
        task = asyncio.create_task(Exchange.begin(str(tmp_path / "exit"), ASKED))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            await ended.wait()
