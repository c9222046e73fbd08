"""A sandbox over a channel to its guest agent: commands and their streams.

The same for every tier that runs the agent; a tier gives the channel and the sandbox's environment.
"""

import asyncio
import errno
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import cast

from handiwork.model.code import CodeRequest, CodeResult, Language
from handiwork.model.errors import GuestError, UnsupportedError
from handiwork.model.sandbox import ExecRequest, ExecResult, ProcessTable, TerminalSize
from handiwork.sandboxes import frames
from handiwork.sandboxes.channel import Channel, finish, guest_error
from handiwork.sandboxes.commands import exec_frame, terminal_frame
from handiwork.sandboxes.frames import Frame
from handiwork.sandboxes.guest_connection import GuestConnection
from handiwork.sandboxes.guest_files import GuestFiles
from handiwork.sandboxes.guest_kills import GuestKills
from handiwork.sandboxes.guest_processes import survey
from handiwork.sandboxes.protocol import OnLog, Serve, Stream, no_log, no_tools

GRACE_SECONDS = 15.0
"""What the agent has beyond a command's own timeout, before its sandbox is taken for broken."""

FREEZE_SECONDS = 30.0
"""How long the agent may take to stop everybody, or to let them go."""

MAX_CONNECTIONS = 64
"""Of one sandbox at once: the rest of its channel's requests are for commands and files."""

LAST_PORT = 65_535

EXEC_FRAMES = (frames.Started, frames.Stdout, frames.Stderr, frames.Grant)
KILL = frames.Signal(9)


def _host_seconds(request: ExecRequest) -> float:
    return 0 if request.timeout_seconds is None else request.timeout_seconds + GRACE_SECONDS


def _result(ended: Frame, stdout: bytes = b"", stderr: bytes = b"") -> ExecResult:
    found = cast("frames.Exit", ended)
    return ExecResult(
        exit_code=found.code,
        stdout=stdout,
        stderr=stderr,
        timed_out=bool(found.flags & frames.EXIT_TIMED_OUT),
        truncated=bool(found.flags & (frames.EXIT_STDOUT_CUT | frames.EXIT_STDERR_CUT)),
        out_of_memory=bool(found.flags & frames.EXIT_OUT_OF_MEMORY),
    )


class _Allowance:
    """What a command may still send of each stream; 0 stands for no limit."""

    def __init__(self, limit: int) -> None:
        self._left = {frames.Stdout: limit, frames.Stderr: limit} if limit else {}

    def take(self, frame: frames.Stdout | frames.Stderr) -> None:
        """Count a chunk; FrameError past the limit, which the agent should have kept."""
        if not self._left:
            return
        self._left[type(frame)] -= len(frame.data)
        if self._left[type(frame)] < 0:
            raise frames.FrameError("the guest sent more output than it was allowed")


