"""The host's end of the exit bridge against guests that keep the rules, and guests that do not."""

import asyncio
import contextlib
import socket

import pytest

from handiwork.sandboxes.microvm import exits as module
from handiwork.sandboxes.microvm import mux
from handiwork.sandboxes.microvm.exits import Exits
from handiwork.sandboxes.microvm.mux import Kind, MuxFrame, encode


class Guest:
    """Speaks for the machine; the egress socket echoes, or does what a test has it do."""

    def __init__(self, directory):
        self.path = str(directory / "exit.sock")
        self.broken = []
        self.decoder = mux.Decoder()
        self.frames = []
        self.connections = []
        self.serving = 0

    async def __aenter__(self):
        self.server = await asyncio.start_unix_server(self._serve, self.path)
        ours, self.port = socket.socketpair()
        self.port.setblocking(False)
        ours.setblocking(False)
        self.exits = Exits(self.path, self.broken.append)
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self.exits, sock=ours)
        return self

    async def __aexit__(self, *_):
        self.exits.close()
        self.port.close()
        self.server.close()
        await asyncio.sleep(0.01)  # whatever waits to be accepted is, and gone already
        for writer in self.connections:
            writer.close()
        await eventually(lambda: not self.serving)

    async def _serve(self, reader, writer):
        self.connections.append(writer)
        self.serving += 1
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.serving -= 1

    async def send(self, *frames):
        await asyncio.get_running_loop().sock_sendall(self.port, b"".join(map(encode, frames)))

    async def until(self, wanted):
        """Read frames until one of a kind; returns all that came."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            while not any(frame.kind is wanted for frame in self.frames):
                data = await loop.sock_recv(self.port, 65536)
                if not data:
                    break
                self.frames += self.decoder.feed(data)
        found, self.frames = self.frames, []
        return found

    async def is_ended(self):
        await eventually(lambda: self.broken)
        return self.broken[0]


async def eventually(holds):
    for _ in range(20_000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


def data_of(frames):
    return b"".join(frame.data for frame in frames)


async def test_a_flow_is_carried_both_ways_and_ends(tmp_path):
    async with Guest(tmp_path) as guest:
        sent = [MuxFrame(1, Kind.DATA, b"HWX1..."), MuxFrame(1, Kind.END)]
        await guest.send(MuxFrame(1, Kind.OPEN), *sent)
        frames = await guest.until(Kind.END)
        assert data_of(frames) == b"HWX1..."
        assert sum(frame.credit for frame in frames) == 7
        assert guest.exits.flows == {}


async def test_no_more_is_sent_than_the_guest_can_hold(tmp_path):
    async with Guest(tmp_path) as guest:
        await guest.send(MuxFrame(1, Kind.OPEN))
        await eventually(lambda: guest.connections)
        guest.connections[0].write(b"x" * 200_000)
        got = b""
        while len(got) < mux.WINDOW_BYTES:
            got += data_of(await guest.until(Kind.DATA))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(guest.until(Kind.DATA), 0.2)
        await guest.send(MuxFrame(1, Kind.CREDIT, credit=1000))
        more = b""
        while len(more) < 1000:
            more += data_of(await guest.until(Kind.DATA))
        assert len(got) + len(more) == mux.WINDOW_BYTES + 1000


async def test_a_socket_that_is_not_there_resets(tmp_path):
    async with Guest(tmp_path) as guest:
        guest.exits._path = str(tmp_path / "none")
        await guest.send(MuxFrame(1, Kind.OPEN))
        assert await guest.until(Kind.RESET) == [MuxFrame(1, Kind.RESET)]
        await guest.send(MuxFrame(1, Kind.DATA, b"late"), MuxFrame(1, Kind.END))
        await guest.send(MuxFrame(2, Kind.OPEN))
        assert await guest.until(Kind.RESET) == [MuxFrame(2, Kind.RESET)]
        assert guest.broken == []


async def test_a_reset_of_the_guest_closes_the_connection(tmp_path):
    async with Guest(tmp_path) as guest:
        await guest.send(MuxFrame(1, Kind.OPEN), MuxFrame(1, Kind.DATA, b"x"))
        await guest.until(Kind.DATA)
        await guest.send(MuxFrame(1, Kind.RESET))
        await eventually(lambda: not guest.exits.flows)
        assert guest.broken == []


@pytest.mark.parametrize(
    "frames",
    [
        [MuxFrame(2, Kind.OPEN), MuxFrame(1, Kind.OPEN)],
        [MuxFrame(1, Kind.OPEN), MuxFrame(1, Kind.OPEN)],
        [MuxFrame(1, Kind.DATA, b"never opened")],
        [MuxFrame(1, Kind.OPEN), MuxFrame(1, Kind.CREDIT, credit=1)],
        [MuxFrame(1, Kind.OPEN), MuxFrame(1, Kind.END), MuxFrame(1, Kind.END)],
        [MuxFrame(1, Kind.OPEN), MuxFrame(1, Kind.END), MuxFrame(1, Kind.DATA, b"x")],
        [MuxFrame(0, Kind.HUSH)],
        [MuxFrame(number, Kind.OPEN) for number in range(1, 9)],
    ],
    ids=["back", "twice", "unopened", "credit", "ends", "after-end", "hush", "too-many"],
)
async def test_a_broken_rule_ends_the_machine(tmp_path, monkeypatch, frames):
    monkeypatch.setattr(mux, "MAX_FLOWS", 7)
    async with Guest(tmp_path) as guest:
        await guest.send(*frames)
        assert "broke the protocol" in await guest.is_ended()
        assert guest.exits.flows == {}


async def test_more_than_a_window_ends_the_machine(tmp_path):
    async with Guest(tmp_path) as guest:
        await guest.send(MuxFrame(1, Kind.OPEN))
        piece = MuxFrame(1, Kind.DATA, b"x" * 32_000)
        await eventually(lambda: guest.connections)
        guest.exits.flows[1].update = lambda: None  # the egress socket takes nothing more
        await guest.send(piece, piece, piece)
        assert "credit" in await guest.is_ended()


async def test_a_guest_that_asks_and_never_reads_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_TO_GUEST_BYTES", 1 << 16)
    async with Guest(tmp_path) as guest:
        guest.exits.lead(str(tmp_path / "nobody"))  # each flow is answered by a reset
        with contextlib.suppress(ConnectionError):
            for number in range(1, 200_000):
                await guest.send(MuxFrame(number, Kind.OPEN))
        await eventually(lambda: guest.broken)
        assert guest.broken == ["the guest does not read what its exit answers"]
        assert not guest.exits.flows


async def test_a_hush_ends_all_flows_and_a_wake_opens_the_way(tmp_path):
    async with Guest(tmp_path) as guest:
        await guest.send(MuxFrame(1, Kind.OPEN), MuxFrame(1, Kind.DATA, b"x"))
        await guest.until(Kind.DATA)
        async with asyncio.TaskGroup() as group:
            hush = group.create_task(guest.exits.hush(10))
            await guest.until(Kind.HUSH)
            assert guest.exits.flows == {}
            # What was under way is passed over, however wrong it would be later.
            await guest.send(MuxFrame(7, Kind.DATA, b"late"), MuxFrame(0, Kind.HUSH))
            await hush
        guest.exits.wake()
        await guest.until(Kind.WAKE)
        await guest.send(MuxFrame(2, Kind.OPEN), MuxFrame(2, Kind.DATA, b"y"))
        assert data_of(await guest.until(Kind.DATA)) == b"y"
        assert guest.broken == []


async def test_a_hush_that_is_not_answered_ends_by_itself(tmp_path):
    async with Guest(tmp_path) as guest:
        with pytest.raises(TimeoutError):
            await guest.exits.hush(0.05)
