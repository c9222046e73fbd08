"""Frames of cells: whole, in pieces, and what is none."""

import json
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.sandboxes.isolate import frames
from handiwork.sandboxes.isolate.frames import Answer, Call, Done, FrameError, Reader, Thrown, Turn


def framed(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<I", len(text)) + text


TURN = {"t": "turn", "l": [["log", "one"]], "c": [{"id": 1, "n": "codemode.add", "a": {"x": 1}}]}
DONE = {"t": "done", "ok": False, "e": {"name": "E", "message": "m", "stack": ""}}


def test_what_a_cell_says():
    said = [one for one, _ in Reader().feed(framed(TURN) + framed(DONE))]
    assert said == [
        Turn((("log", "one"),), (Call(1, "codemode.add", msgspec.Raw(b'{"x": 1}')),)),
        Done(ok=False, error=Thrown("E", "m")),
    ]


def test_what_a_guest_fills_stays_as_it_was_sent():
    ((done, size),) = Reader().feed(framed(b'{"t":"done","ok":true,"v":[1, {"a":[]}]}'))
    assert (bytes(done.value), size) == (b'[1, {"a":[]}]', 40)


@pytest.mark.parametrize(
    ("value", "is_read"),
    [
        (b"1e999", False),
        (b"[1, -1.5E+400]", False),
        (b"9e308", False),
        (b"1.7e+308", True),
        (b"9" * 400, True),
        (b"9" * 5000, False),
        (b"9" * 400 + b".5", False),
        (rb'"\ud83d"', False),
        (rb'"\uDE00 \ud83d"', False),
        (rb'{"a":"1e999 \" 1e999","1e999":[1e2]}', True),
        (b'"' + b"9" * 5000 + b'"', True),
        (b"1e-999", True),
    ],
)
def test_a_value_is_one_that_whoever_asked_can_read(value, is_read):
    frame = framed(b'{"t":"done","ok":true,"v":%b}' % value)
    if is_read:
        ((done, _),) = Reader().feed(frame)
        assert bytes(done.value) == value
        msgspec.json.decode(done.value)
    else:
        with pytest.raises(FrameError):
            list(Reader().feed(frame))


LONG = b'"' + b"x" * frames.MIXED_BYTES + b'"'
CALL = b'{"id":1,"n":"x","a":%b}'


def test_a_long_frame_is_one_call_or_the_end():
    ((turn, _),) = Reader().feed(framed(b'{"t":"turn","c":[%b]}' % (CALL % LONG)))
    assert bytes(turn.calls[0].argument) == LONG
    ((done, _),) = Reader().feed(framed(b'{"t":"done","ok":true,"v":%b}' % LONG))
    assert bytes(done.value) == LONG
    for more in (b'"c":[%b,%b]' % (CALL % LONG, CALL % b"1"), b'"l":[["log",%b]]' % LONG):
        with pytest.raises(FrameError):
            list(Reader().feed(framed(b'{"t":"turn",%b}' % more)))


@given(cuts=st.lists(st.integers(0, 200), max_size=20))
def test_pieces_make_the_same(cuts):
    whole = framed(TURN) + framed(DONE)
    reader, said, last = Reader(), [], 0
    for cut in sorted({min(cut, len(whole)) for cut in cuts} | {len(whole)}):
        said += reader.feed(whole[last:cut])
        last = cut
    assert said == list(Reader().feed(whole))
    assert reader.bytes_waiting == 0


@given(st.binary(max_size=200))
def test_any_bytes_give_frames_or_an_error(data):
    reader = Reader(most_bytes=1000)
    try:
        for said, _ in reader.feed(data):
            assert isinstance(said, Turn | Done)
    except FrameError:
        pass
    assert reader.bytes_waiting <= len(data)


def test_a_frame_that_is_too_long_is_refused_before_it_is_read():
    with pytest.raises(FrameError, match=r"1001 bytes, where 1000"):
        list(Reader(most_bytes=1000).feed(struct.pack("<I", 1001)))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        {"t": "run"},
        {"t": "turn", "l": [], "c": [{"id": 1.5, "n": "x", "a": 1}]},
        {"t": "turn", "l": [], "c": [{"id": 1, "n": 7, "a": 1}]},
        {"t": "turn", "l": [], "c": [{"id": 1, "n": "x", "a": 1, "more": 1}]},
        {"t": "turn", "l": [["log"]], "c": []},
        {"t": "done", "ok": "yes"},
        {"t": "done", "ok": True, "l": []},
        b'{"t":"done","ok":true,"v":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"t":"turn","l":[["log","\xff"]]}',
        b'{"t":"done","ok":true,"v":"\xc3"}',
        b'{"t":"turn","c":[{"id":1,"n":"x","a":"\xed\xa0\x80"}]}',
        b'{"t":"done","ok":true,"v":"\\ud800"}',
        b'{"t":"done","ok":true,"v":{"a\\\\\\uDFFF":1}}',
    ],
)
def test_what_is_none(value):
    with pytest.raises(FrameError):
        list(Reader().feed(framed(value)))


def test_what_we_say():
    run = frames.run("1 + 1", "/workspace/a.js", {"KEY": "value"})
    assert struct.unpack_from("<I", run) == (len(run) - 4,)
    assert json.loads(run[4:]) == {
        "t": "run",
        "code": "1 + 1",
        "name": "/workspace/a.js",
        "env": {"KEY": "value"},
    }
    told = frames.settled(
        [Answer(1, ok=True, value={"a": None}), Answer(2, ok=False, error=Thrown("N", "m"))]
    )
    assert json.loads(told[4:])["s"] == [
        {"id": 1, "ok": True, "v": {"a": None}},
        {"id": 2, "ok": False, "e": {"name": "N", "message": "m", "stack": ""}},
    ]


def test_what_only_looks_like_half_a_character_is_a_value():
    value = b'"\\\\ud800 \\\\\\\\uDFFF \\ue000 \\uabcd"'
    ((done, _),) = Reader().feed(framed(b'{"t":"done","ok":true,"v":' + value + b"}"))
    assert bytes(done.value) == value


def test_we_send_no_half_character():
    with pytest.raises(FrameError, match="half a character"):
        frames.settled([Answer(1, ok=True, value="\ud800")])


def test_we_send_no_frame_that_a_cell_would_not_take(monkeypatch):
    monkeypatch.setattr(frames, "FRAME_BYTES", 100)
    with pytest.raises(FrameError, match="too many for a cell"):
        frames.run("x" * 100, "/workspace/a.js", {})
