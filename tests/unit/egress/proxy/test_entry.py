"""The first bytes: any 24 either parse or are refused, and nothing beyond them is read."""

import asyncio
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_world import preamble
from handiwork.egress.proxy.entry import (
    BadPreambleError,
    Preamble,
    first_byte,
    parse_preamble,
    read_preamble,
)


@given(
    kind=st.sampled_from([1, 2]),
    address=st.ip_addresses(),
    port=st.integers(0, 65535),
)
def test_what_the_agent_writes_is_understood(kind: int, address, port: int):
    found = parse_preamble(preamble(kind, str(address), port))
    assert found == Preamble("tcp" if kind == 1 else "dns", str(address), port)


@given(st.binary(min_size=24, max_size=24))
def test_any_bytes_parse_or_are_refused(data: bytes):
    try:
        found = parse_preamble(data)
    except BadPreambleError:
        return
    ipaddress.ip_address(found.address)
    assert data.startswith(b"HWX1")


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def test_nothing_beyond_the_preamble_is_read(pair):
    ours, theirs = pair
    theirs.sendall(preamble(1, "1.2.3.4", 443) + b"\x16rest")
    assert await read_preamble(ours, 1) == Preamble("tcp", "1.2.3.4", 443)
    assert await first_byte(ours, 1) == 0x16
    assert ours.recv(10) == b"\x16rest"


async def test_a_request_in_clear_gives_its_first_bytes(pair):
    ours, theirs = pair
    theirs.sendall(b"GET https://a/ HTTP/1.1\r\n\r\n")
    told = await read_preamble(ours, 1)
    assert isinstance(told, bytes)
    assert b"GET https://a/ HTTP/1.1".startswith(told[:23])


async def test_a_preamble_in_pieces_is_put_together(pair):
    ours, theirs = pair
    raw = preamble(2, "fd00::1", 53)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read_preamble(ours, 5))
        for byte in raw:
            theirs.send(bytes([byte]))
            await asyncio.sleep(0)
    assert reading.result() == Preamble("dns", "fd00::1", 53)


async def test_an_early_end_and_silence_are_told_apart(pair):
    ours, theirs = pair
    with pytest.raises(TimeoutError):
        await read_preamble(ours, 0.02)
    assert await first_byte(ours, 0.02) is None
    theirs.send(b"HWX")
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        await read_preamble(ours, 1)
    assert await first_byte(ours, 1) is None
