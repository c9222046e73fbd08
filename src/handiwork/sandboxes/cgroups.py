"""Control groups: one leaf a sandbox below our own group, on version 1, version 2 or both.

Finding them is done once and by doing: a controller counts only when a leaf with a limit could be
made. Nothing here is needed for a sandbox to run; `Cgroups.limits` says what holds.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.model.sandbox import Limits
from handiwork.sandboxes import freezer

CONTROLLERS = ("memory", "pids", "cpu")
BLKIO, IO = "blkio", "io"
"""What limits the rates of a disk: on version 1 the first, on version 2 the second."""
FREEZER = "freezer"
"""A hierarchy of its own on version 1, a file of every leaf on version 2; it limits nothing."""

CLAIMED = frozenset(
    {
        *("memory.max", "memory.limit_in_bytes", "pids.max", "cpu.max", "cpu.cfs_quota_us"),
        *("io.max", "blkio.throttle.read_bps_device"),
    }
)
"""The files without which a controller does not limit."""

NEEDED = {
    "read": "control groups of version 1 with blkio, or of version 2 with io",
    "write": "control groups of version 2 with memory and io",
}
PERIOD_US = 100_000
REMOVE_TRIES = 200
REMOVE_PAUSE_SECONDS = 0.01


class Mount(msgspec.Struct, frozen=True):
    """A mounted hierarchy: where, which part of it is seen there, and its controllers."""

    path: Path
    root: str
    version: int
    controllers: tuple[str, ...]


def parse_mounts(mountinfo: str) -> list[Mount]:
    """Return the cgroup mounts of a mountinfo text, a hierarchy each."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind or kind[0] not in {"cgroup", "cgroup2"}:
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        options = tuple(kind[-1].split(",")) if version == 1 else ()
        names = tuple(name for name in options if name in {*CONTROLLERS, BLKIO, FREEZER})
        found.append(Mount(Path(fields[4]), fields[3], version, names))
    return found


def parse_membership(text: str) -> Mapping[str, str]:
    """Return our own group by controller of a /proc/self/cgroup text; "" is version 2."""
    found = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        found.update(dict.fromkeys(names.split(","), path))
    return found


def own_group(mount: Mount, membership: Mapping[str, str]) -> Path | None:
    """Return the directory of our own group in a hierarchy, or None when it is not to be seen."""
    key = "" if mount.version == 2 else mount.controllers[0]
    path = membership.get(key)
    if path is None:
        return None
    if mount.root != "/" and (path + "/").startswith(mount.root + "/"):
        path = path[len(mount.root) :]
    return mount.path / path.lstrip("/")


def settings(
    version: int, controllers: tuple[str, ...], limits: Limits
) -> Iterator[tuple[str, str]]:
    """Yield (file, value) for each limit of a leaf; a file that is missing may be passed over."""
    memory = str(limits.memory_mib << 20)
    quota = limits.cpu_percent * PERIOD_US // 100
    if "memory" in controllers and version == 2:
        yield from (("memory.max", memory), ("memory.swap.max", "0"), ("memory.oom.group", "0"))
    elif "memory" in controllers:
        yield from (("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes", memory))
        # Version 1 counts buffers of TCP, which loopback fills too, only against a limit of their own.
        yield ("memory.kmem.tcp.limit_in_bytes", str(limits.memory_mib << 18))
    if "pids" in controllers:
        yield ("pids.max", str(limits.pids))
    if "cpu" in controllers and version == 2:
        yield ("cpu.max", f"{quota} {PERIOD_US}")
    elif "cpu" in controllers:
        yield from (("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", str(quota)))


