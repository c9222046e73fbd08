"""What of a file is kept, however it was read."""

import os
import stat

import msgspec
import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.snapshots import listing as module
from handiwork.sandboxes.snapshots.listing import Listing, Rules, is_same, kind_of, no_place, shown
from handiwork.sandboxes.snapshots.manifest import Kind
from handiwork.sandboxes.snapshots.owners import Range

BASE = 1 << 30


def facts(mode=stat.S_IFREG | 0o640, *, ino=5, links=1, size=3, rdev=0, uid=BASE + 7):
    told = (mode, ino, 0, links, uid, BASE, size, 1, 1, 1)
    return os.stat_result(told, {"st_mtime_ns": 10, "st_ctime_ns": 20, "st_rdev": rdev})


def empty(**rules):
    found = Listing(Rules(ids=Range(BASE), **rules))
    found.add(-1, b"", Kind.DIRECTORY, facts(stat.S_IFDIR | 0o755))
    return found


def test_owners_are_those_inside():
    found = empty()
    entry = found.add(0, b"a", Kind.FILE, facts())
    assert (entry.uid, entry.gid, entry.mode) == (7, 0, 0o640)
    assert found.add(0, b"b", Kind.FILE, facts(uid=1)).uid == 65_534
    assert found.path(1) == "/a"


def test_one_more_name_is_a_link():
    found = empty()
    assert not found.is_link(0, b"a", facts(links=2))
    first = found.add(0, b"a", Kind.FILE, facts(links=2))
    assert found.is_link(0, b"b", facts(links=2))
    assert not found.is_link(0, b"c", facts(links=2, ino=6))
    assert not found.is_link(0, b"d", facts(links=1))
    assert (found.entries[2].kind, found.entries[2].link, first.linked) == (Kind.LINK, 1, True)


def test_what_is_taken_over_can_be_linked_to():
    found = empty()
    former = empty().add(0, b"a", Kind.FILE, facts(links=2))
    former.parent, former.linked = 9, True
    found.take_over(0, former, facts(links=2))
    assert (former.parent, former.linked) == (0, False)
    assert found.is_link(0, b"b", facts(links=2))


def test_attributes_that_have_a_place_are_kept():
    kept = empty().attributes(b"/a", [(b"user.a", b"1"), (b"trusted.other", b"2")])
    assert kept == ((b"user.a", b"1"),)
    with pytest.raises(SandboxUnavailableError, match="/a has an attribute that is too long"):
        empty().attributes(b"/a", [(b"user.a", bytes(65_537))])
    with pytest.raises(SandboxUnavailableError, match=r"/a the attribute user\.overlay"):
        empty().attributes(b"/a", [(b"user.overlay.redirect", b"x")])


def test_names_links_and_attributes_have_a_bound_together(monkeypatch):
    monkeypatch.setattr(module, "MAX_TEXT_BYTES", 10)
    found = empty()
    found.add(0, b"abc", Kind.FILE, facts())
    found.attributes(b"/abc", [(b"user.", b"")])
    with pytest.raises(SandboxUnavailableError, match="names, links and attributes"):
        found.add_symlink(0, b"l", facts(stat.S_IFLNK), b"far away")
    with pytest.raises(SandboxUnavailableError, match="too long"):
        empty().attributes(b"/a", [(b"user." + b"n" * 251, b"")])


def test_what_is_skipped_is_named_and_counted(monkeypatch):
    monkeypatch.setattr(module, "MAX_TOLD", 1)
    found = empty()
    for name in (b"/a\n", b"/b"):
        found.skip(name, "a socket")
    assert (found.skipped, found.skipped_count) == (["/a? is a socket"], 2)


def test_it_has_an_end(monkeypatch):
    with pytest.raises(SandboxUnavailableError, match="stopped"):
        empty(stopped=lambda: True)
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    former = empty().add(0, b"a", Kind.FILE, facts())
    found = empty()
    found.take_over(0, former, facts())
    for add in (
        lambda: found.add(0, b"b", Kind.FILE, facts()),
        lambda: found.add_symlink(0, b"b", facts(stat.S_IFLNK), b"a"),
        lambda: found.take_over(0, former, facts()),
    ):
        with pytest.raises(SandboxUnavailableError, match=r"more than 2 files, .*; remove some to"):
            add()


def test_what_is_too_much_of_a_directory_is_told_with_its_path(monkeypatch):
    monkeypatch.setattr(module, "MAX_NAMES", 7)
    monkeypatch.setattr(module, "MAX_DEPTH", 3)
    assert str(empty().too_many_names(b"")).startswith("no snapshot: / holds more than 7 names;")
    assert str(empty().too_many_names(b"/a")).startswith("no snapshot: /a holds more than 7 names;")
    assert str(empty().too_deep(b"/a/b")).startswith("no snapshot: /a/b is deeper than 3 dir")


def test_a_file_is_the_same_by_its_inode_its_times_and_its_size():
    entry = empty().add(0, b"a", Kind.FILE, facts())
    entry.size = 3
    assert is_same(entry, facts())
    assert not is_same(entry, facts(ino=6))
    assert not is_same(entry, facts(size=4))
    later = os.stat_result((*facts()[:7], 1, 1, 1), {"st_mtime_ns": 10, "st_ctime_ns": 21})
    assert not is_same(entry, later)


@pytest.mark.parametrize(
    ("mode", "rdev", "kind"),
    [
        (stat.S_IFREG, 0, Kind.FILE),
        (stat.S_IFLNK, 0, Kind.SYMLINK),
        (stat.S_IFIFO, 0, Kind.FIFO),
        (stat.S_IFCHR, 0, Kind.WHITEOUT),
        (stat.S_IFCHR, 259, None),
        (stat.S_IFBLK, 0, None),
        (stat.S_IFSOCK, 0, None),
    ],
)
def test_kinds(mode, rdev, kind):
    assert kind_of(facts(mode, rdev=rdev)) == kind
    assert no_place(facts(stat.S_IFSOCK)) == "a socket"
    assert no_place(facts(stat.S_IFBLK)) == "a device"


def test_a_path_is_shown_printable_and_cut():
    assert shown(b"/a\x1b[2J\xff" + b"x" * 900) == "/a?[2J\ufffd" + "x" * 293


def test_names_that_are_left_out_are_those_of_their_directory():
    found = empty(excluded=frozenset({b"/a/b", b"/a/c", b"/d"}))
    assert found.left_out(b"/a") == {b"b", b"c"}
    assert found.left_out(b"") == {b"d"}
    assert found.left_out(b"/e") == frozenset()


@pytest.mark.parametrize("year", [-2000, 1969, 2553, 2600, 30_000])
def test_a_time_that_a_manifest_cannot_hold_is_the_last_that_it_can(year):
    """Some file systems keep seconds in 64 bits, and whoever owns a file sets them."""
    wanted = (year - 1970) * 31_556_952 * 10**9
    times = {"st_mtime_ns": wanted, "st_ctime_ns": wanted, "st_rdev": 0}
    late = os.stat_result((stat.S_IFREG, 5, 0, 1, BASE, BASE, 3, 1, 1, 1), times)
    entry = empty().add(0, b"a", Kind.FILE, late)
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(entry), type=type(entry))
    assert kept == entry
    assert (kept.mtime_ns == wanted) == (year in (1969, 2553))
