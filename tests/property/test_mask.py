"""Masking does not depend on how a body is split, keeps lengths, and lets no value through."""

import base64
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from handiwork.egress.mask import Mask

# A small alphabet makes overlaps and near misses likely; `*` itself is the mask.
values = st.binary(min_size=8, max_size=20) | st.text(alphabet="ab", min_size=8, max_size=16).map(
    str.encode
)
secrets = st.lists(values.filter(lambda value: b"*" not in value), min_size=1, max_size=3)


@st.composite
def bodies(draw, held):
    pieces = []
    for _ in range(draw(st.integers(0, 5))):
        value = draw(st.sampled_from(held))
        around = draw(st.binary(max_size=4))
        pieces.append(
            draw(
                st.sampled_from(
                    [
                        value,
                        value[: len(value) // 2],
                        value[len(value) // 2 :],
                        base64.b64encode(around + value + around),
                        base64.urlsafe_b64encode(around + value),
                        around,
                    ]
                )
            )
        )
    return b"".join(pieces)


@st.composite
def flows(draw):
    held = draw(secrets)
    body = draw(bodies(held))
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=6)))
    edges = [0, *cuts, len(body)]
    return held, body, [body[a:b] for a, b in pairwise(edges)]


@given(flows())
def test_splitting_changes_nothing(flow):
    held, body, pieces = flow
    whole, split = Mask(held), Mask(held)
    shown = b"".join(split.feed(piece) for piece in pieces) + split.finish()
    assert shown == whole.apply(body)
    assert split.hits == whole.hits


@given(flows())
def test_lengths_stay_and_values_go(flow):
    held, body, _ = flow
    mask = Mask(held)
    shown = mask.apply(body)
    assert len(shown) == len(body)
    for value in held:
        assert value not in shown
    assert (mask.hits > 0) == (shown != body)


@given(secrets, st.binary(max_size=7), st.binary(max_size=7))
def test_base64_at_any_alignment_is_found(held, before, after):
    value = held[0]
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        mask = Mask(held)
        shown = mask.apply(encode(before + value + after))
        assert mask.hits > 0
        # All but the characters shared with the neighbours: two thirds of a byte at either end.
        assert shown.count(b"*") >= len(value) * 8 // 6 - 2


@given(flows())
def test_what_is_held_back_is_bounded(flow):
    held, _, pieces = flow
    mask = Mask(held)
    longest = max(len(value) for value in held) * 4 // 3 + 4
    taken = given_back = 0
    for piece in pieces:
        taken += len(piece)
        given_back += len(mask.feed(piece))
        assert 0 <= taken - given_back < longest


@given(st.binary(max_size=300))
def test_arbitrary_bytes_pass(body):
    mask = Mask([b"never-in-there-0123456789"])
    assert mask.feed(body) + mask.finish() == body
