"""The control channel: whole messages in order, descriptors with the message they belong to."""

import asyncio
import os
import socket
import struct

import pytest

from handiwork.egress import control
from handiwork.egress.control import Channel, Done, Key, Ping


class End:
    """One end and what it received."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: list[bytes] = []
        self.descriptors: list[int] = []
        self.closed = 0
        self.channel = Channel(sock, self._took, self._ended)

    def _took(self, payload: bytes, descriptors: list[int]) -> None:
        self.messages.append(payload)
        self.descriptors += descriptors

    def _ended(self) -> None:
        self.closed += 1


@pytest.fixture
async def ends():
    pair = [End(sock) for sock in socket.socketpair()]
    yield pair
    for end in pair:
        end.channel.close()
        for number in end.descriptors:
            os.close(number)


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the loop itself is under test
            await asyncio.sleep(0.005)


async def test_messages_arrive_whole_and_in_order(ends):
    one, other = ends
    for number in range(1000):
        one.channel.send(Key(id=number, public_key=b"x" * 5000))
    await until(lambda: len(other.messages) == 1000)
    assert b'"id":999' in other.messages[-1]


async def test_a_descriptor_belongs_to_its_message(ends):
    one, other = ends
    owners = []
    other.channel._on_message = lambda payload, got: (
        owners.append((payload, len(got))),
        other.descriptors.extend(got),
    )
    reading, writing = os.pipe()
    for number in range(6):
        with_one = number % 3 == 2
        one.channel.send(Ping(id=number), (reading,) if with_one else ())
    await until(lambda: len(owners) == 6)
    assert [count for _, count in owners] == [0, 0, 1, 0, 0, 1]
    os.close(reading)
    os.close(writing)


async def test_a_descriptor_arrives_close_on_exec(ends):
    one, other = ends
    reading, writing = os.pipe()
    one.channel.send(Done(id=1), (reading,))
    await until(lambda: other.descriptors)
    assert not os.get_inheritable(other.descriptors[0])
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack("<IH", control.MAX_MESSAGE_BYTES + 1, 0),
        struct.pack("<IH", 2, 1) + b"{}",
        struct.pack("<IH", 2, 65535) + b"{}",
    ],
    ids=["too long", "descriptor that is not there", "many descriptors"],
)
async def test_what_cannot_be_read_ends_the_channel(raw: bytes):
    ours, theirs = socket.socketpair()
    with theirs:
        end = End(ours)
        theirs.sendall(raw)
        await until(lambda: end.closed)
        assert end.messages == []


async def test_a_message_that_is_refused_ends_the_channel(ends):
    one, other = ends

    def refuse(payload: bytes, descriptors: list[int]) -> None:
        raise ValueError("no")

    other.channel._on_message = refuse
    one.channel.send(Ping(id=1))
    await until(lambda: other.closed and one.closed)


async def test_the_end_is_told_once_on_both_sides(ends):
    one, other = ends
    one.channel.close()
    one.channel.close()
    await until(lambda: other.closed)
    one.channel.send(Ping(id=1))
    assert (one.closed, other.closed) == (1, 1)


async def test_an_unread_queue_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "MAX_QUEUED_MESSAGES", 10)
    ours, theirs = socket.socketpair()
    with theirs:
        end = End(ours)
        for number in range(100):
            end.channel.send(Key(id=number, public_key=b"x" * 100_000))
        assert end.closed == 1


async def test_a_message_over_the_limit_is_not_sent(ends, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "MAX_MESSAGE_BYTES", 100)
    with pytest.raises(ValueError, match="over the limit"):
        ends[0].channel.send(Key(id=1, public_key=b"x" * 200))
