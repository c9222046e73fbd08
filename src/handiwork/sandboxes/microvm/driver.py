"""The microvm tier: QEMU around a small host of its own, in which the agent is launched as on any host.

What a guest breaks out of, its namespaces, is a virtual machine without a network card; around that
stands a jail. Its disk is a file whose size is the quota; its memory is one too, so that sleeping takes
milliseconds and processes live on.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

import msgspec

from handiwork.model.errors import (
    ConflictError,
    HandiworkError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.sandbox import SandboxSpec
from handiwork.observe import log
from handiwork.sandboxes.cgroups import Cgroups, refuse_rates
from handiwork.sandboxes.commands import DEFAULT_ENV, check_env
from handiwork.sandboxes.guest_client import GuestSandbox
from handiwork.sandboxes.identity import renew_machine_id
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.microvm import disks, jail, kernel, machine, memory, orders, running
from handiwork.sandboxes.microvm.running import Running
from handiwork.sandboxes.microvm.states import DEVICES, DISK, MEMORY, Meta, States
from handiwork.sandboxes.protocol import Wish
from handiwork.sandboxes.trees import remove_tree

_LOG = log.get("microvm")
BOOT_SECONDS = 120.0
"""An emulated machine on a busy host takes this long; a good one takes a second."""

ORDER_SECONDS = 60.0
KERNEL_MIB = 96
"""Memory of a machine beyond what its sandbox may use: its kernel, our program, tables of pages."""

QEMU_MIB, QEMU_THREADS = 512, 96
"""Memory and threads of QEMU beyond its machine's, for the control group around it."""

KVM_DEVICE = Path("/dev/kvm")
GUEST_FIRST_ID = 1 << 30
"""Inside, the sandbox has a range of ids of its own as on a host."""

DRAIN_SECONDS = 10.0
CGROUP = "/sys/fs/cgroup"
SHM_MIB = 64


