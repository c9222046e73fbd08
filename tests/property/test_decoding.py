"""Decoding gives what was compressed, however the bytes are split, and says so when it is not all of it."""

import gzip
import zlib
from contextlib import suppress
from itertools import pairwise

import brotli
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from handiwork.egress.decoding import DecodeError, Decoder, zstd

CODINGS = {
    b"gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"br": brotli.compress,
    b"zstd": zstd.compress,
}
bodies = st.binary(max_size=300) | st.builds(
    lambda piece, times: piece * times, st.binary(max_size=9), st.integers(0, 30_000)
)
cuts = st.lists(st.integers(0, 400), max_size=6)


def decoded(coding: bytes, coded: bytes, cuts: list[int]) -> bytes:
    decoder, found = Decoder(coding), []
    edges = [0, *sorted(min(cut, len(coded)) for cut in cuts), len(coded)]
    for a, b in pairwise(edges):
        decoder.feed(coded[a:b])
        while piece := decoder.read():
            found.append(piece)
    decoder.finish()
    return b"".join(found)


@pytest.mark.parametrize("coding", CODINGS)
@given(body=bodies, cuts=cuts)
def test_what_was_compressed_comes_out(coding, body, cuts):
    assert decoded(coding, CODINGS[coding](body), cuts) == body


@pytest.mark.parametrize("coding", CODINGS)
@given(body=bodies, cuts=cuts, short=st.integers(1, 400))
def test_what_is_cut_short_is_an_error(coding, body, cuts, short):
    coded = CODINGS[coding](body)
    part = coded[: max(len(coded) - short, 1)]
    assume(part != coded)
    with pytest.raises(DecodeError):
        decoded(coding, part, cuts)


@pytest.mark.parametrize("coding", CODINGS)
@given(raw=st.binary(max_size=200), cuts=cuts)
def test_any_bytes_are_a_body_or_an_error(coding, raw, cuts):
    with suppress(DecodeError):
        decoded(coding, raw, cuts)
