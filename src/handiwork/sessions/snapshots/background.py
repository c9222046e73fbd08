"""Snapshots in the background: of sandboxes that have gone to sleep, and the wake of those that lost their files.

One job for each sandbox at a time, and one that waits for its end. Waking a sandbox ends both: nobody
waits for a snapshot that nobody asked for, and it is taken at the next sleep.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from handiwork.config import SnapshotSettings
from handiwork.model.errors import HandiworkError, NotFoundError, SandboxUnavailableError
from handiwork.model.sandbox import SandboxRecord
from handiwork.model.snapshot import Reason
from handiwork.observe import log
from handiwork.sandboxes.protocol import Driver
from handiwork.sandboxes.snapshots.protocol import KeepsFiles
from handiwork.sessions.notices import notify
from handiwork.sessions.snapshots.shelf import Made, Shelf, files_of
from handiwork.sessions.snapshots.upkeep import Upkeep

Work = Callable[[], Awaitable[object]]


class Background:
    """Implements `sessions.keeping.Keeping`. Use it as an async context, around the sandboxes."""

    def __init__(self, shelf: Shelf, settings: SnapshotSettings) -> None:
        self.shelf = shelf
        self.settings = settings
        self._group = asyncio.TaskGroup()
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._next: dict[str, Work] = {}
        self.closed = asyncio.Event()
        self._log = log.get("snapshots")

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give what is under way, or waits, its time; what is not done then is taken at the next sleep."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.stop_seconds):
                while self._jobs:
                    await asyncio.wait([*self._jobs.values()])
        self._next.clear()
        for job in self._jobs.values():
            job.cancel()
        await self._group.__aexit__(kind, error, trace)

    def upkeep(self, now: Callable[[], float]) -> Upkeep:
        """Return who lets go of what nobody keeps; `now` is a steady clock."""
        return Upkeep(self.shelf, self.settings, now=now, closed=self.closed)

    def begin(self, sandbox_id: str, work: Work) -> None:
        """Do something with a sandbox's files in the background.

        Where something is under way it is done after that, in place of what waited.
        """
        if sandbox_id in self._jobs:
            self._next[sandbox_id] = work
            return
        job = self._group.create_task(self._done(sandbox_id, work))
        self._jobs[sandbox_id] = job
        job.add_done_callback(lambda _: self._ended(sandbox_id))

    def begin_once(self, sandbox_id: str, work: Work) -> None:
        """Do something as `begin` does, unless something waits: that sees the files as they are then."""
        if sandbox_id not in self._next:
            self.begin(sandbox_id, work)

    def _ended(self, sandbox_id: str) -> None:
        self._jobs.pop(sandbox_id, None)
        if work := self._next.pop(sandbox_id, None):
            self.begin(sandbox_id, work)

    async def interrupt(self, sandbox_id: str) -> None:
        """End what is under way, and what waits for it; returns when it has ended."""
        job = self._jobs.get(sandbox_id)
        if job is not None and job is not asyncio.current_task():
            self._next.pop(sandbox_id, None)
            job.cancel()
            await asyncio.wait([job])

    def stands(self, record: SandboxRecord, driver: Driver) -> None:
        """Take a generation of a sandbox that stands still."""
        if self.settings.on_idle and isinstance(driver, KeepsFiles):
            self.begin(record.id, lambda: self.shelf.take(record, driver, "idle"))

    def slept(self, record: SandboxRecord, driver: Driver, *, stopping: bool) -> None:
        """Take a generation of a sandbox that sleeps now, and bring its files together."""
        if isinstance(driver, KeepsFiles):
            reason: Reason = "stop" if stopping else "idle"
            self.begin(record.id, lambda: self._after_sleep(record, driver, reason))

    async def _after_sleep(self, record: SandboxRecord, driver: Driver, reason: Reason) -> None:
        if self.settings.on_idle:
            await self.shelf.take(record, driver, reason)
        if reason == "idle":
            await self.shelf.settle(record, files_of(record, driver))

    def keeps_closed(self, driver: Driver) -> bool:
        """Say whether a last generation is to be taken."""
        return self.settings.closed_seconds > 0 and isinstance(driver, KeepsFiles)

    async def closing(self, record: SandboxRecord, driver: Driver) -> None:
        """Take a last generation, where one is to outlive its sandbox. What it raises keeps the files."""
        self.closed.set()
        if not self.keeps_closed(driver) or not isinstance(driver, KeepsFiles):
            return
        try:
            driver.origin(record.id)
        except NotFoundError:
            return
        await self.shelf.take(record, driver, "before close")

    async def recoverable(self, record: SandboxRecord) -> str:
        """Say of which generation its files could be made again."""
        found = await self.shelf.all(record.id)
        return (
            f"snapshot {found[0].number} of {found[0].created_at:%Y-%m-%d %H:%M:%S}Z"
            if found
            else ""
        )

    async def recover(self, record: SandboxRecord, driver: Driver) -> str:
        """Make lost files again of the newest generation that is whole; the brain is told."""
        if not isinstance(driver, KeepsFiles):
            return ""
        try:
            driver.origin(record.id)
        except NotFoundError as lost:
            reason = str(lost)
        else:
            return ""
        numbers = await self.shelf.numbers(record.id)
        if not numbers:
            raise SandboxUnavailableError(
                f"{reason}, and there is no snapshot of it; close it to give its files up"
            )
        made = await self.shelf.make(record.id, numbers, record, driver)
        text = _restored(made)
        self._log.warning("restored", sandbox=record.id, lost=reason, told=text)
        await self.shelf.event(
            record,
            "sandbox.restored",
            number=made.snapshot.number,
            reason=reason,
            damaged=list(made.damaged[:8]),
        )
        await notify(self.shelf.store, record.session_id, text, self.shelf.clock)
        return text

    async def _done(self, sandbox_id: str, work: Work) -> None:
        try:
            await work()
        except HandiworkError:
            return  # it is told with the sandbox
        except Exception:  # noqa: BLE001 - a fault with one sandbox's files must not end the others
            self._log.exception("snapshot failed", sandbox=sandbox_id)


def _restored(made: Made) -> str:
    taken = f"{made.snapshot.created_at:%Y-%m-%d %H:%M:%S}Z"
    text = (
        f"the files of this sandbox were lost and are restored from snapshot {made.snapshot.number}"
        f" of {taken}: what was written after that is gone, and no process runs on"
    )
    if made.damaged:
        text += f"; {len(made.damaged)} newer snapshots were damaged"
    return text