class ImageSource(Protocol):
    """Where images come from."""

    async def resolve(self, name: str) -> Image:
        """Return what a name stands for now."""
        ...

    async def find(self, digest: str) -> Image:
        """Return the image of a digest."""
        ...


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What runs machines here, from which kernel and under which host ids.

    `first_id` 0: as ourselves, for those who are not root.
    """

    acceleration: machine.Acceleration
    kind: machine.MachineKind
    kernel_dir: Path = Path("/")
    first_id: int = 0


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
            meta = self._states.make(spec.id, image.digest, self._clock())
            try:
                disk = self._states.path(spec.id) / DISK
                await asyncio.to_thread(disks.copy_sparse, blank, disk)
                self._states.own(disk, meta)
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
            meta = self._states.load(spec.id)
            image = await self._images.find(meta.image)
            return await self._start(spec, meta, image, boot)

    async def sleep(self, sandbox_id: str) -> None:
        """End its processes and keep its files; NotFoundError when there is no such sandbox."""
        async with self._lock(sandbox_id):
            if not self._states.path(sandbox_id).is_dir():
                raise NotFoundError(f"sandbox {sandbox_id} has no state on this host")
            alive = self._running.get(sandbox_id)
            if alive is not None and alive.channel.reason is None:
                await self._save(sandbox_id, alive)
            await self._stop(sandbox_id)

    async def destroy(self, sandbox_id: str) -> None:
        """End its processes and delete all it left on the host."""
        async with self._lock(sandbox_id):
            await self._stop(sandbox_id)
            await self._delete(sandbox_id)

    def can_fork(self, sandbox_id: str) -> bool:
        """None can: what sleeps is a machine with its memory, identity and all."""
        return False

    async def fork(self, source: str, target: str) -> None:
        """Refuse: UnsupportedError."""
        raise UnsupportedError(
            f"the tier {self.tier!r} has no forks: {source} keeps its disk and its memory to itself"
        )

    async def prepare(self, wishes: Sequence[Wish]) -> None:
        """Make ready what the next machines need: nothing that a first one does not make."""

    async def leftovers(self) -> list[str]:
        """Return the ids of sandboxes that have state on this host, running or not."""
        return self._states.ids()

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

    async def _start(
        self, spec: SandboxSpec, meta: Meta, image: Image, boot: kernel.Boot
    ) -> GuestSandbox:
        parts = self._parts(spec, image, boot)
        order = self._order(spec, image)
        made = self._machine(spec)
        shape = _shape(made, order, boot, image)
        devices = self._states.path(spec.id) / DEVICES
        started = None
        if devices.is_file() and meta.sleeps_as == shape:
            started = await self._wake(spec, meta, parts, made, devices)
        devices.unlink(missing_ok=True)
        if started is None:
            started = await self._boot_up(spec, meta, parts, made, order)
        if meta.sleeps_as != shape:
            self._states.save(msgspec.structs.replace(meta, sleeps_as=shape))
        self._running[spec.id] = started
        sandbox = GuestSandbox(spec.id, started.channel, {**DEFAULT_ENV, **image.env, **spec.env})
        await self._renew_machine_id(sandbox)
        return sandbox

    async def _boot_up(
        self,
        spec: SandboxSpec,
        meta: Meta,
        parts: jail.Parts,
        made: machine.Machine,
        order: orders.Start,
    ) -> Running:
        disks.make_sparse(parts.memory, made.memory_mib)
        self._states.own(parts.memory, meta)
        started = await self._launch(spec, meta, parts, made)
        try:
            await started.control.ready(BOOT_SECONDS)
            await started.control.order(orders.start(order), ORDER_SECONDS)
            await started.channel.hello(ORDER_SECONDS)
        except BaseException as error:
            await self._fail(spec.id, started, error)
            raise
        return started

    async def _wake(
        self,
        spec: SandboxSpec,
        meta: Meta,
        parts: jail.Parts,
        made: machine.Machine,
        devices: Path,
    ) -> Running | None:
        """Let a machine run on from its memory; None when that cannot be: its disk is whole by itself."""
        waking = msgspec.structs.replace(made, waking=True)
        started = await self._launch(spec, meta, parts, waking)
        try:
            await memory.load(started.monitor, devices)
            # From here on its disk is newer than what was saved, which must never be woken again.
            devices.unlink()
            await started.monitor.run("cont")
            fresh = orders.resume(self._unix_ns(), self._entropy(orders.ENTROPY_BYTES))
            await started.control.order(fresh, ORDER_SECONDS)
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
            await alive.control.order(orders.sync(), ORDER_SECONDS)
            await memory.save(alive.monitor, beside)
            beside.rename(place / DEVICES)
        except (HandiworkError, TimeoutError, OSError) as error:
            beside.unlink(missing_ok=True)
            _LOG.warning(
                "sandbox.memory_lost",
                sandbox=sandbox_id,
                reason=f"{str(error) or type(error).__name__}",
            )

    async def _renew_machine_id(self, sandbox: GuestSandbox) -> None:
        """Give the machine a name of its own, where its image or its software keeps one."""
        await renew_machine_id(sandbox.files, self._entropy)

    async def _fail(self, sandbox_id: str, started: Running, error: BaseException) -> None:
        """Clean up after a start that failed; tells the machine's own reason if there is one."""
        told = await started.why() if isinstance(error, HandiworkError) else ""
        await started.stop()
        await self._cgroups.remove(sandbox_id)
        if told:
            raise SandboxUnavailableError(
                f"sandbox {sandbox_id} did not start: {told}; `handiwork doctor` tells what is missing"
            ) from error

    def _parts(self, spec: SandboxSpec, image: Image, boot: kernel.Boot) -> jail.Parts:
        state = self._states.path(spec.id)
        if image.erofs is None:
            raise UnsupportedError(
                f"the microvm tier has no image {spec.image[:80]!r} as one file: it cannot lend a"
                " machine this host's own /usr; build an image"
            )
        return jail.Parts(
            kernel=boot.kernel,
            initrd=boot.initrd,
            image=image.erofs,
            disk=state / DISK,
            memory=state / MEMORY,
        )

    def _machine(self, spec: SandboxSpec) -> machine.Machine:
        limits = spec.limits
        return machine.Machine(
            program=disks.find_program("qemu-system-x86_64", "qemu-system-x86"),
            acceleration=self._setup.acceleration,
            kind=self._setup.kind,
            memory_mib=limits.memory_mib + KERNEL_MIB,
            cpus=max(1, min(-(-limits.cpu_percent // 100), os.cpu_count() or 1)),
            kernel=jail.inside("kernel"),
            initrd=jail.inside("initrd"),
            image=jail.inside("image"),
            disk=jail.inside("disk"),
            memory=jail.inside("memory"),
        )

    async def _launch(
        self, spec: SandboxSpec, meta: Meta, parts: jail.Parts, made: machine.Machine
    ) -> Running:
        memory_mib = made.memory_mib + QEMU_MIB
        outer = msgspec.structs.replace(spec.limits, memory_mib=memory_mib, pids=QEMU_THREADS)
        try:
            argv = jail.argv(
                self._agent,
                parts,
                made,
                owner=meta.owner,
                kvm_group=self._kvm_group(),
                file_mib=max(parts.disk.stat().st_size >> 20, made.memory_mib),
                cgroups=self._cgroups.make(spec.id, outer),
            )
            exit_path = spec.exit.socket_path if spec.exit else ""
            return await running.start(argv, exit_path, woken=made.waking)
        except BaseException:
            await self._cgroups.remove(spec.id)
            raise

    def _kvm_group(self) -> int:
        return KVM_DEVICE.stat().st_gid if self._setup.acceleration == "kvm" else 0

    def _order(self, spec: SandboxSpec, image: Image) -> orders.Start:
        limits = spec.limits
        group = f"{CGROUP}/sandbox"
        files = {
            f"{CGROUP}/cgroup.subtree_control": b"+memory +pids",
            group: b"",
            f"{group}/memory.max": str(limits.memory_mib << 20).encode(),
            f"{group}/pids.max": str(limits.pids).encode(),
            "/proc/sys/vm/dirty_writeback_centisecs": b"20",
            "/proc/sys/vm/dirty_expire_centisecs": b"40",
        }
        arguments = ["--channel", "3", "--root", "/image", "--state", "/state"]
        arguments += ["--hostname", spec.hostname, "--id-base", str(GUEST_FIRST_ID)]
        arguments += ["--tmp-mib", str(limits.tmp_mib), "--shm-mib", str(SHM_MIB)]
        arguments += ["--nofile", str(limits.open_files), "--fsize-mib", str(limits.file_size_mib)]
        arguments += ["--cgroup", group]
        if spec.exit is not None:
            roots = image.roots.read_bytes().rstrip() + b"\n"
            files["/run/bundle.pem"] = roots + spec.exit.ca_certificate.encode()
            arguments += ["--exit", "/run/exit", "--bundle", "/run/bundle.pem"]
        return orders.Start(
            unix_ns=self._unix_ns(),
            entropy=self._entropy(orders.ENTROPY_BYTES),
            owner=GUEST_FIRST_ID,
            files=files,
            arguments=arguments,
        )

    def _unix_ns(self) -> int:
        return int(self._clock().timestamp() * 1e6) * 1000

    async def _stop(self, sandbox_id: str) -> None:
        alive = self._running.pop(sandbox_id, None)
        if alive is not None:
            await alive.stop()
        await self._cgroups.remove(sandbox_id)

    async def _delete(self, sandbox_id: str) -> None:
        gone = self._states.forget(sandbox_id)
        if gone is not None:
            await asyncio.to_thread(remove_tree, gone)


def _shape(made: machine.Machine, order: orders.Start, boot: kernel.Boot, image: Image) -> str:
    """Return a digest of all that a sleeping machine's memory was made from, besides its disk."""
    parts = [machine.argv(made), boot.digest, image.digest, order.owner, list(order.arguments)]
    files = {path: content.decode() for path, content in order.files.items()}
    return hashlib.sha256(msgspec.json.encode([parts, files])).hexdigest()
