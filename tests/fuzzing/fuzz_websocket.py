"""WebSocket frames of an upstream: whatever bytes come, in whatever pieces, what passes is as long as it was, or an error."""

import atheris
from target import PLANTED, fuzz, must

with atheris.instrument_imports(include=["handiwork.egress.websocket"]):
    from handiwork.egress.mask import Mask
    from handiwork.egress.websocket import MAX_CONTROL_BYTES, Frames, MaskedFrames, WebSocketError

MASK = Mask([b"sk-abab12"])
HEAD_BYTES = 14


def passed(pieces: list[bytes]) -> tuple[bytes, bool]:
    frames, found = MaskedFrames(MASK.fresh()), b""
    try:
        for piece in pieces:
            found += frames.feed(piece)
        return found + frames.finish(), False
    except WebSocketError:
        return b"", True


def read(pieces: list[bytes], *, masked: bool) -> tuple[bytes, int, bool]:
    """Return all that was read as frames, how many there were, and whether it failed."""
    frames, found, count = Frames(masked=masked), b"", 0
    try:
        for piece in pieces:
            for one in frames.feed(piece):
                must(not one.control or len(one.payload) <= MAX_CONTROL_BYTES, "a long control")
                must(bool(one.head or one.payload), "a piece of nothing")
                found += one.head + one.payload
                count += bool(one.head)
    except WebSocketError:
        return found, count, True
    return found, count, False


def test(data: bytes) -> None:
    """The first byte says into what pieces the rest is cut."""
    cut, raw = 1 + (data[0] if data else 0), data[1:]
    pieces = [raw[at : at + cut] for at in range(0, len(raw), cut)]
    for masked in (False, True):
        whole = read([raw], masked=masked)
        must(whole == read(pieces, masked=masked), "pieces give other frames than the whole")
        must(raw.startswith(whole[0]), "frames of other bytes")
        must(
            whole[2] or len(raw) - len(whole[0]) < HEAD_BYTES + MAX_CONTROL_BYTES, "too much waits"
        )
        must(PLANTED != "websocket" or whole[1] < 3, "planted")
    whole_text, failed = passed([raw])
    must((whole_text, failed) == passed(pieces), "pieces are masked otherwise than the whole")
    if not failed:
        must(len(raw) - len(whole_text) < HEAD_BYTES + MAX_CONTROL_BYTES, "bytes are missing")
        same = zip(whole_text, raw, strict=False)
        must(all(shown in (given, 42) for shown, given in same), "other bytes than came")


if __name__ == "__main__":
    fuzz(test)
