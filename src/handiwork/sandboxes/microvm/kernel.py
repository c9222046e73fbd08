"""A kernel for sandboxes: where its parts lie on this host, and what is made of them once.

A part is read from a place that the operator installed or named; nothing here comes from a guest.
"""

import bz2
import ctypes
import gzip
import hashlib
import lzma
import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes.microvm.cpio import Entry, archive

MODULES = (
    *("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_console", "erofs", "overlay"),
    *("nf_tables", "nft_chain_nat", "nft_redir", "nft_reject_inet", "nft_ct"),
)
"""What a sandbox needs of a kernel, where it is not built in: disks, ports, file systems, capture."""

MAX_KERNEL_BYTES = 256 << 20
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_SIGNED = b"~Module signature appended~\n"
_SIGNATURE_BYTES = 12
"""Of struct module_signature, which stands before that mark and ends with the signature's length."""
_STRICT = (
    "CONFIG_MODULE_SIG_FORCE",
    "CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY",
    "CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY",
    "CONFIG_IMA_APPRAISE_REQUIRE_MODULE_SIGS",
)
_TOLERANT = (
    b"\x014missing module BTF, cannot register kfuncs",
    b"\x014missing module BTF, cannot register %s",
)
"""In a kernel that warns of modules without types; some before it refuse those that offer functions."""
_TYPES, _NO_TYPES = b"\0.BTF\0", b"\0.btf\0"
_BUNDLED = re.compile(r"vmlinuz-(?P<version>[\w.+~-]+)")


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """An installed kernel: its image and the directory of its modules."""

    version: str
    image: Path
    modules: Path


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is started with, and the digest of both."""

    kernel: Path
    initrd: Path
    digest: str


def find_kernel(root: Path) -> Kernel:
    """Return the newest kernel below `root` (`boot/vmlinuz-V`, `lib/modules/V`), cloud ones first.

    UnsupportedError when there is none.
    """
    found = []
    for image in root.glob("boot/vmlinuz-*"):
        named = _BUNDLED.fullmatch(image.name)
        version = named["version"] if named else ""
        modules = root / "lib/modules" / version
        if version and (modules / "kernel").is_dir():
            found.append(Kernel(version=version, image=image, modules=modules))
    if not found:
        raise UnsupportedError(
            f"there is no kernel below {root} (boot/vmlinuz-V with lib/modules/V): install"
            " linux-image-cloud-amd64, or unpack it somewhere and name the place in"
            " sandbox.microvm.kernel_dir"
        )
    return max(found, key=lambda one: ("cloud" in one.version, _ordered(one.version)))


def _ordered(version: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"[.-]", version)]


def make_boot(kernel: Kernel, agent: Path, directory: Path) -> Boot:
    """Return the files to boot from, making them when they are not there; blocks."""
    image = kernel.image.read_bytes()
    started = unpacked(image)
    signed = _wants_signatures(kernel)
    typed = signed or not any(told in started for told in _TOLERANT)
    modules = [
        (name, lean(content, signed=signed, typed=typed))
        for name, content in module_files(kernel.modules, MODULES)
    ]
    initrd = archive(_entries(agent.read_bytes(), modules))
    digest = hashlib.sha256(hashlib.sha256(image).digest() + initrd).hexdigest()[:32]
    place = directory / digest
    boot = Boot(kernel=place / "vmlinux", initrd=place / "initrd", digest=digest)
    if not place.is_dir():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = directory / f".making-{digest}-{os.getpid()}"
        beside.mkdir(mode=0o755)
        (beside / "vmlinux").write_bytes(started)
        (beside / "initrd").write_bytes(initrd)
        beside.chmod(0o755)
        beside.rename(place)
    return boot


def _entries(program: bytes, modules: Sequence[tuple[str, bytes]]) -> Iterator[Entry]:
    names = [f"/modules/{name}.ko" for name, _ in modules]
    yield Entry(path="modules")
    yield Entry(path="init", content=program, mode=0o755)
    yield Entry(path="modules.list", content="".join(f"{name}\n" for name in names).encode())
    for name, (_, content) in zip(names, modules, strict=True):
        yield Entry(path=name.lstrip("/"), content=content)


def module_files(directory: Path, wanted: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of modules and of all they need, what is needed first.

    UnsupportedError for one that is neither there nor built in.
    """
    files = {_name(path.name.partition(".ko")[0]): path for path in directory.rglob("*.ko*")}
    listed = (directory / "modules.builtin").read_text().split()
    built_in = {_name(Path(line).stem) for line in listed}
    seen: set[str] = set()

    def visit(name: str) -> Iterator[tuple[str, bytes]]:
        if name in seen or name in built_in:
            return
        seen.add(name)
        if name not in files:
            raise UnsupportedError(f"the kernel of {directory} has no module {name}")
        content = _plain(files[name])
        found = _DEPENDS.search(content)
        for needed in filter(None, found[1].decode().split(",") if found else []):
            yield from visit(_name(needed))
        yield name, content

    for name in wanted:
        yield from visit(name)


