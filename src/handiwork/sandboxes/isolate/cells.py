"""A cell: one process with one engine, run after run. All it says is a guest's."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from handiwork.model.code import (
    CodeError,
    CodeRequest,
    CodeResult,
    Language,
    LimitKind,
    LogLine,
)
from handiwork.model.errors import (
    ConfigError,
    ConflictError,
    HandiworkError,
    NotFoundError,
    SandboxUnavailableError,
)
from handiwork.sandboxes.isolate import frames
from handiwork.sandboxes.isolate.budget import Budget, OverLimitError
from handiwork.sandboxes.isolate.zygotes import Cause, End, Zygote
from handiwork.sandboxes.protocol import OnLog, Serve, no_log

READ_BYTES = 1 << 18
EXIT_NO_MEMORY = 4
_FELL = (128 + signal.SIGABRT, 128 + signal.SIGSEGV)
"""How the interpreter of bash ends that is refused memory."""
WARM_UP: Mapping[Language, CodeRequest] = {
    "javascript": CodeRequest(code="null"),
    "python": CodeRequest(code="None", language="python"),
    "bash": CodeRequest(code=":", language="bash"),
}
"""Code that leaves nothing behind."""
NO_ENV: Mapping[str, str] = MappingProxyType({})


async def _played(name: str, argument: msgspec.Raw) -> Any:
    """Answer for a workspace that has nothing."""
    del argument
    if name != "workspace.tree":
        raise NotFoundError(f"{name}: there is nothing")
    return {"entries": (), "more": False}


class Cell:
    """One of a zygote's. `run` is for one task at a time; a run that hits a limit ends the cell."""

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote
        self._loop = asyncio.get_running_loop()
        self._number = -1
        self._socket: socket.socket | None = None
        self._over: asyncio.Future[End] = self._loop.create_future()
        self._running = False
        self._closed = False

    @classmethod
    async def fork(cls, zygote: Zygote) -> "Cell":
        """Return a new one, warm; SandboxUnavailableError."""
        cell = cls(zygote)
        cell._number, cell._socket = await zygote.fork(cell._ended)
        return cell

    def is_at_rest(self) -> bool:
        """Say whether it says nothing, as a cell does that nothing is asked of; else it is ended."""
        if self._socket is None or not self.alive:
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except ConnectionError:
            pass
        self.close()  # what waits would be taken for an answer to the next run
        return False

    async def warm_up(self) -> None:
        """Run what changes nothing, so that the first run finds in place what a run needs.

        SandboxUnavailableError when it fails.
        """
        done = await self.run(WARM_UP[self._zygote.shape.language], _played)
        if done.error is not None:
            raise SandboxUnavailableError(f"a new cell failed: {done.error.message}")

    @property
    def alive(self) -> bool:
        """Whether it can run something."""
        return not self._closed and not self._over.done()

    async def run(
        self,
        request: CodeRequest,
        serve: Serve,
        on_log: OnLog = no_log,
        *,
        env: Mapping[str, str] = NO_ENV,
    ) -> CodeResult:
        """Run code to its end. SandboxUnavailableError when the cell fails for no fault of its code."""
        if self._running:
            raise ConflictError("this isolate is running something already")
        if self._socket is None or not self.alive:
            raise SandboxUnavailableError("this cell has ended")
        self._running = True
        run = _Run(self._socket, request, env, serve, on_log)
        limits = request.limits
        try:
            run.begin()  # what has room is on its way before the zygote has to do something as well
            self._zygote.watch(
                self._number, cpu_seconds=limits.cpu_ms / 1000, wall_seconds=limits.wall_seconds
            )
            return await self._to_its_end(run)
        except BaseException:
            self.close()
            raise
        finally:
            self._running = False
            if self._closed:
                self._drop()

    async def _to_its_end(self, run: "_Run") -> CodeResult:
        try:
            done = await run.whole()
        except OverLimitError as over:
            self.close()
            return run.result(
                error=CodeError(name="LimitError", message=str(over), limit=over.kind)
            )
        except (frames.FrameError, EOFError, ConnectionError) as broken:
            self.close()
            return run.result(error=self._why(await self._over, run, broken))
        if not self._over.done():
            self._zygote.unwatch(self._number)
        if done.ok:
            return run.result(value_json=bytes(done.value))
        thrown = done.error or frames.Thrown("Error", "it failed and did not say why")
        return run.result(
            error=CodeError(name=thrown.name, message=thrown.message, stack=thrown.stack)
        )

    def close(self) -> None:
        """Kill it; a run that is under way ends as one that was cut. No-op when it is gone."""
        if self._closed:
            return
        self._closed = True
        if not self._over.done():
            self._zygote.end(self._number)
        if self._running and self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # whoever reads learns of it, and lets go
        else:
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def gone(self) -> End:
        """Wait until its process is no more."""
        return await asyncio.shield(self._over)

    def _ended(self, end: End) -> None:
        self._over.set_result(end)
        if not self._running:  # else whoever reads what it still said closes
            self.close()

    def _why(self, end: End, run: "_Run", broken: Exception) -> CodeError:
        limits = run.request.limits
        if end.cause is Cause.CPU:
            text = f"it used more than {limits.cpu_ms} ms of processor time: do less in one run"
            return CodeError(name="LimitError", message=text, limit=LimitKind.CPU)
        if end.cause is Cause.WALL:
            text = f"it took longer than {limits.wall_seconds:g} s: wait less, or in several runs"
            return CodeError(name="LimitError", message=text, limit=LimitKind.WALL)
        if end.code == EXIT_NO_MEMORY or (run.request.language == "bash" and end.code in _FELL):
            text = "it needed more memory than a cell has: keep less at once"
            return CodeError(name="LimitError", message=text, limit=LimitKind.MEMORY)
        if isinstance(broken, frames.FrameError):
            return CodeError(name="CellError", message=f"the cell said what it must not: {broken}")
        return CodeError(
            name="CellError",
            message=f"the cell ended in the midst of it ({end.code}); its globals are gone",
        )


