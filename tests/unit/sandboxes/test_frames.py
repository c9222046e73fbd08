"""The golden corpus that both codecs pass, and what cannot be encoded."""

import json
from pathlib import Path

import msgspec
import pytest

from handiwork.sandboxes import frames
from handiwork.sandboxes.frames import Decoder, FrameError

CORPUS = Path(__file__).parents[3] / "guest" / "corpus"
CASES = sorted(path.stem for path in CORPUS.glob("*.json"))
NAMES = {
    frames.Grant: "CREDIT",
    frames.Body: "DATA",
    frames.Entries: "ENTRY",
    frames.Running: "PROCESS",
    frames.Listeners: "LISTENER",
    frames.Events: "EVENT",
}


def latin(value):
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return [latin(part) for part in value] if isinstance(value, tuple) else value


def described(request_id, frame):
    groups = [frame] if frame.ITEM is None else frame.items
    return {
        "id": request_id,
        "kind": NAMES.get(type(frame), type(frame).__name__.upper()),
        "groups": [[latin(v) for v in msgspec.structs.astuple(group)] for group in groups],
    }


def read(stream: bytes, to: str, step: int):
    decoder = Decoder(frames.TO_AGENT if to == "agent" else frames.TO_HOST)
    found = []
    try:
        for at in range(0, len(stream), step):
            found += decoder.feed(stream[at : at + step])
    except FrameError:
        return found, "rejected"
    return found, "incomplete" if decoder.held else "clean"


def read_by_frame(stream: bytes, to: str):
    decoder = Decoder(frames.TO_AGENT if to == "agent" else frames.TO_HOST)
    found = []
    try:
        for item in decoder.feed(stream):
            found.append(item)
    except FrameError:
        return found, "rejected"
    return found, "incomplete" if decoder.held else "clean"


def test_the_corpus_is_there():
    assert len(CASES) > 20


@pytest.mark.parametrize("case", CASES)
def test_golden_corpus(case):
    stream = bytes.fromhex((CORPUS / f"{case}.hex").read_text())
    wanted = json.loads((CORPUS / f"{case}.json").read_text())
    found, ends = read_by_frame(stream, wanted["to"])
    assert ends == wanted["ends"]
    expected = [
        {**frame, "groups": [list(group.values()) for group in frame["groups"]]}
        for frame in wanted["frames"]
    ]
    assert [described(*item) for item in found] == expected
    again = b"".join(frames.encode(*item) for item in found)
    assert stream.startswith(again)
    assert ends != "clean" or again == stream


@pytest.mark.parametrize("case", CASES)
def test_the_corpus_in_single_bytes(case):
    stream = bytes.fromhex((CORPUS / f"{case}.hex").read_text())[:4096]
    wanted = json.loads((CORPUS / f"{case}.json").read_text())
    whole, ends = read_by_frame(stream, wanted["to"])
    assert read(stream, wanted["to"], 1) == (whole, ends)


def test_what_does_not_fit_is_refused():
    with pytest.raises(FrameError, match="over the limit"):
        frames.encode(1, frames.Data(b"x" * (frames.PAYLOAD_BYTES + 1)))
    with pytest.raises(FrameError, match="out of range"):
        frames.encode(1, frames.Credit(1 << 32))
    with pytest.raises(FrameError, match="out of range"):
        frames.encode(1 << 32, frames.Ping())
