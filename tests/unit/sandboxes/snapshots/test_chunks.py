import random

from hypothesis import given
from hypothesis import strategies as st

from handiwork.sandboxes.snapshots.chunks import MAX_BYTES, MIN_BYTES, cuts


@given(st.integers(0, 2**32), st.integers(0, 900_000))
def test_the_cuts_cover_all_in_order_and_in_bounds(seed, size):
    data = random.Random(seed).randbytes(size)
    at = 0
    found = list(cuts(data, last=True))
    for offset, length in found:
        assert offset == at
        assert 0 < length <= MAX_BYTES
        at += length
    assert at == size
    assert all(length >= MIN_BYTES for _, length in found[:-1])


@given(st.integers(0, 2**32), st.integers(1, 700_000))
def test_windows_cut_as_the_whole_does(seed, border):
    data = random.Random(seed).randbytes(1_000_000)
    windowed, at = [], 0
    for end in (border, len(data)):
        last = end == len(data)
        for offset, length in cuts(data[at:end], last=last):
            windowed.append((at + offset, length))
        at = windowed[-1][0] + windowed[-1][1] if windowed else 0
    assert windowed == list(cuts(data, last=True))


def test_an_insertion_moves_few_cuts():
    data = random.Random(1).randbytes(5_000_000)
    moved = data[:1_000_000] + b"inserted" + data[1_000_000:]
    before = {data[at : at + length] for at, length in cuts(data, last=True)}
    after = [moved[at : at + length] for at, length in cuts(moved, last=True)]
    assert sum(one not in before for one in after) <= 4
