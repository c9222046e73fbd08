"""Answers to what carries a secret: compressed, with trailers, as events, as WebSocket frames."""

import asyncio
import base64
import gzip
import os
import socket
import ssl
import zlib
from pathlib import Path

import brotli
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from egress_world import (
    HOST,
    SECRET,
    Client,
    Seen,
    TestUpstream,
    World,
    answer,
    grant,
    preamble,
    read_body,
    world,
)
from handiwork.egress import decoding

KEY = SECRET.encode()
STARS = b"*" * len(KEY)
GET = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n".encode()
POST = f"POST / HTTP/1.1\r\nHost: {HOST}\r\n".encode()
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture
async def here(tmp_path: Path):
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def client(here: World):
    return await here.tls(await here.open(await here.injecting()))


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


CODINGS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": decoding.zstd.compress,
}
BODY = b'{"key": "%b", "hex": "%b", "n": 1}' % (KEY, KEY.hex().encode())


def coded(coding: str, body: bytes, *extra: bytes) -> bytes:
    lines = b"".join(line + b"\r\n" for line in extra)
    return b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\n%bcontent-length: %d\r\n\r\n%b" % (
        coding.encode(),
        lines,
        len(body),
        body,
    )


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_compressed_answer_is_decoded_and_masked(here: World, client, coding: str):
    here.upstream.respond = answer(coded(coding, CODINGS[coding](BODY), b'etag: "x"'))
    for _ in range(3):
        status, headers, body = await client.request("/")
        assert (status, headers["transfer-encoding"], headers["etag"]) == (200, "chunked", 'W/"x"')
        assert not {"content-encoding", "content-length"} & headers.keys()
        assert body == BODY.replace(KEY, STARS).replace(KEY.hex().encode(), b"*" * 2 * len(KEY))
    assert here.upstream.connections == 1
    assert here.upstream.seen[0].values("accept-encoding") == ["identity"]


async def test_without_a_secret_a_compressed_answer_passes_as_it_is(here: World):
    body = gzip.compress(BODY)
    here.upstream.respond = answer(coded("gzip", body))
    client = await here.tls(await here.open(grant(here.service())))
    _, headers, found = await client.request("/")
    assert (headers["content-encoding"], found) == ("gzip", body)


@pytest.mark.parametrize("coding", ["compress", "gzip, br", "gzip, gzip", "aes128gcm"])
async def test_a_coding_that_is_not_decoded_is_refused(here: World, client, coding: str):
    here.upstream.respond = answer(coded(coding, b"abc"))
    status, headers, _ = await client.request("/")
    assert status == 502
    assert "cannot be read" in headers["x-handiwork-error"]


@pytest.mark.parametrize(
    "body",
    [b"abc", gzip.compress(BODY, mtime=0)[:-4], gzip.compress(BODY, mtime=0) + b"abc"],
    ids=["none", "cut", "longer"],
)
async def test_what_is_not_what_its_coding_says_is_cut(here: World, client, body: bytes):
    here.upstream.respond = answer(coded("gzip", body))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
        await client.request("/")
    (record,) = await here.records(1)
    assert "compressed answer is not usable" in record.reason


async def test_a_part_of_a_body_is_neither_asked_for_nor_taken(here: World, client):
    here.upstream.respond = answer(
        b"HTTP/1.1 206 Partial\r\ncontent-range: bytes 0-2/9\r\ncontent-length: 3\r\n\r\nabc"
    )
    assert (await client.request("/", extra="Range: bytes=0-2\r\n"))[0] == 502
    assert here.upstream.seen[0].values("range") == []


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_a_coding_without_a_body_needs_no_decoding(here: World, client, method: str):
    status = 200 if method == "HEAD" else 304
    here.upstream.respond = answer(
        b"HTTP/1.1 %d OK\r\ncontent-encoding: gzip\r\ncontent-length: 99\r\n\r\n" % status
    )
    for _ in range(2):
        found, headers, _ = await client.request("/", method=method)
        assert (found, "content-encoding" in headers) == (status, False)
    assert here.upstream.connections == 1


async def test_compressed_events_pass_as_they_come(here: World, client):
    gate = asyncio.Event()

    async def respond(seen: Seen, reader, writer) -> None:
        made = zlib.compressobj(wbits=31)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n")
        writer.write(made.compress(b"data: one\n\n") + made.flush(zlib.Z_SYNC_FLUSH))
        await gate.wait()
        writer.write(made.compress(b"data: %b\n\n" % KEY) + made.flush())
        raise ConnectionResetError

    here.upstream.respond = respond
    await client.send(GET + b"\r\n")
    async with asyncio.timeout(5):
        await client.reader.readuntil(b"data: one\n\n")
        gate.set()
        rest = await client.reader.readuntil(b"0\r\n\r\n")
    assert b"data: %b\n\n" % STARS in rest


