"""A content is compared by its bytes, in whatever chunks it lies."""

import os
import random
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.snapshots import comparing
from handiwork.sandboxes.snapshots.comparing import Comparison
from handiwork.sandboxes.snapshots.diff import Pair
from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.packs import PackReader
from handiwork.sandboxes.snapshots.sealing import DamagedError

NOISE = random.Random(4).randbytes(1_500_000)
HOLE = bytes(300_000)
NAMES = [b"f%02d" % number for number in range(24)]
PARTS = st.lists(st.sampled_from([NOISE[:70_000], NOISE[9:200_000], b"x", HOLE]), max_size=4)


def entry_of(manifest, name):
    return next(one for one in manifest.body.entries if one.name == name)


def is_same(place, before, after, name=b"f"):
    pairs = pairs_of(before, after, name)
    return not comparison(place, before, after).differing(pairs)


def pairs_of(before, after, *names):
    return [Pair(b"/" + one, entry_of(before, one), entry_of(after, one)) for one in names]


def comparison(place, before, after, stop=None):
    return Comparison(PackReader(place.blobs, place.keys, "default"), before, after, stop)


def packs_read(place):
    return [key for verb, key in place.blobs.asked if verb == "get" and "/packs/" in key]


def scattered(place):
    """Take two generations of the same files in other chunks, eight packs in turn; one file is changed."""
    taken, manifest = [], None
    for content in (b"old", b"new"):
        for turn in range(8):
            os.utime(place.file(f"a{turn}", content), ns=(0, 0))
            for at in range(turn, 24, 8):
                data = NOISE[at * 9000 : (at + 1) * 9000]
                data = content + data[3:] if at == 9 else data
                os.utime(place.file(NAMES[at].decode(), data), ns=(0, 0))
            manifest = place.take(manifest)
        taken.append(manifest)
    place.blobs.asked.clear()
    return taken


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


def test_each_pack_is_read_once_however_files_are_scattered(place, calm):
    """Sabotaged by comparing file after file, this fails: the packs that are kept are never the right ones."""
    before, after = scattered(place)
    generations = Generations(place.blobs, place.keys, "default", lambda: None, os.urandom)
    found = generations.differences("sbx_aaaaaaaa", before.head.number, after.head.number)
    told = [one.path for one in found if one.path != b"/"]
    assert told == [*(b"/a%d" % turn for turn in range(8)), b"/f09"]
    packs = packs_read(place)
    assert len(packs) == len(set(packs)) == 16


def test_what_is_in_the_same_place_of_the_same_chunk_is_not_read(place, calm):
    before, _ = scattered(place)
    assert comparison(place, before, before).differing(pairs_of(before, before, *NAMES)) == set()
    assert packs_read(place) == []


def test_more_than_one_may_read_is_refused_and_says_what_to_do(place, calm, monkeypatch):
    before, after = scattered(place)
    pairs = pairs_of(before, after, *NAMES)
    one = before.head.pack_bytes[0]
    monkeypatch.setattr(comparing, "MAX_READ_BYTES", 4 * one + 100)
    told = r"more than 0 MiB of the store .*/f\d\d is not compared yet. Give a path"
    with pytest.raises(UnsupportedError, match=told):
        comparison(place, before, after).differing(pairs)
    assert len(packs_read(place)) == 4
    assert comparison(place, before, after).differing(pairs[9:10]) == {b"/f09"}


def test_so_many_at_one_time_and_the_others_after(place, calm, monkeypatch):
    before, after = scattered(place)
    monkeypatch.setattr(comparing, "MOST_STRETCHES", 5)
    pairs = pairs_of(before, after, *NAMES)
    assert comparison(place, before, after).differing(pairs) == {b"/f09"}


def test_it_ends_between_two_chunks_when_it_is_stopped(place, calm):
    before, after = scattered(place)
    stop = threading.Event()
    place.blobs.fault = lambda _verb, _key: stop.set()
    with pytest.raises(SandboxUnavailableError, match="stopped"):
        comparison(place, before, after, stop).differing(pairs_of(before, after, *NAMES))
    assert len(packs_read(place)) == 1
