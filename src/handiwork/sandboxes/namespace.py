"""The namespace tier: user, mount, pid, net, ipc, uts, cgroup and time namespaces around one agent.

The launcher and the agent are one static program (`guest/PROTOCOL.md`). As root every sandbox gets
65,536 host ids of its own and control groups; as an ordinary user inside root is that user, and only
the limits that need no privilege hold. `protections` tells which.
"""

import asyncio
import hashlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec

from handiwork.model.errors import (
    ConflictError,
    GuestError,
    HandiworkError,
    NotFoundError,
    SandboxUnavailableError,
)
from handiwork.model.sandbox import ExecRequest, Limits, SandboxSpec
from handiwork.observe import log
from handiwork.observe.metrics import Metrics
from handiwork.process import is_root
from handiwork.sandboxes import disks
from handiwork.sandboxes.cgroups import Cgroups, refuse_rates
from handiwork.sandboxes.channel import Channel
from handiwork.sandboxes.commands import DEFAULT_ENV, check_env
from handiwork.sandboxes.copying import Copying
from handiwork.sandboxes.forking import Forking
from handiwork.sandboxes.guest_client import GuestSandbox
from handiwork.sandboxes.host import CHANNEL_FD, HostProcess, launch
from handiwork.sandboxes.identity import renew_machine_id
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.images.mounted import can_mount_files
from handiwork.sandboxes.images.store import Images
from handiwork.sandboxes.launched import BUNDLE, Entry, Launched, Running, write_bundle
from handiwork.sandboxes.layers import Layers
from handiwork.sandboxes.leaves import Leaves
from handiwork.sandboxes.namespace_sandbox import NamespaceSandbox
from handiwork.sandboxes.pool import Pool, SandboxKind, kinds_of
from handiwork.sandboxes.probe import has_own_clocks
from handiwork.sandboxes.protocol import Inside, Wish
from handiwork.sandboxes.remaking import Remaking
from handiwork.sandboxes.settling import Settling
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.protocol import Entries, Make, Origin
from handiwork.sandboxes.snapshots.stoppable import in_thread
from handiwork.sandboxes.snapshots.walk import DIRECTORY, Uppers
from handiwork.sandboxes.stacks import Stack, Stacks, closed_on_error
from handiwork.sandboxes.states import ATTEMPT, Meta, Staged, States
from handiwork.sandboxes.trees import remove_tree
from handiwork.sandboxes.unflushed import FIRST_START_SECONDS, Unflushed

_LOG = log.get("sandboxes")
DEFAULT_AGENT = Path(__file__).parents[1] / "guest_agent"
"""Where the package carries the guest program."""
HELLO_SECONDS = 20.0
SHM_MIB = 64
OVER = "handiwork-guest: disk: "
"""What the launcher says before it ends a sandbox whose files outgrew their limit."""
DISK = "it is over disk_mib = {}: {}; it is stopped, its files are kept: wake it and delete some"
HOST_CLOCKS = (
    "user.max_time_namespaces is 0, or the kernel has no time namespaces: sandboxes are told how long"
    " this host has been up"
)
MEMORY = "its memory ran out: give it a higher limit, or do less at once"


