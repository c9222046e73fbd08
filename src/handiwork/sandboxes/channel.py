"""The host's end of a channel: requests by id, credit both ways, one reason when it is gone.

Everything that comes over it is hostile: a frame that does not parse, that answers no request or
the wrong one, or that exceeds what it was allowed ends the channel.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from handiwork.model.errors import GuestError, SandboxUnavailableError
from handiwork.sandboxes import frames
from handiwork.sandboxes.deadlines import Deadlines
from handiwork.sandboxes.frames import WINDOW_BYTES, Frame, FrameError

ABANDONED_SECONDS = 30.0
"""How long the agent may take to close a request that was given up."""

Sink = Callable[[Frame], None]


def _drop(frame: Frame) -> None:
    """Take a frame that nobody waits for any more."""


class Request:
    """One open request. `done` gives its closing frame; `sink` gets every frame before it."""

    __slots__ = (
        "_channel",
        "_owed",
        "_room",
        "_window",
        "accepts",
        "closes",
        "done",
        "id",
        "on_room",
        "outbox",
        "outbox_ends",
        "sink",
    )

    def __init__(
        self,
        channel: "Channel",
        request_id: int,
        accepts: tuple[type[Frame], ...],
        closes: type[Frame],
        sink: Sink,
    ) -> None:
        self.id = request_id
        self.accepts = accepts
        self.closes = closes
        self.sink = sink
        self.done: asyncio.Future[Frame] = channel.loop.create_future()
        self.outbox = memoryview(b"")
        self.outbox_ends = False
        self.on_room: Callable[[], None] | None = None
        self._channel = channel
        self._window = WINDOW_BYTES
        self._owed = 0
        self._room = WINDOW_BYTES

    def receive(self, frame: Frame) -> bool:
        """Take a frame of this request and say whether it closed it; FrameError when it may not be."""
        kind = type(frame)
        if kind is self.closes or kind is frames.Failed:
            return True
        if kind not in self.accepts:
            raise FrameError(f"a {kind.__name__} frame answers no question of ours")
        if isinstance(frame, frames.Grant):
            self._room += frame.amount
            self._channel.send(self.outgoing())
            return False
        size = frames.streamed(frame)
        if size is not None:
            self._window -= size
            if not size:  # costs no credit, so that there could be any number
                raise FrameError("an empty piece of a stream")
            if self._window < 0:
                raise FrameError("the guest sent more than its credit")
        self.sink(frame)
        return False

    def consumed(self, size: int) -> None:
        """Give the agent credit for bytes that were taken, in few large pieces."""
        self._owed += size
        if self._owed >= WINDOW_BYTES // 2 and self.id in self._channel.requests:
            self._channel.send(frames.encode(self.id, frames.Credit(self._owed)))
            self._window += self._owed
            self._owed = 0

    def outgoing(self) -> bytes:
        """Return the next frames of the outbox, as far as the agent's credit goes."""
        kind = frames.Stdin if self.closes is frames.Exit else frames.Data
        parts = []
        while self.outbox and self._room > 0:
            size = min(len(self.outbox), self._room, frames.PAYLOAD_BYTES)
            parts.append(frames.encode(self.id, kind(bytes(self.outbox[:size]))))
            self.outbox = self.outbox[size:]
            self._room -= size
        if not self.outbox:
            if self.outbox_ends:
                parts.append(frames.encode(self.id, kind(b"")))
                self.outbox_ends = False
            if self.on_room:
                self.on_room()
        return b"".join(parts)

    def abandon(self, farewell: Frame) -> None:
        """Stop waiting: tell the agent to end it; the id stays taken until its closing frame."""
        if self.id not in self._channel.requests:
            return
        self.outbox, self.outbox_ends = memoryview(b""), False
        self.sink = self._discard
        self._channel.send(frames.encode(self.id, farewell))
        self._channel.expect_end(self, ABANDONED_SECONDS)
        self.consumed(WINDOW_BYTES - self._window - self._owed)

    def _discard(self, frame: Frame) -> None:
        self.consumed(frames.streamed(frame) or 0)