def _wants_signatures(kernel: Kernel) -> bool:
    """Say whether a kernel refuses modules without one, or may."""
    try:
        config = (kernel.image.parent / f"config-{kernel.version}").read_text()
    except OSError:
        return True
    return any(f"\n{word}=y\n" in f"\n{config}\n" for word in _STRICT)


def lean(module: bytes, *, signed: bool, typed: bool) -> bytes:
    """Return a module without what costs its loading time, and is of no use in a machine of ours.

    Its signature: the machine trusts what it is booted with. Its table of types: for the first one
    that it sees the kernel reads its own, of megabytes. The table stays, under no name that it looks
    for. What is to stay `signed` stays as it is, what is to stay `typed` keeps its table.
    """
    if signed:
        return module
    if module.endswith(_SIGNED):
        ends = len(module) - len(_SIGNED)
        (length,) = struct.unpack_from(">I", module, ends - 4)
        module = module[: max(0, ends - _SIGNATURE_BYTES - length)]
    hidden = module.count(_TYPES) == 1 and not typed
    return module.replace(_TYPES, _NO_TYPES) if hidden else module


def _name(module: str) -> str:
    return module.replace("-", "_")


def _plain(path: Path) -> bytes:
    data = path.read_bytes()
    return _decompressed(data) if path.suffix in {".xz", ".gz", ".zst"} else data


def unpacked(image: bytes) -> bytes:
    """Return the program in a bzImage, which starts without unpacking itself; else the image.

    The layout is that of Documentation/arch/x86/boot.rst.
    """
    if image[0x202:0x206] != b"HdrS":
        return image
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    try:
        program = _decompressed(image[start : start + length])
    except (OSError, EOFError, ValueError, lzma.LZMAError):
        return image
    return program if program[:4] == b"\x7fELF" else image


def _decompressed(data: bytes) -> bytes:
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    if data[:4] == b"\x02\x21\x4c\x18":
        return _lz4(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return _zstd(data)
    if data[:3] == b"BZh":
        return bz2.decompress(data)
    return lzma.LZMADecompressor().decompress(data, MAX_KERNEL_BYTES)


def _lz4(data: bytes) -> bytes:
    """Unpack the older kind of frame: blocks of at most 8 MiB, each with its length before it."""
    library = _library("liblz4.so.1")
    room = ctypes.create_string_buffer(8 << 20)
    parts, at = [], 4
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        block = data[at + 4 : at + 4 + length]
        if not length or len(block) < length:
            break  # what follows the frame is the length of what it holds
        size = library.LZ4_decompress_safe(block, room, len(block), len(room))
        if size < 0:
            raise ValueError("a block of the kernel is not lz4")
        parts.append(room.raw[:size])
        at += 4 + length
    return b"".join(parts)


def _zstd(data: bytes) -> bytes:
    library = _library("libzstd.so.1")
    library.ZSTD_decompress.restype = ctypes.c_size_t
    room = ctypes.create_string_buffer(MAX_KERNEL_BYTES)
    size = library.ZSTD_decompress(
        room, ctypes.c_size_t(len(room)), data, ctypes.c_size_t(len(data))
    )
    if library.ZSTD_isError(ctypes.c_size_t(size)):
        raise ValueError("the kernel is not zstd")
    return room.raw[:size]


def _library(name: str) -> ctypes.CDLL:
    """Load a library that dpkg and apt need themselves, so that every Debian has it."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        raise UnsupportedError(f"{name} is not installed, and this kernel needs it") from None
