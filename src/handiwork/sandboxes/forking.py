"""More of one sandbox: the state of a new one that has another's files, and nothing else of it.

The copy lies beside until it is whole; what fails, or ends with us, leaves the other one alone.
"""

import threading
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from handiwork.model.errors import ConflictError, SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.copying import Copying
from handiwork.sandboxes.disk_files import copy_idle, copy_still
from handiwork.sandboxes.disks import make_clean
from handiwork.sandboxes.launched import Running
from handiwork.sandboxes.layers import DEPTH
from handiwork.sandboxes.marks import BOOT, UNFLUSHED
from handiwork.sandboxes.remaking import installed
from handiwork.sandboxes.snapshots.stoppable import in_thread
from handiwork.sandboxes.states import Meta, Staged, States, disk_of
from handiwork.sandboxes.unflushed import Unflushed


@dataclass(frozen=True, kw_only=True)
class Forking:
    """One to make, of a source that nobody starts, stops or deletes meanwhile."""

    states: States
    source: str
    target: str
    now: datetime
    copying: Copying
    unflushed: Unflushed

    async def run(self, running: Running | None) -> None:
        """Make it.

        A source that runs is frozen while its disk is copied. The disk of one that sleeps is shared
        from now on, and copied only where enough lies below it already.
        """
        meta = self._meta()
        own = self.states.disk(self.source).exists()
        if running is None and own and len(meta.layers) < DEPTH:
            meta = await self._shared(meta)
            own = False
        staged = self._staged(meta, on_disk=own)
        try:
            async with installed(self.states, staged):
                (staged.path / "upper").mkdir(0o755)
                if own:
                    # What was copied is in memory: writing it out takes longer, and somebody waits.
                    (staged.path / UNFLUSHED).write_bytes(BOOT.read_bytes())
                    await self._copied(disk_of(staged.path), running)
        except BaseException:  # it was not installed
            self.unflushed.forget(self.target)
            raise

    def _meta(self) -> Meta:
        meta = self.states.load(self.source, "")
        if self.states.path(self.target).exists():
            raise ConflictError(f"sandbox {self.target} has state on this host: destroy it first")
        if not self.states.lies_on_disks(self.source):
            raise UnsupportedError(
                f"the files of {self.source} are not on a disk, which alone can be copied at one"
                " moment: fork a snapshot of it"
            )
        if not meta.image:
            raise SandboxUnavailableError(f"it is not known what image {self.source} stands on")
        return meta

    async def _shared(self, meta: Meta) -> Meta:
        def sharing() -> Meta:
            self.unflushed.leave(self.source)
            # First: who makes it clean flushes it too, and would be told of what was not written.
            self.unflushed.flush(self.source)
            self.states.load(self.source, "")
            make_clean(self.states.disk(self.source))
            return self.states.share(meta)

        try:
            return await in_thread(None, threading.Event(), sharing)
        except OSError as error:
            raise SandboxUnavailableError(
                f"the disk of {self.source} cannot be shared: {error.strerror}"
            ) from error

    def _staged(self, meta: Meta, *, on_disk: bool) -> Staged:
        staged = self.states.stage(self.target, meta.image, self.now, on_disk=on_disk)
        owned = msgspec.structs.replace(
            staged.meta, disk_base=meta.owner_base, layers=meta.layers, forked=True
        )
        return Staged(staged.path, owned)

    async def _copied(self, target: Path, running: Running | None) -> None:
        source, stop = self.states.disk(self.source), threading.Event()
        async with self.copying.place() as threads:
            try:
                await in_thread(threads, stop, lambda: self._attached(source, target))
                await self._fill(source, target, running, threads, stop)
            except BaseException:
                # While the file has its name: what it holds in memory goes with that, in a thread.
                self.unflushed.forget(self.target)
                raise

    async def _fill(
        self,
        source: Path,
        target: Path,
        running: Running | None,
        threads: Executor,
        stop: threading.Event,
    ) -> None:
        if running is None:
            await in_thread(threads, stop, lambda: self._copy_idle(source, target, stop))
            return
        mount = running.stack.disk
        if mount is None:
            raise SandboxUnavailableError(f"sandbox {self.source} has ended")
        async with running.still():
            await in_thread(threads, stop, lambda: copy_still(mount, source, target, stop))
        self.states.load(self.source, "")  # it may have been lost meanwhile

    def _copy_idle(self, source: Path, target: Path, stop: threading.Event) -> None:
        self.unflushed.leave(self.source)
        copy_idle(source, target, stop)
        self.states.load(self.source, "")  # it may have been lost meanwhile

    def _attached(self, source: Path, target: Path) -> None:
        try:
            self.unflushed.attach(self.target, target, source.stat().st_size)
        except OSError as error:
            raise SandboxUnavailableError(
                f"no disk like {source} can be made: {error.strerror}"
            ) from error
