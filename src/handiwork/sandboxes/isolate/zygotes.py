"""A zygote: one process that holds a warm engine, forks cells from it, ends and watches them.

It runs no guest code and knows no secret. `cell/PROTOCOL.md` has its messages, `cell/zygote.c` the
other side. What is told here comes from our own program, yet an answer that is none ends it.
"""

import asyncio
import contextlib
import enum
import importlib.util
import os
import platform
import socket
import struct
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import msgspec

from handiwork.model.code import Language
from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes import host
from handiwork.sandboxes.isolate import filters
from handiwork.sandboxes.trees import remove_tree

PROGRAM = Path(__file__).parents[2] / "isolate_cell"
PYTHON = (sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c")
"""Without site packages: a cell has the standard library, and no module of ours but its own."""
_PYTHON_MAIN = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import python_cell.main; "
    "python_cell.main.main(sys.argv[1:])"
)
HELLO_SECONDS = 20.0
FORK_SECONDS = 10.0
_REQUEST, _REPORT = struct.Struct("<IIQQ"), struct.Struct("<IIIIQ")
_CONTROL_BYTES = 1 << 20
_FORK, _WATCH, _UNWATCH, _END = b"FWUE"
_HELLO, _FORKED, _ENDED = b"Hfe"


class Cage(enum.IntFlag):
    """What holds for the cells of a zygote; the bits of `cell/cage.h`."""

    SECCOMP = 1
    NO_FILES = 2
    NO_NETWORK = 4
    OWN_USER = 8


class Cause(enum.Enum):
    """Why a cell ended: of itself, because we wanted it, or over a limit that is watched."""

    ITSELF = 0
    DEMAND = 1
    CPU = 2
    WALL = 3