def rates(
    version: int, controllers: tuple[str, ...], limits: Limits, devices: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield (file, value) for each rate of a leaf's disks, devices by their numbers (`7:3`)."""
    asked = limits.disk_rates()
    names = {"read": "rbps", "write": "wbps"}
    told = " ".join(f"{names[way]}={rate}" for way, rate in asked.items())
    for device in devices:
        if BLKIO in controllers and "read" in asked:
            yield ("blkio.throttle.read_bps_device", f"{device} {asked['read']}")
        elif IO in controllers and version == 2 and asked:
            yield ("io.max", f"{device} {told}")


def refuse_rates(limits: Limits, held: Collection[str]) -> None:
    """Raise UnsupportedError for a rate of a disk that does not hold here."""
    for way in limits.disk_rates().keys() - held:
        raise UnsupportedError(
            f"limits.disk_{way}_mib_per_second cannot hold here: it needs a disk of its own, and"
            f" {NEEDED[way]}; leave it out, `handiwork doctor` tells what holds"
        )


class Cgroups:
    """The hierarchies in which this process may make leaves, each with what it can limit."""

    def __init__(
        self,
        name: str,
        mountinfo: Path = Path("/proc/self/mountinfo"),
        self_cgroup: Path = Path("/proc/self/cgroup"),
    ) -> None:
        self.parents: list[tuple[Path, int, tuple[str, ...]]] = []
        with contextlib.suppress(OSError):
            membership = parse_membership(self_cgroup.read_text())
            for mount in parse_mounts(mountinfo.read_text()):
                self._try(mount, membership, name)

    @property
    def limits(self) -> tuple[str, ...]:
        """The controllers whose limits hold for every sandbox."""
        held = {name for _, _, names in self.parents for name in names}
        return tuple(name for name in CONTROLLERS if name in held)

    @property
    def rates(self) -> frozenset[str]:
        """What can be limited of a sandbox's disk: "read", "write".

        On version 1 what the kernel writes back later is nobody's, so that no limit on writes would hold.
        """
        found = set()
        for _, version, names in self.parents:
            if BLKIO in names or (version == 2 and IO in names):
                found.add("read")
            if version == 2 and {IO, "memory"} <= set(names):
                found.add("write")
        return frozenset(found)

    def freezer(self, leaf: str) -> contextlib.AbstractAsyncContextManager[None] | None:
        """Return what holds a sandbox's processes still, None where no group can."""
        for parent, version, names in self.parents:
            if FREEZER in names:
                return freezer.frozen(parent / leaf, version)
        return None

    def thaw(self, leaf: str) -> None:
        """Let a sandbox's processes go on, also those of a run that crashed meanwhile."""
        for parent, version, names in self.parents:
            if FREEZER in names:
                freezer.thaw(parent / leaf, version)

    def make(self, leaf: str, limits: Limits, devices: Sequence[str] = ()) -> list[Path]:
        """Make a sandbox's leaves with their limits, or take over those of a run that crashed.

        `devices` are the sandbox's disk and the layers below it, each of which its rates hold for;
        without limits on these no leaf is made for them.
        """
        self.thaw(leaf)
        made = []
        for parent, version, controllers in self.parents:
            if not limits.disk_rates() and set(controllers) <= {BLKIO, IO}:
                continue
            directory = parent / leaf
            try:
                directory.mkdir(exist_ok=True)
            except FileNotFoundError:
                _prepare(parent, version)
                directory.mkdir(exist_ok=True)
            made.append(directory)
            for name, value in (
                *settings(version, controllers, limits),
                *rates(version, controllers, limits, devices),
            ):
                _limit(directory / name, value)
        return made

    def leaves(self) -> set[str]:
        """Return the names of the leaves that are there."""
        return {leaf.name for parent, _, _ in self.parents for leaf in parent.glob("*/")}

    async def remove(self, *leaves: str) -> None:
        """Remove a sandbox's leaves; waits at most 2 s for the last process of each to be gone."""
        for leaf in leaves:
            self.thaw(leaf)
            for parent, _, _ in self.parents:
                await _remove(parent / leaf)
                with contextlib.suppress(OSError):
                    parent.rmdir()  # the last one takes the parent with it

    def killed_for_memory(self, leaf: str) -> bool:
        """Say whether the kernel killed a process of this sandbox for its memory limit."""
        for parent, _, _ in self.parents:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    counts = dict(
                        line.split(" ", 1)
                        for line in (parent / leaf / name).read_text().splitlines()
                    )
                    if int(counts.get("oom_kill", "0")):
                        return True
        return False

    def _try(self, mount: Mount, membership: Mapping[str, str], name: str) -> None:
        if mount.version == 1 and not mount.controllers:
            return
        own = own_group(mount, membership)
        candidates = [own] if own else []
        if mount.version == 2 and mount.root == "/":
            candidates.append(mount.path)
        for candidate in candidates:
            controllers = _usable(candidate / name, mount)
            if controllers:
                self.parents.append((candidate / name, mount.version, controllers))
                if FREEZER in controllers:
                    _thaw_all(candidate / name, mount.version)
                return


def _thaw_all(parent: Path, version: int) -> None:
    """Let go on, and so end, what a run that crashed left frozen."""
    for leaf in parent.glob("*/"):
        freezer.thaw(leaf, version)


def _usable(parent: Path, mount: Mount) -> tuple[str, ...]:
    """Return what leaves below this parent can limit; leaves nothing behind."""
    try:
        found = _prepared(parent, mount)
        parent.rmdir()
    except OSError as error:
        if error.errno not in {errno.EBUSY, errno.ENOTEMPTY}:
            return ()
        found = _prepared(parent, mount)  # leaves of a run that crashed are below it
    return found


def _prepared(parent: Path, mount: Mount) -> tuple[str, ...]:
    """Return what leaves below this parent, which is made, can do."""
    found = _prepare(parent, mount.version)
    if mount.version == 1:
        throttles = (parent / "blkio.throttle.read_bps_device").exists()
        return tuple(name for name in mount.controllers if name != BLKIO or throttles)
    if not (parent / "io.max").exists():
        found = tuple(name for name in found if name != IO)
    freezes = found not in ((), (IO,)) and freezer.can_freeze(parent, 2)
    return (*found, FREEZER) if freezes else found


def _prepare(parent: Path, version: int) -> tuple[str, ...]:
    """Make the parent of our leaves; on version 2 also pass the controllers down to them."""
    parent.mkdir(exist_ok=True)
    if version == 1:
        return ()
    for directory in (parent.parent, parent):
        for name in (*CONTROLLERS, IO):
            _write(directory / "cgroup.subtree_control", f"+{name}")
    enabled = (parent / "cgroup.subtree_control").read_text().split()
    return tuple(name for name in (*CONTROLLERS, IO) if name in enabled)


def _limit(path: Path, value: str) -> None:
    """Set a limit of a leaf. One that `limits` claims must hold, or there is no sandbox."""
    if path.name not in CLAIMED:
        _write(path, value)
        return
    try:
        _put(path, value)
    except OSError as error:
        raise SandboxUnavailableError(
            f"the limit {path} cannot be set to {value}: {error.strerror};"
            " look at the limits of the control group that Handiwork runs in"
        ) from None


def _write(path: Path, value: str) -> None:
    """Set a limit; a kernel without this file, or a parent that forbids it, leaves it as it was."""
    with contextlib.suppress(OSError):
        _put(path, value)


def _put(path: Path, value: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.write(file, value.encode())
    finally:
        os.close(file)


async def _remove(directory: Path) -> None:
    for _ in range(REMOVE_TRIES):
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            await asyncio.sleep(REMOVE_PAUSE_SECONDS)
        else:
            return