class GuestProcess:
    """A running command. One reader and one writer at a time."""

    def __init__(self, channel: Channel, frame: frames.Exec | frames.Terminal) -> None:
        self._channel = channel
        self._frame = frame
        self._allowance = _Allowance(frame.output_limit)
        self._chunks: deque[tuple[Stream, bytes]] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._running = False
        self._pid = 0
        self._input_open = bool(frame.flags & frames.EXEC_STDIN)

    @property
    def pid(self) -> int:
        """Its process id inside; 0 before it runs."""
        return self._pid

    @property
    def has_ended(self) -> bool:
        """Whether its request is over, and so not among the calls any more."""
        return self._request.done.done()

    async def open(self, seconds: float) -> None:
        """Start it; returns when it runs, or raises GuestError when it cannot."""
        self._request = await self._channel.open(
            self._frame, frames.Exit, EXEC_FRAMES, sink=self._take, seconds=seconds
        )
        self._request.on_room = self._room.set
        self._request.done.add_done_callback(self._ended)
        try:
            while not self._running and not self._request.done.done():
                await self._next_change()
        except asyncio.CancelledError:
            self._request.abandon(KILL)
            raise
        if not self._running:
            await finish(self._request, KILL)

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Yield chunks until both streams end; each gives the command room for as many bytes."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._request.consumed(len(chunk[1]))
                yield chunk
            if self._request.done.done():
                self._request.done.result()
                return
            await self._next_change()

    async def write(self, data: bytes) -> None:
        """Send standard input, as far as the command reads; GuestError when it cannot read more."""
        self._check_input()
        self._request.outbox = memoryview(data)
        self._channel.send(self._request.outgoing())
        while self._request.outbox:
            self._room.clear()
            self._check_input()
            await self._room.wait()

    async def close_stdin(self) -> None:
        """End standard input. No-op when it is ended."""
        if self._input_open and not self._request.done.done():
            self._request.outbox_ends = True
            self._channel.send(self._request.outgoing())
        self._input_open = False

    async def signal(self, number: int) -> None:
        """Signal the whole process tree. No-op when it ended."""
        if not self._request.done.done():
            self._channel.send(frames.encode(self._request.id, frames.Signal(number)))

    async def resize(self, size: TerminalSize) -> None:
        """Give its terminal another size. No-op when it ended, or has none."""
        if not self._request.done.done():
            resize = frames.Resize(size.columns, size.rows)
            self._channel.send(frames.encode(self._request.id, resize))

    async def wait(self) -> ExecResult:
        """Return how it ended. Cancelling only stops waiting."""
        ended = await asyncio.shield(self._request.done)
        if isinstance(ended, frames.Failed):
            raise guest_error(ended)
        return _result(ended)

    def close(self) -> None:
        """Let go: its tree is killed, what it had still to say is dropped. No-op when it ended."""
        self._chunks.clear()
        self._request.abandon(KILL)

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, frames.Started):
            self._running, self._pid = True, frame.pid
        elif isinstance(frame, frames.Stdout | frames.Stderr):
            self._allowance.take(frame)
            stream: Stream = "stdout" if isinstance(frame, frames.Stdout) else "stderr"
            self._chunks.append((stream, frame.data))
        self._changed.set()

    def _ended(self, _: "asyncio.Future[Frame]") -> None:
        self._changed.set()
        self._room.set()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _check_input(self) -> None:
        if not self._input_open or self._request.done.done():
            raise GuestError("the command reads no input any more", errno=errno.EPIPE)


@asynccontextmanager
async def still(channel: Channel) -> AsyncIterator[None]:
    """Have the agent hold all others still; GuestError when one did not stand, then or meanwhile."""
    frozen = asyncio.Event()
    request = await channel.open(
        frames.Freeze(),
        frames.Ok,
        (frames.Frozen,),
        sink=lambda _: frozen.set(),
        seconds=FREEZE_SECONDS,
        held=True,
    )
    request.done.add_done_callback(lambda _: frozen.set())
    try:
        await frozen.wait()
        if request.done.done():
            await finish(request, frames.Cancel())
        channel.deadlines.clear(request.id)
        yield
    except BaseException:
        request.abandon(frames.Cancel())
        raise
    channel.send(frames.encode(request.id, frames.Cancel()))
    channel.expect_end(request, FREEZE_SECONDS)
    await finish(request, frames.Cancel())


