"""What a process of ours does first: take its own host id, become unreadable to others.

As root each process starts as root, so that it can arrange to read a Python that lies where only
root may go, and then drops to its own id.
"""

import ctypes
import os
import resource
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

HOME = "/srv"
"""Where a process that dropped its id finds its own directory."""

_SYS_OPEN_TREE, _SYS_MOVE_MOUNT = 428, 429  # the same on every architecture
_AT_FDCWD = -100
_OPEN_TREE_WHOLE = 0x1 | 0x80000 | 0x8000  # clone, close on exec, with what is mounted below
_FROM_DESCRIPTOR = 0x4
_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")


def is_root(uid_map: str | None = None) -> bool:
    """Say whether we are root of the whole machine, not of a user namespace with few ids."""
    text = Path("/proc/self/uid_map").read_text() if uid_map is None else uid_map
    return os.geteuid() == 0 and text.split() == ["0", "0", "4294967295"]


def raise_descriptors() -> None:
    """Take all descriptors that we may: the usual soft limit is less than our sandboxes may use."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def become(user: int, home: str = "") -> None:
    """Become the host id for good: its group, no others, no way back. Needs root.

    `home`, where it is given, is the process's own directory. It is bound at HOME in a mount
    namespace of this process alone, because the way there leads through directories that only root
    may enter. So may the way to this Python, when it was installed in root's home: there, the
    process gets to see its code and nothing else.
    """
    _enter_own_mounts(home)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _enter_own_mounts(home: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS), "unshare the mounts")
    _check(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "make the mounts private")
    if home:
        bound = libc.mount(os.fsencode(home), HOME.encode(), None, _MS_BIND, None)
        _check(bound, f"bind its directory at {HOME}")
    for wall, places in walled(_code(), _others_may_enter).items():
        _open_way(libc, wall, places)
    os.chdir(HOME if home else "/")


def _code() -> set[Path]:
    """Where this Python and its modules lie."""
    named = [sys.prefix, sys.base_prefix, sys.base_exec_prefix, *sys.path]
    return {Path(name).resolve() for name in named if name and Path(name).is_dir()}


def closed_code() -> Path | None:
    """Return a directory of our code that others may not enter, whatever is above it.

    The working directory is none, though `python -m` looks for modules there.
    """
    places = sorted(_code() - {Path.cwd()})
    return next((place for place in places if not _others_may_enter(place)), None)


def _others_may_enter(directory: Path) -> bool:
    return bool(directory.stat().st_mode & stat.S_IXOTH)


def walled(places: set[Path], open_to_others: Callable[[Path], bool]) -> dict[Path, list[Path]]:
    """Group the places by the outermost directory above them that others may not enter.

    Places that can be reached, and those within another one, are left out.
    """
    found: dict[Path, list[Path]] = {}
    for place in sorted(places):
        walls = [above for above in reversed(place.parents) if not open_to_others(above)]
        if walls and not any(place.is_relative_to(other) for other in found.get(walls[0], [])):
            found.setdefault(walls[0], []).append(place)
    return found


def _open_way(libc: ctypes.CDLL, wall: Path, places: list[Path]) -> None:
    """Replace a directory, in our own mounts only, by one that holds just the places."""
    trees = [
        _check(
            libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(place), _OPEN_TREE_WHOLE),
            f"clone the mount of {place}",
        )
        for place in places
    ]
    data = b"mode=0755,size=64k"
    _check(libc.mount(b"none", os.fsencode(wall), b"tmpfs", 0, data), f"cover {wall}")
    for place, tree in zip(places, trees, strict=True):
        place.mkdir(parents=True)
        moved = libc.syscall(
            _SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(place), _FROM_DESCRIPTOR
        )
        _check(moved, f"show {place}")
        os.close(tree)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot {what}: {os.strerror(number)}")
    return result


def harden(*, keep_capabilities: Iterable[int] = (), may_gain: bool = False) -> None:
    """Make memory and descriptors unreadable to others of the same id; leave no core dump.

    As root the bounding set is cut to what is kept. `may_gain` leaves set-id programs their
    meaning, which only a process that starts launchers needs. OSError says what could not be had.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "become unreadable to others")
    # One byte, not none: a core_pattern that names a program is run for any limit but 1 (core(5)),
    # and launchers, which inherit this, could not raise it for their sandboxes.
    limit = 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    if os.geteuid() == 0:
        last = int(_LAST_CAPABILITY.read_text())
        for capability in set(range(last + 1)) - set(keep_capabilities):
            dropped = libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
            _check(dropped, f"give up capability {capability}")
    if not may_gain:
        _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "give up set-id programs")
