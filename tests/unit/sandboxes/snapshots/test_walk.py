import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.snapshots import listing
from handiwork.sandboxes.snapshots.manifest import MAX_DEPTH


def open_descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_link_is_never_followed(place, tmp_path):
    (tmp_path / "secret").write_text("host")
    (place.upper / "out").symlink_to(tmp_path)
    place.file("in/x", b"1")
    names = {entry.name for entry in place.take().body.entries}
    assert names == {b"", b"out", b"in", b"x"}


def test_a_tree_too_deep_ends_it(place):
    at = os.open(place.upper, os.O_RDONLY)
    for _ in range(MAX_DEPTH + 2):
        os.mkdir("d" * 200, dir_fd=at)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    with pytest.raises(SandboxUnavailableError, match=r"/d.* is deeper than 200 .*; move it up"):
        place.take()


def test_too_many_entries_end_it(place, monkeypatch):
    monkeypatch.setattr(listing, "MAX_ENTRIES", 5)
    for number in range(10):
        place.file(f"f{number}", b"")
    with pytest.raises(SandboxUnavailableError, match=r"more than 5 files.*; remove some"):
        place.take()


def test_too_many_names_end_it(place, monkeypatch):
    monkeypatch.setattr(listing, "MAX_NAMES", 5)
    for number in range(5):
        place.file(f"many/f{number}", b"")
    place.take()
    place.file("many/f5", b"")
    with pytest.raises(SandboxUnavailableError, match=r"/many holds more than 5 .*; move some"):
        place.take()


def test_few_directories_are_open_at_once(place):
    for number in range(300):
        (place.upper / f"d{number}").mkdir()
    before = open_descriptors()
    most = 0

    class Watching(threading.Event):
        def is_set(self):
            nonlocal most
            most = max(most, open_descriptors())
            return False

    place.take(stop=Watching())
    assert most - before < 10
    assert open_descriptors() == before


@pytest.mark.timeout(120)
def test_a_guest_that_swaps_names_gets_nothing_of_the_host(place, tmp_path):
    """Files become links, pipes and directories while they are walked; nothing hangs or leaks."""
    (tmp_path / "secret").write_text("of the host" * 100)
    over = threading.Event()

    def swap():
        while not over.is_set():
            for number in range(20):
                path = place.upper / f"f{number}"
                path.unlink(missing_ok=True)
                path.symlink_to(tmp_path / "secret")
                path.unlink()
                os.mkfifo(path)
                path.unlink()
                path.write_bytes(b"guest")

    guest = threading.Thread(target=swap)
    guest.start()
    try:
        for _ in range(40):
            try:
                manifest = place.take()
            except (SandboxUnavailableError, FileNotFoundError):
                continue
            assert all(entry.size != 1100 for entry in manifest.body.entries)
    finally:
        over.set()
        guest.join()


def test_a_link_that_is_another_thing_by_now_ends_it(place, monkeypatch):
    (place.upper / "link").symlink_to("/etc")
    readlink = os.readlink

    def late(name, **more):
        (place.upper / "link").unlink()
        (place.upper / "link").write_text("a file now")
        return readlink(name, **more)

    monkeypatch.setattr(os, "readlink", late)
    with pytest.raises(SandboxUnavailableError, match="/link changed while it was read"):
        place.take()


@pytest.mark.root
def test_of_another_century_there_may_be_anything(place, calm):
    """Billionths of a second since 1970 are more than 63 bits from 2262 on."""
    place.file("file", b"x" * 100)
    (place.upper / "link").symlink_to("/etc")
    os.mkfifo(place.upper / "pipe")
    os.mknod(place.upper / "gone", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    os.mknod(place.upper / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.upper / "socket"))
    late = 10_413_792_000 * 10**9  # 2300
    for path in place.upper.iterdir():
        os.utime(path, ns=(late, late), follow_symlinks=False)
    first = place.take()
    kinds = {entry.name: entry.kind for entry in first.body.entries}
    assert kinds == {b"": 0, b"file": 1, b"link": 2, b"gone": 3, b"pipe": 5}
    assert first.head.skipped == ("/device is a device", "/socket is a socket")
    assert place.make(place.kept(1)).joinpath("file").stat().st_mtime_ns == late
    first.body.entries[1].extents = ()
    assert place.take(first).body.entries[1].extents == ()  # it is recognised


def layered(place, names):
    """Make so many empty layers beside the upper, topmost first."""
    layers = [place.directory / name for name in names]
    for layer in layers:
        layer.mkdir()
    return layers


