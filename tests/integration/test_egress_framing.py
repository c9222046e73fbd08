"""Framings: every honest one passes both ways, every doubtful one is refused and not passed on."""

import asyncio
import json
from pathlib import Path

import pytest

from egress_world import HOST, SECRET, Seen, World, answer, echo, grant, read_body, world


@pytest.fixture
async def here(tmp_path: Path):
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def client(here: World):
    return await here.tls(await here.open(grant(here.service())))


GET = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n".encode()
POST = f"POST / HTTP/1.1\r\nHost: {HOST}\r\n".encode()

SMUGGLED = {
    "length and coding": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "equal lengths": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "length list": POST + b"Content-Length: 1, 1\r\n\r\na",
    "signed length": POST + b"Content-Length: +1\r\n\r\na",
    "huge length": POST + b"Content-Length: 99999999999999999999999\r\n\r\na",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "coding in two fields": POST
    + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "space before colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "bare line feed": GET + b"X: 1\n\r\n",
    "bare carriage return": GET + b"X: 1\rY: 2\r\n\r\n",
    "folded": GET + b"X: 1\r\n folded\r\n\r\n",
    "NUL in a value": GET + b"X: a\0b\r\n\r\n",
    "space in a name": GET + b"X Y: 1\r\n\r\n",
    "two hosts": GET + b"Host: evil.example.com\r\n\r\n",
    "two equal hosts": GET + f"Host: {HOST}\r\n\r\n".encode(),
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "old version": f"GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode(),
    "older version": b"GET /\r\n\r\n",
    "odd version": f"GET / HTTP/1.2\r\nHost: {HOST}\r\n\r\n".encode(),
    "connect": f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(),
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "encoded backslash": f"GET /a%5cb HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(),
    "encoded NUL": f"GET /a%00b HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(),
    "broken escape": f"GET /a%zz HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(),
    "user in host": f"GET / HTTP/1.1\r\nHost: u@{HOST}\r\n\r\n".encode(),
    "bad chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "negative chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    "chunk without end": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "upgrade with a body": GET
    + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
    "bytes behind an upgrade": GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\nGET / HTTP",
    "trace": f"TRACE / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(),
}


@pytest.mark.parametrize("raw", SMUGGLED.values(), ids=SMUGGLED.keys())
async def test_a_doubtful_framing_is_refused(here: World, client, raw: bytes):
    await client.send(raw)
    status, _, _ = await client.response()
    assert status in (400, 403, 505)
    await asyncio.sleep(0.02)
    assert [seen for seen in here.upstream.seen if seen.body or not raw.startswith(b"POST")] == []


async def test_the_same_requests_well_formed_pass(here: World, client):
    """The control of the test above."""
    await client.send(GET + b"X: 1\r\n\r\n")
    assert (await client.response())[0] == 200
    await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n")
    status, _, body = await client.response()
    assert (status, json.loads(body)["body"]) == (200, "abc")
    assert here.upstream.seen[1].values("transfer-encoding") == ["chunked"]


async def test_what_follows_a_refused_framing_is_not_read(here: World, client):
    await client.send(POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na" + GET + b"\r\n")
    assert (await client.response())[0] == 400
    assert await client.ended()
    assert here.upstream.seen == []


@pytest.mark.parametrize(
    "raw",
    [
        GET + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
        GET + b"X: 1\r\n" * 120 + b"\r\n",
        f"GET /{'a' * 9000} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(),
    ],
    ids=["bytes", "fields", "target"],
)
async def test_heads_have_limits(here: World, client, raw: bytes):
    await client.send(raw)
    assert (await client.response())[0] in (400, 431)
    assert here.upstream.seen == []


async def test_a_head_byte_by_byte_passes(here: World, client):
    for byte in GET + b"X-Long: abc\r\n\r\n":
        await client.send(bytes([byte]))
    assert (await client.response())[0] == 200
    assert here.upstream.seen[0].values("x-long") == ["abc"]


async def test_pipelined_requests_are_answered_in_order(here: World, client):
    async def slow(seen: Seen, reader, writer) -> None:
        await asyncio.sleep(0.05 if seen.target == "/0" else 0)
        await echo(seen, writer)

    here.upstream.respond = slow
    requests = [f"GET /{n} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode() for n in range(8)]
    await client.send(b"".join(requests))
    for number in range(8):
        assert json.loads((await client.response())[2])["target"] == f"/{number}"


async def test_more_pipelined_requests_than_the_limit_end_the_connection(here: World, client):
    here.upstream.respond = lambda *_: asyncio.sleep(30)
    await client.send((GET + b"\r\n") * 200)
    assert await client.ended()


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_body_keep_the_connection(here: World, client, status: int):
    here.upstream.respond = answer(b"HTTP/1.1 %d X\r\nx-a: 1\r\n\r\n" % status)
    for _ in range(3):
        found, headers, _ = await client.request("/")
        assert (found, headers["x-a"]) == (status, "1")
        assert "transfer-encoding" not in headers
    assert here.upstream.connections == 1


async def test_head_tells_the_length_and_sends_no_body(here: World, client):
    here.upstream.respond = answer(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    for _ in range(3):
        status, headers, _ = await client.request("/", method="HEAD")
        assert (status, headers["content-length"]) == (200, "1000")
    assert here.upstream.connections == 1


async def test_a_body_that_ends_with_the_connection_arrives_whole(here: World, client):
    here.upstream.respond = answer(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, close=True)
    status, headers, body = await client.request("/")
    assert (status, headers["transfer-encoding"], len(body)) == (200, "chunked", 100_000)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
    ],
)
async def test_a_cut_answer_is_seen_to_be_cut(here: World, client, raw: bytes):
    here.upstream.respond = answer(raw, close=True)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
        await client.request("/")


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 400_000,
        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        b"",
    ],
)
async def test_an_answer_that_cannot_be_read_is_a_bad_gateway(here: World, client, raw: bytes):
    here.upstream.respond = answer(raw, close=True)
    status, headers, _ = await client.request("/")
    assert status == 502
    assert headers["x-handiwork-error"]
    here.upstream.respond = None
    assert (await client.request("/"))[0] == 200