class GuestSandbox:
    """One running sandbox behind a channel."""

    def __init__(self, sandbox_id: str, channel: Channel, env: Mapping[str, str]) -> None:
        self._id = sandbox_id
        self._channel = channel
        self._env = env
        self._files = GuestFiles(channel)
        self._freezing = asyncio.Lock()
        self._rests = False
        self._copies = 0
        self._uncopied = asyncio.Event()
        self._connections = 0

    @property
    def id(self) -> str:
        """The id its spec gave."""
        return self._id

    @property
    def files(self) -> GuestFiles:
        """Its files."""
        return self._files

    @property
    def calls(self) -> int:
        """How many are under way."""
        return len(self._channel.requests)

    def check(self, request: ExecRequest) -> None:
        """Refuse what this tier lacks: UnsupportedError. Nothing is refused here."""

    async def exec(self, request: ExecRequest) -> ExecResult:
        """Run a command to its end. Cancelling kills its process tree."""
        if request.output_limit_bytes < 1:
            raise GuestError("output that is collected needs a limit", errno=errno.EINVAL)
        self.check(request)
        frame = exec_frame(request, self._env, stdin=request.stdin is not None)
        allowance = _Allowance(frame.output_limit)
        stdout: list[bytes] = []
        stderr: list[bytes] = []

        def take(chunk: Frame) -> None:
            if isinstance(chunk, frames.Stdout | frames.Stderr):
                allowance.take(chunk)
                (stdout if isinstance(chunk, frames.Stdout) else stderr).append(chunk.data)
                running.consumed(len(chunk.data))

        running = await self._channel.open(
            frame,
            frames.Exit,
            EXEC_FRAMES,
            sink=take,
            seconds=_host_seconds(request),
            outbox=request.stdin,
        )
        ended = await finish(running, KILL)
        return _result(ended, b"".join(stdout), b"".join(stderr))

    @property
    def languages(self) -> tuple[Language, ...]:
        """None: it runs commands."""
        return ()

    async def run_code(
        self, request: CodeRequest, tools: Serve = no_tools, on_log: OnLog = no_log
    ) -> CodeResult:
        """Refuse: UnsupportedError."""
        raise UnsupportedError(
            "this tier runs commands, not code: run an interpreter of its image as one, or use a"
            " sandbox of the isolate tier"
        )

    async def start(self, request: ExecRequest, *, stdin: bool = False) -> GuestProcess:
        """Start a command and return when it runs; `request.stdin` must be None."""
        if request.stdin is not None:
            raise GuestError("a started command takes its input by write()", errno=errno.EINVAL)
        self.check(request)
        process = GuestProcess(self._channel, exec_frame(request, self._env, stdin=stdin))
        await process.open(_host_seconds(request))
        return process

    async def terminal(self, request: ExecRequest, size: TerminalSize) -> GuestProcess:
        """Start a command on a terminal; `request.stdin` must be None."""
        if request.stdin is not None:
            raise GuestError("a terminal takes its input by write()", errno=errno.EINVAL)
        self.check(request)
        process = GuestProcess(self._channel, terminal_frame(request, size, self._env))
        try:
            await process.open(_host_seconds(request))
        except GuestError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            raise UnsupportedError(
                "no terminal controls its processes in this sandbox's kernel: use a newer runsc, or"
                " run commands without a terminal"
            ) from error
        return process

    async def connect(self, port: int) -> GuestConnection:
        """Connect to loopback inside; GuestError when nobody listens there, or 64 are open."""
        if not 1 <= port <= LAST_PORT:
            raise GuestError(f"no port {port}: use 1 to {LAST_PORT}", errno=errno.EINVAL)
        if self._connections >= MAX_CONNECTIONS:
            raise GuestError(
                f"{MAX_CONNECTIONS} connections into the sandbox are open; close one first",
                errno=errno.EAGAIN,
            )
        self._connections += 1
        connection = GuestConnection(self._channel, self._disconnected)
        await connection.open(port, 0)
        return connection

    async def ps(self, *, limit: int = 4096) -> ProcessTable:
        """Tell what runs inside, at most so many processes, and where it listens."""
        return await survey(self._channel, limit)

    async def memory_kills(self) -> GuestKills:
        """Return what tells whether the memory limit kills a process of the sandbox from now on."""
        kills = GuestKills(self._channel)
        await kills.open()
        return kills

    def _disconnected(self) -> None:
        self._connections -= 1

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Hold every guest process still; calls of the sandbox wait until it is over."""
        if self._rests:
            with self._copied():
                yield
            return
        async with self._freezing:
            self._channel.hold()
            try:
                async with self._still():
                    yield
            finally:
                self._channel.release()

    @asynccontextmanager
    async def resting(self) -> AsyncIterator[None]:
        """Hold every guest process still for long; copies are taken meanwhile, and end before it does."""
        kernel = self._kernel_freezer()
        if kernel is None:
            raise UnsupportedError("no control group of this sandbox can be frozen")
        async with self._freezing:
            self._channel.hold()
            try:
                async with kernel:
                    self._rests = True
                    try:
                        yield
                    finally:
                        self._rests = False
                        while self._copies:
                            self._uncopied.clear()
                            await self._uncopied.wait()
            finally:
                self._channel.release()

    @contextmanager
    def _copied(self) -> Iterator[None]:
        """Count a copy of what rests."""
        self._copies += 1
        try:
            yield
        finally:
            self._copies -= 1
            self._uncopied.set()

    def _still(self) -> AbstractAsyncContextManager[None]:
        """Return what holds the processes still: the kernel, where it can, else the agent."""
        return self._kernel_freezer() or still(self._channel)

    def _kernel_freezer(self) -> AbstractAsyncContextManager[None] | None:
        """Return what freezes the sandbox from without; None where nothing can."""
        return None

    async def closed(self) -> str:
        """Wait until the sandbox is gone and say why (empty: it was closed by us)."""
        return await self._channel.closed()
