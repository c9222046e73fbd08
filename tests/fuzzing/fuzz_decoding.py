"""Compressed answers: any bytes are a body or a DecodeError, the same in whatever pieces, in pieces of bounded size."""

import atheris
from target import PLANTED, fuzz, must

with atheris.instrument_imports(include=["handiwork.egress.decoding"]):
    from handiwork.egress.decoding import PIECE_BYTES, DecodeError, Decoder

CODINGS = (b"gzip", b"deflate", b"br", b"zstd")
MOST = 1 << 20


def decoded(coding: bytes, pieces: list[bytes]) -> tuple[bytes, bool, bool]:
    """Return what came out, whether it failed, and whether it was left off for its size."""
    decoder, found = Decoder(coding), b""
    try:
        for piece in pieces:
            decoder.feed(piece)
            while out := decoder.read():
                must(len(out) <= 2 * PIECE_BYTES, "a piece that is too large")
                found += out
                if len(found) > MOST:
                    return b"", False, True
        decoder.finish()
    except DecodeError:
        return found, True, False
    return found, False, False


def test(data: bytes) -> None:
    """The first byte says which coding, the second into what pieces the rest is cut."""
    coding = CODINGS[(data[0] if data else 0) % len(CODINGS)]
    cut, body = 1 + (data[1] if len(data) > 1 else 0), data[2:]
    whole = decoded(coding, [body])
    parts = decoded(coding, [body[at : at + cut] for at in range(0, len(body), cut)])
    must(whole[2] == parts[2] or whole[1] or parts[1], "pieces give another size than the whole")
    # libzstd looks at more of a frame that it has all of, so only zstd may fail one way and not the other.
    must(whole[1] == parts[1] or coding == b"zstd", "pieces fail otherwise than the whole")
    if not (whole[1] or parts[1]):
        must(whole[0] == parts[0], "pieces give another body than the whole")
    must(PLANTED != "decoding" or whole[1] or len(whole[0]) < 4, "planted")


if __name__ == "__main__":
    fuzz(test)
