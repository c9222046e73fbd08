"""An archive that goes by: what passes is as it came, what must not is out and named."""

import io
import subprocess
import tarfile

import pytest

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.tree_filter import END, NAMED, TooLargeError, TreeFilter
from image_archives import directory, entry, hard, link, tar

LONG = "d" * 120 + "/" + "f" * 120


def passed(data, *, most_bytes=1 << 20, most_entries=100, step=700):
    """What passes of an archive that comes in pieces, with its end, and the report."""
    sieve = TreeFilter(most_bytes=most_bytes, most_entries=most_entries)
    out = b"".join(sieve.take(data[at : at + step]) for at in range(0, len(data), step))
    assert sieve.ended
    return out + END, sieve.report()


def names(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("step", [1, 511, 512, 100_000])
def test_files_directories_and_links_pass_as_they_came(form, step):
    data = tar(
        directory("./d"),
        entry("d/f", b"x" * 5000),
        link("l", "/etc/x"),
        hard("h", "d/f"),
        form=form,
    )
    out, report = passed(data, step=step)
    assert data.startswith(out)
    assert (report.entries, report.skipped) == (4, ())


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_go_with_their_member(form):
    fifo = entry("p" * 150, kind=tarfile.FIFOTYPE)
    out, report = passed(tar(entry(LONG, b"x"), fifo, entry("after", b"y"), form=form))
    assert names(out) == [LONG, "after"]
    assert report.skipped == (f"{'p' * 120}: a FIFO",)


def test_devices_and_fifos_are_left_out_and_named():
    kinds = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    data = tar(*(entry(f"dev/{n}\n", kind=kind) for n, kind in enumerate(kinds)), entry("f", b"x"))
    out, report = passed(data)
    assert names(out) == ["f"]
    assert report.skipped == (r"dev/0\n: a device", r"dev/1\n: a device", r"dev/2\n: a FIFO")
    assert (report.entries, report.skipped_count) == (4, 3)


def test_so_many_are_named_and_the_rest_is_counted():
    data = tar(*(entry(f"p{n}", kind=tarfile.FIFOTYPE) for n in range(NAMED + 7)))
    _, report = passed(data, most_entries=1000)
    assert (len(report.skipped), report.skipped_count) == (NAMED, NAMED + 7)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (entry("/etc/passwd", b""), "absolute path"),
        (entry("a/../../b", b""), r"'\.\.'"),
        (hard("h", "../../etc/shadow"), r"'\.\.'"),
        (hard("h", "/etc/shadow"), "absolute path"),
        (entry("f", kind=b"V"), "unknown kind"),
        (entry("s", b"", pax_headers={"GNU.sparse.major": "1"}), "sparse"),
        (entry("f", b"", pax_headers={"comment": "x" * 70_000}), "too long"),
    ],
)
def test_what_leads_out_or_is_not_known_ends_it(member, said):
    with pytest.raises(ConfigError, match=said):
        passed(tar(member))


def told(kind, body, name="x"):
    """An extension header as it is, of which tarfile would make its own."""
    return raw(entry(name, body, kind=kind))


def pax(**records):
    body = b""
    for key, value in records.items():
        record = f" {key}={value}\n".encode()
        size = len(record) + 2
        body += f"{size if size > 99 else f'{size:02}'}".encode() + record
    return told(tarfile.XHDTYPE, body)


