"""Processes that outlive the call that started them, as long as their sandbox lives.

Each is followed by a task of ours, which keeps the end of what it writes and notices its end. What
is known of it stands in the store, so that after a restart one that is gone is told to be gone.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from types import TracebackType
from typing import Self

import msgspec

from handiwork.model.errors import (
    ConflictError,
    HandiworkError,
    NotFoundError,
    SandboxUnavailableError,
)
from handiwork.model.ids import new_id
from handiwork.model.process import ProcessDetail, ProcessRecord, ProcessState
from handiwork.model.sandbox import ExecRequest, ExecResult
from handiwork.observe import log
from handiwork.sandboxes.protocol import Process, Sandbox
from handiwork.sessions.process_log import Chunk, ProcessLog
from handiwork.store.protocol import Store

LOG_BYTES = 256 * 1024
BYTES_PER_SECOND = 4 * 1024 * 1024
"""What is taken of one process's output; one that writes faster waits for us."""

RUNNING_LIMIT = 32
"""So many of one sandbox run at once."""
REMEMBERED = 64
"""So many of one sandbox are known, the oldest that ended go first."""
LOGS_LIMIT = 1024
"""So many logs are kept in all: of those that run, and of the last that ended."""
KILL_SECONDS = 10.0
_KILL = 9


class _Followed:
    """One that was started by this run of ours."""

    def __init__(self, record: ProcessRecord, process: Process) -> None:
        self.record = record
        self.process = process
        self.log = ProcessLog(LOG_BYTES)
        self._changed = asyncio.Event()

    def tell(self) -> None:
        """Wake who waits for news."""
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def changed(self) -> asyncio.Event:
        """Set when the next thing is written, or it ends."""
        return self._changed

    @property
    def runs(self) -> bool:
        """Say whether it runs, as far as we know."""
        return self.record.state is ProcessState.RUNNING


