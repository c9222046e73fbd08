"""One layer over another: what is added, taken away, linked, and refused."""

import tarfile

import pytest

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.images.layers import Layers
from handiwork.sandboxes.images.nodes import walk
from handiwork.sandboxes.images.rules import ImageLimits
from handiwork.sandboxes.images.tars import members
from image_archives import directory, entry, hard, link, tar


def laid(*layers, limits=None):
    tree = Layers(limits)
    for number, data in enumerate(layers):
        read = lambda at, size, data=data: data[at : at + size]  # noqa: E731  one line is enough
        tree.lay(members(read, len(data), limits or ImageLimits()), number)
    return tree.root


def names(root):
    return [path.decode() for path, _ in walk(root)]


def at(root, path):
    return dict(walk(root))[path.encode()]


def test_upper_layers_add_and_replace():
    root = laid(
        tar(directory("a"), entry("a/x", b"1"), entry("a/y", b"1")),
        tar(entry("a/x", b"22", mode=0o600), directory("a", mode=0o711)),
    )
    assert names(root) == ["a", "a/x", "a/y"]
    assert (at(root, "a/x").content.source, at(root, "a/x").size) == (1, 2)
    assert at(root, "a").mode == 0o711


def test_whiteouts_take_away_only_what_is_below():
    below = tar(
        directory("a"), entry("a/x", b"1"), entry("a/y", b"1"), directory("b"), entry("b/z")
    )
    root = laid(below, tar(entry("a/new"), entry("a/.wh.x"), entry(".wh.b"), entry(".wh.none")))
    assert names(root) == ["a", "a/new", "a/y"]
    root = laid(below, tar(entry("a/new"), entry("a/.wh..wh..opq"), entry("a/.wh..wh.plnk")))
    assert names(root) == ["a", "a/new", "b", "b/z"]


def test_a_kind_may_change():
    root = laid(tar(directory("a"), entry("a/x")), tar(entry("a", b"file")))
    assert names(root) == ["a"]
    root = laid(tar(link("lib", "usr/lib")), tar(directory("lib"), entry("lib/x")))
    assert (names(root), at(root, "lib").kind) == (["lib", "lib/x"], "directory")


def test_hard_links_are_one_node():
    root = laid(tar(entry("a", b"1")), tar(hard("b", "a")), tar(entry(".wh.a")))
    assert at(root, "b").size == 1
    root = laid(tar(entry("a", b"1"), hard("c", "./a")))
    assert at(root, "a") is at(root, "c")


def test_missing_directories_are_roots():
    root = laid(tar(entry("a/b/c", uid=5)))
    assert (at(root, "a/b").uid, at(root, "a/b").mode) == (0, 0o755)


def test_devices_of_dev_are_left_out_others_refused():
    null = entry("dev/null", kind=tarfile.CHRTYPE)
    assert names(laid(tar(directory("dev"), null))) == ["dev"]
    for kind, said in [(tarfile.CHRTYPE, "a device"), (tarfile.FIFOTYPE, "a FIFO")]:
        with pytest.raises(ConfigError, match=said):
            laid(tar(entry("etc/null", kind=kind)))


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (entry("/etc/x"), "absolute"),
        (entry("a/../../x"), r"'\.\.'"),
        (entry("../x"), r"'\.\."),
        (entry("n" * 256), "over 255"),
        (entry("d/" * 101 + "x"), "deeper than 100"),
        (entry("out/x"), "through a link"),
        (entry("file/x"), "through a file"),
        (hard("h", "../etc/shadow"), r"'\.\."),
        (hard("h", "/etc/shadow"), "absolute"),
        (hard("h", "nothing"), "no file of it"),
        (hard("h", "out/shadow"), "no file of it"),
        (entry("o", uid=70_000), "70000"),
        (link("l", ""), "leads nowhere"),
        (entry("f", pax_headers={"SCHILY.xattr.user.overlay.opaque": "y"}), "overlayfs"),
        (entry("f", pax_headers={"SCHILY.xattr.user.x": "y" * 70_000}), "too many attributes"),
        (entry(".", b""), "root"),
    ],
)
def test_what_leads_out_or_steers_the_host_is_refused(member, said):
    below = tar(link("out", "/etc"), entry("file", b"x"))
    assert names(laid(below)) == ["file", "out"]
    with pytest.raises(ConfigError, match=said):
        laid(below, tar(member))


def test_attributes_that_mean_nothing_inside_are_dropped():
    pax = {f"SCHILY.xattr.{name}": "v" for name in ("user.a", "security.selinux", "trusted.b")}
    assert at(laid(tar(entry("f", pax_headers=pax))), "f").attributes == {b"user.a": b"v"}


def test_limits_count_over_all_layers():
    two = tar(entry("a", b"xx"), entry("b", b"xx"))
    for limits, said in [
        (ImageLimits(entries=3), "3 entries"),
        (ImageLimits(total_bytes=7), "7 bytes"),
        (ImageLimits(layers=1), "1 layers"),
    ]:
        with pytest.raises(ConfigError, match=said):
            laid(two, two, limits=limits)
