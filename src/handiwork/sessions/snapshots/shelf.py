"""One tenant's snapshots: a generation is taken, or made again, and whoever looks is told how it went.

Nothing here knows which sandboxes run: who calls has seen to it that a tree holds still.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from handiwork.config import SandboxSettings
from handiwork.model.errors import (
    ConflictError,
    HandiworkError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.sandbox import SandboxRecord, SandboxState
from handiwork.model.snapshot import Reason, Snapshot, SnapshotStatus
from handiwork.observe import log
from handiwork.observe.metrics import Metrics
from handiwork.sandboxes.protocol import Driver
from handiwork.sandboxes.snapshots.archive import check_size
from handiwork.sandboxes.snapshots.capture import Wanted
from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.manifest import Head, Manifest
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.protocol import Entries, KeepsFiles
from handiwork.sandboxes.snapshots.sealing import DamagedError, Keys
from handiwork.sandboxes.snapshots.stoppable import LOOK_SECONDS, StoppableBlobs, in_thread
from handiwork.store.blobs import Blobs
from handiwork.store.protocol import Store

T = TypeVar("T")

PARALLEL = 2
"""So many are taken or made at once; the others wait."""
THREADS = 2 * PARALLEL


@dataclass(frozen=True)
class Made:
    """Which generation a tree was made of, and why newer ones were passed over."""

    snapshot: Snapshot
    damaged: tuple[str, ...] = ()


@dataclass
class Shelf:
    """The snapshots of one tenant. Close it when nothing uses it any more."""

    blobs: Blobs
    keys: Keys
    tenant: str
    store: Store
    sandbox: SandboxSettings
    clock: Callable[[], datetime]
    draw: Callable[[int], bytes]
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="snapshots")
        self._places = asyncio.Semaphore(PARALLEL)
        self._images: dict[str, dict[int, str]] = {}
        self._pinning = asyncio.Lock()
        self._going: set[tuple[str, int]] = set()
        self._log = log.get("snapshots")

    def close(self) -> None:
        """End its threads."""
        self._threads.shutdown(cancel_futures=True)

    async def learn(self) -> None:
        """Learn what images the snapshots stand on; before anybody asks."""
        for sandbox_id in await self.store.snapshots.sandboxes():
            found = await self.store.snapshots.list(sandbox_id)
            self._images[sandbox_id] = {one.number: one.image for one in found}

    def standing(self) -> dict[str, list[str]]:
        """Return the sandboxes whose snapshots stand on each image."""
        found: dict[str, list[str]] = {}
        for sandbox_id, images in self._images.items():
            for digest in set(images.values()):
                found.setdefault(digest, []).append(f"the snapshots of {sandbox_id}")
        return found

    async def work(self, call: Callable[[Generations], T]) -> T:
        """Run what blocks on the tenant's generations; a caller that is cancelled stops it."""
        stop = threading.Event()
        generations = self.generations(stop)
        return await in_thread(self._threads, stop, lambda: call(generations))

    async def step(self, stop: threading.Event, call: Callable[[], T]) -> T:
        """Run one step of what blocks, in one of its threads."""
        try:
            return await in_thread(self._threads, stop, call)
        except DamagedError as error:
            raise unavailable(str(error), error) from error

    def generations(self, stop: threading.Event) -> Generations:
        """Return the tenant's generations; their store gives up when `stop` is set."""
        blobs = StoppableBlobs(self.blobs, stop)
        return Generations(blobs, self.keys, self.tenant, self.clock, self.draw)

    # --- taking ---

    async def take(self, record: SandboxRecord, driver: Driver, reason: Reason) -> Snapshot:
        """Take a generation of a sandbox; of one that runs, with its processes held still meanwhile.

        Whatever fails is told with the sandbox, and leaves all that was taken before.
        """
        files = files_of(record, driver)
        started = time.monotonic()
        try:
            async with self._places:
                manifest = await self._captured(record, files, reason)
                taken = await self._listed(manifest.head)
        except asyncio.CancelledError:
            await self._failed(record, reason, "it was interrupted")
            raise
        except (HandiworkError, OSError) as error:
            await self._failed(record, reason, str(error))
            raise unavailable(f"no snapshot of {record.id} was taken: {error}", error) from error
        seconds = time.monotonic() - started
        self.metrics.snapshot(reason, "taken", seconds, manifest.head.new_bytes)
        await self._tell_taken(record, taken)
        return taken

    async def _captured(self, record: SandboxRecord, files: KeepsFiles, reason: Reason) -> Manifest:
        stop, hold = threading.Event(), _Hold(asyncio.get_running_loop())
        async with contextlib.AsyncExitStack() as still:
            tree = await still.enter_async_context(files.still(record.id))
            origin = files.origin(record.id)
            if not origin.image:
                raise SandboxUnavailableError("it is not known what image it stands on")
            generations = self.generations(stop)

            def taking() -> Manifest:
                number, former = generations.newest(record.id)
                wanted = Wanted(
                    tenant=self.tenant,
                    sandbox_id=record.id,
                    number=number,
                    reason=reason,
                    image=origin.image,
                    tree=origin.tree,
                    files=tree,
                    ids=origin.ids,
                    excluded=frozenset(record.attached),
                )
                return generations.take(wanted, former, stop, lambda: hold.walked(stop))

            task = asyncio.get_running_loop().run_in_executor(self._threads, taking)
            try:
                ends: list[asyncio.Future[Any]] = [task, hold.is_walked]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                await still.aclose()  # it runs on while what was read is kept; raises if it moved
            except BaseException:
                await _ended(task, stop)
                raise
            hold.goes_on.set()
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await _ended(task, stop)
            raise

    async def _listed(self, head: Head) -> Snapshot:
        """Let the database tell of what is kept."""
        taken = told(head)
        await self.store.snapshots.put(taken)
        self._images.setdefault(taken.sandbox_id, {})[taken.number] = taken.image
        return taken

    async def _tell_taken(self, record: SandboxRecord, taken: Snapshot) -> None:
        await self.store.snapshots.tell(
            SnapshotStatus(sandbox_id=record.id, number=taken.number, taken_at=taken.created_at)
        )
        await self.event(
            record,
            "snapshot.taken",
            number=taken.number,
            why=taken.reason,
            new_bytes=taken.new_bytes,
            skipped=taken.skipped_count,
        )

    async def adopt(self, head: Head) -> None:
        """Tell of a generation that is kept and that nobody told of; how the last try went stays told."""
        taken = await self._listed(head)
        status = await self.store.snapshots.status(taken.sandbox_id)
        if status.number < taken.number:
            await self.store.snapshots.tell(
                msgspec.structs.replace(status, number=taken.number, taken_at=taken.created_at)
            )

    async def _failed(self, record: SandboxRecord, reason: Reason, failure: str) -> None:
        self._log.warning("no snapshot", sandbox=record.id, why=reason, reason=failure)
        self.metrics.snapshot(reason, "failed", None, 0)
        status = await self.store.snapshots.status(record.id)
        await self.store.snapshots.tell(
            msgspec.structs.replace(status, failure=failure, failed_at=self.clock())
        )
        await self.event(record, "snapshot.failed", why=reason, reason=failure[:500])

    # --- making ---

    async def make(
        self, source: str, numbers: list[int], record: SandboxRecord, driver: Driver
    ) -> Made:
        """Make a sandbox's files of the first of a source's generations that is whole.

        A damaged one is passed over and told; a store that cannot be reached, or an image that is
        not here, is not: then nothing is made. The sandbox must not run.
        """
        files = files_of(record, driver)
        damaged: list[str] = []
        for number in numbers:
            try:
                async with self._places:
                    head = await self._made(source, number, record, files)
            except DamagedError as error:
                damaged.append(str(error))
                self.metrics.restore("damaged")
                self._log.error(
                    "snapshot damaged", sandbox=source, number=number, reason=str(error)
                )
                continue
            except (HandiworkError, OSError) as error:
                self.metrics.restore("failed")
                what = f"snapshot {number} of {source} could not be restored: {error}"
                raise unavailable(what, error) from error
            self.metrics.restore("made")
            return Made(told(head), tuple(damaged))
        reasons = "; ".join(damaged[:3]) or "there is none"
        raise SandboxUnavailableError(f"no snapshot of {source} can be restored: {reasons}")

    async def _made(
        self, source: str, number: int, record: SandboxRecord, files: KeepsFiles
    ) -> Head:
        manifest = await self.work(lambda generations: generations.load(source, number))
        forked = source != record.id
        await self.make_of(manifest, record, files, self.generations, forked=forked)
        return manifest.head

    async def make_of(
        self,
        manifest: Manifest,
        record: SandboxRecord,
        files: KeepsFiles,
        generations: Callable[[threading.Event], Generations],
        *,
        forked: bool,
    ) -> None:
        """Make a sandbox's files of a manifest whose chunks lie in these generations.

        `forked`: they were another sandbox's. ConfigError when they are more than it may have.
        """
        limits = record.limits or self.sandbox.limits
        check_size(manifest.body, limits.disk_mib << 20)

        async def make(place: int, ids: Range) -> Entries:
            stop = threading.Event()
            source = generations(stop)
            return await in_thread(
                self._threads, stop, lambda: source.make(manifest, ids, place, "upper", stop)
            )

        await files.remake(record.id, manifest.head.image, limits.disk_mib, make, forked=forked)

    async def settle(self, record: SandboxRecord, files: KeepsFiles) -> None:
        """Bring a sandbox's files together that lie in layers; what fails is logged and changes nothing."""
        limits = record.limits or self.sandbox.limits
        try:
            async with self._places:
                await files.settle(record.id, limits.disk_mib)
        except (HandiworkError, OSError) as error:
            self._log.warning("files stay in layers", sandbox=record.id, reason=str(error))

    # --- telling ---

    async def all(self, sandbox_id: str) -> list[Snapshot]:
        """Return what is known, the newest first."""
        return await self.store.snapshots.list(sandbox_id)

    async def numbers(self, sandbox_id: str) -> list[int]:
        """Return what the store of blobs has, the newest first."""
        try:
            return await self.work(lambda generations: generations.numbers(sandbox_id))
        except HandiworkError as error:
            raise unavailable(str(error), error) from error

    async def closed_at(self, sandbox_id: str) -> datetime | None:
        """Return when a sandbox was closed; None while it may come back, or where it is not known."""
        try:
            record = await self.store.sandboxes.get(sandbox_id)
        except NotFoundError:
            return None
        return record.updated_at if record.state is SandboxState.GONE else None

    async def pin(self, sandbox_id: str, name: str, number: int) -> None:
        """Keep one under a name; NotFoundError, or ConflictError: too many, or it is being deleted."""
        async with self._pinning:
            if (sandbox_id, number) in self._going:
                raise ConflictError(
                    f"snapshot {number} of {sandbox_id} is being deleted; pin another one"
                )
            await self.store.snapshots.pin(sandbox_id, name, number)

    async def forget(self, sandbox_id: str, number: int) -> None:
        """Delete one that nobody pinned; what it alone used goes with a later sweep.

        Its row goes last: what fails, or ends with us, leaves it, so that this is tried again.
        """
        async with self._going_away(sandbox_id, number):
            await self.work(lambda generations: generations.forget(sandbox_id, number))
            await self._remove_row(sandbox_id, number)

    async def unlist(self, sandbox_id: str, number: int) -> None:
        """Tell no more of one whose manifest is gone; ConflictError where somebody pinned it.

        The store is not touched: what is written there after all is told of again.
        """
        async with self._going_away(sandbox_id, number):
            await self._remove_row(sandbox_id, number)

    async def _remove_row(self, sandbox_id: str, number: int) -> None:
        await self.store.snapshots.remove(sandbox_id, number)
        self._images.get(sandbox_id, {}).pop(number, None)

    @contextlib.asynccontextmanager
    async def _going_away(self, sandbox_id: str, number: int) -> AsyncIterator[None]:
        """Run the body while nobody can pin one; ConflictError where somebody did."""
        async with self._pinning:
            for name, pinned in (await self.store.snapshots.pins(sandbox_id)).items():
                if pinned == number:
                    raise ConflictError(f"snapshot {number} of {sandbox_id} is pinned as {name!r}")
            self._going.add((sandbox_id, number))
        try:
            yield
        finally:
            self._going.discard((sandbox_id, number))

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Run the body while nothing is taken or made."""
        held = 0
        try:
            while held < PARALLEL:
                await self._places.acquire()
                held += 1
            yield
        finally:
            for _ in range(held):
                self._places.release()

    async def event(self, record: SandboxRecord, kind: str, **data: object) -> None:
        """Write down what happened, where its session's events are."""
        if not record.session_id:
            return
        with contextlib.suppress(NotFoundError):
            await self.store.sessions.get(record.session_id)
            given: Mapping[str, object] = {"sandbox_id": record.id, **data}
            await self.store.sessions.record(record.session_id, kind, given, self.clock())


