"""Whatever an archive says and however it is cut: what passes is safe to name, and is no more than came."""

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.tree_filter import END, TreeFilter
from image_archives import entry, tar

PARTS = st.sampled_from(["a", "b", "..", ".", "", "\udc80", "x" * 200])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, b"V"]
)
FORMS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


@st.composite
def member(draw):
    kind = draw(KINDS)
    data = draw(st.binary(max_size=1100)) if kind == tarfile.REGTYPE else b""
    return entry(draw(PATHS), data, kind=kind, linkname=draw(PATHS))


def sifted(data, steps):
    sieve, out, at = TreeFilter(most_bytes=1 << 20, most_entries=50), b"", 0
    while at < len(data):
        step = steps[at % len(steps)]
        out += sieve.take(data[at : at + step])
        at += step
    return sieve, out


STEPS = st.lists(st.integers(1, 2000), min_size=1, max_size=5)


@given(st.lists(member(), max_size=6), FORMS, STEPS)
def test_what_passes_can_be_named_and_is_what_came(members, form, steps):
    data = tar(*members, form=form)
    try:
        sieve, out = sifted(data, steps)
    except ConfigError:
        return
    assert sieve.ended
    with tarfile.open(fileobj=io.BytesIO(out + END), errors="surrogateescape") as archive:
        found = archive.getmembers()
        for one in found:
            assert not one.isdev()
            assert not one.name.startswith("/")
            assert ".." not in one.name.split("/")
        contents = [archive.extractfile(one).read() for one in found if one.isreg()]
    assert contents == [content for info, content in members if info.isreg()]
    assert len(found) + sieve.report().skipped_count == len(members)


@given(st.binary(max_size=4000), STEPS)
def test_bytes_of_any_kind_end_it_or_pass(data, steps):
    try:
        _, out = sifted(data, steps)
    except ConfigError:
        return
    assert len(out) <= len(data)