def resident_mib(here: World) -> float:
    fields = Path(f"/proc/{here.processes[-1].pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.parametrize("kind", ["captured", "absolute"])
async def test_a_bomb_waits_for_its_reader_in_little_memory(here: World, client, kind: str):
    size = 200 << 20
    get = GET
    if kind == "absolute":
        client = await here.connect(await here.open(await here.injecting()))
        get = GET.replace(b"GET /", f"GET https://{HOST}/".encode())
    here.upstream.respond = answer(coded("gzip", gzip.compress(bytes(size), 9)))
    await client.send(get.replace(b"GET", b"HEAD") + b"\r\n")
    await client.response(head_only=True)
    before = resident_mib(here)
    await client.send(get + b"\r\n")
    await client.reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.5)
    assert resident_mib(here) - before < 16
    other = await here.tls(await here.open(grant(here.service())))
    here.upstream.respond = None
    async with asyncio.timeout(2):
        assert (await other.request("/"))[0] == 200
    found = 0
    while length := int(await client.reader.readline(), 16):
        found += len(await client.reader.readexactly(length))
        await client.reader.readline()
    assert found == size
    assert resident_mib(here) - before < 16


async def test_a_bomb_beyond_any_text_is_cut(here: World, client):
    here.upstream.respond = answer(coded("br", brotli.compress(bytes(100 << 20))))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
        await client.request("/")
    (record,) = await here.records(1)
    assert "far more than was sent" in record.reason


