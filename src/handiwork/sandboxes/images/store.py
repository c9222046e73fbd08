"""The images of one data directory: `<digest>/` each, with `root/` and what belongs to it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.images.host import HOST_IMAGE, host_image
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.images.place import image_at

Holders = Callable[[], Mapping[str, Sequence[str]]]
"""Returns the ids of the sandboxes that stand on each digest."""


class Images:
    """Finds images by name and by digest. One for all drivers of a data directory."""

    def __init__(self, directory: Path, host: Path = Path("/")) -> None:
        self._directory = directory
        self._host = host
        self._building = asyncio.Lock()
        self._host_image: Image | None = None
        self._holders: list[Holders] = []

    def held_by(self, holders: Holders) -> None:
        """Keep what these sandboxes stand on; a driver calls it once."""
        self._holders.append(holders)

    async def resolve(self, name: str) -> Image:
        """Return what a name stands for now; the host's is built when it is not there.

        UnsupportedError when there is no such image.
        """
        if name != HOST_IMAGE:
            raise UnsupportedError(f"there is no image {name[:80]!r}: use 'host'")
        async with self._building:
            if self._host_image is None:
                self._host_image = await asyncio.to_thread(host_image, self._directory, self._host)
            return self._host_image

    async def find(self, digest: str) -> Image:
        """Return the image of a digest; SandboxUnavailableError when it is not there."""
        found = image_at(self._directory, digest)
        if found is None:
            raise SandboxUnavailableError(f"image {digest[:80]} is not in {self._directory}")
        return found