def raw(*members):
    """Members without what ends an archive."""
    out = io.BytesIO()
    for info, data in members:
        size, info.size = info.size, len(data)
        info.size = size
        out.write(info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
    return out.getvalue()


def prefixed(magic):
    """A file whose header has a prefix that leads out, for who reads it."""
    header = bytearray(raw(entry("safe")))
    header[257 : 257 + len(magic)] = magic
    header[345:350] = b"../.."
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


LONG_NAME, LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
INNER = raw(entry("sda", kind=tarfile.BLKTYPE), entry("../../escape"), entry("c"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pax(size=1536) + pax(path="big") + raw(entry("f")) + INNER, "twice"),
        (pax(path="../../evil") + pax(path="safe") + raw(entry("f")), "twice"),
        (told(LONG_NAME, b"../evil\0") + told(LONG_NAME, b"safe\0") + raw(entry("f")), "twice"),
        (pax(path="../evil") + told(LONG_NAME, b"safe\0") + raw(entry("f")), "twice"),
        (told(LONG_NAME, b"../evil\0") + pax(path="safe") + raw(entry("f")), "twice"),
        (pax(linkpath="/etc/shadow") + pax(linkpath="f") + raw(hard("h", "f")), "twice"),
        (pax(linkpath="/etc/shadow") + told(LONG_LINK, b"f\0") + raw(hard("h", "f")), "twice"),
        (pax(path="safe") + told(tarfile.XGLTYPE, b"9 a=bcde\n") + raw(entry("f")), "twice"),
        (told(tarfile.XHDTYPE, b"09 path=a\n"[1:] * 2) + raw(entry("f")), "twice|malformed"),
        (told(tarfile.XHDTYPE, b"10 path=a\n" * 2) + raw(entry("f")), "twice"),
        (pax(path="") + raw(entry("f")), "empty name"),
        (told(LONG_NAME, b"\0") + raw(entry("f")), "empty name"),
        (prefixed(b"ustar  \0"), "prefix"),
        (prefixed(bytes(8)), "prefix"),
        (prefixed(b"ustarX00"), "prefix"),
        (prefixed(b"ustar\00000"), r"'\.\.'"),
    ],
)
def test_what_readers_would_understand_differently_ends_it(data, said):
    with pytest.raises(ConfigError, match=said):
        passed(data + END)


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "pax", "ustar", "v7"])
def test_what_gnu_tar_writes_passes(tmp_path, form):
    tree, long = tmp_path / "tree", form in ("gnu", "oldgnu", "pax")
    (tree / "d").mkdir(parents=True)
    name = "n" * 180 if long else "n"
    (tree / "d" / name).write_bytes(b"x" * 3000)
    (tree / "hard").hardlink_to(tree / "d" / name)
    (tree / "link").symlink_to("t" * 180 if long else "t")
    argv = ["tar", "-c", f"--format={form}", "-f", "-", "-C", tree, "."]
    data = subprocess.run(argv, check=True, capture_output=True).stdout
    out, report = passed(data)
    assert sorted(names(out)) == sorted([".", "./d", f"./d/{name}", "./hard", "./link"])
    assert report.entries == 5


def test_limits():
    data = tar(entry("a", b"x" * 5000), entry("b"), entry("c"))
    with pytest.raises(TooLargeError, match="more than 2000 bytes"):
        passed(data, most_bytes=2000)
    with pytest.raises(TooLargeError, match="more than 2 entries"):
        passed(data, most_entries=2)
    assert passed(data, most_bytes=len(data), most_entries=3)[1].bytes == len(data)


def test_what_comes_after_the_end_is_dropped():
    data = tar(entry("a", b"x"))
    out, _ = passed(data + tar(entry("b", b"y")))
    assert names(out) == ["a"]


def test_an_archive_without_an_end_has_not_ended():
    sieve = TreeFilter(most_bytes=1 << 20, most_entries=10)
    sieve.take(tar(entry("a", b"x" * 600))[: 512 + 600])
    assert not sieve.ended


def test_what_is_no_archive():
    with pytest.raises(ConfigError, match=r"malformed|checksum"):
        passed(b"x" * 512)
    with pytest.raises(ConfigError, match=r"malformed|checksum"):
        passed(b"\x1f\x8b\x08" + bytes(2000))


def test_what_is_told_of_all_members_is_bounded():
    records = [entry("f", kind=tarfile.XGLTYPE, data=b"%d k%07d=v\n" % (14, n)) for n in range(200)]
    with pytest.raises(ConfigError, match=r"all its members|too long"):
        passed(tar(*records, form=tarfile.USTAR_FORMAT))
