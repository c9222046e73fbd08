"""Kernels: the right one is found, modules come in order, the program in an image is unpacked."""

import ctypes
import gzip
import lzma
import struct

import pytest

from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes.microvm.kernel import (
    MODULES,
    find_kernel,
    lean,
    make_boot,
    module_files,
    unpacked,
)

PROGRAM = b"\x7fELF" + bytes(range(256)) * 40


def install(root, version, image=PROGRAM):
    (root / "boot").mkdir(parents=True, exist_ok=True)
    (root / "boot" / f"vmlinuz-{version}").write_bytes(image)
    modules = root / "lib/modules" / version
    (modules / "kernel").mkdir(parents=True)
    (modules / "modules.builtin").write_text("kernel/fs/ext4.ko\nkernel/a-b.ko\n")
    return modules


def test_the_newest_cloud_kernel_is_taken(tmp_path):
    for version in ("6.1.0-9-cloud-amd64", "6.1.0-57-cloud-amd64", "6.12.0-1-amd64"):
        install(tmp_path, version)
    (tmp_path / "boot/vmlinuz-7.0-without-modules").write_bytes(b"")
    assert find_kernel(tmp_path).version == "6.1.0-57-cloud-amd64"


def test_a_missing_kernel_is_told(tmp_path):
    with pytest.raises(UnsupportedError, match="linux-image-cloud-amd64"):
        find_kernel(tmp_path)


def module(depends):
    return b"ELF\0license=GPL\0depends=" + depends + b"\0name=x\0"


def test_modules_come_after_what_they_need(tmp_path):
    kernel = install(tmp_path, "6.1") / "kernel"
    (kernel / "top.ko").write_bytes(module(b"mid-dle,a_b"))
    (kernel / "mid_dle.ko.xz").write_bytes(lzma.compress(module(b"low")))
    (kernel / "low.ko.gz").write_bytes(gzip.compress(module(b"")))
    found = list(module_files(kernel.parent, ("top", "ext4", "low")))
    assert [name for name, _ in found] == ["low", "mid_dle", "top"]
    assert found[0][1] == module(b"")
    with pytest.raises(UnsupportedError, match="no module nowhere"):
        list(module_files(kernel.parent, ("nowhere",)))


def signed(content, signature=b"s" * 600, told=None):
    head = struct.pack(">8xI", len(signature) if told is None else told)
    return content + signature + head + b"~Module signature appended~\n"


TYPED = b"\x7fELF code \0.symtab\0.BTF\0.BTF_ids\0"


def test_a_module_comes_without_its_signature_and_its_types():
    told = TYPED.replace(b"\0.BTF\0", b"\0.btf\0")
    for content in (TYPED, signed(TYPED)):
        assert lean(content, signed=False, typed=False) == told
    assert len(told) == len(TYPED)  # nothing in it moved
    assert lean(signed(TYPED), signed=True, typed=True) == signed(TYPED)
    assert lean(signed(TYPED), signed=False, typed=True) == TYPED


@pytest.mark.parametrize("content", [b"", b"code", b"twice \0.BTF\0 \0.BTF\0"])
def test_what_is_no_such_module_is_taken_as_it_is(content):
    assert lean(content, signed=False, typed=False) == content


def test_a_signature_that_is_longer_than_its_module_leaves_nothing_to_load():
    assert lean(signed(b"code", told=1 << 31), signed=False, typed=False) == b""


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (None, True),
        ("CONFIG_MODULE_SIG=y\n# CONFIG_MODULE_SIG_FORCE is not set\n", False),
        ("CONFIG_MODULE_SIG_FORCE=y", True),
        ("CONFIG_X=y\nCONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY=y\n", True),
    ],
)
@pytest.mark.parametrize("tolerant", [True, False])
def test_a_kernel_that_wants_them_gets_them(tmp_path, config, kept, tolerant):
    program = PROGRAM + b"\x014missing module BTF, cannot register kfuncs" * tolerant
    modules = install(tmp_path, "6.1", image(gzip.compress(program)))
    for name in MODULES:
        (modules / "kernel" / f"{name}.ko").write_bytes(signed(TYPED + module(b"")))
    if config is not None:
        (tmp_path / "boot/config-6.1").write_text(config)
    (tmp_path / "agent").write_bytes(b"agent")
    made = make_boot(find_kernel(tmp_path), tmp_path / "agent", tmp_path / "made")
    initrd = made.initrd.read_bytes()
    assert (b"~Module signature appended~" in initrd) == kept
    assert (b"\0.BTF\0" in initrd) == (kept or not tolerant)


def lz4(data):
    library = ctypes.CDLL("liblz4.so.1")
    parts = [b"\x02\x21\x4c\x18"]
    for at in range(0, len(data), 8 << 20):
        block = data[at : at + (8 << 20)]
        room = ctypes.create_string_buffer(len(block) + 4096)
        size = library.LZ4_compress_default(block, room, len(block), len(room))
        parts += [struct.pack("<I", size), room.raw[:size]]
    return b"".join([*parts, struct.pack("<I", len(data))])


def zstd(data):
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_compress.restype = ctypes.c_size_t
    room = ctypes.create_string_buffer(len(data) + 4096)
    size = library.ZSTD_compress(
        room, ctypes.c_size_t(len(room)), data, ctypes.c_size_t(len(data)), 1
    )
    return room.raw[:size]


def image(payload):
    """A bzImage of one sector of setup, by Documentation/arch/x86/boot.rst."""
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + bytes(16) + payload + bytes(64)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, lz4, zstd])
def test_the_program_of_an_image_is_unpacked(pack):
    assert unpacked(image(pack(PROGRAM))) == PROGRAM


@pytest.mark.parametrize(
    "payload", [b"", b"what is this?", lz4(PROGRAM)[:-40], gzip.compress(b"no", mtime=0)]
)
def test_what_cannot_be_unpacked_is_booted_as_it_is(payload):
    assert unpacked(image(payload)) == image(payload)


def test_what_is_no_image_is_booted_as_it_is():
    assert unpacked(PROGRAM * 2) == PROGRAM * 2


def test_the_files_to_boot_from_are_made_once(tmp_path):
    modules = install(tmp_path, "6.1", image(gzip.compress(PROGRAM)))
    names = "virtio_pci virtio_mmio virtio_blk virtio_console erofs overlay nf_tables nft_chain_nat"
    for name in (*names.split(), "nft_redir", "nft_reject_inet", "nft_ct"):
        (modules / "kernel" / f"{name}.ko").write_bytes(module(b""))
    agent = tmp_path / "agent"
    agent.write_bytes(b"agent")
    first = make_boot(find_kernel(tmp_path), agent, tmp_path / "made")
    assert first.kernel.read_bytes() == PROGRAM
    assert b"/modules/erofs.ko\n/modules/overlay.ko\n" in first.initrd.read_bytes()
    stamp = first.initrd.stat().st_mtime_ns
    assert make_boot(find_kernel(tmp_path), agent, tmp_path / "made") == first
    assert first.initrd.stat().st_mtime_ns == stamp
    agent.write_bytes(b"another")
    assert make_boot(find_kernel(tmp_path), agent, tmp_path / "made") != first
