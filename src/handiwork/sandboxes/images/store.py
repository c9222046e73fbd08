"""The images of one data directory: found by name and digest, made, listed, removed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from handiwork.model.errors import (
    ConflictError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.image import HOST_IMAGE, ImageInfo, check_image_name
from handiwork.sandboxes.images.building import Build
from handiwork.sandboxes.images.host import host_image
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.images.mounted import Mounts
from handiwork.sandboxes.images.place import (
    BUILDING,
    EROFS,
    digests,
    image_at,
    read_names,
    reap,
    record_at,
    write_names,
)
from handiwork.sandboxes.images.reading import Unpacked
from handiwork.sandboxes.images.writing import Progress, silent
from handiwork.sandboxes.trees import remove_tree

Holders = Callable[[], Mapping[str, Sequence[str]]]
"""Returns the ids of the sandboxes that stand on each digest."""

Make = Callable[[Build], Awaitable[Unpacked]]
"""Gets the tree that a build is to become."""


class Images:
    """Finds and makes images. One for all drivers of a data directory, in one process at a time.

    An image is made whole beside the others and renamed into place; nothing in it changes after.
    One without a name stays until it is removed by its digest: a state elsewhere may need it.
    """

    def __init__(self, directory: Path, host: Path = Path("/")) -> None:
        self._directory = directory
        self._host = host
        self._building = asyncio.Lock()
        self._naming = asyncio.Lock()
        self._making_host = asyncio.Lock()
        self._host_image: Image | None = None
        self._holders: list[Holders] = []
        self.mounts = Mounts()
        reap(directory)

    @property
    def directory(self) -> Path:
        """Where they lie, and where room is taken while one is made."""
        return self._directory

    def held_by(self, holders: Holders) -> None:
        """Keep what these sandboxes stand on; a driver calls it once."""
        self._holders.append(holders)

    async def resolve(self, name: str) -> Image:
        """Return what a name, or a digest, stands for now; the host's is built when it is not there.

        UnsupportedError when there is no such image.
        """
        if name == HOST_IMAGE:
            return await self._of_host()
        digest = read_names(self._directory).get(name, name)
        found = image_at(self._directory, digest)
        if found is None:
            raise UnsupportedError(
                f"there is no image {name[:80]!r}: `handiwork image list` shows those there are"
            )
        return found

    async def find(self, digest: str) -> Image:
        """Return the image of a digest; SandboxUnavailableError when it is not there."""
        found = image_at(self._directory, digest)
        if found is None:
            raise SandboxUnavailableError(f"image {digest[:80]} is not in {self._directory}")
        return found

    async def put(
        self, name: str, make: Make, *, source: str, now: datetime, progress: Progress = silent
    ) -> ImageInfo:
        """Make an image and let the name stand for it from now on; one build at a time."""
        check_image_name(name)
        async with self._building:
            build = Build(self._directory, progress)
            try:
                unpacked = await make(build)
                digest = await build.finish(unpacked, source, now)
            finally:
                await asyncio.to_thread(build.close)
        async with self._naming:
            if image_at(self._directory, digest) is None:
                raise ConflictError(f"image {name!r} was removed while it was made; make it again")
            write_names(self._directory, {**read_names(self._directory), name: digest})
            return self.info(name)

    def list(self) -> list[ImageInfo]:
        """Return every image that is there, the named ones first."""
        names = read_names(self._directory)
        found = [self._info(digest, names) for digest in digests(self._directory)]
        return sorted(found, key=lambda one: (not one.names, one.names, one.digest))

    def info(self, name: str) -> ImageInfo:
        """Return one image by name or digest; NotFoundError."""
        names = read_names(self._directory)
        if name == HOST_IMAGE and self._host_image is not None:
            return self._info(self._host_image.digest, names)
        return self._info(names.get(name, name), names)

    async def remove(self, name: str) -> None:
        """Forget a name or a digest; the image goes with its last name.

        ConflictError while a sandbox stands on the image; NotFoundError.
        """
        async with self._naming:
            names = read_names(self._directory)
            digest = self.info(name).digest
            self._refuse_held(name, digest)
            left = {one: of for one, of in names.items() if name not in (one, of)}
            write_names(self._directory, left)
            if digest not in left.values():
                self.mounts.forget(digest)
                gone = self._directory / f"{BUILDING}gone-{digest}"
                (self._directory / digest).rename(gone)
                await asyncio.to_thread(remove_tree, gone)

    def _refuse_held(self, name: str, digest: str) -> None:
        if self._host_image is not None and digest == self._host_image.digest:
            raise ConflictError("the image 'host' is this host's own, and is not removed")
        for holders in self._holders:
            if standing := holders().get(digest):
                raise ConflictError(
                    f"image {name[:80]!r} is what {len(standing)} sandboxes stand on"
                    f" ({', '.join(standing[:3])}): delete them first"
                )

    async def _of_host(self) -> Image:
        async with self._making_host:  # a build may take long, and sandboxes do not wait for it
            if self._host_image is None:
                self._host_image = await asyncio.to_thread(host_image, self._directory, self._host)
            return self._host_image

    def _info(self, digest: str, names: Mapping[str, str]) -> ImageInfo:
        own = [name for name, of in names.items() if of == digest]
        try:
            record = record_at(self._directory, digest)
        except SandboxUnavailableError as damaged:
            return ImageInfo(digest=digest, names=tuple(own), source="", damaged=str(damaged))
        if record is None:
            if digest not in digests(self._directory):
                raise NotFoundError(f"there is no image {digest[:80]!r}")
            return ImageInfo(digest=digest, names=tuple(own), source="", damaged="it has no tree")
        if self._host_image is not None and digest == self._host_image.digest:
            own.append(HOST_IMAGE)
        return ImageInfo(
            digest=digest,
            names=tuple(sorted(own)),
            source=record.source,
            size_bytes=record.size_bytes,
            entries=record.entries,
            created_at=record.created_at,
            env=record.env,
            workdir=record.workdir,
            user=record.user,
            has_file=(self._directory / digest / EROFS).is_file(),
            host_usr=record.host_usr,
        )