class Channel(asyncio.Protocol):
    """One channel over one stream socket. `on_lost` is told the reason once, from the loop."""

    def __init__(
        self, on_lost: Callable[[str], None] = lambda _: None, *, greeted: bool = False
    ) -> None:
        """`greeted`: the agent said hello to an earlier channel, and lives on behind this one."""
        self.loop = asyncio.get_running_loop()
        self.requests: dict[int, Request] = {}
        self.reason: str | None = None
        self.cause: Callable[[], str] = str
        """Asked why the agent is gone; "" when nobody knows."""
        self._on_lost = on_lost
        self._idle = asyncio.Event()
        self._decoder = frames.Decoder(frames.TO_HOST)
        self._transport: asyncio.Transport | None = None
        self._next_id = 1
        self._slots = asyncio.Semaphore(frames.MAX_REQUESTS)
        self._hello: asyncio.Future[None] = self.loop.create_future()
        if greeted:
            self._hello.set_result(None)
        self._gone: asyncio.Future[str] = self.loop.create_future()
        self.deadlines = Deadlines(self.loop, self._late)
        self._open_for_all = asyncio.Event()
        self._open_for_all.set()

    async def hello(self, seconds: float) -> None:
        """Wait until the agent serves; SandboxUnavailableError when it does not in time."""
        timer = self.loop.call_later(seconds, self.end, f"the agent said nothing for {seconds:g} s")
        try:
            await self._hello
        finally:
            timer.cancel()

    async def closed(self) -> str:
        """Wait until the channel is gone and say why; empty when `end` was called without reason."""
        return await asyncio.shield(self._gone)

    async def open(
        self,
        frame: Frame,
        closes: type[Frame],
        accepts: tuple[type[Frame], ...] = (),
        *,
        sink: Sink = _drop,
        seconds: float = 0,
        outbox: bytes | None = None,
        held: bool = False,
    ) -> Request:
        """Send a request; `outbox`, if any, follows as its stream, with its end.

        After `seconds` (0: never) without a closing frame the channel is ended. At most 256
        requests are open; one more waits. While the channel is held all wait but those that say so.
        """
        await self._slots.acquire()
        try:
            if not held:
                await self.unheld()
            request = Request(self, self._new_id(), accepts, closes, sink)
            message = _encoded(request.id, frame)
            if outbox is not None:
                request.outbox, request.outbox_ends = memoryview(outbox), True
                message += request.outgoing()
            self._refuse_when_gone()
        except BaseException:
            self._slots.release()
            raise
        self.requests[request.id] = request
        self.send(message)
        if seconds:
            self.expect_end(request, seconds)
        return request

    async def drain(self, seconds: float) -> None:
        """Give up every open request and wait until nothing is under way in either direction.

        TimeoutError when that takes longer; then the channel is as good as gone.
        """
        async with asyncio.timeout(seconds):
            for request in list(self.requests.values()):
                command = request.closes is frames.Exit
                request.abandon(frames.Signal(9) if command else frames.Cancel())
                _fail(request.done, self._error())
            if self.requests:
                self._idle.clear()
                await self._idle.wait()
            await (await self.open(frames.Ping(), frames.Ok)).done

    def send(self, data: bytes) -> None:
        """Send encoded frames; nothing happens when the channel is gone."""
        if data and self._transport is not None and self.reason is None:
            self._transport.write(data)

    def expect_end(self, request: Request, seconds: float) -> None:
        """End the channel unless the request is closed in time."""
        self.deadlines.set(request.id, seconds)

    def hold(self) -> None:
        """Let new requests wait until `release`."""
        self._open_for_all.clear()

    def release(self) -> None:
        """Let requests through again."""
        self._open_for_all.set()

    async def unheld(self) -> None:
        """Wait while new requests do."""
        await self._open_for_all.wait()

    def end(self, reason: str = "") -> None:
        """End the channel; every waiter learns the reason. No-op when it is gone."""
        if self.reason is not None:
            return
        self.reason = reason
        if self._transport is not None:
            self._transport.abort()
        self.deadlines.clear_all()
        self.release()
        for request in list(self.requests.values()):
            _fail(request.done, self._error())
            self._slots.release()
        self.requests.clear()
        _fail(self._hello, self._error())
        self._gone.set_result(reason)
        self._on_lost(reason)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand each frame to its request; anything unexpected ends the channel."""
        try:
            for request_id, frame in self._decoder.feed(data):
                if self.reason is not None:
                    return
                self._take(request_id, frame)
        except FrameError as error:
            self.end(f"the guest broke the protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """End with what is known."""
        broke = "the agent is gone" if exc is None else f"the channel broke: {exc}"
        self.end(self.cause() or broke)

    def _take(self, request_id: int, frame: Frame) -> None:
        if not self._hello.done() or request_id == 0:
            self._take_hello(request_id, frame)
            return
        request = self.requests.get(request_id)
        if request is None:
            raise FrameError(f"a {type(frame).__name__} frame for no open request")
        if request.receive(frame):
            del self.requests[request_id]
            self.deadlines.clear(request_id)
            self._slots.release()
            if not self.requests:
                self._idle.set()
            if not request.done.done():
                request.done.set_result(frame)

    def _take_hello(self, request_id: int, frame: Frame) -> None:
        if request_id or self._hello.done() or not isinstance(frame, frames.Hello):
            raise FrameError("the first frame, and it alone, must be HELLO")
        if frame.version != frames.VERSION:
            raise FrameError(f"version {frame.version} is not {frames.VERSION}")
        self._hello.set_result(None)

    def _new_id(self) -> int:
        while True:
            request_id = self._next_id
            self._next_id = request_id % 0xFFFFFFFF + 1
            if request_id not in self.requests:
                return request_id

    def _late(self, seconds: float) -> None:
        self.end(f"the agent did not end a request within {seconds:g} s")

    def _refuse_when_gone(self) -> None:
        if self.reason is not None:
            raise self._error()

    def _error(self) -> SandboxUnavailableError:
        return SandboxUnavailableError(f"the sandbox is gone: {self.reason or 'it was closed'}")


async def finish(request: Request, farewell: Frame) -> Frame:
    """Wait for the closing frame; a failure is GuestError, cancelling sends `farewell`."""
    try:
        frame = await request.done
    except asyncio.CancelledError:
        request.abandon(farewell)
        raise
    if isinstance(frame, frames.Failed):
        raise guest_error(frame)
    return frame


def guest_error(frame: frames.Failed) -> GuestError:
    """Return the error that a FAILED frame tells; its text is the guest's, cut and made printable."""
    what = frame.what[:200].decode("utf-8", "replace")
    text = "".join(c if c.isprintable() else "?" for c in what)
    return GuestError(f"{text or 'the guest'} failed (error {frame.errno})", errno=frame.errno)


def _encoded(request_id: int, frame: Frame) -> bytes:
    try:
        return frames.encode(request_id, frame)
    except FrameError as error:
        raise GuestError(f"too large for the sandbox: {error}", errno=7) from error


def _fail(future: "asyncio.Future[Frame] | asyncio.Future[None]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # a waiter may never come
