"""WebSocket frames come out as they went in, masked, however their bytes are split."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from handiwork.egress.mask import Mask
from handiwork.egress.websocket import Frames, MaskedFrames, WebSocketError

SECRET = b"abcab-secret"
CONTINUATION, TEXT, PING = 0, 1, 9

payloads = st.lists(
    st.sampled_from([SECRET, SECRET[:4], SECRET[4:], b"abc", b" ", SECRET.hex().encode()]),
    max_size=4,
).map(b"".join)


def frame(opcode: int, payload: bytes, *, fin: bool) -> bytes:
    length = len(payload)
    first = bytes([(0x80 if fin else 0) | opcode])
    if length < 126:
        return first + bytes([length]) + payload
    return first + b"\x7e" + length.to_bytes(2, "big") + payload


@st.composite
def messages(draw):
    """Return the payloads of one message's frames, each with the control frames before it."""
    return draw(
        st.lists(st.tuples(st.lists(payloads, max_size=2), payloads), min_size=1, max_size=4)
    )


def written(message, change=lambda pieces: pieces, control=lambda payload: payload):
    """Return the frames of a message, its payload changed as a whole."""
    pieces = change([payload for _, payload in message])
    raw = b""
    for at, (before, _) in enumerate(message):
        raw += b"".join(frame(PING, control(one[:125]), fin=True) for one in before)
        opcode = CONTINUATION if at else TEXT
        raw += frame(opcode, pieces[at], fin=at == len(message) - 1)
    return raw


def masked(pieces: list[bytes]) -> list[bytes]:
    whole = Mask([SECRET]).apply(b"".join(pieces))
    found = []
    for piece in pieces:
        found.append(whole[: len(piece)])
        whole = whole[len(piece) :]
    return found


def split(raw: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    return [raw[a:b] for a, b in pairwise(edges)]


@given(st.lists(messages(), max_size=4), st.lists(st.integers(0, 400), max_size=8))
def test_frames_keep_order_and_lengths_and_lose_the_secret(conversation, cuts):
    raw = b"".join(written(message) for message in conversation)
    frames = MaskedFrames(Mask([SECRET]))
    shown = b"".join(frames.feed(piece) for piece in split(raw, cuts))
    wanted = b"".join(
        written(message, masked, lambda one: masked([one])[0]) for message in conversation
    )
    assert shown == wanted


def pieces_of(raw: bytes, cuts: list[int], *, masked: bool):
    frames, found, failed = Frames(masked=masked), [], False
    try:
        for part in split(raw, cuts):
            for piece in frames.feed(part):
                if piece.head or not found:
                    found.append([piece.head, b""])
                found[-1][1] += piece.payload
    except WebSocketError:
        failed = True
    return found, failed


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6), st.booleans())
def test_any_bytes_are_frames_or_an_error_however_split(raw, cuts, masked):
    whole = pieces_of(raw, [], masked=masked)
    assert pieces_of(raw, cuts, masked=masked) == whole
    found, failed = whole
    passed = b"".join(head + payload for head, payload in found)
    assert raw.startswith(passed)
    assert failed or len(raw) - len(passed) < 140


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_any_bytes_of_a_server_come_out_as_long_as_they_were(raw, cuts):
    frames, shown = MaskedFrames(Mask([SECRET])), b""
    try:
        for part in split(raw, cuts):
            shown += frames.feed(part)
        shown += frames.finish()
    except WebSocketError:
        return
    assert raw.startswith(shown)
    assert len(raw) - len(shown) < 140
