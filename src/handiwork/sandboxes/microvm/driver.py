"""The microvm tier: QEMU around a small host of its own, in which the agent is launched as on any host.

What a guest breaks out of, its namespaces, is a virtual machine without a network card; around that
stands a jail. Its disk is a file whose size is the quota; its memory is one too, so that sleeping takes
milliseconds and processes live on.
"""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

import msgspec

from handiwork.model.errors import (
    ConflictError,
    GuestError,
    HandiworkError,
    NotFoundError,
    SandboxUnavailableError,
)
from handiwork.model.sandbox import SandboxSpec
from handiwork.observe import log
from handiwork.observe.metrics import Metrics
from handiwork.sandboxes.cgroups import Cgroups, refuse_rates
from handiwork.sandboxes.commands import DEFAULT_ENV, check_env
from handiwork.sandboxes.copying import Copying
from handiwork.sandboxes.guest_client import GuestSandbox
from handiwork.sandboxes.identity import renew_machine_id
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.marks import BOOT
from handiwork.sandboxes.microvm import disks, jail, kernel, making, memory, orders, running
from handiwork.sandboxes.microvm.ahead import AHEAD, Entry
from handiwork.sandboxes.microvm.disk_tree import DiskTree
from handiwork.sandboxes.microvm.forking import Forking
from handiwork.sandboxes.microvm.holding import held_still
from handiwork.sandboxes.microvm.making import Making
from handiwork.sandboxes.microvm.plan import Plan, Setup, plan_of
from handiwork.sandboxes.microvm.running import Running
from handiwork.sandboxes.microvm.states import DEVICES, DISK, Meta, Staged, States
from handiwork.sandboxes.pool import Pool, SandboxKind, kinds_of
from handiwork.sandboxes.protocol import Wish
from handiwork.sandboxes.snapshots.protocol import Make, Origin
from handiwork.sandboxes.snapshots.stoppable import in_thread
from handiwork.sandboxes.trees import remove_tree

_LOG = log.get("microvm")
BOOT_SECONDS = 120.0
"""An emulated machine on a busy host takes this long; a good one takes a second."""

ORDER_SECONDS = 60.0
QEMU_MIB, QEMU_THREADS = 512, 96
"""Memory and threads of QEMU beyond its machine's, for the control group around it."""

KVM_DEVICE = Path("/dev/kvm")
DRAIN_SECONDS = 10.0


class ImageSource(Protocol):
    """Where images come from."""

    async def resolve(self, name: str) -> Image:
        """Return what a name stands for now."""
        ...

    async def find(self, digest: str) -> Image:
        """Return the image of a digest."""
        ...


