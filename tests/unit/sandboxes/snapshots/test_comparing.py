"""A content is compared by its bytes, in whatever chunks it lies."""

import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handiwork.sandboxes.snapshots.comparing import Comparison
from handiwork.sandboxes.snapshots.packs import PackReader
from handiwork.sandboxes.snapshots.sealing import DamagedError

NOISE = random.Random(4).randbytes(1_500_000)
HOLE = bytes(300_000)
PARTS = st.lists(st.sampled_from([NOISE[:70_000], NOISE[9:200_000], b"x", HOLE]), max_size=4)


def entry_of(manifest, name):
    return next(one for one in manifest.body.entries if one.name == name)


def is_same(place, before, after, name=b"f"):
    reader = PackReader(place.blobs, place.keys, "default")
    compared = Comparison(reader, before, after)
    return compared.is_same(b"/" + name, entry_of(before, name), entry_of(after, name))


def sparse(place, name, parts):
    """Write a file whose long runs of zeros are holes."""
    with place.file(name, b"").open("wb") as file:
        for part in parts:
            if part == HOLE:
                file.seek(len(part), os.SEEK_CUR)
            else:
                file.write(part)
        file.truncate(file.tell())


def test_an_unchanged_file_beside_a_changed_one_is_the_same(place):
    for name in ("e", "f", "g"):
        place.file(name, name.encode() * 5000)
    before = place.take()
    place.file("e", b"E" * 5000)
    place.file("g", b"G" * 5000)
    after = place.take()
    chunks = [one.body.chunks[entry_of(one, b"f").extents[1]].name for one in (before, after)]
    assert chunks[0] != chunks[1]
    assert is_same(place, before, after)
    assert not is_same(place, before, after, b"e")


@pytest.mark.parametrize("at", [0, 700_000, 1_499_999])
def test_one_byte_of_a_large_file_counts(place, at):
    place.file("f", NOISE)
    before = place.take()
    changed = bytearray(NOISE)
    changed[at] ^= 1
    place.file("f", bytes(changed))
    assert not is_same(place, before, place.take())
    assert is_same(place, before, before)


@given(PARTS, PARTS)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_is_a_hole_and_wherever_it_is_cut(place, old, new):
    sparse(place, "f", old)
    before = place.take()
    for one, write in ((new, sparse), (old, lambda to, name, all_: to.file(name, b"".join(all_)))):
        write(place, "f", one)
        after = place.take()
        assert is_same(place, before, after) == (b"".join(one) == b"".join(old))


def test_a_damaged_chunk_is_told_with_file_and_snapshot(place):
    place.file("f", b"1" * 5000)
    before = place.take()
    (key,) = [key for key in place.blobs.kept if "/packs/" in key]
    place.file("f", b"2" * 5000)
    after = place.take()
    place.blobs.kept[key] = bytes(len(place.blobs.kept[key]))
    with pytest.raises(DamagedError, match=r"damaged .*/f of snapshot 1 of sbx_aaaaaaaa"):
        is_same(place, before, after)