def put(layer, name, text, *, opaque=False):
    path = layer / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if opaque:
        os.setxattr(path.parent, "user.overlay.opaque", b"y")


def contents(tree):
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    return {str(path.relative_to(tree)): path.read_text() for path in files}


def opaque(tree, name):
    return "user.overlay.opaque" in os.listxattr(tree / name)


def test_the_topmost_layer_wins_and_files_of_all_are_there(place):
    middle, bottom = layered(place, ("middle", "bottom"))
    put(bottom, "d/a", "bottom")
    put(bottom, "d/deep/b", "bottom")
    put(middle, "d/a", "middle")
    put(middle, "only/c", "middle")
    place.file("d/deep/e", b"top")
    (middle / "d").chmod(0o700)
    (place.upper / "d").chmod(0o711)
    tree = place.make(place.take(below=(middle, bottom)))
    assert contents(tree) == {
        "d/a": "middle",
        "d/deep/b": "bottom",
        "d/deep/e": "top",
        "only/c": "middle",
    }
    assert (tree / "d").stat().st_mode & 0o777 == 0o711
    assert not opaque(tree, "d")


def test_what_an_opaque_directory_hides_is_not_there_in_any_depth(place):
    middle, bottom = layered(place, ("middle", "bottom"))
    put(bottom, "d/hidden", "bottom")
    put(bottom, "d/in/hidden", "bottom")
    put(middle, "d/in/shown", "middle")
    os.setxattr(middle / "d", "user.overlay.opaque", b"y")
    place.file("d/top", b"top")
    tree = place.make(place.take(below=(middle, bottom)))
    assert contents(tree) == {"d/in/shown": "middle", "d/top": "top"}
    # The upper's is not, but what lies below the layers would show in it.
    assert opaque(tree, "d")
    assert not opaque(tree, "d/in")


@pytest.mark.root
def test_what_was_deleted_of_the_image_stays_so_and_the_rest_is_not_there(place):
    below, image = layered(place, ("below", "image"))
    for name in ("file", "directory/x", "again/x", "d/of-layer", "d/of-both", "new/of-layer"):
        put(below, name, "below")
    for name in ("file", "of-image", "d/of-image", "d/of-both"):
        put(image, name, "image")
    (place.upper / "d").mkdir()
    (place.upper / "new").mkdir()
    gone = ("file", "directory", "d/of-image", "d/of-layer", "d/of-both", "new/of-layer")
    for name in gone:
        os.mknod(place.upper / name, stat.S_IFCHR | 0o600, os.makedev(0, 0))
    os.mknod(below / "of-image", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    place.file("again", b"a file now")
    root = os.open(image, os.O_RDONLY)
    tree = place.make(place.take(below=(below,), lower=root))
    os.close(root)
    assert contents(tree) == {"again": "a file now"}
    kept = {str(one.relative_to(tree)) for one in tree.rglob("*") if one.is_char_device()}
    assert kept == {"file", "of-image", "d/of-image", "d/of-both"}


@pytest.mark.root
def test_a_directory_over_a_deleted_one_hides_what_lies_below_that(place):
    middle, bottom = layered(place, ("middle", "bottom"))
    put(bottom, "d/old", "bottom")
    os.mknod(middle / "d", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    place.file("d/new", b"top")
    tree = place.make(place.take(below=(middle, bottom)))
    assert contents(tree) == {"d/new": "top"}
    assert opaque(tree, "d")


def test_links_hold_within_a_layer(place):
    (below,) = layered(place, ("below",))
    put(below, "a", "both")
    os.link(below / "a", below / "b")
    os.link(below / "a", below / "c")
    place.file("c", b"mine")
    tree = place.make(place.take(below=(below,)))
    assert (tree / "a").stat().st_nlink == 2
    assert (tree / "a").samefile(tree / "b")
    assert (tree / "c").read_bytes() == b"mine"


def test_files_of_a_layer_are_recognised_after_a_fork(place, calm):
    """What was the upper lies below another now: nothing of it is read again."""
    place.file("d/a", b"x" * 5000)
    first = place.take()
    for entry in first.body.entries:
        entry.extents = ()
    (new,) = layered(place, ("new",))
    put(new, "d/b", "new")
    second = place.take(first, upper=new, below=(place.upper,))
    found = {entry.name: entry.extents for entry in second.body.entries}
    assert found[b"a"] == ()  # taken over, without a look
    assert found[b"b"]
