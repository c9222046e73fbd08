"""A small image of parts of this host's /usr, in one file: what checks of machines stand on.

A machine cannot be lent this host's own /usr, and who checks a host need not have built an image.
"""

import asyncio
import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.host import TOOL_PATH, capture
from handiwork.sandboxes.images.host import host_image
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.images.tools import run_tool
from handiwork.sandboxes.trees import remove_tree

PROGRAMS: Sequence[str] = (
    *("sh", "cat", "chmod", "chroot", "cp", "curl", "cut", "date", "df", "dd", "echo", "env"),
    *("false", "getent", "grep", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mkfifo"),
    *("mknod", "mount", "nsenter", "pidof", "printf", "pwd", "readlink", "rm", "seq", "setsid"),
    *("sha256sum", "sleep", "stat", "stty", "sync", "tail", "tar", "test", "touch", "tr", "true"),
    *("truncate", "tty", "umount", "unshare", "wc", "yes"),
)
"""Those that are not here are left out: the check that wants one says so."""

PYTHON = Path("/usr/bin/python3")
NOT_USED = ("__pycache__", "test", "idlelib", "config-*", "ensurepip")
LIBRARY_SECONDS = 20.0
LIBRARIES_AT_ONCE = 32
_LIBRARY = re.compile(r"(/\S+) \(0x")


class SampleImages:
    """One image under every name, made once for a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._making = asyncio.Lock()
        self._image: Image | None = None

    async def resolve(self, name: str) -> Image:
        """Return the image, making it when it is not there; UnsupportedError names what is missing."""
        async with self._making:
            if self._image is None:
                if not (self._directory / "image.erofs").is_file():
                    await _make(self._directory)
                self._image = await asyncio.to_thread(_found, self._directory)
            return self._image

    async def find(self, digest: str) -> Image:
        """Return the image of a digest; SandboxUnavailableError when it is another one."""
        image = await self.resolve("host")
        if image.digest != digest:
            raise SandboxUnavailableError(f"image {digest[:80]} is not in {self._directory}")
        return image


def _found(directory: Path) -> Image:
    erofs = directory / "image.erofs"
    with erofs.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Image(digest=digest, tree=directory / "tree", erofs=erofs, roots=directory / "roots.pem")


async def _make(directory: Path) -> None:
    if not PYTHON.exists():
        raise UnsupportedError(f"there is no {PYTHON} here, which checks run: install python3")
    tree, beside = directory / "tree", directory / "image.new"
    await asyncio.to_thread(_lay_out, directory, tree)
    await _add_programs(tree)
    beside.unlink(missing_ok=True)
    await run_tool(["mkfs.erofs", "--quiet", "--all-root", str(beside), str(tree)], directory)
    beside.rename(directory / "image.erofs")


def _lay_out(directory: Path, tree: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    remove_tree(tree)
    host = host_image(directory / "host")
    shutil.copytree(host.tree, tree, symlinks=True)
    shutil.copy(host.roots, directory / "roots.pem")


async def _add_programs(tree: Path) -> None:
    """Put programs, Python and its library, and what all of them are linked with into a tree."""
    places = (shutil.which(name, path=TOOL_PATH) for name in PROGRAMS)
    python = PYTHON.resolve()
    programs = [*(Path(place) for place in places if place), python]
    library = await _library_of_python()
    await asyncio.to_thread(_copy_programs, programs, library, tree)
    link = tree / PYTHON.relative_to("/")
    if not link.exists():
        link.symlink_to(python.name)
    linked = [str(path) for path in (*programs, *library.glob("lib-dynload/*.so"))]
    for at in range(0, len(linked), LIBRARIES_AT_ONCE):
        argv = ["/usr/bin/ldd", *linked[at : at + LIBRARIES_AT_ONCE]]
        _, told = await capture(argv, LIBRARY_SECONDS)
        for name in _LIBRARY.findall(told):
            _copy(_below_usr(Path(name)), tree)


async def _library_of_python() -> Path:
    asked = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    code, told = await capture([str(PYTHON), "-c", asked], LIBRARY_SECONDS)
    if code:
        raise UnsupportedError(f"{PYTHON} does not run: {told[:200]}")
    return Path(told.strip())


def _copy_programs(programs: Sequence[Path], library: Path, tree: Path) -> None:
    for program in programs:
        _copy(program, tree)
    shutil.copytree(
        library,
        tree / library.relative_to("/"),
        symlinks=True,
        ignore=shutil.ignore_patterns(*NOT_USED),
        dirs_exist_ok=True,
    )


def _below_usr(path: Path) -> Path:
    """Return where a library is: /lib is a link to /usr/lib, here and in the image."""
    return path if path.is_relative_to("/usr") else Path("/usr") / path.relative_to("/")


def _copy(path: Path, tree: Path) -> None:
    target = tree / path.relative_to("/")
    if target.exists() or target.is_symlink():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path.resolve(), target)
