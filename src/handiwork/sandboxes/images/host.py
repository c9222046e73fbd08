"""The `host` image: a small directory tree that stands over this host's own /usr.

Only what is named here and readable by everybody is copied, so it can hold no secret of the host.
It is named by the digest of all it holds: an upgrade of the host makes a new one, and states keep
the one they were made with.
"""

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from handiwork.model.errors import UnsupportedError
from handiwork.model.image import HOST_IMAGE
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.images.place import BUILDING, RECORD, ROOTS, TREE, Record, image_at
from handiwork.sandboxes.trees import remove_tree

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_ENTRIES = 20_000
CA_BUNDLE = "etc/ssl/certs/ca-certificates.crt"

_MERGED = ("bin", "sbin", "lib")
_OPTIONAL_LINKS = ("lib32", "lib64", "libx32")
_ETC = (
    *("alternatives", "bash.bashrc", "ca-certificates.conf", "debian_version", "default/locale"),
    *("fonts", "inputrc", "java-*-openjdk", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
    *("ld-musl-*", "locale.alias", "localtime", "login.defs", "magic", "mime.types", "os-release"),
    *("perl", "php", "profile", "protocols", "python3", "python3.*", "services", "shells"),
    *("ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone"),
)
_DIRECTORIES = {
    **dict.fromkeys(
        ("dev", "etc", "home", "mnt", "opt", "proc", "run", "srv", "sys", "usr"), 0o755
    ),
    **dict.fromkeys(("var", "var/cache", "var/lib", "var/log", "workspace"), 0o755),
    **dict.fromkeys(("tmp", "var/tmp"), 0o1777),
    "root": 0o700,
}
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n"
    "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
    "_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost\n",
    "etc/hostname": "sandbox\n",
    "etc/resolv.conf": "nameserver 127.0.0.1\noptions ndots:0\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/apt/apt.conf.d/10sandbox": 'APT::Sandbox::User "root";\n',
}


class Item(msgspec.Struct, frozen=True):
    """One entry of the image: a directory, a link's target or a file's bytes."""

    path: str
    kind: str
    mode: int
    content: bytes = b""


def host_image(images_dir: Path, host: Path = Path("/")) -> Image:
    """Return the image of this host, building it when it is not there yet; blocks.

    UnsupportedError where the host is not merged-usr.
    """
    items = list(plan(host))
    images_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(images_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it
        return _made(images_dir, items)
    finally:
        os.close(lock)


def _made(images_dir: Path, items: list[Item]) -> Image:
    digest = _digest(items)
    place = images_dir / digest
    if _is_whole(place, items) and (found := image_at(images_dir, digest)):
        return found
    if place.exists():  # a power cut left it so: it is made again, and is the same then
        gone = images_dir / f"{BUILDING}gone-{digest}"
        remove_tree(gone)
        place.rename(gone)
        remove_tree(gone)
    beside = images_dir / f".building-{digest}-{os.getpid()}"
    remove_tree(beside)
    _build(beside, items)
    try:
        beside.rename(place)
    except OSError:
        remove_tree(beside)
    if found := image_at(images_dir, digest):
        return found
    raise UnsupportedError(f"the host image could not be moved to {place}")


def plan(host: Path) -> Iterator[Item]:
    """Yield everything the image holds, parents first."""
    for name in _MERGED:
        if not (host / name).is_symlink():
            raise UnsupportedError(
                f"the host image needs a merged-usr host, but /{name} is no link to usr/{name}:"
                " install the usrmerge package"
            )
    for name in (*_MERGED, *_OPTIONAL_LINKS):
        if (host / name).is_symlink():
            yield Item(name, "link", 0o777, str((host / name).readlink()).lstrip("/").encode())
    for path, mode in _DIRECTORIES.items():
        yield Item(path, "directory", mode)
    made = set(_DIRECTORIES)
    for path, text in _FILES.items():
        yield from _parents(path, made)
        yield Item(path, "file", 0o644, text.encode())
    for pattern in _ETC:
        for found in sorted((host / "etc").glob(pattern)):
            yield from _parents(str(found.relative_to(host)), made)
            yield from _copied(found, host, made)
    if CA_BUNDLE not in made:
        yield from _parents(CA_BUNDLE, made)
        yield Item(CA_BUNDLE, "file", 0o644)


def _parents(path: str, made: set[str]) -> Iterator[Item]:
    for parent in reversed(Path(path).parents):
        name = str(parent)
        if name != "." and name not in made:
            made.add(name)
            yield Item(name, "directory", 0o755)


def _copied(found: Path, host: Path, made: set[str]) -> Iterator[Item]:
    """Yield a path of the host and all below it; what not everybody may read is left out."""
    name = str(found.relative_to(host))
    status = found.lstat()
    if name in made:
        return
    if len(made) > MAX_ENTRIES:
        raise UnsupportedError(f"the host's /etc holds over {MAX_ENTRIES} entries to copy")
    if stat.S_ISLNK(status.st_mode):
        made.add(name)
        yield Item(name, "link", 0o777, str(found.readlink()).encode())
    elif stat.S_ISREG(status.st_mode) and status.st_mode & 0o004:
        if status.st_size <= MAX_FILE_BYTES:
            made.add(name)
            yield Item(name, "file", 0o755 if status.st_mode & 0o111 else 0o644, found.read_bytes())
    elif stat.S_ISDIR(status.st_mode) and status.st_mode & 0o005 == 0o005:
        made.add(name)
        yield Item(name, "directory", 0o755)
        for child in sorted(found.iterdir()):
            yield from _copied(child, host, made)


def _digest(items: list[Item]) -> str:
    total = hashlib.sha256()
    for item in items:
        total.update(msgspec.msgpack.encode(item))
    return total.hexdigest()


def _build(target: Path, items: list[Item]) -> None:
    target.mkdir(mode=0o700)
    _build_tree(target / TREE, items)
    roots = next(item.content for item in items if item.path == CA_BUNDLE)
    (target / ROOTS).write_bytes(roots)
    (target / RECORD).write_bytes(msgspec.json.encode(_record(items)))


def _record(items: list[Item]) -> Record:
    size = sum(len(item.content) for item in items if item.kind == "file")
    return Record(source=HOST_IMAGE, size_bytes=size, entries=len(items), host_usr=True)


def _is_whole(place: Path, items: list[Item]) -> bool:
    """Whether all is there as it was written; nothing waits for the disk when it is."""
    try:
        record = msgspec.json.decode((place / RECORD).read_bytes(), type=Record)
        roots = next(item.content for item in items if item.path == CA_BUNDLE)
        return (
            record == _record(items)
            and (place / ROOTS).read_bytes() == roots
            and all(_is_as_written(place / TREE / item.path, item) for item in items)
        )
    except (OSError, msgspec.DecodeError):
        return False


def _is_as_written(path: Path, item: Item) -> bool:
    if item.kind == "link":
        return str(path.readlink()).encode() == item.content
    mode = path.lstat().st_mode
    if item.kind == "directory":
        return stat.S_ISDIR(mode)
    return stat.S_ISREG(mode) and path.read_bytes() == item.content


def _build_tree(target: Path, items: list[Item]) -> None:
    target.mkdir(mode=0o755)
    for item in items:
        path = target / item.path
        if item.kind == "directory":
            path.mkdir()
            path.chmod(item.mode)
        elif item.kind == "link":
            path.symlink_to(item.content.decode())
        else:
            path.write_bytes(item.content)
            path.chmod(item.mode)
    target.chmod(0o755)
