"""The host's end of the exit bridge: each flow of a machine is a connection to its egress socket.

What comes is hostile: a frame that does not parse, a flow too many or a byte over a window ends the
machine. The proxy behind the socket reads the 24 bytes that every flow begins with; here they are data.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import cast

from handiwork.sandboxes.microvm import mux
from handiwork.sandboxes.microvm.mux import Kind, MuxError, MuxFrame

RETRY_SECONDS = 0.005
CONNECT_TRIES = 2000
"""How often a socket that is behind with accepting is asked again: 10 s."""

TO_GUEST_BYTES = 1 << 20
"""From here on nothing more is read for a machine that does not take what it is sent."""

MOST_TO_GUEST_BYTES = 4 << 20
"""So much waits for no honest machine: answers to what it opens and resets are all that is added then."""


class Flow:
    """One connection to the egress socket, by readiness: it needs no task of its own."""

    def __init__(self, exits: "Exits", number: int) -> None:
        self._exits = exits
        self._number = number
        self._loop = exits.loop
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._retry: asyncio.TimerHandle | None = None
        self._connected = False
        self._unsent = bytearray()
        self._room = mux.WINDOW_BYTES
        self._window = mux.WINDOW_BYTES
        self._guest_ended = self._told_end = self._shut = False
        self._reading = self._writing = False

    def connect(self, path: str, tries: int = CONNECT_TRIES) -> None:
        """Connect; a socket that is not there resets the flow."""
        try:
            self._socket.connect(path)
        except BlockingIOError:
            if tries > 0:
                self._retry = self._loop.call_later(RETRY_SECONDS, self.connect, path, tries - 1)
            else:
                self.fail()
            return
        except OSError:
            self.fail()
            return
        self._connected = True
        self.update()

    def take(self, data: bytes) -> None:
        """Take bytes of the guest; MuxError when it had no credit for them."""
        self._window -= len(data)
        if self._window < 0 or self._guest_ended:
            raise MuxError("more bytes than there was credit for, or bytes after the end")
        self._unsent += data
        self.update()

    def end(self) -> None:
        """Take the guest's end; MuxError at a second one."""
        if self._guest_ended:
            raise MuxError("a second end of a flow")
        self._guest_ended = True
        self.update()

    def credit(self, amount: int) -> None:
        """Read on; MuxError when that is more than the guest said it can hold."""
        self._room += amount
        if self._room > mux.WINDOW_BYTES:
            raise MuxError("more credit than a window")
        self.update()

    def fail(self) -> None:
        """Reset it at both ends."""
        self._exits.send(MuxFrame(self._number, Kind.RESET))
        self.close()

    def close(self) -> None:
        """Forget it. No-op when it is forgotten."""
        if self._retry is not None:
            self._retry.cancel()
        self._want(reading=False, writing=False)
        self._socket.close()
        self._exits.flows.pop(self._number, None)

    def update(self) -> None:
        """Read and write as far as there is room, once it is connected."""
        if not self._connected:
            return
        if self._guest_ended and not self._unsent and not self._shut:
            self._shut = True
            with contextlib.suppress(OSError):  # the other side may have closed it meanwhile
                self._socket.shutdown(socket.SHUT_WR)
        if self._shut and self._told_end:
            self.close()
            return
        reads = not self._told_end and self._room > 0 and not self._exits.full
        self._want(reading=reads, writing=bool(self._unsent))

    def _want(self, *, reading: bool, writing: bool) -> None:
        if reading and not self._reading:
            self._loop.add_reader(self._socket, self._readable)
        elif self._reading and not reading:
            self._loop.remove_reader(self._socket)
        if writing and not self._writing:
            self._loop.add_writer(self._socket, self._writable)
        elif self._writing and not writing:
            self._loop.remove_writer(self._socket)
        self._reading, self._writing = reading, writing

    def _readable(self) -> None:
        try:
            data = self._socket.recv(min(self._room, mux.PAYLOAD_BYTES))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.fail()
            return
        if data:
            self._room -= len(data)
            self._exits.send(MuxFrame(self._number, Kind.DATA, data))
        else:
            self._told_end = True
            self._exits.send(MuxFrame(self._number, Kind.END))
        self.update()

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.fail()
            return
        del self._unsent[:sent]
        self._window += sent
        self._exits.send(MuxFrame(self._number, Kind.CREDIT, credit=sent))
        self.update()


