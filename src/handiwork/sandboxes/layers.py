"""Disks that nobody writes to any more, each below the own disks of several sandboxes.

A layer is mounted once, read-only and without a place in any tree, for all who use it at a time, so
that what they read is in memory once. Mount and loop device go with the last of them.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from handiwork.sandboxes import disks

DEPTH = 4
"""So many lie below one sandbox at most."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class _Mounted:
    mount: int
    users: int = 0


class Lent:
    """Layers that somebody uses, topmost first; `uppers` are descriptors of what was written on each."""

    def __init__(self, layers: "Layers") -> None:
        self._layers = layers
        self.names: list[str] = []
        self.uppers: list[int] = []

    def close(self) -> None:
        """Use them no more. No-op when it was called."""
        while self.uppers:
            os.close(self.uppers.pop())
        while self.names:
            self._layers.release(self.names.pop())


class Layers:
    """The layers below one directory, by name, and those that are mounted."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mounted: dict[str, _Mounted] = {}
        self._mounting = asyncio.Lock()

    async def lend(self, names: Sequence[str]) -> Lent:
        """Mount what is not mounted yet; close what is returned. SandboxUnavailableError."""
        lent = Lent(self)
        try:
            for name in names:
                mount = await self._used(name)
                lent.names.append(name)
                lent.uppers.append(os.open("upper", _DIRECTORY, dir_fd=mount))
        except BaseException:
            lent.close()
            raise
        return lent

    async def _used(self, name: str) -> int:
        async with self._mounting:
            found = self._mounted.get(name)
            if found is None:
                path = self._directory / f"{name}.img"
                found = _Mounted(await disks.mounted(path, disks.mount_layer))
                self._mounted[name] = found
            found.users += 1
            return found.mount

    def release(self, name: str) -> None:
        """Count one user less."""
        found = self._mounted[name]
        found.users -= 1
        if not found.users:
            del self._mounted[name]
            os.close(found.mount)
