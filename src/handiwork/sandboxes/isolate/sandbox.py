"""One running isolate: its files, and code that runs in cells; nothing else of what sandboxes do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn

import msgspec

from handiwork.model.code import LANGUAGES, CodeRequest, CodeResult, Language
from handiwork.model.errors import (
    ConflictError,
    SandboxUnavailableError,
    ToolFailedError,
    UnsupportedError,
)
from handiwork.model.sandbox import (
    ExecRequest,
    ExecResult,
    ProcessTable,
    SandboxSpec,
    TerminalSize,
)
from handiwork.sandboxes.isolate.cells import Cell
from handiwork.sandboxes.isolate.fetcher import Fetcher
from handiwork.sandboxes.isolate.files import WorkspaceFiles
from handiwork.sandboxes.isolate.workspace import Workspace
from handiwork.sandboxes.isolate.workspace_calls import WorkspaceCalls
from handiwork.sandboxes.protocol import (
    Connection,
    Kills,
    OnLog,
    Process,
    Serve,
    Terminal,
    no_log,
    no_tools,
)

TakeCell = Callable[[Language], Awaitable[Cell]]


class IsolateSandbox:
    """What its driver hands out; `take` gives a cell that ran nothing.

    Its workspace is opened by the first who wants a file: opening takes longer than a cell does.
    """

    def __init__(
        self,
        spec: SandboxSpec,
        open_workspace: Callable[[], Workspace],
        take: TakeCell,
        *,
        runs_at_once: int,
    ) -> None:
        self._id = spec.id
        self._env = spec.env
        self._way_out = "" if spec.exit is None else spec.exit.socket_path
        self._open_workspace = open_workspace
        self._workspace: Workspace | None = None
        self._take = take
        self._runs_at_once = runs_at_once
        self._files = WorkspaceFiles(self.workspace)
        self._workspace_calls = WorkspaceCalls(self._files)
        self._cells: dict[tuple[Language, str], Cell] = {}  # those used last come last
        self._runs: set[Cell] = set()
        self._asked = 0
        self._closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._still = asyncio.Lock()

    @property
    def id(self) -> str:
        """The id its spec gave."""
        return self._id

    @property
    def files(self) -> WorkspaceFiles:
        """Its files."""
        return self._files

    @property
    def calls(self) -> int:
        """How many runs are under way."""
        return len(self._runs)

    @property
    def languages(self) -> tuple[Language, ...]:
        """All of them."""
        return LANGUAGES

    def workspace(self) -> Workspace:
        """Return its workspace, open; SandboxUnavailableError when the sandbox is closed."""
        if self._workspace is None:
            if self._closed.done():
                raise SandboxUnavailableError("this sandbox is closed")
            self._workspace = self._open_workspace()
        return self._workspace

    async def run_code(
        self, request: CodeRequest, tools: Serve = no_tools, on_log: OnLog = no_log
    ) -> CodeResult:
        """Run code in this sandbox's cell, whose globals stay; `tools` answers `codemode.*`.

        A second run at once, or a fresh one, is in a cell of its own, which ends with it. ConflictError
        for one more than the sandbox's memory has room for: what waited might wait for what it runs in.
        """
        if self._asked >= self._runs_at_once:
            raise ConflictError(
                f"this sandbox runs {self._asked} pieces of code, as many as its memory has room for:"
                " run fewer at once, or give it more limits.memory_mib"
            )
        self._asked += 1
        try:
            return await self._run(request, tools, on_log)
        finally:
            self._asked -= 1

    async def _run(self, request: CodeRequest, tools: Serve, on_log: OnLog) -> CodeResult:
        cell = await (self._new(request.language) if request.fresh else self._kept(request))
        fetcher = Fetcher(self._way_out)
        serve = _Service(self._workspace_calls, fetcher, tools)
        self._runs.add(cell)
        try:
            return await cell.run(request, serve, on_log, env=self._env)
        finally:
            self._runs.discard(cell)
            fetcher.close()
            if cell not in self._cells.values():
                cell.close()

    async def _kept(self, request: CodeRequest) -> Cell:
        """Return the cell whose globals stay, or a new one that has them from now on, if none has."""
        name = (request.language, request.scope)
        own = self._cells.pop(name, None)
        if own is not None and request.restart:
            own.close()  # what runs in it ends as one that was cut
        elif own is not None and own in self._runs:
            self._cells[name] = own
        elif own is not None and own.is_at_rest():
            self._cells[name] = own
            return own
        cell = await self._new(request.language)
        current = self._cells.get(name)
        if current is None or not current.alive:
            self._cells[name] = cell
        return cell

    def _make_room(self) -> None:
        """End those that have rested longest where, with what runs, there is no room for all in its memory."""
        resting = [name for name, cell in self._cells.items() if cell not in self._runs]
        over = len(resting) + self._asked - self._runs_at_once
        for name in resting[: max(over, 0)]:
            self._cells.pop(name).close()

    async def _new(self, language: Language) -> Cell:
        self._make_room()
        cell = await self._take(language)
        if self._closed.done():
            cell.close()
            raise SandboxUnavailableError("this sandbox is closed")
        return cell

    async def exec(self, request: ExecRequest) -> ExecResult:
        """Refuse: UnsupportedError."""
        _lacks("commands")

    async def start(self, request: ExecRequest, *, stdin: bool = False) -> Process:
        """Refuse: UnsupportedError."""
        _lacks("commands")

    async def terminal(self, request: ExecRequest, size: TerminalSize) -> Terminal:
        """Refuse: UnsupportedError."""
        _lacks("terminals")

    async def connect(self, port: int) -> Connection:
        """Refuse: UnsupportedError."""
        _lacks("ports")

    async def ps(self, *, limit: int = 4096) -> ProcessTable:
        """Return none: what runs are cells of ours."""
        return ProcessTable(processes=(), listeners=())

    async def memory_kills(self) -> Kills:
        """Return what never tells of one: a cell that is out of memory says so in its result."""
        return _NoKills()

    def frozen(self) -> AbstractAsyncContextManager[None]:
        """Do nothing: a copy of the workspace is of one moment without it."""
        return self._held()

    def resting(self) -> AbstractAsyncContextManager[None]:
        """Do nothing: a cell that runs nothing uses no processor."""
        return contextlib.nullcontext()

    async def closed(self) -> str:
        """Wait until it is closed; there is nothing that could die."""
        return await asyncio.shield(self._closed)

    def close(self) -> None:
        """End its cells and close its files. No-op when they are."""
        if not self._closed.done():
            self._closed.set_result("")
            for cell in (*self._cells.values(), *self._runs):
                cell.close()
            if self._workspace is not None:
                self._workspace.close()

    @contextlib.asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        async with self._still:
            yield


class _Service:
    """Answers what guest code asks, by the first part of its name."""

    def __init__(self, workspace: WorkspaceCalls, fetcher: Fetcher, tools: Serve) -> None:
        self._workspace = workspace
        self._net = {"fetch": fetcher.fetch, "read": fetcher.read, "close": fetcher.stop}
        self._tools = tools

    async def __call__(self, name: str, argument: msgspec.Raw) -> Any:
        space, _, call = name.partition(".")
        if space == "workspace":
            return await self._workspace.serve(call, argument)
        if space == "net" and call in self._net:
            return await self._net[call](argument)
        if space == "codemode":
            return await self._tools(call, argument)
        raise ToolFailedError(f"{name[:80]}: there is no such call")


class _NoKills:
    async def rose(self) -> bool:
        """Say no."""
        return False


def _lacks(what: str) -> NoReturn:
    raise UnsupportedError(
        f"the isolate tier has no {what}: run code in it, or use a sandbox of another tier"
    )
