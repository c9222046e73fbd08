"""Any frame comes back as it was, however it is cut; any garbage is refused or waited for."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from handiwork.sandboxes import frames
from handiwork.sandboxes.frames import Decoder, FrameError

NUMBERS = {
    "I": st.integers(0, 2**32 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "Q": st.integers(0, 2**64 - 1),
    "q": st.integers(-(2**63), 2**63 - 1),
}
TEXT = st.binary(max_size=300)
TAILS = {"s": TEXT, "l": st.lists(TEXT, max_size=8).map(tuple), "r": st.binary(max_size=5000)}


def frame_of(kind):
    if kind.ITEM is not None:
        item = st.builds(kind.ITEM, *(NUMBERS[code] for code in kind.FIXED), TEXT)
        return st.lists(item, min_size=1, max_size=8).map(lambda found: kind(tuple(found)))
    fields = [NUMBERS[code] for code in kind.FIXED] + [TAILS[code] for code in kind.TAIL]
    fields += [NUMBERS[code] for code in kind.ENDING]
    return st.builds(kind, *fields)


def streams(kinds):
    one = st.sampled_from(kinds).flatmap(frame_of)
    return st.lists(st.tuples(NUMBERS["I"], one), max_size=6)


def pieces(stream, cuts):
    at = 0
    for cut in sorted({cut % (len(stream) + 1) for cut in cuts} | {len(stream)}):
        yield stream[at:cut]
        at = cut


@given(st.data(), st.sampled_from([frames.TO_AGENT, frames.TO_HOST]), st.lists(NUMBERS["I"]))
@settings(max_examples=300, deadline=None)
def test_round_trip_however_it_is_cut(data, kinds, cuts):
    sent = data.draw(streams(kinds))
    decoder = Decoder(kinds)
    stream = b"".join(frames.encode(*item) for item in sent)
    found = [item for piece in pieces(stream, cuts) for item in decoder.feed(piece)]
    assert found == sent
    assert decoder.held == 0


@given(
    st.lists(st.binary(max_size=4000), max_size=8),
    st.sampled_from([frames.TO_AGENT, frames.TO_HOST]),
)
@settings(max_examples=300, deadline=None)
def test_garbage_is_bounded(chunks, kinds):
    decoder = Decoder(kinds)
    try:
        for chunk in chunks:
            for request_id, frame in decoder.feed(chunk):
                assert frames.encode(request_id, frame)
            assert decoder.held < frames.HEAD_BYTES + frames.PAYLOAD_BYTES
    except FrameError:
        return


@given(st.data(), st.sampled_from(frames.TO_HOST), st.integers(0, 400), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_flipped_byte_never_breaks_the_decoder(data, kind, at, flip):
    stream = bytearray(frames.encode(7, data.draw(frame_of(kind))))
    stream[at % len(stream)] ^= flip
    decoder = Decoder(frames.TO_HOST)
    try:
        found = list(decoder.feed(bytes(stream)))
    except FrameError:
        return
    assert all(isinstance(frame, msgspec.Struct) for _, frame in found)
