import copy
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


def test_a_former_generation_stays_as_it_was(place, calm):
    for number in range(30):
        place.file(f"d{number % 3}/f{number}", bytes([number]) * 9000)
    os.link(place.upper / "d0/f0", place.upper / "d1/again")
    first = place.take()
    before = copy.deepcopy(first)
    place.file("a/new", b"x")
    (place.upper / "d0/f3").unlink()
    place.take(first)
    assert first == before


def test_a_name_that_went_makes_no_link_of_the_other(place, calm):
    """What is taken over counts its names anew."""
    place.file("f", b"x" * 9000)
    os.link(place.upper / "f", place.upper / "g")
    first = place.take()
    second = place.take(first)
    assert [entry.linked for entry in second.body.entries if entry.name == b"f"] == [True]
    (place.upper / "g").unlink()
    third = place.take(second)
    assert [entry.linked for entry in third.body.entries if entry.name == b"f"] == [False]
    assert (place.make(third) / "f").stat().st_nlink == 1


def test_a_change_of_mode_alone_is_seen(place, calm):
    path = place.file("f", b"x" * 9000)
    first = place.take()
    path.chmod(0o751)
    assert place.take(first).body.entries[1].mode == 0o751