class End(msgspec.Struct, frozen=True):
    """How a cell ended; `code` is 128+n after signal n."""

    cause: Cause
    code: int
    cpu_seconds: float


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the cells of a zygote are like. `memory_mib` is the engine's, `data_mib` the kernel's limit."""

    language: Language = "javascript"
    memory_mib: int = 128
    data_mib: int = 192


class Zygote:
    """Used as a context manager; every cell of it ends with it."""

    def __init__(
        self, shape: Shape, process: host.HostProcess, control: socket.socket, place: Path
    ) -> None:
        self.shape = shape
        self._process = process
        self._control = control
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._hello: asyncio.Future[int] = self._loop.create_future()
        self._forks: deque[tuple[asyncio.Future[int], Callable[[End], None]]] = deque()
        self._unsent: deque[tuple[bytes, socket.socket | None]] = deque()
        self._ends: dict[int, Callable[[End], None]] = {}
        self._emptied = asyncio.Event()
        self.forked = 0
        self._loop.add_reader(control, self._read)

    @classmethod
    async def start(cls, shape: Shape, *, user_id: int, program: Path = PROGRAM) -> Self:
        """Start one and return when its engine is warm; SandboxUnavailableError, UnsupportedError."""
        code = filters.program(shape.language, platform.machine())
        place = Path(tempfile.mkdtemp(prefix="handiwork-cells-"))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CONTROL_BYTES)
        ours.setblocking(False)
        argv = [*_program(shape.language, program), "zygote", "--root", str(place)]
        argv += ["--id", str(user_id), "--memory-mib", str(shape.memory_mib)]
        argv += ["--data-mib", str(shape.data_mib)]
        try:
            with theirs, _as_file(code) as given:
                process = host.launch(argv, theirs.fileno(), given)
        except BaseException:
            ours.close()
            place.rmdir()
            raise
        zygote = cls(shape, process, ours, place)
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                await zygote._hello
        except BaseException as error:
            await zygote.close()
            if isinstance(error, TimeoutError):
                raise SandboxUnavailableError("the zygote of cells was not ready in time") from None
            raise
        return zygote

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def holds(self) -> Cage:
        """What holds for its cells."""
        return Cage(self._hello.result())

    @property
    def alive(self) -> bool:
        """Whether it can fork."""
        return self._control.fileno() >= 0 and not self._process.exited.done()

    @property
    def cells(self) -> int:
        """How many of its cells live."""
        return len(self._ends)

    async def fork(self, ended: Callable[[End], None]) -> tuple[int, socket.socket]:
        """Return a new cell's number and our end of its socket; `ended` is called once, at its end."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        answer: asyncio.Future[int] = self._loop.create_future()
        try:
            self._send(_FORK, with_socket=theirs)
            self._forks.append((answer, ended))
            async with asyncio.timeout(FORK_SECONDS):
                number = await answer
        except BaseException as error:
            ours.close()  # one that is forked all the same reads the end of it, and ends
            if isinstance(error, TimeoutError):
                raise SandboxUnavailableError("the zygote did not fork a cell in time") from None
            raise
        self.forked += 1
        return number, ours

    def watch(self, cell: int, *, cpu_seconds: float, wall_seconds: float) -> None:
        """End this cell when it has used so much more than now."""
        self._send(_WATCH, cell, _nanoseconds(cpu_seconds), _nanoseconds(wall_seconds))

    def unwatch(self, cell: int) -> None:
        """Let it rest, as long as it likes; one that computes while it does is ended."""
        self._send(_UNWATCH, cell)

    def end(self, cell: int) -> None:
        """Kill it. No-op when it is gone."""
        if cell in self._ends and self.alive:
            self._send(_END, cell)

    async def emptied(self) -> None:
        """Wait until none of its cells lives."""
        while self._ends or self._forks:
            self._emptied.clear()
            await self._emptied.wait()

    async def close(self) -> None:
        """End it and all of its cells."""
        self._fail("it was ended")
        await self._process.stop()
        await asyncio.to_thread(remove_tree, self._place)

    def _send(
        self,
        kind: int,
        cell: int = 0,
        cpu: int = 0,
        wall: int = 0,
        *,
        with_socket: socket.socket | None = None,
    ) -> None:
        """Send a message, and close the socket that goes with it; what finds no room waits for some."""
        if self._control.fileno() < 0:
            if with_socket is not None:
                with_socket.close()
            raise SandboxUnavailableError("the zygote of cells is gone")
        self._unsent.append((_REQUEST.pack(kind, cell, cpu, wall), with_socket))
        if len(self._unsent) == 1:
            self._send_rest()

    def _send_rest(self) -> None:
        self._loop.remove_writer(self._control)
        while self._unsent:
            message, with_socket = self._unsent[0]
            try:
                if with_socket is None:
                    self._control.send(message)
                else:
                    socket.send_fds(self._control, [message], [with_socket.fileno()])
                    with_socket.close()
            except BlockingIOError:
                self._loop.add_writer(self._control, self._send_rest)
                return
            except OSError as error:
                self._fail(f"it does not listen: {error.strerror}")
                return
            self._unsent.popleft()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    message = self._control.recv(_REPORT.size + 1)
                except ConnectionError:
                    message = b""
                if len(message) != _REPORT.size:
                    self._fail(self._process.error_line() or "it ended")
                    return
                self._take(*_REPORT.unpack(message))

    def _take(self, kind: int, cell: int, cause: int, value: int, cpu_ns: int) -> None:
        if kind == _HELLO:
            self._hello.set_result(value)
        elif kind == _FORKED:
            self._answer_fork(cell, value)
        elif kind == _ENDED and cell in self._ends:
            self._ends.pop(cell)(End(Cause(cause), value, cpu_ns / 1e9))
            self._emptied.set()

    def _answer_fork(self, cell: int, error: int) -> None:
        answer, ended = self._forks.popleft()
        if answer.done():  # nobody waits any more, and its socket is closed
            self._emptied.set()
        elif error:
            answer.set_exception(
                SandboxUnavailableError(f"no cell could be forked: {os.strerror(error)}")
            )
        else:
            self._ends[cell] = ended
            answer.set_result(cell)

    def _fail(self, reason: str) -> None:
        """Let go of it, and tell whoever waits, and whose cells they were."""
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
            self._loop.remove_writer(self._control)
            self._control.close()
        while self._unsent:
            _, with_socket = self._unsent.popleft()
            if with_socket is not None:
                with_socket.close()
        error = SandboxUnavailableError(f"the zygote of cells is gone: {reason}")
        for waiting in (self._hello, *(answer for answer, _ in self._forks)):
            if not waiting.done():
                waiting.set_exception(error)
        self._forks.clear()
        ends, self._ends = self._ends, {}
        self._emptied.set()
        for ended in ends.values():
            ended(End(Cause.ITSELF, 137, 0.0))


def _nanoseconds(seconds: float) -> int:
    """Return them as a message has room for; more than two centuries are so many."""
    return min(round(seconds * 1e9), (1 << 63) - 1)


def _program(language: Language, program: Path) -> list[str]:
    """Return what starts a zygote: our program, or Python with our library."""
    if language == "javascript":
        return [str(program)]
    argv = [*PYTHON, _PYTHON_MAIN, str(Path(__file__).parent), f"{program}_python"]
    return [*argv, "--bash-packages", _packages("bashkit")] if language == "bash" else argv


def _packages(name: str) -> str:
    """Return the directory that a package of others is installed in; UnsupportedError."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise UnsupportedError(f"the package {name} is not installed: install Handiwork's packages")
    return str(Path(found.origin).parents[1])


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[int]:
    """Yield a descriptor to read these bytes from."""
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
        os.close(writer)
        yield reader
    finally:
        os.close(reader)
