"""What people ask of snapshots: take one, go back to one, tell what differs, keep one, make more of one."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from handiwork.model.errors import ConflictError, HandiworkError, NotFoundError
from handiwork.model.sandbox import SandboxRecord, SandboxState
from handiwork.model.snapshot import (
    Reason,
    Snapshot,
    SnapshotChange,
    SnapshotDiff,
    SnapshotState,
    check_pin,
)
from handiwork.sandboxes.protocol import Driver
from handiwork.sandboxes.snapshots.archive import TENANT, check_size, exported, opened
from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.stoppable import StoppableBlobs
from handiwork.sessions.held import Change, Held
from handiwork.sessions.notices import notify
from handiwork.sessions.sandbox_request import SandboxRequest
from handiwork.sessions.sandboxes import LiveSandboxes
from handiwork.sessions.snapshots.background import Background
from handiwork.sessions.snapshots.shelf import files_of, unavailable


class Moves:
    """Snapshots of live and sleeping sandboxes, by their ids."""

    def __init__(self, background: Background, live: LiveSandboxes) -> None:
        self._shelf = background.shelf
        self._live = live
        self._background = background
        # One at a time: contents may have to be read, and takings need the threads too.
        self._comparing = asyncio.Lock()

    async def state(self, sandbox_id: str) -> SnapshotState:
        """Return what is known of a sandbox's snapshots; NotFoundError."""
        await self._shelf.store.sandboxes.get(sandbox_id)
        return SnapshotState(
            status=await self._shelf.store.snapshots.status(sandbox_id),
            snapshots=tuple(await self._shelf.all(sandbox_id)),
        )

    async def take(self, sandbox_id: str, reason: Reason = "request") -> Snapshot:
        """Take one now; of a running sandbox with its processes frozen meanwhile."""
        async with self._live.held(sandbox_id) as held:
            return await self._take(held, reason)

    def written(self, sandbox_id: str) -> None:
        """Take one soon, where one is to be taken after calls; one for all that end meanwhile."""
        if self._background.settings.after_calls:
            self._background.begin_once(sandbox_id, lambda: self._after_call(sandbox_id))

    async def rollback(
        self, sandbox_id: str, number: int, *, keep_present: bool = True
    ) -> SandboxRecord:
        """Put a generation in the place of a sandbox's files; one that ran starts again.

        What is there is taken first, so that this can be undone; `keep_present` False gives it up.
        What fails leaves the files as they are. Today's policy holds; the brain is told.
        """
        chosen = await self._known(sandbox_id, number)

        async def change(record: SandboxRecord, driver: Driver) -> None:
            if keep_present:
                await self._shelf.take(record, driver, "before rollback")
            await self._shelf.make(sandbox_id, [number], record, driver)
            await self._shelf.event(record, "sandbox.rolled_back", number=number)
            text = (
                f"an operator put the files of this sandbox back to snapshot {number} of"
                f" {chosen.created_at:%Y-%m-%d %H:%M:%S}Z; what was written after that is not in"
                " them, and every process was ended"
            )
            await notify(self._shelf.store, record.session_id, text, self._shelf.clock)

        return await self._live.replaced(sandbox_id, change)

    async def diff(
        self, sandbox_id: str, before: int, after: int, *, prefix: str, limit: int
    ) -> SnapshotDiff:
        """Tell what differs between two generations, below a path, at most so much.

        UnsupportedError: too much would have to be read. A caller that is cancelled stops it.
        """
        wanted = prefix.rstrip("/").encode("utf-8", "surrogateescape")
        stop = threading.Event()
        generations = self._shelf.generations(stop)

        def compare() -> list[SnapshotChange]:
            found = generations.differences(
                sandbox_id, before, after, below=wanted, limit=limit + 1, stop=stop
            )
            return [SnapshotChange(path=_text(one.path), change=one.change) for one in found]

        try:
            async with self._comparing:
                changes = await self._shelf.step(stop, compare)
        except HandiworkError as error:
            raise unavailable(str(error), error) from error
        return SnapshotDiff(
            before=before,
            after=after,
            changes=tuple(changes[:limit]),
            truncated=len(changes) > limit,
        )

    async def pin(self, sandbox_id: str, number: int, name: str) -> None:
        """Keep one under a name until that is removed."""
        await self._shelf.pin(sandbox_id, check_pin(name), number)

    async def unpin(self, sandbox_id: str, name: str) -> None:
        """Remove a name."""
        await self._shelf.store.snapshots.unpin(sandbox_id, name)

    async def remove(self, sandbox_id: str, number: int) -> None:
        """Forget one that nobody pinned."""
        await self._known(sandbox_id, number)
        await self._shelf.forget(sandbox_id, number)

    async def fork(
        self,
        sandbox_id: str,
        count: int,
        *,
        number: int | None = None,
        policy: str = "",
        wake: bool = True,
    ) -> list[SandboxRecord]:
        """Make so many sandboxes of one as it is now, or of a generation; all of them or none.

        Each is a sandbox of its own: id, way out, certificates. None has a session, or what belongs
        to one: its policy is the one that is named here, or that of a sandbox made by hand.
        """
        source = await self._shelf.store.sandboxes.get(sandbox_id)
        request = SandboxRequest(
            tier=source.tier,
            image=source.image,
            policy=policy or ("" if source.session_id else source.policy),
            env=source.env,
            metadata=source.metadata,
            limits=source.limits,
        )
        made: list[SandboxRecord] = []
        try:
            if number is None:
                number = await self._fork_now(sandbox_id, request, made)
            else:
                await self._known(sandbox_id, number)
            async with self._more_of(sandbox_id, number, made) as (change, origin):
                for _ in range(count - len(made)):
                    made.append(await self._live.create_of(request, change, origin))
            return [await self._live.wake(one.id) for one in made] if wake else made
        except BaseException:
            for record in made:
                await asyncio.shield(self._live.close(record.id))
            raise

    async def export(self, sandbox_id: str, number: int) -> AsyncGenerator[bytes, None]:
        """Yield one as a file, piece by piece: in clear to whoever has it. NotFoundError at once.

        Close it (`contextlib.aclosing`). What is found damaged on the way ends it with an error.
        """
        manifest = await self._shelf.work(lambda generations: generations.load(sandbox_id, number))
        stop = threading.Event()
        pieces = exported(self._shelf.generations(stop), manifest, self._shelf.draw)
        try:
            while piece := await self._shelf.step(stop, lambda: next(pieces, b"")):
                yield piece
        finally:
            stop.set()
            pieces.close()

    async def import_file(self, file: int, size: int, request: SandboxRequest) -> SandboxRecord:
        """Make a sandbox of a file that `export` wrote, or that somebody says it did; it sleeps."""
        found = await self._shelf.step(threading.Event(), lambda: opened(file, size))

        def of_file(stop: threading.Event) -> Generations:
            blobs = StoppableBlobs(found.blobs, stop)
            shelf = self._shelf
            return Generations(blobs, found.keys, TENANT, shelf.clock, shelf.draw)

        manifest = await self._shelf.step(
            threading.Event(),
            lambda: of_file(threading.Event()).load(found.sandbox_id, found.number),
        )
        limits = request.limits or self._shelf.sandbox.limits
        check_size(manifest.body, limits.disk_mib << 20)  # before a sandbox is made for it

        async def change(record: SandboxRecord, driver: Driver) -> None:
            files = files_of(record, driver)
            await self._shelf.make_of(manifest, record, files, of_file, forked=True)

        request = msgspec.structs.replace(request, image=manifest.head.image)
        return await self._live.create_of(request, change, "an imported file")

    async def _fork_now(
        self, sandbox_id: str, request: SandboxRequest, made: list[SandboxRecord]
    ) -> int:
        """Make a first one of a sandbox as it is now; 0, or the snapshot that all are to be made of.

        What a session brought along is in no fork: where there is such, a snapshot leaves it out.
        """
        async with self._live.held(sandbox_id) as held:
            _check_files(held)
            if held.record.attached or not held.driver.can_fork(sandbox_id):
                return (await self._take(held, "fork")).number
            made.append(await self._live.create_of(request, _fork_of(sandbox_id), sandbox_id))
        return 0

    @asynccontextmanager
    async def _more_of(
        self, sandbox_id: str, number: int, made: list[SandboxRecord]
    ) -> AsyncIterator[tuple[Change, str]]:
        """Yield what makes one more of a snapshot, or like the first one, which nobody wakes meanwhile."""
        if not number:
            async with self._live.held(made[0].id) as first:
                if first.sandbox is not None:
                    raise ConflictError(
                        f"the fork {made[0].id} was woken before the others were made of it: ask anew"
                    )
                _check_files(first)
                yield _fork_of(made[0].id), sandbox_id
            return

        async def change(record: SandboxRecord, driver: Driver) -> None:
            await self._shelf.make(sandbox_id, [number], record, driver)

        yield change, f"{sandbox_id}/{number}"

    async def _take(self, held: Held, reason: Reason) -> Snapshot:
        _check_files(held)
        return await self._shelf.take(held.record, held.driver, reason)

    async def _after_call(self, sandbox_id: str) -> None:
        async with self._live.held(sandbox_id) as held:
            if held.sandbox is not None:
                files_of(held.record, held.driver)
                await self._take(held, "call")

    async def _known(self, sandbox_id: str, number: int) -> Snapshot:
        for one in await self._shelf.all(sandbox_id):
            if one.number == number:
                return one
        raise NotFoundError(f"{sandbox_id} has no snapshot {number}")


_HAS_FILES = (SandboxState.STARTING, SandboxState.RUNNING, SandboxState.SLEEPING)


def _check_files(held: Held) -> None:
    if held.record.state not in _HAS_FILES:
        raise ConflictError(f"the sandbox {held.record.id} is {held.record.state.value}")


def _fork_of(source: str) -> Change:
    async def change(record: SandboxRecord, driver: Driver) -> None:
        await driver.fork(source, record.id)

    return change


def _text(path: bytes) -> str:
    """Return a guest's path as text; what is none is escaped, so that no two are the same."""
    return path.decode("utf-8", "backslashreplace") or "/"
