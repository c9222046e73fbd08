"""`hw.images`: what sandboxes stand on."""

import asyncio
import os
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

import msgspec

from handiwork.client.link import Link, lines, part
from handiwork.model.errors import ConfigError, HandiworkError
from handiwork.model.image import ImageInfo, ImageProgress
from handiwork.model.wire import ImageFrame, Listing, PullBody, RegistryBody, error_of

PIECE_BYTES = 1 << 20
SILENT_SECONDS = 600.0
"""A build that says nothing for longer is given up."""

Told = Callable[[ImageProgress], None]


def _nobody(_progress: ImageProgress) -> None:
    """Take progress that nobody looks at."""


class Images:
    """Images by the names that sandboxes are made with."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def list(self) -> list[ImageInfo]:
        """List every image that is there."""
        return list((await self._link.get("/api/images", Listing[ImageInfo])).data)

    async def get(self, name: str) -> ImageInfo:
        """Find one by name or digest; NotFoundError."""
        return await self._link.get(f"/api/images/{part(name)}", ImageInfo)

    async def remove(self, name: str) -> None:
        """Forget a name or digest; ConflictError while a sandbox stands on it."""
        await self._link.send("DELETE", f"/api/images/{part(name)}", type(None))

    async def import_archive(
        self, name: str, path: str | os.PathLike[str], *, told: Told = _nobody
    ) -> ImageInfo:
        """Make one of a tar (OCI, docker-archive, root directory) or of an OCI layout's directory."""
        return await self._sent(name, "import", Path(path), told)

    async def build_dockerfile(
        self,
        name: str,
        directory: str | os.PathLike[str],
        *,
        file: str = "Dockerfile",
        told: Told = _nobody,
    ) -> ImageInfo:
        """Run a Dockerfile of a directory, all of which is sent."""
        return await self._sent(name, "dockerfile", Path(directory), told, {"file": file})

    async def build_recipe(self, name: str, text: bytes, *, told: Told = _nobody) -> ImageInfo:
        """Build a Debian image of a recipe's TOML."""
        return await self._built(f"/api/images/{part(name)}/recipe", text, told, {})

    async def pull(self, name: str, reference: str, *, told: Told = _nobody) -> ImageInfo:
        """Fetch one from a registry: `HOST/PATH:TAG` or `HOST/PATH@sha256:DIGEST`."""
        body = msgspec.json.encode(PullBody(reference=reference))
        return await self._built(
            f"/api/images/{part(name)}/pull", body, told, {}, media_type="application/json"
        )

    async def log_in(self, host: str, user: str, password: str) -> None:
        """Keep what a registry asks for."""
        body = RegistryBody(user=user, password=password)
        await self._link.send("PUT", f"/api/registries/{part(host)}", type(None), body)

    async def log_out(self, host: str) -> None:
        """Forget it."""
        await self._link.send("DELETE", f"/api/registries/{part(host)}", type(None))

    async def _sent(
        self, name: str, verb: str, path: Path, told: Told, query: dict[str, str] | None = None
    ) -> ImageInfo:
        try:
            source = await asyncio.to_thread(_opened, path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        with source:
            content = _pieces(source, told)
            return await self._built(f"/api/images/{part(name)}/{verb}", content, told, query or {})

    async def _built(
        self,
        path: str,
        content: bytes | AsyncIterator[bytes],
        told: Told,
        query: dict[str, str],
        *,
        media_type: str = "application/octet-stream",
    ) -> ImageInfo:
        async with self._link.stream(
            "POST",
            path,
            query=query,
            content=content,
            media_type=media_type,
            seconds=SILENT_SECONDS,
        ) as chunks:
            async for line in lines(chunks):
                frame = _frame(line)
                if frame.error is not None:
                    raise error_of(frame.error)
                if frame.image is not None:
                    return frame.image
                if frame.progress is not None:
                    told(frame.progress)
        raise HandiworkError("the build was cut off; is the control plane being stopped?")


def _frame(line: bytes) -> ImageFrame:
    try:
        return msgspec.json.decode(line, type=ImageFrame)
    except msgspec.DecodeError:
        raise HandiworkError("the build was cut off in the middle of a line") from None


def _opened(path: Path) -> IO[bytes]:
    """Return a file to send; a directory as a tar of all in it, owned by root."""
    if not path.is_dir():
        return path.open("rb")
    made = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(path, arcname=".", filter=_roots)
    made.seek(0)
    return made


def _roots(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
        return None
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


async def _pieces(source: IO[bytes], told: Told) -> AsyncIterator[bytes]:
    total = os.fstat(source.fileno()).st_size
    sent = 0
    while piece := await asyncio.to_thread(source.read, PIECE_BYTES):
        yield piece
        sent += len(piece)
        told(ImageProgress(stage="sending", done=sent, total=total))