class Exits(asyncio.Protocol):
    """All flows of one machine. `path` "": every flow is reset. `on_broken` is told a broken rule."""

    def __init__(self, path: str, on_broken: Callable[[str], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.flows: dict[int, Flow] = {}
        self.full = False
        self._path = path
        self._on_broken = on_broken
        self._decoder = mux.Decoder()
        self._last = 0
        self._transport: asyncio.Transport | None = None
        self._hushing: asyncio.Future[None] | None = None

    async def hush(self, seconds: float) -> None:
        """End all flows and wait until nothing of any is under way; TimeoutError when it is not."""
        self._hushing = self.loop.create_future()
        self._forget_all()
        self.send(MuxFrame(0, Kind.HUSH))
        async with asyncio.timeout(seconds):
            await self._hushing

    def lead(self, path: str) -> None:
        """Lead what is opened from now on to this socket."""
        self._path = path

    def wake(self) -> None:
        """Let the guest open flows again, after a hush in this life or in an earlier one."""
        self._hushing = None
        self.send(MuxFrame(0, Kind.WAKE))

    def close(self) -> None:
        """End everything. No-op when it is ended."""
        self._forget_all()
        if self._transport is not None:
            self._transport.abort()

    def send(self, frame: MuxFrame) -> None:
        """Send a frame; nothing happens when the machine is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(mux.encode(frame))
            if self._transport.get_write_buffer_size() > MOST_TO_GUEST_BYTES:
                self.loop.call_soon(self._give_up)

    def _give_up(self) -> None:
        """End a machine that goes on asking and does not read the answers."""
        if self._transport is not None and not self._transport.is_closing():
            self.close()
            self._on_broken("the guest does not read what its exit answers")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=TO_GUEST_BYTES)

    def data_received(self, data: bytes) -> None:
        """Hand each frame to its flow; a broken rule ends the machine."""
        try:
            for frame in self._decoder.feed(data):
                self._take(frame)
        except MuxError as error:
            self.close()
            self._on_broken(f"the guest broke the protocol of its exit: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """End every flow."""
        self._forget_all()

    def pause_writing(self) -> None:
        """Stop reading for the guest."""
        self._set_full(True)

    def resume_writing(self) -> None:
        """Go on."""
        self._set_full(False)

    def _set_full(self, full: bool) -> None:
        self.full = full
        for flow in list(self.flows.values()):
            flow.update()

    def _take(self, frame: MuxFrame) -> None:
        if frame.kind is Kind.HUSH and self._hushing is not None:
            if not self._hushing.done():
                self._hushing.set_result(None)
        elif frame.kind in (Kind.HUSH, Kind.WAKE):
            raise MuxError("a hush that was not asked for")
        elif self._hushing is not None:
            return  # it was under way when all flows were ended
        elif frame.kind is Kind.OPEN:
            self._open(frame.flow)
        else:
            self._take_of_flow(frame)

    def _open(self, number: int) -> None:
        if number <= self._last or len(self.flows) >= mux.MAX_FLOWS:
            raise MuxError(f"flow {number} after {self._last}, beside {len(self.flows)} others")
        self._last = number
        flow = self.flows[number] = Flow(self, number)
        flow.connect(self._path)

    def _take_of_flow(self, frame: MuxFrame) -> None:
        flow = self.flows.get(frame.flow)
        if flow is None:
            if frame.flow > self._last:
                raise MuxError(f"a frame of flow {frame.flow}, which was never opened")
            return  # it was reset meanwhile
        if frame.kind is Kind.DATA:
            flow.take(frame.data)
        elif frame.kind is Kind.END:
            flow.end()
        elif frame.kind is Kind.CREDIT:
            flow.credit(frame.credit)
        else:
            flow.close()

    def _forget_all(self) -> None:
        for flow in list(self.flows.values()):
            flow.close()
