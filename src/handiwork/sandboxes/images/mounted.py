"""Images mounted from their one file: once each, without a place in any tree, held by us.

Every sandbox gets a copy of the one mount, so that what they read is in memory once; the kernel
drops it with the last descriptor, so that nothing is left when we are killed.
"""

import asyncio
import os
import re
import socket
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.host import CHANNEL_FD, launch
from handiwork.sandboxes.images.image import Image

FIRST_KERNEL = (6, 15)
"""Mounts a file without a loop device (6.12) and copies a mount that has no place (6.15)."""
MOUNT_SECONDS = 20.0


def can_mount_files(release: str | None = None) -> bool:
    """Say whether this kernel, or that of a release text, can do it."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release if release is None else release)
    return found is not None and (int(found[1]), int(found[2])) >= FIRST_KERNEL


class Mounts:
    """The mounts of this process, by digest."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._mounting = asyncio.Lock()

    async def get(self, image: Image, guest_agent: Path) -> int:
        """Return a descriptor of the image's mount, which stays ours; SandboxUnavailableError."""
        async with self._mounting:
            if image.digest not in self._held:
                self._held[image.digest] = await _mount(image, guest_agent)
            return self._held[image.digest]

    def forget(self, digest: str) -> None:
        """Let go of one; sandboxes that stand on it keep it."""
        held = self._held.pop(digest, None)
        if held is not None:
            os.close(held)


async def _mount(image: Image, guest_agent: Path) -> int:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        process = launch(
            [str(guest_agent), "mount", str(CHANNEL_FD), str(image.erofs)], theirs.fileno()
        )
        try:
            async with asyncio.timeout(MOUNT_SECONDS):
                code = await asyncio.shield(process.exited)
        except BaseException:
            await process.stop()
            raise
        if code:
            raise SandboxUnavailableError(
                f"image {image.digest[:12]} could not be mounted: {process.error_line()}"
            )
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    return descriptors[0]
