import pytest

from handiwork.egress.mask import Mask
from handiwork.egress.websocket import Frames, MaskedFrames, WebSocketError

SECRET = b"sk-0123456789abcdef"
STARS = b"*" * len(SECRET)
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def frame(opcode, payload=b"", *, fin=True, key=b"", rsv=0):
    length = len(payload)
    second = 0x80 if key else 0
    head = bytes([(0x80 if fin else 0) | rsv | opcode])
    if length < 126:
        head += bytes([second | length])
    elif length < 65536:
        head += bytes([second | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([second | 127]) + length.to_bytes(8, "big")
    return head + key + payload


def shown(*pieces):
    frames = MaskedFrames(Mask([SECRET]))
    return [frames.feed(piece) for piece in pieces]


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, 10])
@pytest.mark.parametrize("size", [0, 60])
def test_a_secret_in_a_frame_is_masked_and_the_frame_keeps_its_length(opcode, size):
    around = b"x" * (size // 2)
    assert shown(frame(opcode, around + SECRET + around)) == [
        frame(opcode, around + STARS + around)
    ]


@pytest.mark.parametrize("size", [126, 65_535, 65_536, 200_000])
def test_long_frames_pass(size):
    body = b"y" * (size - len(SECRET))
    assert shown(frame(BINARY, body + SECRET)) == [frame(BINARY, body + STARS)]


def test_a_secret_across_the_frames_of_a_message_is_masked():
    pieces = shown(frame(TEXT, b"a " + SECRET[:5], fin=False), frame(0, SECRET[5:] + b" b"))
    assert pieces[0] == frame(TEXT, b"a " + SECRET[:5], fin=False)[:4]
    assert b"".join(pieces) == frame(TEXT, b"a *****", fin=False) + frame(0, STARS[5:] + b" b")


def test_a_control_frame_does_not_stand_inside_one_that_waits():
    before, after = frame(TEXT, SECRET[:5], fin=False), frame(0, SECRET[5:])
    assert b"".join(shown(before, frame(PING, SECRET), after)) == (
        frame(TEXT, STARS[:5], fin=False) + frame(PING, STARS) + frame(0, STARS[5:])
    )


def test_a_control_frame_between_fragments_passes_at_once():
    assert shown(frame(TEXT, b"abc\n", fin=False), frame(PING, b"p"))[1] == frame(PING, b"p")


def test_messages_are_texts_of_their_own():
    pieces = shown(frame(TEXT, SECRET[:5]), frame(TEXT, SECRET[5:]))
    assert pieces == [frame(TEXT, SECRET[:5]), frame(TEXT, SECRET[5:])]


def test_the_code_of_a_close_stays_and_its_reason_is_masked():
    assert shown(frame(CLOSE, b"\x03\xe8" + SECRET)) == [frame(CLOSE, b"\x03\xe8" + STARS)]


def test_what_was_held_back_comes_when_the_connection_ends():
    frames = MaskedFrames(Mask([SECRET]))
    first = frames.feed(frame(TEXT, b"abc" + SECRET[:4], fin=False))
    assert first + frames.finish() == frame(TEXT, b"abc" + SECRET[:4], fin=False)


KEY = b"\x01\x02\x03\x04"
WRONG = {
    "a masked frame of a server": (False, frame(TEXT, b"a", key=KEY)),
    "a frame of a client without key": (True, frame(TEXT, b"a")),
    "compression": (False, frame(TEXT, b"a", rsv=0x40)),
    "an unknown kind": (False, frame(3, b"a")),
    "an unknown control": (False, frame(11, b"a")),
    "a control in fragments": (False, frame(PING, b"a", fin=False)),
    "a control that is too long": (False, frame(PING, b"a" * 126)),
    "a continuation of nothing": (False, frame(0, b"a")),
    "a message inside a message": (False, frame(TEXT, b"a", fin=False) + frame(TEXT, b"b")),
    "a length not in its shortest form": (False, b"\x81\x7e\x00\x05hello"),
    "a longer one": (False, b"\x81\x7f" + (100).to_bytes(8, "big") + b"a" * 100),
    "a length beyond all bounds": (False, b"\x82\x7f\xff" + bytes(7)),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("size", [1, 10**6])
def test_what_a_side_may_not_send_is_refused(name, size):
    masked, raw = WRONG[name]
    frames = Frames(masked=masked)
    with pytest.raises(WebSocketError):
        [list(frames.feed(raw[at : at + size])) for at in range(0, len(raw), size)]


def test_frames_of_a_client_are_read_under_their_key():
    frames = Frames(masked=True)
    raw = frame(TEXT, b"abc", key=KEY)
    (piece,) = frames.feed(raw)
    assert (piece.head, piece.payload, piece.ends_message) == (raw[:6], b"abc", True)
    assert frames.between


def test_floods_while_a_fragment_waits_end():
    with pytest.raises(WebSocketError, match="too much"):
        shown(frame(TEXT, SECRET[:5], fin=False), frame(PING, b"p" * 100) * 1000)
