"""Tar archives: what other programs write is read as they mean it, faults are named."""

import tarfile

import pytest

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.images.rules import ImageLimits
from handiwork.sandboxes.images.tars import members, number
from image_archives import directory, entry, hard, link, tar

LIMITS = ImageLimits()
LONG = "d" * 120 + "/" + "f" * 120


def read(data, limits=LIMITS):
    return list(members(lambda at, size: data[at : at + size], len(data), limits))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_every_form_tells_the_same(form):
    data = tar(
        directory("d", mode=0o700, uid=3, gid=4),
        entry("d/f", b"content", mode=0o4755, mtime=5),
        link("d/l", "../f"),
        hard("h", "d/f"),
        form=form,
    )
    found = read(data)
    assert [(m.name, m.kind, m.mode) for m in found][:2] == [
        (b"d/", "directory", 0o700),
        (b"d/f", "file", 0o4755),
    ]
    assert (found[0].uid, found[0].gid, found[1].mtime_ns) == (3, 4, 5_000_000_000)
    assert data[found[1].offset :][: found[1].size] == b"content"
    assert [(m.kind, m.target) for m in found][2:] == [("link", b"../f"), ("hard", b"d/f")]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_large_owners(form):
    found = read(tar(entry(LONG, b"x"), link("l", LONG), entry("o", uid=3_000_000), form=form))
    assert (found[0].name, found[1].target, found[2].uid) == (LONG.encode(), LONG.encode(), 3000000)


def test_attributes_and_fractions_of_seconds():
    pax = {"SCHILY.xattr.user.note": "kept", "mtime": "7.25"}
    found = read(tar(entry("f", b"", pax_headers=pax), entry("g")))
    assert found[0].attributes == {b"user.note": b"kept"}
    assert found[0].mtime_ns == 7_250_000_000
    assert found[1].attributes == {}


def test_devices_are_told_as_what_they_are():
    found = read(tar(entry("n", kind=tarfile.CHRTYPE), entry("p", kind=tarfile.FIFOTYPE)))
    assert [m.kind for m in found] == ["a device", "a FIFO"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data[:1000], "cut short"),
        (lambda data: data[:512], "cut short"),
        (lambda data: data[: 2 * 512], "cut short"),
        (lambda data: b"", "cut short"),
        (lambda data: b"x" + data[1:], "checksum"),
        (lambda data: data[:124] + b"9" * 12 + data[136:], "malformed number|checksum"),
    ],
)
def test_a_fault_is_named(spoil, said):
    with pytest.raises(ConfigError, match=said):
        read(spoil(tar(entry("f", b"x" * 600))))


def test_what_is_not_served_is_refused():
    for pax, said in [
        ({"GNU.sparse.major": "1"}, "sparse"),
        ({"size": "-1"}, "'size'"),
        ({"uid": "x"}, "'uid'"),
        ({"size": "9" * 17}, "cut short"),
    ]:
        with pytest.raises(ConfigError, match=said):
            read(tar(entry("f", b"", pax_headers=pax)))
    with pytest.raises(ConfigError, match="unknown kind"):
        read(tar(entry("f", kind=b"V")))
    with pytest.raises(ConfigError, match="too long"):
        read(tar(entry("f" * 300, b"")), ImageLimits(extension_bytes=100))
    with pytest.raises(ConfigError, match="more than 1 entries"):
        read(tar(*(entry(str(n)) for n in range(5))), ImageLimits(entries=1))


def test_numbers_are_octal_or_binary():
    assert number(b"0000755\0") == 0o755
    assert number(b"\x80" + b"\0" * 9 + b"\x01\x00") == 256
    for wrong in (b"0000855\0", b"\xff" * 12, b"\xbf" + b"\xff" * 11):
        with pytest.raises(ConfigError):
            number(wrong)
