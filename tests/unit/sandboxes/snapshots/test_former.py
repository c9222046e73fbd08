import os
import random


def test_an_unchanged_file_is_not_read_again(place, calm):
    path = place.file("a", b"x" * 5000)
    first = place.take()
    time = path.stat().st_mtime_ns
    first.body.entries[1].extents = ()
    first.body.entries[1].size = 5000
    second = place.take(first)
    assert second.body.entries[1].extents == ()  # taken over, without a look
    path.write_bytes(b"y" * 5000)
    os.utime(path, ns=(time, time))
    third = place.take(first)
    assert third.body.entries[1].extents  # the change time tells it


def test_a_file_that_just_changed_is_read_again(place):
    place.file("a", b"x" * 5000)
    first = place.take()
    first.body.entries[1].extents = ()
    assert place.take(first).body.entries[1].extents


def test_another_tree_s_inodes_mean_nothing(place, calm):
    place.file("a", b"x" * 5000)
    first = place.take()
    first.body.entries[1].extents = ()
    assert place.take(first, tree="t2").body.entries[1].extents


def test_a_little_used_pack_is_not_relied_on(place, calm):
    noise = random.Random(6)
    for number in range(20):
        place.file(f"f{number}", noise.randbytes(200_000))
    first = place.take()
    for number in range(1, 20):
        (place.upper / f"f{number}").unlink()
    second = place.take(first)
    third = place.take(second)
    assert not set(third.head.packs) & set(first.head.packs)
