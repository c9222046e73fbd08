"""A tree on disk is what it was in memory, and its digest tells every difference but of times."""

import os
from pathlib import Path

import pytest

from handiwork.model.errors import ConfigError
from handiwork.process import is_root
from handiwork.sandboxes.images.nodes import Extent, Node, directory
from handiwork.sandboxes.images.writing import Writer, digest

OWNED = is_root()


def tree():
    root = directory()
    root.children[b"d"] = inner = directory(0o1777)
    file = Node(kind="file", mode=0o4755, mtime_ns=7_000_000_001, content=b"bytes")
    file.uid, file.gid, file.attributes = 3, 4, {b"user.note": b"kept"}
    inner.children[b"file"] = file
    inner.children[b"other"] = file
    inner.children[b"l"] = Node(kind="link", mode=0o777, target=b"/etc/passwd", mtime_ns=5)
    inner.mtime_ns = 9_000_000_000
    return root


def write(root, target, **options):
    return Writer(options.pop("sources", ()), owned=OWNED, **options).write(root, target)


def test_everything_is_written(tmp_path):
    write(tree(), tmp_path / "t")
    file, other = tmp_path / "t/d/file", tmp_path / "t/d/other"
    status = file.stat()
    assert file.read_bytes() == b"bytes"
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o4755, 7_000_000_001)
    assert (status.st_uid, status.st_gid) == ((3, 4) if OWNED else (os.getuid(), os.getgid()))
    assert os.getxattr(file, "user.note") == b"kept"
    assert other.stat().st_ino == status.st_ino
    assert (tmp_path / "t/d/l").readlink() == Path("/etc/passwd")
    assert (tmp_path / "t/d").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "t/d").stat().st_mtime_ns == 9_000_000_000
    assert (tmp_path / "t").stat().st_mode & 0o7777 == 0o755


def test_the_same_tree_has_the_same_digest_wherever_its_bytes_lie(tmp_path):
    first = write(tree(), tmp_path / "a")
    (tmp_path / "source").write_bytes(b"..bytes..")
    source = os.open(tmp_path / "source", os.O_RDONLY)
    moved = tree()
    moved.children[b"d"].children[b"file"].content = Extent(0, 2, 5)
    moved.children[b"d"].children[b"file"].mtime_ns = 1
    assert write(moved, tmp_path / "b", sources=(source,)) == first
    os.close(source)
    assert digest(tree(), {}, owned=OWNED) == first


@pytest.mark.parametrize(
    "change",
    [
        lambda d, f: setattr(f, "mode", 0o755),
        lambda d, f: setattr(f, "content", b"Bytes"),
        lambda d, f: setattr(f, "attributes", {b"user.note": b"other"}),
        lambda d, f: setattr(d.children[b"l"], "target", b"/etc/shadow"),
        lambda d, f: d.children.update(
            {b"other": Node(kind="file", mode=0o4755, content=b"bytes")}
        ),
        lambda d, f: d.children.pop(b"other"),
        lambda d, f: d.children.update({b"new": directory()}),
        lambda d, f: d.children.update({b"file2": d.children.pop(b"file")}),
    ],
)
def test_any_difference_changes_the_digest(change):
    changed = tree()
    inner = changed.children[b"d"]
    change(inner, inner.children[b"file"])
    assert digest(changed, {}, owned=True) != digest(tree(), {}, owned=True)


def test_owners_count_where_they_can_be_kept():
    changed = tree()
    changed.children[b"d"].children[b"file"].uid = 9
    assert digest(changed, {}, owned=True) != digest(tree(), {}, owned=True)
    assert digest(changed, {}, owned=False) == digest(tree(), {}, owned=False)


def test_what_cannot_be_written_is_named(tmp_path):
    root = directory()
    root.children[b"f"] = Node(kind="file", mode=0o644, attributes={b"user.x": b"y" * 60_000})
    with pytest.raises(ConfigError, match=r"cannot write 'f'.*attributes"):
        write(root, tmp_path / "t")
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError):
        write(directory(), tmp_path / "there")


def test_progress_and_a_source_that_shrank(tmp_path):
    told = []
    write(tree(), tmp_path / "t", progress=lambda *each: told.append(each))
    assert told == [("writing", 5, 5)]
    (tmp_path / "source").write_bytes(b"short")
    source = os.open(tmp_path / "source", os.O_RDONLY)
    root = directory()
    root.children[b"f"] = Node(kind="file", mode=0o644, content=Extent(0, 0, 9))
    with pytest.raises(ConfigError, match="shorter"):
        write(root, tmp_path / "u", sources=(source,))
    os.close(source)
