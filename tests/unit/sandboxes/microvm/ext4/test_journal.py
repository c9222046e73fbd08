"""What a journal has still to put in its place: journals as jbd2 writes them, and as nobody would."""

import struct

import pytest

from handiwork.sandboxes.microvm.ext4 import journal
from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError
from handiwork.sandboxes.microvm.ext4.journal import Copy, pending

BYTES, BLOCKS = 1024, 12
DESCRIPTOR, COMMIT, REVOKE = 1, 2, 5
ESCAPED, SAME, LAST = 1, 2, 8
DATA = b"d" * BYTES


def block(kind, sequence, rest=b"", magic=journal.MAGIC):
    return (struct.pack(">III", magic, kind, sequence) + rest).ljust(BYTES, b"\0")


def head(*, start=1, sequence=7, features=0, first=1, blocks=BLOCKS, size=BYTES, kind=4):
    fields = struct.pack(">IIIII", size, blocks, first, sequence, start)
    return block(kind, 0, fields + bytes(8) + struct.pack(">I", features))


def tags(*targets, features=0, escaped=()):
    found = b""
    for number, target in enumerate(targets):
        flags = (ESCAPED if target in escaped else 0) | (SAME if number else 0)
        flags |= LAST if number == len(targets) - 1 else 0
        low, high = target & 0xFFFFFFFF, target >> 32
        if features & journal.SUMS_3:
            found += struct.pack(">IIII", low, flags, high, 0)
        else:
            found += struct.pack(">IHH", low, 0, flags)
            found += struct.pack(">I", high) if features & journal.WIDE else b""
            found += bytes(2) if features & journal.SUMS_2 else b""
        found += b"" if number else b"u" * 16
    return found


def descriptor(sequence, *targets, **more):
    return block(DESCRIPTOR, sequence, tags(*targets, **more))


def revoke(sequence, *targets, wide=False):
    body = struct.pack(f">{len(targets)}{'Q' if wide else 'I'}", *targets)
    return block(REVOKE, sequence, struct.pack(">I", 16 + len(body)) + body)


def commit(sequence):
    return block(COMMIT, sequence)


def found(*blocks, **more):
    every = [head(**more), *blocks]
    every += [bytes(BYTES)] * (BLOCKS - len(every))
    return pending(every.__getitem__, BLOCKS)


def test_one_that_was_closed_holds_nothing():
    assert found(descriptor(7, 50), DATA, commit(7), start=0) == {}


def test_what_was_committed_is_pending():
    assert found(descriptor(7, 50, 60), DATA, DATA, commit(7)) == {
        50: Copy(2, escaped=False),
        60: Copy(3, escaped=False),
    }


def test_what_was_not_committed_never_was():
    assert found(descriptor(7, 50), DATA, commit(7), descriptor(8, 50, 60), DATA, DATA) == {
        50: Copy(2, escaped=False)
    }


def test_what_another_turn_of_the_log_left_is_not_read():
    assert found(descriptor(6, 50), DATA, commit(6)) == {}
    assert list(found(descriptor(7, 50), DATA, commit(7), descriptor(5, 9), DATA, commit(5))) == [
        50
    ]


def test_the_newest_counts():
    twice = found(descriptor(7, 50), DATA, commit(7), descriptor(8, 50), DATA, commit(8))
    assert twice == {50: Copy(5, escaped=False)}


def test_what_was_taken_back_stays_as_it_is():
    """A block that a directory had may hold a file's content by now."""
    taken_back = (descriptor(7, 50), DATA, commit(7), revoke(8, 50), commit(8))
    assert found(*taken_back) == {}
    again = (*taken_back, descriptor(9, 50), DATA, commit(9))
    assert found(*again) == {50: Copy(7, escaped=False)}
    assert found(descriptor(7, 50), DATA, revoke(7, 50), commit(7)) == {}
    not_committed = (descriptor(7, 50), DATA, commit(7), revoke(8, 50))
    assert list(found(*not_committed)) == [50]


def test_it_goes_on_at_its_beginning():
    blocks = [commit(7), *([bytes(BYTES)] * 7), descriptor(7, 50, 60), DATA, DATA]
    assert found(*blocks, start=9) == {50: Copy(10, escaped=False), 60: Copy(11, escaped=False)}
    blocks = [DATA, commit(7), *([bytes(BYTES)] * 7), descriptor(7, 50, 60), DATA]
    assert found(*blocks, start=10) == {50: Copy(11, escaped=False), 60: Copy(1, escaped=False)}


@pytest.mark.parametrize(
    "features",
    [
        journal.WIDE,
        journal.SUMS_2,
        journal.SUMS_3,
        journal.WIDE | journal.SUMS_2,
        journal.WIDE | journal.SUMS_3,
    ],
)
def test_in_every_form(features):
    wide = bool(features & journal.WIDE)
    far = (1 << 32) + 5 if wide else 5
    tagged = descriptor(7, 50, far, features=features, escaped=(far,))
    blocks = (tagged, DATA, DATA, revoke(7, 50, wide=wide), commit(7))
    assert found(*blocks, features=features | journal.REVOKES) == {far: Copy(3, escaped=True)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": 9}, "no head"),
        ({"features": 0x20}, "0x20"),
        ({"features": 0x4}, "0x4"),
        ({"size": 4096}, "not as large"),
        ({"blocks": BLOCKS + 1}, "not as large"),
        ({"first": 0}, "not as large"),
        ({"first": BLOCKS}, "not as large"),
        ({"start": BLOCKS}, "outside of itself"),
    ],
)
def test_what_is_none_is_refused(change, says):
    with pytest.raises(DamagedDiskError, match=says):
        found(**change)


def test_what_takes_back_more_than_it_holds_is_refused(monkeypatch):
    broken = block(REVOKE, 7, struct.pack(">I", BYTES + 1))
    with pytest.raises(DamagedDiskError, match="more than it says"):
        found(broken)
    monkeypatch.setattr(journal, "MAX_REVOKED", 5)
    assert found(revoke(7, 1, 2), revoke(7, 3, 4), revoke(7, 5), commit(7)) == {}
    with pytest.raises(DamagedDiskError, match="too much"):
        found(revoke(7, 1, 2), revoke(7, 3, 4), revoke(7, 5, 6))


def test_one_that_only_points_at_itself_ends():
    every = [head(), *[descriptor(7, *range(50))] * (BLOCKS - 1)]
    assert pending(every.__getitem__, BLOCKS) == {}
