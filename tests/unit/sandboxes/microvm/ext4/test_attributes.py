"""Extended attributes, beside an inode and in a block of their own; and those that nobody could set."""

import os
import struct
from types import SimpleNamespace

import pytest

from ext4_disk import inode_at, make_disk, volume
from handiwork.sandboxes.microvm.ext4.attributes import attributes
from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError

MAGIC = struct.pack("<I", 0xEA020000)
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, owner)
    for tag, permissions, owner in (
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 4, 1 << 30 | 7),
        (0x04, 4, 0xFFFFFFFF),
        (0x10, 4, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    )
)


def test_what_mkfs_wrote_is_read(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    given = {"user.a": b"1", "user.empty": b"", "user.long": b"l" * 500}
    for name in ("few", "none"):
        (folder / name).touch()
    os.setxattr(folder / "few", "user.a", b"1")
    for name, value in given.items():
        os.setxattr(folder, name, value)
    os.setxattr(folder / "few", "system.posix_acl_access", ACL)
    (folder / "inner").mkdir()
    for name, value in given.items():
        os.setxattr(folder / "inner", name, value)
    disk = volume(make_disk(tmp_path / "disk", folder).read_bytes())
    few = dict(attributes(disk, inode_at(disk, "few")))
    assert few == {b"user.a": b"1", b"system.posix_acl_access": ACL}
    assert dict(attributes(disk, inode_at(disk, "none"))) == {}
    inner = inode_at(disk, "inner")
    assert inner.attributes_block
    assert dict(attributes(disk, inner)) == {name.encode(): v for name, v in given.items()}


def told(kind, name, value, *, where=200, size=None, elsewhere=0):
    return (
        struct.pack(
            "<BBHIII",
            len(name),
            kind,
            where,
            elsewhere,
            len(value) if size is None else size,
            0,
        )
        + name
        + bytes(-len(name) % 4)
    )


def beside(heads, values=b""):
    room = heads.ljust(200, b"\0") + values
    return SimpleNamespace(extra=MAGIC + room, attributes_block=0)


def block(content):
    disk = SimpleNamespace(block=lambda _: content.ljust(1024, b"\0"))
    return attributes(disk, SimpleNamespace(extra=b"", attributes_block=9))


def test_kinds_by_number():
    heads = told(6, b"selinux", b"v", where=200) + told(9, b"x", b"", where=200)
    assert list(attributes(None, beside(heads, b"v"))) == [(b"security.selinux", b"v")]


@pytest.mark.parametrize(
    ("heads", "says"),
    [
        (told(1, b"a", b"v", where=900), "do not fit"),
        (told(1, b"a", b"v", size=1 << 31), "do not fit"),
        (told(1, b"a", b"v", elsewhere=12), "do not fit"),
        (told(1, b"a\0b", b"v"), "do not fit"),
        (told(2, b"", b"v"), "access list is none"),
    ],
)
def test_what_no_kernel_writes_is_refused(heads, says):
    with pytest.raises(DamagedDiskError, match=says):
        list(attributes(None, beside(heads, b"v")))


def test_a_list_without_end_is_refused():
    endless = SimpleNamespace(extra=MAGIC + told(1, b"", b"", where=0) * 2000, attributes_block=0)
    with pytest.raises(DamagedDiskError, match="too many"):
        list(attributes(None, endless))
    with pytest.raises(DamagedDiskError, match="cut short"):
        list(attributes(None, SimpleNamespace(extra=MAGIC + b"\1\1\1\1", attributes_block=0)))


def test_values_that_lie_in_each_other_are_refused():
    """The bound on what attributes hold: no more than their place."""
    heads = b"".join(told(1, b"%d" % n, b"", where=0, size=600) for n in range(3))
    with pytest.raises(DamagedDiskError, match="do not fit"):
        list(block(MAGIC + bytes(28) + heads))
    apart = told(1, b"a", b"", where=200, size=300) + told(1, b"b", b"", where=600, size=300)
    assert len(list(block(MAGIC + bytes(28) + apart))) == 2


def test_a_block_that_is_none_is_refused():
    with pytest.raises(DamagedDiskError, match="attributes are none"):
        list(block(b"other"))
    assert list(block(MAGIC)) == []


def test_an_access_list_that_is_cut_is_refused():
    for value in (struct.pack("<IH", 1, 1), struct.pack("<IHH", 1, 2, 7)):
        with pytest.raises(DamagedDiskError, match="access list is cut short"):
            list(attributes(None, beside(told(2, b"", value), value)))
