"""Sandboxes without walls whose files are kept elsewhere: on blobs in memory, that a test can break."""

import contextlib
import os
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from handiwork.config import SnapshotSettings
from handiwork.model.errors import ConflictError, NotFoundError
from handiwork.sandboxes.snapshots.manifest import Manifest
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.protocol import Make, Origin
from handiwork.sandboxes.snapshots.sealing import Keys
from handiwork.sandboxes.snapshots.walk import Uppers
from handiwork.sessions.snapshots.background import Background
from handiwork.sessions.snapshots.moves import Moves
from handiwork.sessions.snapshots.shelf import Shelf
from handiwork.testing.blobs import FakeBlobs
from host_sandbox import HostDriver
from session_world import World, clock


class KeepingDriver(HostDriver):
    """A sandbox's root is what it wrote."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root
        self.made = 0
        self.trees: dict[str, int] = {}
        self.settled: list[str] = []
        self.remade: list[tuple[str, bool]] = []
        self.forks = False
        self.forked: list[tuple[str, str]] = []

    def origin(self, sandbox_id: str) -> Origin:
        if not (self.root / sandbox_id).exists():
            raise NotFoundError(f"sandbox {sandbox_id} has no state on this host")
        return Origin("img", Range(0, os.geteuid()), f"t{self.trees.get(sandbox_id, 0)}")

    @contextlib.asynccontextmanager
    async def still(self, sandbox_id: str) -> AsyncIterator[Uppers]:
        async with contextlib.AsyncExitStack() as held:
            if sandbox := self.live.get(sandbox_id):
                await held.enter_async_context(sandbox.frozen())
            directory = os.open(self.root / sandbox_id, os.O_RDONLY | os.O_DIRECTORY)
            held.callback(os.close, directory)
            yield Uppers((directory,))

    async def settle(self, sandbox_id: str, disk_mib: int) -> None:
        self.settled.append(sandbox_id)

    def can_fork(self, sandbox_id: str) -> bool:
        return self.forks

    async def fork(self, source: str, target: str) -> None:
        if self.broken is not None:
            raise self.broken
        self.forked.append((source, target))
        shutil.copytree(self.root / source, self.root / target)

    async def remake(
        self, sandbox_id: str, image: str, disk_mib: int, make: Make, *, forked: bool = False
    ) -> None:
        self.remade.append((sandbox_id, forked))
        assert image == "img"
        assert disk_mib > 0
        if sandbox_id in self.live:
            raise ConflictError("it runs")
        self.made += 1
        beside = self.root.parent / f"made-{self.made}"
        beside.mkdir()
        place = os.open(beside, os.O_RDONLY | os.O_DIRECTORY)
        try:
            await make(place, Range(0, os.geteuid()))
        finally:
            os.close(place)
        shutil.rmtree(self.root / sandbox_id, ignore_errors=True)
        (beside / "upper").rename(self.root / sandbox_id)
        self.trees[sandbox_id] = self.made


class KeepingWorld(World):
    """A world with snapshots; `snapshots` are read when it is entered."""

    driver: KeepingDriver

    def __init__(self, directory: Path) -> None:
        (directory / "boxes").mkdir()
        super().__init__(directory / "boxes")
        self.driver = KeepingDriver(directory / "boxes")
        self.blobs = FakeBlobs()
        self.snapshots = SnapshotSettings(on_idle=False, stop_seconds=5)

    async def __aenter__(self) -> "KeepingWorld":
        self.shelf = Shelf(
            blobs=self.blobs,
            keys=Keys(b"k" * 32),
            tenant="default",
            store=self.store,
            sandbox=self.settings.sandbox,
            clock=clock,
            draw=os.urandom,
            metrics=self.metrics,
        )
        self.background = self.keeping = Background(self.shelf, self.snapshots)
        await self.background.__aenter__()
        await super().__aenter__()
        self.moves = Moves(self.background, self.sandboxes)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        await self.background.__aexit__(None, None, None)
        self.shelf.close()

    def lose(self, sandbox_id: str) -> None:
        """Lose what this host has of a sandbox."""
        shutil.rmtree(self.driver.root / sandbox_id)

    def newest(self, sandbox_id: str) -> Manifest:
        """Return its newest generation; blocks."""
        _, manifest = self.shelf.generations(threading.Event()).newest(sandbox_id)
        assert manifest is not None
        return manifest

    def packs(self) -> list[str]:
        return sorted(key for key in self.blobs.kept if "/packs/" in key)

    def damage(self, key: str) -> None:
        content = bytearray(self.blobs.kept[key])
        content[len(content) // 2] ^= 1
        self.blobs.kept[key] = bytes(content)