async def test_an_unasked_second_answer_never_reaches_the_next_request(here: World, client):
    one = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    here.upstream.respond = answer(one + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
    assert (await client.request("/"))[2] == b"ok"
    here.upstream.respond = answer(one)
    assert (await client.request("/"))[2] == b"ok"
    assert here.upstream.connections == 2


async def test_expect_continue_is_passed_through(here: World, client):
    async def respond(seen: Seen, reader, writer) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await read_body(seen, reader)
        await echo(seen, writer)

    here.upstream.respond = respond
    await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert (await client.response())[0] == 100
    await client.send(b"abc")
    status, _, body = await client.response()
    assert (status, json.loads(body)["body"]) == (200, "abc")


async def test_an_early_answer_ends_the_upload(here: World, client):
    async def respond(seen: Seen, reader, writer) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await writer.drain()

    here.upstream.respond = respond
    await client.send(POST + b"Content-Length: 100000000\r\n\r\n" + b"x" * 10_000)
    status, headers, body = await client.response()
    assert (status, headers["connection"], body) == (413, "close", b"no")
    assert await client.ended()


async def test_a_dead_pooled_connection_is_replaced_once(here: World, client):
    async def last(seen: Seen, reader, writer) -> None:
        await echo(seen, writer)
        await asyncio.sleep(0.05)
        raise ConnectionResetError

    async def dies(seen: Seen, reader, writer) -> None:
        here.upstream.respond = None
        raise ConnectionResetError

    assert (await client.request("/first"))[0] == 200
    here.upstream.respond = dies
    assert (await client.request("/second"))[0] == 200
    assert here.upstream.connections == 2
    here.upstream.respond = dies
    assert (await client.request("/third", method="POST", body=b"x"))[0] == 502


async def test_events_are_not_held_back(here: World):
    gate = asyncio.Event()

    async def respond(seen: Seen, reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        writer.write(b"data: one\n\n")
        await gate.wait()
        writer.write(f"data: {SECRET[:9]}".encode())
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(f"{SECRET[9:]}\n\n".encode())
        raise ConnectionResetError

    here.upstream.respond = respond
    client = await here.tls(await here.open(await here.injecting()))
    await client.send(GET + b"\r\n")
    async with asyncio.timeout(5):
        await client.reader.readuntil(b"data: one\n\n")
        gate.set()
        rest = await client.reader.readuntil(b"0\r\n\r\n")
    assert b"****" in rest
    assert SECRET.encode() not in rest


async def test_an_upgrade_that_the_upstream_declines_leaves_http(here: World, client):
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    assert (await client.request("/", extra=upgrade))[0] == 200
    assert (await client.request("/"))[0] == 200


async def test_another_upgrade_is_not_passed_on(here: World, client):
    upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
    assert (await client.request("/", extra=upgrade))[0] == 200
    assert here.upstream.seen[0].values("upgrade") == []
    assert here.upstream.seen[0].values("http2-settings") == []
    assert (await client.request("/"))[0] == 200


async def test_hop_by_hop_fields_end_here(here: World, client):
    extra = (
        "Connection: keep-alive, x-hop\r\nX-Hop: 1\r\nTE: trailers\r\nProxy-Authorization: x\r\n"
    )
    assert (await client.request("/", extra=extra))[0] == 200
    seen = here.upstream.seen[0]
    assert {name.lower() for name, _ in seen.headers} == {"host", "te", "connection"}
    assert (seen.values("te"), seen.values("connection")) == (["trailers"], ["te"])


async def test_connection_close_is_obeyed(here: World, client):
    status, headers, _ = await client.request("/", extra="Connection: close\r\n")
    assert (status, headers["connection"]) == (200, "close")
    assert await client.ended()