class Processes:
    """All of them. Use it as an async context: leaving it lets go of those that run."""

    def __init__(self, *, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._followed: dict[str, _Followed] = {}
        self._starting: Counter[str] = Counter()
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = log.get("processes")

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for followed in list(self._followed.values()):  # an end forgets old ones
            if followed.runs:
                await self._end(followed, ProcessState.LOST, reason="Handiwork was stopped")
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    async def adopt(self) -> None:
        """Tell of those of a former run of ours that they are gone."""
        for record in await self._store.processes.running():
            reason = "it ended with the run of Handiwork that held it"
            await self._store.processes.save(_ended(record, self._clock(), reason=reason))

    async def start(self, sandbox: Sandbox, request: ExecRequest) -> ProcessRecord:
        """Start one; GuestError when it cannot run, ConflictError when too many do."""
        self._take_place(sandbox.id)
        try:
            process = await sandbox.start(request)
        finally:
            self._starting[sandbox.id] -= 1
            self._starting += Counter()  # without those that are zero
        record = ProcessRecord(
            id=new_id("proc", secrets.token_bytes(15)),
            sandbox_id=sandbox.id,
            argv=request.argv,
            cwd=request.cwd,
            user=request.user,
            pid=process.pid,
            started_at=self._clock(),
        )
        followed = self._followed[record.id] = _Followed(record, process)
        task = self._group.create_task(self._follow(followed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await self._store.processes.save(record)
        await self._forget_oldest(sandbox.id)
        return record

    async def list(self, sandbox_id: str) -> list[ProcessRecord]:
        """Return those of a sandbox, newest first."""
        return await self._store.processes.list(sandbox_id)

    async def get(self, sandbox_id: str, process_id: str) -> ProcessRecord:
        """Return one of a sandbox; NotFoundError."""
        record = await self._store.processes.get(process_id)
        if record.sandbox_id != sandbox_id:
            raise NotFoundError(f"the sandbox {sandbox_id} has no process {process_id[:80]!r}")
        return record

    async def detail(self, sandbox: Sandbox, process_id: str) -> ProcessDetail:
        """Return one and where its tree listens."""
        record = await self.get(sandbox.id, process_id)
        if record.state is not ProcessState.RUNNING:
            return ProcessDetail(process=record)
        table = await sandbox.ps()
        trees = {one.tree for one in table.processes if one.pid == record.pid} - {0}
        pids = {one.pid for one in table.processes if one.tree in trees}
        listeners = tuple(one for one in table.listeners if one.pid in pids)
        return ProcessDetail(process=record, listeners=listeners)

    async def logs(
        self, sandbox_id: str, process_id: str, *, after: int = 0, follow: bool = False
    ) -> AsyncIterator[Chunk | ProcessRecord]:
        """Yield what it wrote from a position on, as far as it is kept; last the record as it stands.

        With `follow` that is when it ends. NotFoundError where its log went with a former run of ours.
        """
        record = await self.get(sandbox_id, process_id)
        followed = self._followed.get(process_id)
        if followed is None:
            raise NotFoundError(
                f"the log of {process_id} is not kept any more; the process {record.state.value}:"
                f" {record.reason or record.exit_code}"
            )
        while True:
            for chunk in followed.log.read(after):
                yield chunk
                after = chunk.at + len(chunk.data)
            if after < followed.log.end:
                continue  # written, or dropped, while somebody took what was there
            if not follow or not followed.runs:
                yield followed.record
                return
            await followed.changed.wait()

    async def signal(self, sandbox_id: str, process_id: str, number: int) -> None:
        """Signal it and all it started. No-op when it ended."""
        await self.get(sandbox_id, process_id)
        followed = self._followed.get(process_id)
        if followed is not None and followed.runs:
            await followed.process.signal(number)

    async def remove(self, sandbox_id: str, process_id: str) -> None:
        """Kill it with all it started, and forget it and its log."""
        await self.get(sandbox_id, process_id)
        followed = self._followed.get(process_id)
        if followed is not None:
            await self._kill(followed)
            self._followed.pop(process_id, None)
        await self._store.processes.delete(process_id)

    async def _kill(self, followed: _Followed) -> None:
        try:
            async with asyncio.timeout(KILL_SECONDS):
                while followed.runs:
                    changed = followed.changed
                    await followed.process.signal(_KILL)
                    await changed.wait()
        except TimeoutError:
            raise SandboxUnavailableError(
                f"{followed.record.id} did not end within {KILL_SECONDS:g} s of being killed"
            ) from None

    def _take_place(self, sandbox_id: str) -> None:
        runs = sum(
            one.runs and one.record.sandbox_id == sandbox_id for one in self._followed.values()
        )
        if runs + self._starting[sandbox_id] >= RUNNING_LIMIT:
            raise ConflictError(
                f"{RUNNING_LIMIT} processes of the sandbox {sandbox_id} run; end one first"
            )
        running = sum(one.runs for one in self._followed.values()) + self._starting.total()
        if running >= LOGS_LIMIT:
            raise ConflictError(f"{LOGS_LIMIT} processes run in all sandboxes; end one first")
        self._starting[sandbox_id] += 1

    async def _follow(self, followed: _Followed) -> None:
        try:
            async for stream, data in followed.process.output():
                followed.log.add(stream, data)
                followed.tell()
                await asyncio.sleep(len(data) / BYTES_PER_SECOND)
            result = await followed.process.wait()
        except HandiworkError as error:
            reason = f"it ended with its sandbox: {error}"
            await self._end(followed, ProcessState.LOST, reason=reason)
        else:
            await self._end(followed, ProcessState.EXITED, result=result)

    async def _end(
        self,
        followed: _Followed,
        state: ProcessState,
        *,
        result: ExecResult | None = None,
        reason: str = "",
    ) -> None:
        record = _ended(followed.record, self._clock(), state=state, result=result, reason=reason)
        followed.record = record
        followed.tell()
        if self._followed.get(record.id) is not followed:
            return  # forgotten meanwhile
        try:
            await self._store.processes.save(record)
            await self._forget_oldest(record.sandbox_id)
        except HandiworkError as error:
            self._log.warning(
                "the end of a process was not kept", process=record.id, why=str(error)
            )

    async def _forget_oldest(self, sandbox_id: str) -> None:
        known = await self._store.processes.list(sandbox_id, limit=2 * REMEMBERED)
        for record in known[REMEMBERED:]:
            if record.state is not ProcessState.RUNNING:
                self._followed.pop(record.id, None)
                await self._store.processes.delete(record.id)
        ended = [key for key, one in self._followed.items() if not one.runs]
        for key in ended[: max(0, len(self._followed) - LOGS_LIMIT)]:
            del self._followed[key]


def _ended(
    record: ProcessRecord,
    at: datetime,
    *,
    state: ProcessState = ProcessState.LOST,
    result: ExecResult | None = None,
    reason: str = "",
) -> ProcessRecord:
    return msgspec.structs.replace(
        record,
        state=state,
        exit_code=result.exit_code if result else None,
        out_of_memory=bool(result and result.out_of_memory),
        reason=reason,
        ended_at=at,
    )
