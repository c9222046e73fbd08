"""A small root file system from parts of this host's /usr, as one EROFS file: for machines in tests."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.images.host import host_image
from handiwork.sandboxes.images.image import Image

PROGRAMS = (
    *("sh", "cat", "chmod", "chroot", "cp", "curl", "cut", "date", "df", "dd", "echo", "env"),
    *("false", "getent", "grep", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mkfifo"),
    *("mknod", "mount", "nsenter", "pidof", "printf", "pwd", "rm", "seq", "setsid", "sha256sum"),
    *(
        "sleep",
        "stat",
        "stty",
        "sync",
        "tail",
        "tar",
        "test",
        "touch",
        "tr",
        "true",
        "truncate",
        "tty",
        "umount",
        "unshare",
        "wc",
        "yes",
    ),
)
PYTHON = "/usr/bin/python3"
LIBRARIES = re.compile(r"(/\S+) \(0x")


class SmallImages:
    """One image under every name, made once for a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._image: Image | None = None

    async def resolve(self, name: str) -> Image:
        if self._image is None:
            there = self._directory / "image.erofs"
            self._image = found(self._directory) if there.is_file() else build(self._directory)
        return self._image

    async def find(self, digest: str) -> Image:
        image = await self.resolve("host")
        if image.digest != digest:
            raise SandboxUnavailableError(f"image {digest} is not here")
        return image


def build(directory: Path) -> Image:
    directory.mkdir(parents=True, exist_ok=True)
    host = host_image(directory / "host")
    tree = directory / "tree"
    shutil.copytree(host.tree, tree, symlinks=True)
    places = [shutil.which(name, path="/usr/bin:/usr/sbin") for name in PROGRAMS]
    binaries = [Path(place) for place in places if place]
    python = Path(PYTHON).resolve()
    for path in (*binaries, python):
        put(path, tree)
    (tree / "usr/bin/python3").symlink_to(python.name)
    library = Path(
        subprocess.run(
            [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    shutil.copytree(
        library,
        tree / library.relative_to("/"),
        symlinks=True,
        ignore=shutil.ignore_patterns("__pycache__", "test", "idlelib", "config-*", "ensurepip"),
        dirs_exist_ok=True,
    )
    for path in (tree / library.relative_to("/") / "lib-dynload").glob("*.so"):
        needs(path, tree)
    erofs = directory / "image.erofs"
    beside = directory / "image.new"
    shutil.copy(host.roots, directory / "roots.pem")
    subprocess.run(["mkfs.erofs", "--all-root", beside, tree], check=True, capture_output=True)
    beside.rename(erofs)
    return found(directory)


def found(directory: Path) -> Image:
    erofs = directory / "image.erofs"
    digest = hashlib.sha256(erofs.read_bytes()).hexdigest()
    return Image(digest=digest, tree=directory / "tree", erofs=erofs, roots=directory / "roots.pem")


def put(path: Path, tree: Path) -> None:
    target = tree / path.relative_to("/")
    if target.exists() or target.is_symlink():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path.resolve(), target)
    needs(path, tree)


def needs(path: Path, tree: Path) -> None:
    """Put the libraries of a program where its loader looks for them."""
    told = subprocess.run(["ldd", path], check=False, capture_output=True, text=True).stdout
    for name in LIBRARIES.findall(told):
        found = Path(name)
        if not found.is_relative_to("/usr"):
            found = Path("/usr") / name.lstrip("/")
        put(found, tree)
