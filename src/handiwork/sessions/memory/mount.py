"""One memory store mounted in one sandbox: written there whole, synced both ways, taken away."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from handiwork.brains.protocol import Memories
from handiwork.model.attachment import Memory, MemoryStoreRef
from handiwork.model.errors import (
    BrainRefusedError,
    ConflictError,
    GuestError,
    HandiworkError,
    NotFoundError,
    sole,
)
from handiwork.model.session import WorkItem
from handiwork.sandboxes.protocol import Files
from handiwork.sessions.memory.folder import UNFIT, Folder, Scan, digest, memory_path
from handiwork.sessions.memory.merge import Action, Do, Known, plan

MAX_MEMORIES = 2000
MAX_TOLD = 1000
PARALLEL = 8
"""So many memories of a store are under way at once."""

Tell = Callable[[str, str, str], None]
"""Takes what happened to which path, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A store as its brain serves it, for one work item."""

    ref: MemoryStoreRef
    memories: Memories
    work: WorkItem


class MemoryMount:
    """One store at one path. One sync at a time; `tell` hears what did not go as it was meant."""

    def __init__(self, store: Store, path: str, *, tell: Tell, now: Callable[[], float]) -> None:
        self.path = path
        self._store = store
        self._tell = tell
        self._now = now
        self._read_only = store.ref.read_only
        self._folder = Folder(path, store.ref.store_id, read_only=self._read_only)
        self._known = Known()
        self._told: dict[str, str] = {}

    async def attach(self, files: Files, *, fresh: bool) -> None:
        """Make the folder and write the store into it; what cannot be raises and leaves nothing."""
        await self._folder.make(files, fresh=fresh)
        try:
            await self._restore(files)
        except HandiworkError:
            await self._folder.remove(files)
            raise

    async def detach(self, files: Files) -> None:
        """Take the folder away: what it holds is kept by the brain."""
        await self._folder.remove(files)

    async def is_changed(self, files: Files) -> bool:
        """Say whether the folder differs from the last sync; nothing is asked of the brain."""
        scan = await self._folder.scan(files, whole=False)
        known = self._known
        edited = any(
            fingerprint not in (known.base.get(path), known.refused.get(path))
            for path, fingerprint in scan.files.items()
        )
        gone = known.base.keys() - scan.files.keys() - known.missing.keys()
        return not scan.marked or edited or bool(gone)

    async def sync(self, files: Files, *, final: bool = False) -> None:
        """Bring both sides together; HandiworkError when the folder or the brain forbid it."""
        scan = await self._folder.scan(files, whole=final)
        if not scan.marked and scan.files:
            raise ConflictError(
                f"the marker of the memory store at {self.path} is gone, so it is not synced;"
                " write the file back, or remove the folder to have it written anew"
            )
        there = await self._listed()
        if not scan.marked:
            await self._folder.mark(files)
            await self._restore(files)
            return
        self._refuse_unfit(scan)
        todo = plan(
            self._known,
            scan.files,
            there,
            now=self._now(),
            read_only=self._read_only,
            final=final,
        )
        for path in todo.lost:
            self._tell("memory.overwritten", path, "it changed on both sides; the brain's is kept")
        if todo.restore:
            await self._restore(files)
            return
        await self._do(files, todo.actions)

    async def _listed(self) -> dict[str, Memory]:
        """Return the brain's memories by their path in the folder."""
        store, found = self._store, dict[str, Memory]()
        listing = store.memories.all(store.work, store.ref.store_id, contents=False)
        async with contextlib.aclosing(listing):
            async for memory in listing:
                self._place(memory, found)
        return found

    async def _restore(self, files: Files) -> None:
        """Write every memory of the brain into the folder, as at the first time."""
        store = self._store
        self._known = Known()
        found: dict[str, Memory] = {}
        listing = store.memories.all(store.work, store.ref.store_id, contents=True)
        async with contextlib.aclosing(listing):
            async for memory in listing:
                if (path := self._place(memory, found)) is not None:
                    await self._write(files, path, memory)

    def _place(self, memory: Memory, found: dict[str, Memory]) -> str | None:
        path = memory_path(memory.path)
        if path is None:
            self._tell_once("memory.unfit", memory.path[:200], "its path has no place in a folder")
            return None
        if len(found) >= MAX_MEMORIES:
            raise BrainRefusedError(
                f"memory store {self._store.ref.store_id} holds more than {MAX_MEMORIES} memories"
            )
        found[path] = memory
        return path

    def _refuse_unfit(self, scan: Scan) -> None:
        for path, fingerprint in scan.files.items():
            if fingerprint.startswith(UNFIT) and not self._read_only:
                self._known.refused[path] = fingerprint
                self._tell_once("memory.unfit", path, fingerprint.removeprefix(UNFIT))

    async def _do(self, files: Files, actions: tuple[Action, ...]) -> None:
        """Do all of it, some side by side; the first thing that fails for the whole store ends it."""
        slots = asyncio.Semaphore(PARALLEL)

        async def one(action: Action) -> None:
            async with slots:
                await self._act(files, action)

        try:
            async with asyncio.TaskGroup() as group:
                for action in actions:
                    group.create_task(one(action))
        except BaseExceptionGroup as errors:
            raise sole(errors) from None

    async def _act(self, files: Files, action: Action) -> None:
        match action.do:
            case Do.PULL:
                await self._pull(files, action)
            case Do.DROP:
                if await self._folder.drop(files, action.path, action.sha256):
                    self._known.forget(action.path)
            case Do.CREATE | Do.UPDATE:
                await self._send(files, action)
            case Do.DELETE:
                await self._delete(files, action)

    async def _pull(self, files: Files, action: Action) -> None:
        store = self._store
        if action.memory is None:
            return
        try:
            memory = await store.memories.get(store.work, store.ref.store_id, action.memory.id)
        except NotFoundError:
            return  # deleted since it was listed: the next sync sees it gone
        await self._write(files, action.path, memory)

    async def _write(self, files: Files, path: str, memory: Memory) -> None:
        """Write a memory; only what is there for sure counts as seen, so nothing else is deleted."""
        content = memory.content or ""
        try:
            await self._folder.write(files, path, content)
        except GuestError as error:
            self._tell_once("memory.not_written", path, str(error))
            return
        self._known.agree(path, memory.sha256)

    async def _send(self, files: Files, action: Action) -> None:
        """Create or update a memory from its file, if the file still holds what was planned."""
        path = action.path
        content = await self._folder.content(files, path)
        if content is None or digest(content) != action.sha256:
            return  # it changed under our eyes: the next sync sees what it became
        self._known.sent[path] = action.sha256
        try:
            memory = await self._sent(action, content.decode())
        except ConflictError as error:
            self._known.sent.pop(path, None)
            self._tell("memory.overwritten", path, f"the brain's is kept: {error}")
        except BrainRefusedError as error:
            self._known.sent.pop(path, None)
            self._known.refused[path] = action.sha256
            self._tell("memory.refused", path, str(error))
        else:
            self._known.agree(path, memory.sha256)

    async def _sent(self, action: Action, content: str) -> Memory:
        store = self._store
        memories, work, store_id = store.memories, store.work, store.ref.store_id
        if action.memory is not None:
            try:
                return await memories.update(work, store_id, action.memory, content)
            except NotFoundError:
                pass  # deleted since it was listed: this file is the only copy
        return await memories.create(work, store_id, f"/{action.path}", content)

    async def _delete(self, files: Files, action: Action) -> None:
        """Delete a memory whose file is still gone from a folder that is still ours."""
        path, store = action.path, self._store
        if action.memory is None or not await self._folder.is_marked(files):
            return
        if await self._folder.content(files, path) is not None:
            return
        try:
            await store.memories.delete(store.work, store.ref.store_id, action.memory)
        except ConflictError as error:
            self._tell("memory.kept", path, f"it is not deleted: {error}")
            return
        except NotFoundError:
            pass  # gone there as well
        self._known.forget(path)

    def _tell_once(self, kind: str, path: str, reason: str) -> None:
        if len(self._told) < MAX_TOLD and self._told.get(path) != reason:
            self._told[path] = reason
            self._tell(kind, path, reason)


def mount_path(ref: MemoryStoreRef) -> str:
    """Return where the store is to be mounted; HandiworkError for a place that is not for that."""
    path = ref.mount_path or f"/mnt/memory/{ref.name or ref.store_id}"
    slug = path.removeprefix("/mnt/memory/")
    plain = slug.isascii() and slug.replace("-", "").replace("_", "").replace(".", "").isalnum()
    if not path.startswith("/mnt/memory/") or not plain or slug.startswith(".") or len(slug) > 128:
        raise HandiworkError(
            f"memory store {ref.store_id[:80]} asks to be mounted at {path[:200]!r}:"
            " only /mnt/memory/NAME is served, NAME of letters, digits, dots and dashes"
        )
    return path
