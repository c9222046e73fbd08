import gzip
import os
import sys
import zlib

import brotli
import pytest

from handiwork.egress import decoding
from handiwork.egress.decoding import PIECE_BYTES, DecodeError, Decoder, decodable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def raw_deflate(data):
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


CODED = {
    "gzip": (b"gzip", gzip.compress),
    "x-gzip": (b"x-gzip", gzip.compress),
    "deflate": (b"deflate", zlib.compress),
    "raw deflate": (b"deflate", raw_deflate),
    "br": (b"br", brotli.compress),
    "zstd": (b"zstd", zstd.compress),
}
BODY = b'{"a": "some text"}\n' * 20_000 + os.urandom(70_000)


def decoded(decoder, *pieces):
    found = []
    for piece in pieces:
        decoder.feed(piece)
        while out := decoder.read():
            assert len(out) <= 2 * PIECE_BYTES
            found.append(out)
    return b"".join(found)


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("size", [7, 1000, 10**9])
def test_what_was_compressed_comes_out_in_pieces(name, size):
    coding, compress = CODED[name]
    coded = compress(BODY)
    decoder = Decoder(coding)
    pieces = [coded[at : at + size] for at in range(0, len(coded), size)]
    assert decoded(decoder, *pieces) == BODY
    decoder.finish()


@pytest.mark.parametrize("name", CODED)
def test_a_body_that_ends_too_early_is_an_error(name):
    coding, compress = CODED[name]
    decoder = Decoder(coding)
    decoded(decoder, compress(BODY)[:-1])
    with pytest.raises(DecodeError):
        decoder.finish()


@pytest.mark.parametrize("name", CODED)
def test_an_empty_body_is_whole(name):
    decoder = Decoder(CODED[name][0])
    assert decoded(decoder) == b""
    decoder.finish()


@pytest.mark.parametrize("name", CODED)
def test_what_is_no_such_coding_is_an_error(name):
    decoder = Decoder(CODED[name][0])
    with pytest.raises(DecodeError):  # noqa: PT012 - which of the two steps notices is the library's
        decoded(decoder, b"\xff\xff no such thing \xff")
        decoder.finish()


@pytest.mark.parametrize("name", CODED)
def test_what_follows_the_end_is_an_error(name):
    coding, compress = CODED[name]
    decoder = Decoder(coding)
    with pytest.raises(DecodeError):  # noqa: PT012 - which of the two steps notices is the library's
        decoded(decoder, compress(b"abc") + b"and more behind it")
        decoder.finish()


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_members_one_after_another_are_one_body(name):
    coding, compress = CODED[name]
    decoder = Decoder(coding)
    assert decoded(decoder, compress(b"one ") + compress(b"") + compress(b"two")) == b"one two"
    decoder.finish()


def flushed(coding):
    """Return a compressor and how to flush it after an event."""
    if coding == b"br":
        made = brotli.Compressor()
        return lambda data: made.process(data) + made.flush()
    if coding == b"zstd":
        frames = zstd.ZstdCompressor()
        return lambda data: frames.compress(data, zstd.ZstdCompressor.FLUSH_BLOCK)
    plain = zlib.compressobj(wbits=31 if coding == b"gzip" else 15)
    return lambda data: plain.compress(data) + plain.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd"])
def test_what_was_flushed_comes_out_at_once(coding):
    write, decoder = flushed(coding), Decoder(coding)
    for number in range(20):
        event = b"data: event %d\n\n" % number
        assert decoded(decoder, write(event)) == event


@pytest.mark.parametrize(
    ("coding", "compress"), [(b"br", brotli.compress), (b"zstd", zstd.compress)]
)
def test_a_bomb_ends_in_an_error_and_never_gives_much_at_once(coding, compress):
    bomb = compress(bytes(64 << 20))
    assert len(bomb) < 8000
    with pytest.raises(DecodeError, match="far more"):
        decoded(Decoder(coding), bomb)


def test_a_bomb_of_deflate_comes_in_pieces():
    assert decoded(Decoder(b"gzip"), gzip.compress(bytes(32 << 20))) == bytes(32 << 20)


def test_sabotage_without_the_ratio_a_bomb_goes_through(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_RATIO", 10**9)
    assert len(decoded(Decoder(b"zstd"), zstd.compress(bytes(64 << 20)))) == 64 << 20


def test_a_window_that_is_too_large_is_refused():
    options = {zstd.CompressionParameter.window_log: 25}
    coded = zstd.compress(os.urandom(1 << 20) * 20, options=options)
    with pytest.raises(DecodeError):
        decoded(Decoder(b"zstd"), coded)


@pytest.mark.parametrize("coding", [b"identity", b"compress", b"gzip, br", b"aes128gcm", b""])
def test_other_codings_are_not_decoded(coding):
    assert not decodable(coding)
