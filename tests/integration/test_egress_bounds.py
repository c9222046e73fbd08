"""Bounds: bodies of any size in little memory, slow and hostile ends, many connections."""

import asyncio
import hashlib
import os
from contextlib import suppress
from pathlib import Path

import pytest

from egress_world import HOST, Client, Seen, World, answer, grant, preamble, world
from handiwork.egress.protocol import EgressSocket

MIB = 1 << 20
PIECE = b"0123456789abcdef" * 4096


@pytest.fixture
async def here(tmp_path: Path):
    async with world(tmp_path) as made:
        yield made


def resident_mib(here: World) -> float:
    fields = Path(f"/proc/{here.processes[-1].pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


async def write_pieces(writer: asyncio.StreamWriter, count: int, *, chunked: bool) -> None:
    for _ in range(count):
        writer.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE)
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("injecting", [False, True])
async def test_a_large_answer_streams_in_bounded_memory(
    here: World, chunked: bool, injecting: bool
):
    count = 800

    async def respond(seen: Seen, reader, writer) -> None:
        framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d"
        framing = framing if chunked else framing % (count * len(PIECE))
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        await write_pieces(writer, count, chunked=chunked)

    here.upstream.respond = respond
    granted = await here.injecting() if injecting else grant(here.service())
    client = await here.tls(await here.open(granted))
    before = resident_mib(here)
    async with asyncio.timeout(30):
        _, _, body = await client.request("/")
    assert hashlib.sha256(body).digest() == hashlib.sha256(PIECE * count).digest()
    assert resident_mib(here) - before < 16


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_upload_streams_in_bounded_memory(here: World, chunked: bool):
    count, found = 800, hashlib.sha256()

    async def respond(seen: Seen, reader, writer) -> None:
        taken = 0
        while taken < count * len(PIECE):
            if chunked:
                size = int(await reader.readline(), 16)
                found.update(await reader.readexactly(size))
                await reader.readline()
            else:
                size = len(data := await reader.read(65536))
                found.update(data)
            taken += size
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    here.upstream.respond = respond
    client = await here.tls(await here.open(grant(here.service())))
    before = resident_mib(here)
    framing = "transfer-encoding: chunked" if chunked else f"content-length: {count * len(PIECE)}"
    await client.send(f"POST / HTTP/1.1\r\nhost: {HOST}\r\n{framing}\r\n\r\n".encode())
    async with asyncio.timeout(30):
        await write_pieces(client.writer, count, chunked=chunked)
        assert (await client.response())[0] == 200
    assert found.digest() == hashlib.sha256(PIECE * count).digest()
    assert resident_mib(here) - before < 16


