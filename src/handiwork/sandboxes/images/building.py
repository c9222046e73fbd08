"""A build: beside the images, in a directory of its own, and renamed into place when it is whole."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from handiwork.model.errors import HandiworkError
from handiwork.process import is_root
from handiwork.sandboxes.host import TOOL_PATH
from handiwork.sandboxes.images import fit, spool
from handiwork.sandboxes.images.nodes import Extent, walk
from handiwork.sandboxes.images.place import BUILDING, EROFS, RECORD, ROOTS, TREE, Record, image_at
from handiwork.sandboxes.images.reading import Unpacked
from handiwork.sandboxes.images.tools import run_tool
from handiwork.sandboxes.images.writing import Progress, Writer, make_durable
from handiwork.sandboxes.trees import remove_tree

T = TypeVar("T")
HOST_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
MAX_ENV = 256
MAX_ENV_BYTES = 64 << 10


class GivenUp(HandiworkError):
    """The build was cancelled."""


class Build:
    """One image in the making. Leaving it deletes all that was not renamed into place."""

    def __init__(self, directory: Path, progress: Progress) -> None:
        self._directory = directory
        self._told = progress
        self._stop = threading.Event()
        self._files = ExitStack()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.place = Path(tempfile.mkdtemp(prefix=BUILDING, dir=directory))

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell how far it is; GivenUp when nobody waits for it."""
        if self._stop.is_set():
            raise GivenUp("the build was given up")
        self._told(stage, done, total)

    def closes(self, close: Callable[[], None]) -> None:
        """Do this at the end of the build, whatever its end."""
        self._files.callback(close)

    def scratch(self, name: str) -> Path:
        """Return a new directory of this build's own."""
        path = self.place / name
        path.mkdir(mode=0o700)
        return path

    async def thread(self, call: Callable[[], T]) -> T:
        """Run a blocking step; when we are cancelled it is given up, and waited for."""
        work = asyncio.get_running_loop().run_in_executor(None, call)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._stop.set()
            await asyncio.wait([work])
            raise

    async def unpack(self, read: Callable[[Path, ExitStack, Progress], Unpacked]) -> Unpacked:
        """Read an archive; what it lies in is kept until the end of the build."""
        return await self.thread(lambda: read(self.place, self._files, self.progress))

    async def finish(self, unpacked: Unpacked, source: str, now: datetime) -> str:
        """Write the tree and all beside it, move it into place, and return its digest."""
        whole = self.scratch("whole")
        digest = await self.thread(lambda: self._write(unpacked, whole, source, now))
        if image_at(self._directory, digest) is None:
            await self._pack(whole)
            await self.thread(make_durable)
            whole.rename(self._directory / digest)
        return digest

    def _write(self, unpacked: Unpacked, whole: Path, source: str, now: datetime) -> str:
        root = unpacked.root
        fit.fit(root)
        nodes = {id(node): node for _, node in walk(root)}
        writer = Writer(unpacked.sources, owned=is_root(), progress=self.progress)
        digest = writer.write(root, whole / TREE)
        found = fit.bundle(root)
        (whole / ROOTS).write_bytes(self._bytes(found, unpacked.sources) or _host_bundle())
        record = Record(
            source=source,
            size_bytes=sum(node.size for node in nodes.values() if node.kind == "file"),
            entries=sum(1 for _ in walk(root)),
            created_at=now,
            env=usable_env(unpacked.found.env),
            workdir=unpacked.found.workdir[:4096],
            user=unpacked.found.user[:256],
        )
        (whole / RECORD).write_bytes(msgspec.json.encode(record))
        return digest

    @staticmethod
    def _bytes(content: bytes | Extent, sources: tuple[int, ...]) -> bytes:
        if isinstance(content, bytes):
            return content
        return b"".join(spool.pieces(sources[content.source], content.offset, content.size))

    async def _pack(self, whole: Path) -> None:
        """Make the one file of it as well, where the host can."""
        if shutil.which("mkfs.erofs", path=TOOL_PATH) is None:
            return
        self.progress("packing", 0, 0)
        owners = [] if is_root() else ["--force-uid=0", "--force-gid=0"]
        argv = ["mkfs.erofs", "--quiet", *owners, str(whole / EROFS), str(whole / TREE)]
        await run_tool(argv, self.place)

    def close(self) -> None:
        """Delete what is left of it; blocks."""
        self._files.close()
        remove_tree(self.place)


def usable_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an image that its sandboxes may have: bounded, none of a brain's."""
    kept: dict[str, str] = {}
    room = MAX_ENV_BYTES
    for name, value in list(env.items())[:MAX_ENV]:
        room -= len(name) + len(value)
        if room > 0 and name and "\0" not in name + value and not name.startswith("ANTHROPIC_"):
            kept[name] = value
    return kept


def _host_bundle() -> bytes:
    return HOST_BUNDLE.read_bytes() if HOST_BUNDLE.is_file() else b""
