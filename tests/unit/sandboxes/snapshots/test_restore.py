import os
import random
import stat
from pathlib import Path

import pytest

from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.packs import pack_key
from handiwork.sandboxes.snapshots.sealing import DamagedError


def facts(root):
    """Tell all that a tree is, by path."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in [".", *names, *files]:
            path = Path(directory, name)
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            what = b""
            if stat.S_ISREG(info.st_mode):
                what = path.read_bytes()
            elif stat.S_ISLNK(info.st_mode):
                what = os.fsencode(path.readlink())
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            }
            key = os.path.relpath(path, root)
            owner = (info.st_uid, info.st_gid)
            mode = 0 if stat.S_ISLNK(info.st_mode) else stat.S_IMODE(info.st_mode)
            links = 1 if stat.S_ISDIR(info.st_mode) else info.st_nlink
            found[key] = (kind, mode, owner, info.st_mtime_ns, links, what, attributes)
    return found


def fill(place):
    """Make one of each thing that an upper directory holds."""
    noise = random.Random(1)
    place.file("small", b"hello")
    place.file("empty", b"")
    place.file("large", noise.randbytes(9_000_000))
    for number in range(40):
        place.file(f"many/{number}", noise.randbytes(number * 997))
    place.file("mode", b"x").chmod(0o4751)
    os.link(place.upper / "small", place.upper / "many" / "same")
    (place.upper / "link").symlink_to("/etc/../../outside")
    (place.upper / "loop").symlink_to("loop")
    os.link(place.upper / "link", place.upper / "link2", follow_symlinks=False)
    os.mkfifo(place.upper / "fifo")
    os.mknod(place.upper / "gone", 0o020000, 0)
    for name in ("link", "loop", "fifo", "gone"):
        place.own(place.upper / name)
    opaque = place.upper / "opaque"
    opaque.mkdir()
    os.setxattr(opaque, "user.overlay.opaque", b"y")
    os.setxattr(place.upper / "small", "user.mime", b"text")
    sparse = place.file("sparse", b"")
    with sparse.open("r+b") as file:
        file.truncate(700_000_000)
        file.seek(300_000_000)
        file.write(b"island" * 1000)
    place.file(b"\xff\xfe name".decode("utf-8", "surrogateescape"), b"odd")
    for path in (place.upper / "many", opaque):
        place.own(path)
        os.utime(path, ns=(10**18 + 7, 10**18 + 7))


def test_a_tree_is_made_as_it_was(place):
    fill(place)
    place.take()
    made = place.make(place.kept(1))
    assert facts(made) == facts(place.upper)
    assert (made / "sparse").stat().st_blocks * 512 < 1_000_000


@pytest.mark.parametrize("mode", [0o600, 0o700, 0o1777, 0o2750])
def test_a_directory_keeps_its_mode(place, mode):
    directory = place.upper / "kept"
    directory.mkdir()
    directory.chmod(mode)
    made = place.make(place.take())
    assert stat.S_IMODE((made / "kept").stat().st_mode) == mode


@pytest.mark.root
def test_owners_follow_the_range(place):
    place.file("root", b"x")
    place.file("other", b"x", inner=1000)
    manifest = place.take()
    made = place.make(manifest, ids=Range(9_000_000))
    assert (made / "root").stat().st_uid == 9_000_000
    assert (made / "other").stat().st_gid == 9_001_000
    with pytest.raises(UnsupportedError, match="/other belongs to the id 1000"):
        place.make(manifest, "rootless", Range(0, 0))


@pytest.mark.root
def test_capabilities_and_acls_follow_the_range(place):
    path = place.file("able", b"x")
    capability = bytes.fromhex("0100000300200000000000000000000000000000") + (3_000_000).to_bytes(
        4, "little"
    )
    os.setxattr(path, "security.capability", capability)
    acl = bytes.fromhex("02000000 0100060 0ffffffff 02000400".replace(" ", "")) + (
        3_000_005
    ).to_bytes(4, "little")
    acl += bytes.fromhex("04000400ffffffff 10000400ffffffff 20000000ffffffff".replace(" ", ""))
    os.setxattr(path, "system.posix_acl_access", acl)
    made = place.make(place.take(), ids=Range(9_000_000))
    kept = os.getxattr(made / "able", "security.capability")
    assert kept[:20] == capability[:20]
    assert int.from_bytes(kept[20:], "little") == 9_000_000
    assert (9_000_005).to_bytes(4, "little") in os.getxattr(
        made / "able", "system.posix_acl_access"
    )


def test_a_damaged_chunk_is_named(place):
    place.file("dir/data", random.Random(2).randbytes(300_000))
    manifest = place.take()
    key = pack_key("default", manifest.head.packs[0])
    whole = place.blobs.kept[key]
    place.blobs.kept[key] = whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:]
    with pytest.raises(
        DamagedError, match=r"chunk \w+ of pack \w+ is damaged \(/dir/data of sbx_a"
    ):
        place.make(manifest)
    place.blobs.kept[key] = whole[:-5]
    with pytest.raises(DamagedError, match="is damaged"):
        place.make(manifest, "cut")
    del place.blobs.kept[key]
    with pytest.raises(DamagedError, match=r"gone from the store \(/dir/data"):
        place.make(manifest, "lost")


def test_a_pack_of_another_tenant_does_not_open(place):
    place.file("a", b"secret" * 100)
    manifest = place.take()
    place.keys = type(place.keys)(b"o" * 32)
    with pytest.raises(DamagedError):
        place.make(manifest)