async def test_a_guest_that_does_not_read_stops_the_upstream(here: World):
    written = 0

    async def respond(seen: Seen, reader, writer) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        while True:
            writer.write(PIECE)
            await writer.drain()
            written += len(PIECE)

    here.upstream.respond = respond
    client = await here.tls(await here.open(grant(here.service())))
    before = resident_mib(here)
    client.writer.transport.pause_reading()
    await client.send(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
    await asyncio.sleep(0.5)
    stopped = written
    await asyncio.sleep(0.3)
    assert written == stopped < 24 * MIB
    assert resident_mib(here) - before < 8


async def test_an_upstream_that_does_not_read_stops_the_guest(here: World):
    here.upstream.respond = lambda *_: asyncio.sleep(30)
    client = await here.tls(await here.open(grant(here.service())))
    before = resident_mib(here)
    await client.send(
        f"POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 1000000000\r\n\r\n".encode()
    )

    async def upload() -> None:
        while True:
            await client.send(PIECE)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(upload(), 1)
    assert resident_mib(here) - before < 8


async def test_slow_readers_do_not_hold_up_others(here: World):
    here.upstream.respond = None
    way = await here.open(grant(here.service()))
    slow = [await here.tls(way) for _ in range(5)]
    big = answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (20 * MIB) + b"x" * (20 * MIB))
    here.upstream.respond = big
    for client in slow:
        client.writer.transport.pause_reading()
        await client.send(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
    await asyncio.sleep(0.2)
    here.upstream.respond = None
    async with asyncio.timeout(5):
        assert (await (await here.tls(way)).request("/"))[0] == 200


async def test_many_connections_at_once(here: World):
    way = await here.open(grant(here.service()))

    async def one(number: int) -> None:
        client = await here.tls(way)
        for turn in range(3):
            status, _, body = await client.request(f"/{number}/{turn}")
            assert status == 200
            assert f"/{number}/{turn}".encode() in body

    async with asyncio.timeout(40), asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(one(number))
    assert len(here.upstream.seen) == 600


async def room_again(here: World, way: EgressSocket) -> bool:
    """Try until a connection is taken: a close takes a moment to arrive."""
    for _ in range(100):
        with suppress(OSError, asyncio.IncompleteReadError):
            return (await (await here.tls(way)).request("/"))[0] == 200
        await asyncio.sleep(0.05)
    return False


async def test_connections_of_a_binding_are_capped(tmp_path: Path):
    async with world(tmp_path, max_connections=4) as here:
        way = await here.open(grant(here.service()))
        other = await here.open(grant(here.service()))
        held = [await here.tls(way) for _ in range(4)]
        for client in held:
            assert (await client.request("/"))[0] == 200
        over = await here.connect(way)
        with suppress(ConnectionError):
            await over.send(preamble(1, "198.51.100.7", 443))
        assert await over.ended()
        assert (await (await here.tls(other)).request("/"))[0] == 200
        await held[0].close()
        assert await room_again(here, way)


async def test_requests_of_a_binding_are_capped(tmp_path: Path):
    async with world(tmp_path, max_requests=2) as here:
        here.upstream.respond = lambda *_: asyncio.sleep(30)
        way = await here.open(grant(here.service()))
        for _ in range(2):
            busy = await here.tls(way)
            await busy.send(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
        await asyncio.sleep(0.2)
        status, headers, _ = await (await here.tls(way)).request("/")
        assert (status, headers["x-handiwork-rule"]) == (503, "limits")


HOSTILE = {
    "nothing": b"",
    "short": b"HWX1",
    "cut": preamble(1, "1.2.3.4", 443)[:23],
    "kind 0": b"HWX1\x00" + preamble(1, "1.2.3.4", 443)[5:],
    "kind 9": b"HWX1\x09" + preamble(1, "1.2.3.4", 443)[5:],
    "family 0": b"HWX1\x01\x00" + preamble(1, "1.2.3.4", 443)[6:],
    "family 255": b"HWX1\x01\xff" + preamble(1, "1.2.3.4", 443)[6:],
    "dirty address": preamble(1, "1.2.3.4", 443)[:-1] + b"x",
    "other version": b"HWX2" + preamble(1, "1.2.3.4", 443)[4:],
    "port 0": preamble(1, "1.2.3.4", 0),
    "port 22": preamble(1, "1.2.3.4", 22),
    "two preambles": preamble(1, "1.2.3.4", 443) * 2,
    "zeros": bytes(1000),
    "ones": b"\xff" * 100_000,
    "half a hello": preamble(1, "1.2.3.4", 443) + b"\x16\x03\x01\x02\x00\x01",
    "bad hello": preamble(1, "1.2.3.4", 443) + b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00" * 10,
    "line": b"GET",
    "binary get": b"GET https://\xff\xfe/ HTTP/1.1\r\nhost: \xff\xfe\r\n\r\n",
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_first_bytes_end_only_their_connection(tmp_path: Path, raw: bytes):
    async with world(tmp_path, first_byte_seconds=0.3, head_seconds=0.3) as here:
        way = await here.open(grant(here.service()))
        client = await here.connect(way)
        with suppress(ConnectionError):
            await client.send(raw)
        assert await client.ended()
        assert (await (await here.tls(way)).request("/"))[0] == 200
        assert len(here.upstream.seen) == 1


async def test_a_slow_head_is_ended(tmp_path: Path):
    async with world(tmp_path, head_seconds=0.3) as here:
        client = await here.tls(await here.open(grant(here.service())))
        await client.send(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n".encode())
        assert (await client.response())[0] == 408
        assert await client.ended()


async def test_silence_has_a_limit(tmp_path: Path):
    async with world(tmp_path, idle_seconds=0.3) as here:
        way = await here.open(grant(here.service()))
        idle = await here.tls(way)
        assert (await idle.request("/"))[0] == 200
        assert await idle.ended()
        here.upstream.respond = lambda *_: asyncio.sleep(30)
        assert (await (await here.tls(way)).request("/"))[0] == 504


async def test_a_guest_that_leaves_ends_the_upstream(here: World):
    left = asyncio.Event()

    async def respond(seen: Seen, reader, writer) -> None:
        await reader.read()
        left.set()

    here.upstream.respond = respond
    client: Client = await here.tls(await here.open(grant(here.service())))
    await client.send(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
    await asyncio.sleep(0.2)
    client.writer.transport.abort()
    async with asyncio.timeout(5):
        await left.wait()
    (record,) = await here.records(1, reason="the guest went away")
    assert record.status == 0