class _Hold:
    """Where a taking waits, its tree read, until it is known that nobody moved meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.is_walked: asyncio.Future[None] = loop.create_future()
        self.goes_on = threading.Event()

    def walked(self, stop: threading.Event) -> None:
        """Tell that the tree was read, and wait; in the taking's thread."""
        self._loop.call_soon_threadsafe(self.is_walked.set_result, None)
        while not self.goes_on.wait(LOOK_SECONDS):
            if stop.is_set():
                break
        if stop.is_set():
            raise SandboxUnavailableError("it was stopped")


async def _ended(task: "asyncio.Future[Manifest]", stop: threading.Event) -> None:
    """Stop a taking and return when its thread has ended, however often we are cancelled."""
    stop.set()
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


def files_of(record: SandboxRecord, driver: Driver) -> KeepsFiles:
    """Return the driver as one that keeps files; UnsupportedError names its tier."""
    if isinstance(driver, KeepsFiles):
        return driver
    raise UnsupportedError(
        f"the tier {record.tier!r} has no snapshots, forks and rollback: its sandboxes keep their"
        " files and processes on their own disk while they sleep"
    )


def told(head: Head) -> Snapshot:
    """Return what people are told of a generation."""
    return Snapshot(
        sandbox_id=head.sandbox_id,
        number=head.number,
        created_at=head.created,
        reason=head.reason,
        image=head.image,
        entries=head.entries,
        content_bytes=head.content_bytes,
        new_bytes=head.new_bytes,
        skipped=head.skipped,
        skipped_count=head.skipped_count,
    )


def unavailable(text: str, error: Exception) -> HandiworkError:
    """Return an error of the tree: its own class where callers act on it, else our fault."""
    kept = type(error) if isinstance(error, NotFoundError | UnsupportedError) else None
    return (kept or SandboxUnavailableError)(text)
