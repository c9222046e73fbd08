"""The control group freezer: all processes of a leaf stop at once, the agent among them.

Nobody inside can tell, refuse or undo it, unlike a SIGSTOP. On version 1 a frozen process does not
even die, so whoever ends a sandbox thaws it first; and who begins to wait for a vfork just after it
was asked to stop is passed over, and asked again only when FROZEN is written again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError

FREEZE_SECONDS = 5.0
LOOK_SECONDS = 0.001

_FILES = {1: "freezer.state", 2: "cgroup.freeze"}
_VALUES = {1: ("THAWED", "FROZEN"), 2: ("0", "1")}


def can_freeze(directory: Path, version: int) -> bool:
    """Say whether a leaf made here can be frozen."""
    return (directory / _FILES[version]).exists()


@contextlib.asynccontextmanager
async def frozen(directory: Path, version: int) -> AsyncIterator[None]:
    """Hold every process of a leaf still; SandboxUnavailableError when they do not stop in time."""
    try:
        await _freeze(directory, version)
        yield
    finally:
        thaw(directory, version)


async def _freeze(directory: Path, version: int) -> None:
    try:
        _set(directory, version, frozen=True)
        async with asyncio.timeout(FREEZE_SECONDS):
            while not _is_frozen(directory, version):
                await asyncio.sleep(LOOK_SECONDS)
                _set(directory, version, frozen=True)
    except (OSError, TimeoutError) as error:
        why = (
            f"not within {FREEZE_SECONDS:g} s"
            if isinstance(error, TimeoutError)
            else error.strerror
        )
        raise SandboxUnavailableError(f"{directory} cannot be frozen: {why}") from error


def thaw(directory: Path, version: int) -> None:
    """Let the processes of a leaf go on. No-op when they run or the leaf is gone."""
    with contextlib.suppress(OSError):
        _set(directory, version, frozen=False)


def _set(directory: Path, version: int, *, frozen: bool) -> None:
    path = directory / _FILES[version]
    if path.exists():
        path.write_text(_VALUES[version][frozen])


def _is_frozen(directory: Path, version: int) -> bool:
    if version == 1:
        return (directory / _FILES[1]).read_text().strip() == "FROZEN"
    return "frozen 1" in (directory / "cgroup.events").read_text().splitlines()
