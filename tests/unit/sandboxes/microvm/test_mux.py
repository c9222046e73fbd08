"""The Python codec against the golden corpus that the C one passes too."""

import json
from pathlib import Path

import pytest

from handiwork.sandboxes.microvm.mux import Decoder, Kind, MuxError, MuxFrame, encode

CORPUS = sorted((Path(__file__).parents[4] / "guest/corpus/mux").glob("*.json"))


def decoded(data):
    found, decoder = [], Decoder()
    try:
        for frame in decoder.feed(data):
            told = {
                "flow": frame.flow,
                "kind": frame.kind.name,
                "data": frame.data.decode("latin-1"),
            }
            found.append({**told, "credit": frame.credit})
    except MuxError:
        return {"frames": found, "ends": "rejected"}
    return {"frames": found, "ends": "incomplete" if decoder.unread else "clean"}


def test_the_corpus_is_there():
    assert len(CORPUS) >= 12


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_golden_frames(path):
    data = bytes.fromhex(path.with_suffix(".hex").read_text())
    assert decoded(data) == json.loads(path.read_text())


def test_bytes_may_come_one_by_one():
    frames = [
        MuxFrame(1, Kind.OPEN),
        MuxFrame(1, Kind.DATA, b"ab"),
        MuxFrame(1, Kind.CREDIT, credit=9),
    ]
    decoder, found = Decoder(), []
    for byte in b"".join(map(encode, frames)):
        found += decoder.feed(bytes([byte]))
    assert found == frames
    assert decoder.unread == 0
