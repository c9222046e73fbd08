"""What sandboxes of one data directory have on this host: counted before and after a kill."""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time")


@dataclass(frozen=True)
class Residue:
    """Each by what tells it from others: ids of processes, lines of mounts, numbers of namespaces, paths.

    `at_ticks`: when it was counted, on the kernel's clock of starts.
    """

    processes: frozenset[int] = frozenset()
    namespaces: frozenset[str] = frozenset()
    mounts: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    loops: frozenset[str] = frozenset()
    sockets: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    at_ticks: int = field(default=1 << 62, compare=False)

    def without(self, *names: str) -> "Residue":
        """Return the same with some kinds left out."""
        return Residue(**{**vars(self), **dict.fromkeys(names, frozenset())})


def group_name(data_dir: Path) -> str:
    """Return the name of the control group of all sandboxes of a data directory."""
    return f"handiwork-{hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:8]}"


def count(
    data_dir: Path, known: Residue | None = None, *, driver_dir: Path | None = None
) -> Residue:
    """Count what belongs to a data directory; the namespaces of `known` are known to be its own.

    The kernel gives the number of a namespace that is gone to the next one: of processes that are
    told by that alone only those count that were there when `known` was counted.

    `driver_dir` is the driver's own directory, where that is another.
    """
    place = os.fsencode(data_dir.resolve())
    group = group_name(driver_dir or data_dir).encode()
    host = set(_namespaces(Path("/proc/self")))
    known = known or Residue()
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") // 10**9
    processes, namespaces, mounts, seen = set(), set(), set(), set()
    for entry in _processes():
        own = set(_namespaces(entry)) - host
        named = place in _bytes(entry / "cmdline") or group in _bytes(entry / "cgroup")
        if (named and int(entry.name) != os.getpid()) or (
            own & known.namespaces and _began_ticks(entry) <= known.at_ticks
        ):
            processes.add(int(entry.name))
            namespaces |= own
        mount_space = _link(entry / "ns/mnt")
        if mount_space not in seen:
            seen.add(mount_space)
            mounts |= _lines(entry / "mountinfo", place)
    return Residue(
        processes=frozenset(processes),
        namespaces=frozenset(namespaces),
        mounts=frozenset(mounts),
        groups=frozenset(str(one) for one in _groups(group.decode())),
        loops=frozenset(_loops(place)),
        sockets=frozenset(_lines(Path("/proc/net/unix"), place)),
        files=frozenset(_temporary(data_dir)),
        at_ticks=now,
    )


def remove_groups(data_dir: Path) -> None:
    """Remove what control groups a run on the same path left: paths of tests come again."""
    name = group_name(data_dir)
    for where, _, _ in os.walk("/sys/fs/cgroup", topdown=False):
        if name in Path(where).parts:
            with contextlib.suppress(OSError):
                Path(where).rmdir()


def _processes() -> Iterator[Path]:
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _began_ticks(entry: Path) -> int:
    """Return when a process began; of one that is gone, never."""
    fields = _bytes(entry / "stat").rpartition(b") ")[2].split()
    return int(fields[19]) if len(fields) > 19 else 1 << 62


def _namespaces(entry: Path) -> Iterator[str]:
    return (name for kind in NAMESPACES if (name := _link(entry / "ns" / kind)))


def _groups(name: str) -> Iterator[Path]:
    for where, below, _ in os.walk("/sys/fs/cgroup"):  # passes over what is removed meanwhile
        if name in Path(where).parts:
            yield from (Path(where, one) for one in below)


def _loops(place: bytes) -> Iterator[str]:
    for one in Path("/sys/block").glob("loop*/loop/backing_file"):
        if _bytes(one).startswith(place):
            yield one.parents[1].name


def _temporary(data_dir: Path) -> Iterator[str]:
    """Yield what is neither state nor a store: half deleted, half written, or a socket file.

    A guest's tree is not looked into: what it holds is state.
    """
    for where, directories, names in os.walk(data_dir):
        entries = directories + names
        if Path(where).parent.name == "sandboxes":
            directories.clear()
        for name in entries:
            path = Path(where, name)
            if name.startswith((".gone-", ".meta")) or name.endswith(".tmp") or path.is_socket():
                yield str(path)


def _lines(path: Path, text: bytes) -> set[str]:
    return {line.decode(errors="replace") for line in _bytes(path).splitlines() if text in line}


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