class _Run:
    """One run: reads what the cell says, answers its calls side by side, collects its log."""

    def __init__(
        self,
        end: socket.socket,
        request: CodeRequest,
        env: Mapping[str, str],
        serve: Serve,
        on_log: OnLog,
    ) -> None:
        self.request = request
        self._env = env
        self._end = end
        self._serve = serve
        self._on_log = on_log
        self._loop = asyncio.get_running_loop()
        self._budget = Budget(request.limits)
        self._reader = frames.Reader()
        self._logs: list[LogLine] = []
        self._logs_cut = False
        self._group = asyncio.TaskGroup()
        self._calls: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()
        self._unsent = b""
        self._began = self._loop.time()

    def begin(self) -> None:
        """Send what there is room for of the frame that begins it; ConfigError when it cannot be sent."""
        try:
            self._unsent = frames.run(self.request.code, self.request.name, self._env)
        except frames.FrameError as error:
            raise ConfigError(f"this code cannot be run: {error}") from None
        with contextlib.suppress(
            BlockingIOError, ConnectionError
        ):  # who reads learns of the latter
            self._unsent = self._unsent[self._end.send(self._unsent) :]

    async def whole(self) -> frames.Done:
        """Return how the code ended; calls that it did not wait for are cancelled."""
        outcome: frames.Done | Exception
        async with asyncio.TaskGroup() as self._group:
            try:
                await self._write(self._unsent)
                outcome = await self._converse()
            except (OverLimitError, frames.FrameError, EOFError, ConnectionError) as error:
                outcome = error
            for task in self._calls:
                task.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _converse(self) -> frames.Done:
        while True:
            done = self._take(await self._read())
            if done is not None:
                return done

    def result(self, *, value_json: bytes = b"null", error: CodeError | None = None) -> CodeResult:
        """Return it with the log and the time."""
        return CodeResult(
            value_json=value_json,
            error=error,
            logs=tuple(self._logs),
            logs_cut=self._logs_cut,
            wall_seconds=self._loop.time() - self._began,
        )

    async def _read(self) -> bytes:
        try:
            data = self._end.recv(READ_BYTES)
        except BlockingIOError:
            data = await self._loop.sock_recv(self._end, READ_BYTES)
        if not data:
            raise EOFError
        return data

    async def _write(self, data: bytes) -> None:
        async with self._writing:
            await self._loop.sock_sendall(self._end, data)

    def _take(self, data: bytes) -> frames.Done | None:
        for said, size in self._reader.feed(data):
            self._budget.frame(self._loop.time())
            if isinstance(said, frames.Done):
                self._budget.output(size)
                return said
            self._budget.received(size)
            for level, text in said.logs:
                self._log(LogLine(level=level[:16], text=text))
            for call in said.calls:
                self._begin(call)
        return None

    def _log(self, line: LogLine) -> None:
        if self._budget.log(line.text):
            self._logs.append(line)
            self._on_log(line)
        else:
            self._logs_cut = True

    def _begin(self, call: frames.Call) -> None:
        self._budget.call(len(self._calls))
        task = self._group.create_task(self._answer(call))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _answer(self, call: frames.Call) -> None:
        try:
            value = await self._serve(call.name, call.argument)
            frame = frames.settled([frames.Answer(call.id, ok=True, value=value)])
        except (HandiworkError, frames.FrameError) as error:
            thrown = frames.Thrown(type(error).__name__, str(error))
            frame = frames.settled([frames.Answer(call.id, ok=False, error=thrown)])
        except RecursionError:
            deep = frames.Thrown("ToolFailedError", f"{call.name[:80]}: it is nested too deeply")
            frame = frames.settled([frames.Answer(call.id, ok=False, error=deep)])
        with contextlib.suppress(ConnectionError):  # it is gone: whoever reads learns why
            await self._write(frame)
