"""All memory stores of one session: mounted together, synced now and then, taken away at rest."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from handiwork.brains.protocol import Memories
from handiwork.model.attachment import MemoryStoreRef
from handiwork.model.errors import HandiworkError, UnsupportedError
from handiwork.model.session import WaitingKind, WorkItem
from handiwork.sandboxes.protocol import Files, Sandbox
from handiwork.sessions.journal import Journal
from handiwork.sessions.memory.mount import MemoryMount, Store, mount_path

MAX_STORES = 8
SYNC_SECONDS = 15.0
LEAST_SECONDS = 5.0
"""Between two syncs, however many calls end meanwhile."""
FINAL_SECONDS = 30.0


class SessionMemories:
    """The stores of one session. What fails is told as something that the session waits for.

    `claim` is told each folder before it is written.
    """

    def __init__(
        self,
        work: WorkItem,
        journal: Journal,
        use: Callable[[], Awaitable[Sandbox]],
        claim: Callable[[str], Awaitable[None]],
    ) -> None:
        self._claim = claim
        self._work = work
        self._journal = journal
        self._use = use
        self._mounts: list[MemoryMount] = []
        self._touched = asyncio.Event()

    async def attach(
        self,
        memories: Memories | None,
        declared: Sequence[MemoryStoreRef],
        files: Files,
        *,
        fresh: bool,
    ) -> None:
        """Mount every store that is not; the first that cannot be is told and raised."""
        for ref in declared[len(self._mounts) :]:
            name = (ref.mount_path or ref.store_id)[:200]
            try:
                mount = self._mount(memories, ref)
                await self._claim(mount.path)
                await mount.attach(files, fresh=fresh)
            except HandiworkError as error:
                self._journal.waits(WaitingKind.MEMORY_STORE, str(error), name=name)
                raise
            self._mounts.append(mount)
            self._journal.waits_no_more(WaitingKind.MEMORY_STORE, name=name)
            self._journal.note("memory.mounted", store=ref.store_id, path=mount.path)

    def touch(self) -> None:
        """Say that a tool call has ended: what it wrote is synced soon."""
        self._touched.set()

    async def follow(self) -> None:
        """Sync every 15 s and soon after a call that changed something, until cancelled."""
        if not self._mounts:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + SYNC_SECONDS
        while True:
            await self._pause(due - loop.time())
            whole = loop.time() >= due
            if await self._sync(only_changed=not whole) or whole:
                due = loop.time() + SYNC_SECONDS
                await asyncio.sleep(LEAST_SECONDS)

    async def finish(self, *, seconds: float = FINAL_SECONDS, final: bool = True) -> None:
        """Sync for the last time; `final` is a clean end, and takes the folders away."""
        if not self._mounts:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._sync(final=final)
                if final:
                    files = (await self._use()).files
                    for mount in self._mounts:
                        await mount.detach(files)
        except TimeoutError:
            self._journal.note("memory.not_synced", reason=f"not done within {seconds:g} s")
        except HandiworkError as error:
            self._journal.note("memory.not_synced", reason=str(error))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._touched.wait()
        except TimeoutError:
            return
        self._touched.clear()

    async def _sync(self, *, only_changed: bool = False, final: bool = False) -> bool:
        """Sync each store beside the others; say whether any was."""
        try:
            files = (await self._use()).files
        except HandiworkError as error:
            self._journal.note("memory.not_synced", reason=str(error))
            return False
        async with asyncio.TaskGroup() as group:
            synced = [
                group.create_task(self._sync_one(mount, files, only_changed, final))
                for mount in self._mounts
            ]
        return any(task.result() for task in synced)

    async def _sync_one(
        self, mount: MemoryMount, files: Files, only_changed: bool, final: bool
    ) -> bool:
        try:
            if only_changed and not await mount.is_changed(files):
                return False
            await mount.sync(files, final=final)
        except HandiworkError as error:
            reason = f"the memory store at {mount.path} is not synced: {error}"
            self._journal.waits(WaitingKind.MEMORY_STORE, reason, name=mount.path)
        else:
            self._journal.waits_no_more(WaitingKind.MEMORY_STORE, name=mount.path)
        return True

    def _mount(self, memories: Memories | None, ref: MemoryStoreRef) -> MemoryMount:
        if memories is None:
            raise UnsupportedError("memory stores are not served here: the brain offers no access")
        if len(self._mounts) >= MAX_STORES:
            raise UnsupportedError(f"a session mounts at most {MAX_STORES} memory stores")
        path = mount_path(ref)
        if any(mount.path == path for mount in self._mounts):
            raise UnsupportedError(f"another store is mounted at {path}")
        store = Store(ref=ref, memories=memories, work=self._work)

        def tell(kind: str, at: str, reason: str) -> None:
            self._journal.note(kind, store=ref.store_id, path=at[:200], reason=reason[:500])

        return MemoryMount(store, path, tell=tell, now=asyncio.get_running_loop().time)