class NamespaceDriver:
    """Sandboxes below `<data_dir>/sandboxes`; images where it is told, else `<data_dir>/images`.

    One driver a data directory at a time. Use it from one event loop, in a thread that lives as
    long as its sandboxes.
    """

    def __init__(
        self,
        data_dir: Path,
        guest_agent: Path = DEFAULT_AGENT,
        *,
        clock: Callable[[], datetime],
        first_id: int = 1 << 30,
        images: Images | None = None,
        inside: Inside | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._inside = inside
        self._used = inside is None
        self._agent = guest_agent
        self._clock = clock
        self._ranged = is_root()
        self._images = images or Images(data_dir / "images")
        self._states = States(data_dir / "sandboxes", ranged=self._ranged, first_id=first_id)
        self._images.held_by(self._states.standing)
        place = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:8]
        self._cgroups = Cgroups(f"handiwork-{place}")
        self._leaves = Leaves(self._cgroups)
        self._disks = disks.Disks(data_dir / "disks") if disks.can_limit_disks() else None
        self._copying = Copying()
        self._unflushed = Unflushed(self._states, self._copying)
        self._stacks = Stacks(self._disks, Layers(self._states.layers), self._unflushed)
        self._metrics = metrics or Metrics()
        self._pool: Pool[SandboxKind, Entry] = Pool(
            self._ahead, lambda count: self._metrics.pooled(self.tier, count)
        )
        self._swept = False
        self._clocks_told = False
        self._running: dict[str, Running] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def tier(self) -> str:
        """`namespace`, or that of what is run inside."""
        return self._inside.tier if self._inside else "namespace"

    def protections(self) -> Mapping[str, bool]:
        """Return what holds around every sandbox here, by name."""
        limits = self._cgroups.limits
        return {
            "user_namespace": True,
            "no_network_device": True,
            "seccomp": True,
            "no_new_privileges": True,
            "own_id_range": self._ranged,
            "image_from_one_file": self._ranged and can_mount_files(),
            "memory_limit": "memory" in limits,
            "process_limit": True,
            "cpu_limit": "cpu" in limits,
            "disk_limit": self._disks is not None,
            **({"disk_watch": True} if self._disks is None else {}),
            "disk_read_rate": "read" in self._rates,
            "disk_write_rate": "write" in self._rates,
            "own_clocks": has_own_clocks(),
            **(self._inside.protections() if self._inside else {}),
        }

    @property
    def _rates(self) -> frozenset[str]:
        return self._cgroups.rates if self._disks is not None else frozenset()

    async def create(self, spec: SandboxSpec) -> GuestSandbox:
        """Make a new sandbox."""
        check_env(spec.env)
        await self._prove()
        image = await self._images.resolve(spec.image)
        async with self._lock(spec.id):
            entry = self._pool.take((image.digest, spec.limits)) if spec.exit else None
            self._metrics.wanted(self.tier, stood_ready=entry is not None)
            if entry is not None:
                return await self._claim(entry, spec, image)
            meta = self._states.make(spec.id, image.digest, self._clock())
            try:
                return await self._start(spec, meta, image, new=True)
            except BaseException:
                await self._delete(spec.id)
                raise

    async def restore(self, spec: SandboxSpec) -> GuestSandbox:
        """Wake one from the state that `sleep`, or a crash, left."""
        check_env(spec.env)
        await self._prove()
        async with self._lock(spec.id):
            running = self._running.get(spec.id)
            if running is not None and running.channel.reason is None:
                raise ConflictError(f"sandbox {spec.id} is running")
            await self._stop(spec.id)
            meta = self._states.load(spec.id, "")
            if not meta.image:  # a crash left no meta file
                current = await self._images.resolve(spec.image)
                meta = msgspec.structs.replace(meta, image=current.digest)
                self._states.save(meta)
            image = await self._images.find(meta.image)
            sandbox = await self._start(spec, meta, image, new=False)
            if meta.forked:
                try:
                    await self._make_its_own(sandbox, meta)
                except BaseException:
                    await self._stop(spec.id)
                    raise
            return sandbox

    async def sleep(self, sandbox_id: str) -> None:
        """End its processes and keep its files; NotFoundError when there is no such sandbox."""
        async with self._lock(sandbox_id):
            if not self._states.path(sandbox_id).is_dir():
                raise NotFoundError(f"sandbox {sandbox_id} has no state on this host")
            await self._stop(sandbox_id)
            self._unflushed.flush_later(sandbox_id)

    async def destroy(self, sandbox_id: str) -> None:
        """End its processes and delete all it left on the host."""
        async with self._lock(sandbox_id):
            await self._stop(sandbox_id)
            await self._delete(sandbox_id)

    def can_fork(self, sandbox_id: str) -> bool:
        """Whether its files lie on disks, which can be copied and shared."""
        return self._states.lies_on_disks(sandbox_id)

    async def fork(self, source: str, target: str) -> None:
        """Make a sandbox that sleeps of another's files; one that runs is frozen meanwhile."""
        async with AsyncExitStack() as held:
            for one in sorted({source, target}):
                await held.enter_async_context(self._lock(one))
            forking = Forking(
                states=self._states,
                source=source,
                target=target,
                now=self._clock(),
                copying=self._copying,
                unflushed=self._unflushed,
            )
            try:
                await forking.run(self._running.get(source))
            except asyncio.CancelledError:  # it may be there all the same
                self._unflushed.flush_later(target, seconds=FIRST_START_SECONDS)
                raise
        self._unflushed.flush_later(target, seconds=FIRST_START_SECONDS)

    @asynccontextmanager
    async def uppers(self, sandbox_id: str) -> AsyncIterator[tuple[int, ...]]:
        """Yield descriptors of the directories that hold what the sandbox wrote, running or not.

        The guest may change the first meanwhile, and named what is in all: open only beneath them and
        without following links. NotFoundError when there is no such sandbox.
        """
        running = self._running.get(sandbox_id)
        meta, state = self._states.load(sandbox_id, ""), self._states.path(sandbox_id)
        async with self._stacks.read(meta, state, running.stack if running else None) as found:
            yield found

    @asynccontextmanager
    async def lower(self, sandbox_id: str) -> AsyncIterator[int | None]:
        """Yield a descriptor of the root of its image where its files lie in layers, else None."""
        meta = self._states.load(sandbox_id, "")
        if not meta.layers:
            yield None
            return
        image = await self._images.find(meta.image)
        mount = await self._mount(image)
        root = os.open("." if mount is not None else image.tree, DIRECTORY, dir_fd=mount)
        try:
            yield root
        finally:
            os.close(root)

    @asynccontextmanager
    async def still(self, sandbox_id: str) -> AsyncIterator[Uppers]:
        """Yield what the sandbox wrote, its processes frozen meanwhile if it runs."""
        async with AsyncExitStack() as held:
            uppers = await held.enter_async_context(self.uppers(sandbox_id))
            lower = await held.enter_async_context(self.lower(sandbox_id))
            if running := self._running.get(sandbox_id):
                await held.enter_async_context(running.still())
            yield Uppers(uppers, lower)

    def origin(self, sandbox_id: str) -> Origin:
        """Tell what a state is; NotFoundError when its files are not on this host."""
        meta = self._states.load(sandbox_id, "")
        tree = f"{meta.id}/{meta.created.isoformat()}"
        return Origin(meta.image, Range(meta.owner_base, os.geteuid()), tree)

    async def remake(
        self, sandbox_id: str, image: str, disk_mib: int, make: Make, *, forked: bool = False
    ) -> None:
        """Put a tree that `make` makes beside in the place of the sandbox's, in one step."""
        async with self._lock(sandbox_id):
            await self._remake(sandbox_id, image, disk_mib, make, forked=forked)

    async def _remake(
        self, sandbox_id: str, image: str, disk_mib: int, make: Make, *, forked: bool
    ) -> None:
        await self._images.find(image)
        if sandbox_id in self._running:
            raise ConflictError(f"sandbox {sandbox_id} is running")
        self._unflushed.forget(sandbox_id)
        await Remaking(
            states=self._states,
            disks=self._disks,
            sandbox_id=sandbox_id,
            image=image,
            disk_mib=disk_mib,
            now=self._clock(),
            forked=forked,
        ).run(make)
        await asyncio.to_thread(self._states.sweep_layers)

    async def settle(self, sandbox_id: str, disk_mib: int) -> None:
        """Bring the files of one that sleeps onto a disk of its own, where that is worth it.

        It is where it shares with nobody any more, or lies on more than one layer. No-op else.
        """
        async with self._lock(sandbox_id):
            meta = self._states.load(sandbox_id, "")
            if not meta.layers or sandbox_id in self._running:
                return

            def unshared() -> bool:
                few = len(meta.layers) == 1 and self._states.is_shared(meta)
                return few or self._states.unshare(meta)

            # Who is cancelled waits for it: what it does goes on, and belongs to this lock.
            if not await in_thread(None, threading.Event(), unshared):
                await self._settle(meta, disk_mib)

    async def _settle(self, meta: Meta, disk_mib: int) -> None:
        async with (
            self._copying.place() as threads,
            self.uppers(meta.id) as uppers,
            self.lower(meta.id) as image,
        ):
            stop, owners = threading.Event(), Range(meta.owner_base, os.geteuid())

            async def make(place: int, ids: Range) -> Entries:
                settling = Settling(
                    sandbox_id=meta.id,
                    uppers=uppers,
                    image=image,
                    owners=owners,
                    place=place,
                    ids=ids,
                    stop=stop,
                )
                return await in_thread(threads, stop, settling.run)

            await self._remake(meta.id, meta.image, disk_mib, make, forked=False)

    async def prepare(self, wishes: Sequence[Wish]) -> None:
        """Make ready sandboxes that wait for a claim, and disks for those that are made anew.

        Nothing before the first of a tier of which none is to stand ready: it is here for no more
        reason than that its program is.
        """
        try:
            await self._prepare(wishes)
        except OSError as error:
            raise SandboxUnavailableError(f"nothing could be made ready: {error}") from error

    async def _prepare(self, wishes: Sequence[Wish]) -> None:
        await self._sweep()
        if any(wish.sandboxes for wish in wishes):
            await self._prove()
        await self._pool.fill(await kinds_of(wishes, self._images.resolve))
        if not wishes:
            await self._leaves.close()
            self._unflushed.close()
            if self._disks is not None:
                self._disks.close()
        elif self._used:
            for limits in {wish.limits for wish in wishes}:
                await self._leaves.prepare(self._around(limits))
                if self._disks is not None:
                    await self._disks.prepare(limits.disk_mib)

    def _around(self, limits: Limits) -> Limits:
        """Return the limits of the control groups of one that has these."""
        return self._inside.around(limits) if self._inside else limits

    async def leftovers(self) -> list[str]:
        """Return the ids of sandboxes that have state on this host, running or not."""
        return self._states.ids()

    async def _sweep(self) -> None:
        """Remove a former run's control groups that are no sandbox's, and flush what it did not."""
        if not self._swept:
            leaves, known = self._cgroups.leaves(), self._states.ids()
            await self._cgroups.remove(*leaves.difference(known))
            self._unflushed.flush_later(*known)
        self._swept = True

    async def _ahead(self, kind: SandboxKind) -> Entry:
        """Make a sandbox up to where it waits for a claim: all but its name, its exit and its walls' lock."""
        digest, limits = kind
        image = await self._images.find(digest)
        ahead = self._states.ahead(digest, self._clock())
        leaf = ahead.path.name.removeprefix(".")
        try:
            write_bundle(ahead.path / BUNDLE, image, "")
            spec = SandboxSpec(id=leaf, image=digest, limits=limits)
            launched = await self._launch(
                spec, ahead.meta, image, ahead.path, new=True, more=("--await-claim",)
            )
            try:
                await launched.stands_within(HELLO_SECONDS)
            except BaseException as error:
                await self._fail("made ahead", launched, error)
                raise
        except BaseException:
            await self._abandon(ahead, leaf)
            raise
        return Entry(launched, ahead, self._abandon)

    async def _abandon(self, ahead: Staged, leaf: str) -> None:
        self._states.abandon(ahead)
        await self._cgroups.remove(leaf)
        await asyncio.to_thread(remove_tree, ahead.path)

    async def _claim(self, entry: Entry, spec: SandboxSpec, image: Image) -> GuestSandbox:
        """Make one that was made ahead this sandbox: name, trust and exit are its own from now on."""
        try:
            entry.claim(spec)
            meta = self._states.settle(entry.ahead, spec.id, self._clock())
        except BaseException:
            await entry.end()
            raise
        try:
            return await self._serve(spec, meta, image, entry.launched, new=True)
        except BaseException:
            await self._delete(spec.id)
            raise

    def _lock(self, sandbox_id: str) -> asyncio.Lock:
        return self._locks.setdefault(sandbox_id, asyncio.Lock())

    async def _prove(self) -> None:
        if self._inside:
            await self._inside.ready(self._attempt)
        elif not self._clocks_told:
            self._clocks_told = True
            if not has_own_clocks():
                _LOG.warning("sandbox.clocks_of_the_host", reason=HOST_CLOCKS)
        self._used = True

    async def _attempt(self) -> None:
        """Make a sandbox that runs one command, and end it; SandboxUnavailableError if that fails."""
        spec = SandboxSpec(id=f"{ATTEMPT}{os.getpid():010}")
        await self.destroy(spec.id)
        async with self._lock(spec.id):
            image = await self._images.resolve(spec.image)
            meta = self._states.make(spec.id, image.digest, self._clock())
        try:
            box = await self._start(spec, meta, image, new=True)
            await box.exec(ExecRequest(argv=("true",), cwd="/"))
        finally:
            await self.destroy(spec.id)

    async def _start(
        self, spec: SandboxSpec, meta: Meta, image: Image, *, new: bool
    ) -> GuestSandbox:
        launched = await self._launch(spec, meta, image, self._states.path(spec.id), new=new)
        return await self._serve(spec, meta, image, launched, new=new)

    async def _make_its_own(self, sandbox: GuestSandbox, meta: Meta) -> None:
        """Give a fork that starts for the first time a name of its own, where its files have another's."""
        try:
            await renew_machine_id(sandbox.files, os.urandom)
        except GuestError as error:  # it has no room, say: its files are as they were, all the same
            _LOG.warning("it has the machine-id of another", sandbox=sandbox.id, reason=str(error))
        on_disk = self._running[sandbox.id].stack.disk is not None
        await self._save(msgspec.structs.replace(meta, on_disk=on_disk, forked=False))

    async def _save(self, meta: Meta) -> None:
        if meta.layers:  # it is flushed, which may take long
            await in_thread(None, threading.Event(), lambda: self._states.save(meta))
        else:
            self._states.save(meta)

    async def _launch(
        self,
        spec: SandboxSpec,
        meta: Meta,
        image: Image,
        state: Path,
        *,
        new: bool,
        more: Sequence[str] = (),
    ) -> Launched:
        refuse_rates(spec.limits, self._rates)
        mount = await self._mount(image)
        on = self._stacks.create if new else self._stacks.open
        stack = await on(meta, state, spec.limits.disk_mib)
        with closed_on_error(stack):
            ours, theirs = socket.socketpair()
        ours.setblocking(False)
        leaf = spec.id
        with theirs:
            try:
                if stack.disk is None:
                    refuse_rates(spec.limits, ())
                limits = self._around(spec.limits)
                leaf, groups = self._leaves.take(leaf, limits, stack.devices())
                argv = self._argv(spec, meta, image, state, stack, ahead=bool(more))
                argv += [word for one in groups for word in ("--cgroup", str(one))]
                argv += ["--root", str(image.tree)] if mount is None else []
                descriptors, naming = stack.given(mount)
                process = launch([*argv, *naming, *more], theirs.fileno(), *descriptors)
            except BaseException:
                ours.close()
                stack.close()
                await self._cgroups.remove(leaf)
                raise
        return Launched(process, ours, stack, leaf)

    async def _serve(
        self,
        spec: SandboxSpec,
        meta: Meta,
        image: Image,
        launched: Launched,
        *,
        new: bool,
    ) -> GuestSandbox:
        """Wait until the agent serves; a sandbox that does not is ended."""
        process, leaf = launched.process, launched.leaf
        channel = Channel(lambda reason: process.terminate() if reason else None)
        channel.cause = lambda: self._cause(process, leaf, spec.limits)
        try:
            on_disk = launched.stack.disk is not None
            if new or on_disk != meta.on_disk:
                kept = msgspec.structs.replace(meta, on_disk=on_disk)
                await self._save(kept)  # while the launcher works
            await channel.loop.create_unix_connection(lambda: channel, sock=launched.end)
            await channel.hello(HELLO_SECONDS)
        except BaseException as error:
            channel.end()
            await self._fail(spec.id, launched, error)
            raise
        env = {**DEFAULT_ENV, **image.env, **spec.env}
        sandbox = NamespaceSandbox(
            spec.id, channel, env, ranged=self._ranged, still=lambda: self._cgroups.freezer(leaf)
        )
        self._running[spec.id] = Running(launched, channel, sandbox.frozen)
        return sandbox

    def _cause(self, process: HostProcess, leaf: str, limits: Limits) -> str:
        """Return why an agent is gone, where that is known."""
        if process.error_line().startswith(OVER):
            return DISK.format(limits.disk_mib, process.error_line().removeprefix(OVER))
        # To the host gVisor is one process, and is killed as one.
        return MEMORY if self._inside and self._cgroups.killed_for_memory(leaf) else ""

    async def _mount(self, image: Image) -> int | None:
        """Return the image's mount where it is one file and we can; else its directory serves."""
        if image.erofs is None or not self._ranged or not can_mount_files():
            return None
        return await self._images.mounts.get(image, self._agent)

    async def _fail(self, sandbox_id: str, launched: Launched, error: BaseException) -> None:
        """Clean up after a start that failed; tells the launcher's own reason if there is one."""
        await launched.stop()
        await self._cgroups.remove(launched.leaf)
        line = launched.process.error_line()
        if line and isinstance(error, HandiworkError):
            raise SandboxUnavailableError(
                f"sandbox {sandbox_id} did not start: {line}; `handiwork doctor` tells what is missing"
            ) from error

    def _argv(
        self,
        spec: SandboxSpec,
        meta: Meta,
        image: Image,
        state: Path,
        stack: Stack,
        *,
        ahead: bool,
    ) -> list[str]:
        limits = spec.limits
        argv = [str(self._agent), "launch", "--channel", str(CHANNEL_FD)]
        argv += ["--host-usr"] if image.host_usr else []
        argv += ["--watched-mib", str(limits.disk_mib)] if stack.disk is None else []
        argv += ["--disk-base", str(meta.disk_base)] if meta.disk_base else []
        argv += ["--state", str(state), "--hostname", spec.hostname]
        argv += ["--tmp-mib", str(limits.tmp_mib), "--shm-mib", str(SHM_MIB)]
        argv += ["--nofile", str(limits.open_files), "--fsize-mib", str(limits.file_size_mib)]
        if meta.id_base:
            argv += ["--id-base", str(meta.id_base)]
        if "pids" not in self._cgroups.limits:
            argv += ["--nproc", str(limits.pids)]
        if self._inside:
            argv += self._inside.launch_options(spec, state, ranged=self._ranged, ahead=ahead)
        if spec.exit is not None:
            write_bundle(state / BUNDLE, image, spec.exit.ca_certificate)
            argv += ["--exit", spec.exit.socket_path]
        if spec.exit is not None or ahead:
            argv += ["--bundle", str(state / BUNDLE)]
        return argv

    async def _stop(self, sandbox_id: str) -> None:
        if running := self._running.get(sandbox_id):
            self._cgroups.thaw(running.launched.leaf)
            await running.stop()
            self._running.pop(sandbox_id, None)
        # Its own name too: what a crash left may have lived on when that was to be removed.
        await self._cgroups.remove(sandbox_id, *([running.launched.leaf] if running else ()))

    async def _delete(self, sandbox_id: str) -> None:
        self._unflushed.forget(sandbox_id)
        gone = self._states.forget(sandbox_id)
        if gone is not None:
            await asyncio.to_thread(remove_tree, gone)
            await asyncio.to_thread(self._states.sweep_layers)