class MicrovmDriver:
    """Sandboxes below `<data_dir>/microvm`. Use it from one event loop, in a thread that lives as long."""

    tier = "microvm"

    def __init__(
        self,
        data_dir: Path,
        agent: Path,
        images: ImageSource,
        setup: Setup,
        *,
        clock: Callable[[], datetime],
        entropy: Callable[[int], bytes] = os.urandom,
        metrics: Metrics | None = None,
    ) -> None:
        self._agent = agent
        self._images = images
        self._setup = setup
        self._clock = clock
        self._entropy = entropy
        self._directory = data_dir / "microvm"
        self._states = States(self._directory / "states", first_id=setup.first_id)
        place = hashlib.sha256(os.fsencode(self._directory.resolve())).hexdigest()[:8]
        self._cgroups = Cgroups(f"handiwork-{place}")
        self._metrics = metrics or Metrics()
        self._pool: Pool[SandboxKind, Entry] = Pool(
            self._ahead, lambda count: self._metrics.pooled(self.tier, count)
        )
        self._copying = Copying()
        self._host_boot = BOOT.read_text().strip()
        self._sweeping, self._swept = asyncio.Lock(), False
        self._boot: kernel.Boot | None = None
        self._making = asyncio.Lock()
        self._running: dict[str, Running] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def create(self, spec: SandboxSpec) -> GuestSandbox:
        """Make a new sandbox."""
        check_env(spec.env)
        refuse_rates(spec.limits, ())
        image = await self._images.resolve(spec.image)
        boot = await self._booted_from()
        blank = await self._blank(spec.limits.disk_mib)
        async with self._lock(spec.id):
            entry = self._pool.take((image.digest, spec.limits)) if spec.exit else None
            self._metrics.wanted(self.tier, stood_ready=entry is not None)
            if entry is not None:
                return await self._claim(entry, spec, image, boot)
            meta = self._states.make(spec.id, image.digest, self._clock())
            try:
                await self._furnish(self._states.path(spec.id), meta, blank)
                self._states.save(meta)
                return await self._start(spec, meta, image, boot)
            except BaseException:
                await self._delete(spec.id)
                raise

    async def restore(self, spec: SandboxSpec) -> GuestSandbox:
        """Wake one from the state that `sleep`, or a crash, left."""
        check_env(spec.env)
        refuse_rates(spec.limits, ())
        boot = await self._booted_from()
        async with self._lock(spec.id):
            alive = self._running.get(spec.id)
            if alive is not None and alive.channel.reason is None:
                raise ConflictError(f"sandbox {spec.id} is running")
            await self._stop(spec.id)
            await self._sweep()
            meta = self._states.load(spec.id)
            image = await self._images.find(meta.image)
            return await self._start(spec, meta, image, boot)

    async def sleep(self, sandbox_id: str) -> None:
        """End its processes and keep its files; NotFoundError when there is no such sandbox."""
        async with self._lock(sandbox_id):
            if not self._states.path(sandbox_id).is_dir():
                raise NotFoundError(f"sandbox {sandbox_id} has no state on this host")
            alive = self._running.get(sandbox_id)
            try:
                if alive is not None and alive.channel.reason is None:
                    await self._save(sandbox_id, alive)
            finally:
                await self._stop(sandbox_id)

    async def destroy(self, sandbox_id: str) -> None:
        """End its processes and delete all it left on the host."""
        async with self._lock(sandbox_id):
            await self._stop(sandbox_id)
            await self._delete(sandbox_id)

    def can_fork(self, sandbox_id: str) -> bool:
        """Whether there is a disk to copy."""
        return self._states.has_disk(sandbox_id)

    async def fork(self, source: str, target: str) -> None:
        """Make a sandbox that sleeps of another's disk; one that runs is held still meanwhile."""
        await self._sweep()
        async with AsyncExitStack() as held:
            for one in sorted({source, target}):
                await held.enter_async_context(self._lock(one))
            alive = await self._alive(source)
            forking = Forking(
                states=self._states,
                source=source,
                target=target,
                now=self._clock(),
                copying=self._copying,
                moment=self._moment,
            )
            await forking.run(alive)

    def origin(self, sandbox_id: str) -> Origin:
        """Tell what a state is; NotFoundError when its disk is not on this host."""
        meta = self._states.load(sandbox_id)
        begun = (meta.booted or meta.created).isoformat()
        # What was cut off may have written to a file, and not yet that it did: times tell nothing of it.
        whole = sandbox_id in self._running or (self._states.path(sandbox_id) / DEVICES).exists()
        return Origin(meta.image, making.OWNERS, f"{meta.id}/{begun}{'' if whole else '/cut off'}")

    @asynccontextmanager
    async def still(self, sandbox_id: str) -> AsyncIterator[DiskTree]:
        """Yield what the sandbox wrote to its disk; one that runs is held still meanwhile."""
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._lock(sandbox_id))
            self._states.load(sandbox_id)
            if alive := await self._alive(sandbox_id):
                await held.enter_async_context(held_still(alive, self._moment))
            disk = os.open(self._states.path(sandbox_id) / DISK, os.O_RDONLY | os.O_CLOEXEC)
            held.callback(os.close, disk)
            yield DiskTree(disk)

    async def settle(self, sandbox_id: str, disk_mib: int) -> None:
        """Do nothing: a machine's files lie on one disk of its own."""

    async def remake(
        self,
        sandbox_id: str,
        image: str,
        disk_mib: int,
        make: Make,
        *,
        forked: bool = False,
    ) -> None:
        """Put a disk with the tree that `make` makes in the place of the sandbox's; its memory goes."""
        await self._images.find(image)
        await self._sweep()
        async with self._lock(sandbox_id):
            if await self._alive(sandbox_id):
                raise ConflictError(f"sandbox {sandbox_id} is running")
            staged = self._states.stage("made", image, self._clock())
            try:
                await Making(staged.path, disk_mib).run(make)
                self._states.own(staged.path / DISK, staged.meta)
                stop = threading.Event()
                gone = await in_thread(None, stop, lambda: self._states.install(staged, sandbox_id))
            except BaseException as error:
                self._states.abandon(staged)
                await self._swept_away(staged.path)
                if isinstance(error, OSError):
                    raise SandboxUnavailableError(
                        f"the disk of {sandbox_id} could not be made: {error.strerror}"
                    ) from error
                raise
            if gone is not None:
                await self._swept_away(gone)

    async def _swept_away(self, path: Path) -> None:
        """Delete what is nobody's any more; what cannot be goes at the next start."""
        try:
            await in_thread(None, threading.Event(), lambda: remove_tree(path))
        except OSError as error:
            _LOG.warning("not deleted", path=str(path), reason=error.strerror)

    async def _alive(self, sandbox_id: str) -> Running | None:
        """Return the machine of one that runs; one that fell may not have let go of its disk yet."""
        alive = self._running.get(sandbox_id)
        if alive is not None and alive.channel.reason is not None:
            await self._stop(sandbox_id)
            return None
        return alive

    async def prepare(self, wishes: Sequence[Wish]) -> None:
        """Boot machines that wait for a claim."""
        try:
            await self._sweep()
            await self._pool.fill(await kinds_of(wishes, self._images.resolve))
        except OSError as error:
            raise SandboxUnavailableError(f"nothing could be made ready: {error}") from error

    async def leftovers(self) -> list[str]:
        """Return the ids of sandboxes that have state on this host, running or not."""
        return self._states.ids()

    def standing(self) -> Mapping[str, Sequence[str]]:
        """Return the ids of the states that stand on each image: it may not be removed."""
        return self._states.standing()

    def _lock(self, sandbox_id: str) -> asyncio.Lock:
        return self._locks.setdefault(sandbox_id, asyncio.Lock())

    async def _booted_from(self) -> kernel.Boot:
        async with self._making:
            if self._boot is None:
                found = kernel.find_kernel(self._setup.kernel_dir)
                kept = self._directory / "boot"
                self._boot = await asyncio.to_thread(kernel.make_boot, found, self._agent, kept)
            return self._boot

    async def _blank(self, mib: int) -> Path:
        async with self._making:
            return await disks.blank_disk(self._directory / "blank", mib)

    async def _furnish(self, state: Path, meta: Meta, blank: Path) -> None:
        """Give a new state its disk."""
        disk = state / DISK
        await asyncio.to_thread(disks.copy_sparse, blank, disk)
        self._states.own(disk, meta)

    async def _sweep(self) -> None:
        """Remove a former run's control groups that are no machine's, or of one that stood ready.

        Those died with it; before their disks are used again the last of them is gone.
        """
        async with self._sweeping:  # a later one would take away what was made since
            if not self._swept:
                leaves = self._cgroups.leaves()
                await self._cgroups.remove(*leaves.difference(self._states.ids()))
            self._swept = True

    async def _ahead(self, kind: SandboxKind) -> Entry:
        """Boot a machine up to where it waits for a claim: all but its name, exit and walls' lock."""
        digest, limits = kind
        refuse_rates(limits, ())
        image, boot = await self._images.find(digest), await self._booted_from()
        blank = await self._blank(limits.disk_mib)
        ahead = self._states.stage(AHEAD, digest, self._clock())
        spec = SandboxSpec(id=_leaf(ahead), image=digest, limits=limits)
        try:
            await self._furnish(ahead.path, ahead.meta, blank)
            plan = plan_of(ahead.path, spec, image, boot, self._setup, waits=True)
            return Entry(await self._boot_up(spec, ahead.meta, plan), ahead, self._abandon)
        except BaseException:
            await self._abandon(ahead)
            raise

    async def _abandon(self, ahead: Staged) -> None:
        self._states.abandon(ahead)
        await self._cgroups.remove(_leaf(ahead))
        await asyncio.to_thread(remove_tree, ahead.path)

    async def _claim(
        self, entry: Entry, spec: SandboxSpec, image: Image, boot: kernel.Boot
    ) -> GuestSandbox:
        """Make one that stood ready this sandbox: name, trust and exit are its own from now on."""
        try:
            named = self._states.name(entry.ahead, spec.id, self._clock())
            self._states.settle(named)
        except BaseException:
            await entry.end()
            raise
        try:
            return await self._given(entry.machine, spec, named.meta, image, boot)
        except BaseException:
            await self._stop(spec.id)
            await self._delete(spec.id)
            raise

    async def _given(
        self,
        machine: Running,
        spec: SandboxSpec,
        meta: Meta,
        image: Image,
        boot: kernel.Boot,
    ) -> GuestSandbox:
        self._running[spec.id] = machine
        plan = plan_of(self._states.path(spec.id), spec, image, boot, self._setup)
        try:
            await machine.claim(self._moment(), spec, ORDER_SECONDS)
        except BaseException as error:
            await self._fail(spec.id, machine, error)
            raise
        self._states.save(msgspec.structs.replace(meta, sleeps_as=self._sleeps_as(plan)))
        return await self._served(spec, image, machine)

    def _sleeps_as(self, plan: Plan) -> str:
        """Return what memory may be woken as: in this boot of the host, for a power cut tears it."""
        return f"{self._host_boot} {plan.shape}"

    async def _start(
        self, spec: SandboxSpec, meta: Meta, image: Image, boot: kernel.Boot
    ) -> GuestSandbox:
        state = self._states.path(spec.id)
        plan = plan_of(state, spec, image, boot, self._setup)
        devices = state / DEVICES
        started, sleeps_as = None, self._sleeps_as(plan)
        if devices.is_file() and meta.sleeps_as == sleeps_as:
            started = await self._wake(spec, meta, plan, devices)
        devices.unlink(missing_ok=True)
        if started is None:
            meta = msgspec.structs.replace(meta, booted=self._clock())
            self._states.save(meta)
            started = await self._boot_up(spec, meta, plan)
        if meta.sleeps_as != sleeps_as:
            self._states.save(msgspec.structs.replace(meta, sleeps_as=sleeps_as))
        return await self._served(spec, image, started)

    async def _served(self, spec: SandboxSpec, image: Image, machine: Running) -> GuestSandbox:
        """Return the sandbox of a machine, under a name of its own where its files keep one."""
        self._running[spec.id] = machine
        sandbox = GuestSandbox(spec.id, machine.channel, {**DEFAULT_ENV, **image.env, **spec.env})
        try:
            await renew_machine_id(sandbox.files, self._entropy)
        except GuestError as error:  # it has no room, say: its files are as they were, all the same
            _LOG.warning("it has its old machine-id", sandbox=spec.id, reason=str(error))
        except BaseException:
            await self._stop(spec.id)
            raise
        return sandbox

    async def _boot_up(self, spec: SandboxSpec, meta: Meta, plan: Plan) -> Running:
        """Boot a machine until its agent serves, or waits for its claim."""
        disks.make_sparse(plan.parts.memory, plan.made.memory_mib)
        self._states.own(plan.parts.memory, meta)
        started = await self._launch(spec, meta, plan)
        try:
            await started.control.ready(BOOT_SECONDS)
            await started.control.order(orders.start(self._moment(), plan.order), ORDER_SECONDS)
            if not plan.waits:
                await started.channel.hello(ORDER_SECONDS)
        except BaseException as error:
            await self._fail(spec.id, started, error)
            raise
        return started

    async def _wake(
        self, spec: SandboxSpec, meta: Meta, plan: Plan, devices: Path
    ) -> Running | None:
        """Let a machine run on from its memory; None when that cannot be: its disk is whole by itself."""
        started = await self._launch(spec, meta, plan, waking=True)
        try:
            await memory.load(started.monitor, devices)
            # From here on its disk is newer than what was saved, which must never be woken again.
            devices.unlink()
            await started.monitor.run("cont")
            await started.control.order(orders.resume(self._moment()), ORDER_SECONDS)
            started.exits.wake()
        except (SandboxUnavailableError, TimeoutError) as error:
            _LOG.warning(
                "sandbox.memory_lost",
                sandbox=spec.id,
                reason=f"{str(error) or type(error).__name__}",
            )
            await started.stop()
            return None
        except BaseException:
            await started.stop()
            raise
        return started

    async def _save(self, sandbox_id: str, alive: Running) -> None:
        """Save memory and devices; where that fails the disk is what is kept."""
        place = self._states.path(sandbox_id)
        beside = place / f".{DEVICES}"
        try:
            await alive.channel.drain(DRAIN_SECONDS)
            await alive.exits.hush(DRAIN_SECONDS)
            await alive.control.order(orders.hold(), ORDER_SECONDS)
            await memory.save(alive.monitor, beside)
            beside.rename(place / DEVICES)
        except (HandiworkError, TimeoutError, OSError) as error:
            beside.unlink(missing_ok=True)
            _LOG.warning(
                "sandbox.memory_lost",
                sandbox=sandbox_id,
                reason=f"{str(error) or type(error).__name__}",
            )

    async def _fail(self, sandbox_id: str, started: Running, error: BaseException) -> None:
        """Clean up after a start that failed; tells the machine's own reason if there is one."""
        told = await started.why() if isinstance(error, HandiworkError) else ""
        await started.stop()
        await self._cgroups.remove(started.leaf)
        if told:
            raise SandboxUnavailableError(
                f"sandbox {sandbox_id} did not start: {told}; `handiwork doctor` tells what is missing"
            ) from error

    async def _launch(
        self, spec: SandboxSpec, meta: Meta, plan: Plan, *, waking: bool = False
    ) -> Running:
        made = msgspec.structs.replace(plan.made, waking=waking)
        memory_mib = made.memory_mib + QEMU_MIB
        outer = msgspec.structs.replace(spec.limits, memory_mib=memory_mib, pids=QEMU_THREADS)
        try:
            argv = jail.argv(
                self._agent,
                plan.parts,
                made,
                owner=meta.owner,
                kvm_group=self._kvm_group(),
                file_mib=max(plan.parts.disk.stat().st_size >> 20, made.memory_mib),
                cgroups=self._cgroups.make(spec.id, outer),
            )
            exit_path = spec.exit.socket_path if spec.exit else ""
            return await running.start(argv, spec.id, exit_path, woken=waking)
        except BaseException:
            await self._cgroups.remove(spec.id)
            raise

    def _kvm_group(self) -> int:
        return KVM_DEVICE.stat().st_gid if self._setup.acceleration == "kvm" else 0

    def _moment(self) -> orders.Moment:
        unix_ns = int(self._clock().timestamp() * 1e6) * 1000
        return orders.Moment(unix_ns, self._entropy(orders.ENTROPY_BYTES))

    async def _stop(self, sandbox_id: str) -> None:
        alive = self._running.pop(sandbox_id, None)
        if alive is not None:
            await alive.stop()
        await self._cgroups.remove(sandbox_id, *([alive.leaf] if alive else ()))

    async def _delete(self, sandbox_id: str) -> None:
        gone = self._states.forget(sandbox_id)
        if gone is not None:
            await asyncio.to_thread(remove_tree, gone)


def _leaf(ahead: Staged) -> str:
    return ahead.path.name.removeprefix(".")