async def test_decoders_of_one_way_out_are_bounded_together(here: World):
    async def respond(seen: Seen, reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\n\r\n")
        await writer.drain()
        await reader.read()

    here.upstream.respond = respond
    way = await here.open(await here.injecting())
    clients = [await here.tls(way) for _ in range(17)]
    found = []
    for one in clients:
        await one.send(GET + b"\r\n")
        found.append((await one.reader.readline()).split()[1])
    assert found == [b"200"] * 16 + [b"503"]
    await clients[0].close()
    here.upstream.respond = answer(coded("br", brotli.compress(BODY)))
    await here.records(1, status=200)
    assert (await (await here.tls(way)).request("/"))[0] == 200


async def trailers(client: Client) -> dict[str, str]:
    """Read a chunked answer, return what follows its body."""
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    while size := int(await client.reader.readline(), 16):
        await client.reader.readexactly(size + 2)
    found = {}
    while (line := await client.reader.readline()) != b"\r\n":
        name, _, value = line.decode().partition(":")
        found[name.lower()] = value.strip()
    return found


async def test_trailers_of_an_answer_pass_masked_and_without_what_may_not(here: World, client):
    here.upstream.respond = answer(
        CHUNKED.replace(b"\r\n\r\n", b"\r\ntrailer: x-sum, content-length\r\n\r\n")
        + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nx-key: %b\r\nset-cookie: a=b\r\n" % KEY
        + b"content-type: a/b\r\nconnection: x\r\nx-handiwork-rule: y\r\n\r\n"
    )
    for _ in range(2):
        await client.send(GET + b"TE: trailers\r\n\r\n")
        assert await trailers(client) == {"x-sum": "1", "x-key": STARS.decode()}
    assert here.upstream.seen[0].values("te") == ["trailers"]
    assert here.upstream.connections == 1


async def test_trailers_are_announced_but_for_those_that_may_not_pass(here: World, client):
    here.upstream.respond = answer(
        CHUNKED.replace(b"\r\n\r\n", b"\r\ntrailer: x-sum, Content-Length\r\n\r\n") + b"0\r\n\r\n"
    )
    assert (await client.request("/"))[1]["trailer"] == "x-sum"


async def test_too_many_trailers_cut_the_answer(here: World, client):
    here.upstream.respond = answer(CHUNKED + b"0\r\n" + b"x-a: 1\r\n" * 150 + b"\r\n")
    await client.send(GET + b"\r\n")
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
        await trailers(client)


async def test_trailers_of_a_request_pass_without_what_may_not(here: World, client):
    found: list[bytes] = []

    async def respond(seen: Seen, reader, writer) -> None:
        found.append(await reader.readuntil(b"\r\n\r\n"))
        await answer(b"HTTP/1.1 204 No\r\n\r\n")(Seen("", "", []), reader, writer)

    here.upstream.respond = respond
    body = b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nAuthorization: mine\r\nHost: evil\r\nx_sum2: 2\r\n\r\n"
    await client.send(POST + b"Trailer: X-Sum, Host\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    assert (await client.response())[0] == 204
    assert found == [b"3\r\nabc\r\n0\r\nx-sum: 1\r\nx_sum2: 2\r\n\r\n"]
    assert here.upstream.seen[0].values("trailer") == ["X-Sum"]


def frame(opcode: int, payload: bytes, *, fin: bool = True, key: bytes = b"") -> bytes:
    size = bytes([len(payload) | (0x80 if key else 0)])
    return bytes([(0x80 if fin else 0) | opcode]) + size + key + payload


UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\n"
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n"
    b"upgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n"
)
UNDER_KEY = frame(1, b"frame", key=b"\0\0\0\0")


@pytest.mark.parametrize("injecting", [False, True])
async def test_a_web_socket_is_carried_and_masked(here: World, injecting: bool):
    async def respond(seen: Seen, reader, writer) -> None:
        assert seen.values("upgrade") == ["websocket"]
        writer.write(SWITCHED)
        while data := await reader.read(1000):
            assert data == UNDER_KEY
            writer.write(frame(1, b"a " + KEY[:9], fin=False))
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(frame(9, KEY) + frame(0, KEY[9:]) + frame(2, base64.b64encode(KEY)))
            await writer.drain()

    here.upstream.respond = respond
    granted = await here.injecting() if injecting else grant(here.service())
    way = await here.open(granted)
    client = await here.tls(way)
    status, headers, _ = await client.request("/ws", extra=UPGRADE)
    assert (status, headers["upgrade"]) == (101, "websocket")
    shown = STARS if injecting else KEY
    wanted = frame(1, b"a " + shown[:9], fin=False) + frame(9, shown) + frame(0, shown[9:])
    for _ in range(3):
        await client.send(UNDER_KEY)
        assert await client.reader.readexactly(len(wanted)) == wanted
        (head, size) = await client.reader.readexactly(2)
        last = await client.reader.readexactly(size)
        assert (head, b"****" in last) == (0x82, injecting)
    await here.registry.update(way.binding.id, grant())
    assert await client.ended()
    (record,) = await here.records(1, kind="websocket")
    assert record.masked == (9 if injecting else 0)


async def test_a_real_client_and_server_talk_and_the_secret_is_masked(here: World):
    async def repeat(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send([message[:9], message[9:]])  # in two fragments

    context = here.authority.server(HOST)
    async with serve(repeat, "127.0.0.1", 0, ssl=context, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        away = TestUpstream(port=port)
        granted = await here.injecting(upstream=away)
        way = await here.open(granted)
        guest = socket.socket(socket.AF_UNIX)
        guest.connect(way.path)
        guest.sendall(preamble(1, "198.51.100.7", 443))
        assert await asyncio.to_thread(guest.recv, 1) == b"\0"
        trusted = ssl.create_default_context(cadata=way.ca_certificate)
        uri = f"wss://{HOST}/chat"
        async with connect(uri, sock=guest, ssl=trusted, proxy=None, max_size=None) as client:
            assert client.protocol.extensions == []
            for size in (0, 100, 70_000):
                await client.send("x" * size + SECRET)
                assert await client.recv() == "x" * size + STARS.decode()
            await client.send(b"x" * 3_000_000 + KEY)
            assert await client.recv() == b"x" * 3_000_000 + STARS
            await (await client.ping())


@pytest.mark.parametrize("side", ["guest", "upstream"])
async def test_what_is_no_frame_ends_a_web_socket_with_a_secret(here: World, client, side: str):
    async def respond(seen: Seen, reader, writer) -> None:
        writer.write(SWITCHED + (b"raw " + KEY if side == "upstream" else b""))
        await writer.drain()
        assert await reader.read(1000) == b""

    here.upstream.respond = respond
    assert (await client.request("/ws", extra=UPGRADE))[0] == 101
    if side == "guest":
        await client.send(b"raw bytes")
    assert await client.ended()
    (record,) = await here.records(1, kind="websocket")
    assert record.reason.startswith(f"the {side}: a frame")


async def test_an_extension_of_a_web_socket_is_not_asked_for_and_not_taken(here: World, client):
    here.upstream.respond = answer(
        SWITCHED.replace(b"\r\n\r\n", b"\r\nsec-websocket-extensions: permessage-deflate\r\n\r\n")
    )
    asked = UPGRADE + "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    assert (await client.request("/ws", extra=asked))[0] == 502
    assert here.upstream.seen[0].values("sec-websocket-extensions") == []


async def test_a_chunked_body_split_at_every_byte_is_masked(here: World, client):
    async def respond(seen: Seen, reader, writer) -> None:
        await read_body(seen, reader)
        writer.write(CHUNKED)
        for byte in b"say " + KEY + b" and " + KEY.hex().upper().encode():
            writer.write(b"1\r\n" + bytes([byte]) + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    here.upstream.respond = respond
    _, _, body = await client.request("/", method="POST", body=b"x")
    assert body == b"say " + STARS + b" and " + STARS * 2
