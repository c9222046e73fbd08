"""What an image is by its bytes: kinds, ends, sides; and that no bytes confuse it."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.tools.media import PDF, Media, examined


def chunk(name: bytes, data: bytes = b"") -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def png(width: int = 1, height: int = 1) -> bytes:
    header = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", b"x" * 50), chunk(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg(width: int = 1, height: int = 1) -> bytes:
    first = b"\xff\xe0" + struct.pack(">H", 16) + b"JFIF" + b"\0" * 10
    frame = b"\xff\xc2" + struct.pack(">HBHH", 11, 8, height, width) + b"\1\1\x11\0"
    return b"\xff\xd8" + first + b"\xff" + frame + b"\xff\xda\0\2pixels\xff\xd9trailing"


def gif(width: int = 1, height: int = 1) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0rest\x3b\0"


def webp(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def vp8x(width: int = 1, height: int = 1) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp(b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + sides)


def vp8l(width: int = 1, height: int = 1) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    return webp(b"VP8L" + struct.pack("<IBI", 10, 0x2F, bits) + b"\0" * 5)


def vp8(width: int = 1, height: int = 1) -> bytes:
    return webp(
        b"VP8 " + struct.pack("<I", 10) + b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)
    )


MAKERS = {png: "image/png", jpeg: "image/jpeg", gif: "image/gif"} | dict.fromkeys(
    (vp8x, vp8l, vp8), "image/webp"
)


@pytest.mark.parametrize("make", MAKERS)
def test_a_whole_image_of_fair_size(make) -> None:
    assert examined(make(8000, 20)) == Media(MAKERS[make])


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("sides", [(8001, 20), (20, 8001), (12_000, 12_000)])
def test_an_image_too_large_for_the_service(make, sides: tuple[int, int]) -> None:
    width, height = sides
    told = f"it has {width} x {height} pixels, the limit of a side is 8000"
    assert examined(make(*sides)) == Media(MAKERS[make], told)


@pytest.mark.parametrize("make", MAKERS)
def test_an_image_cut_short(make) -> None:
    whole = make(10, 10)
    end = whole.rfind(b"\xff\xd9") if make is jpeg else len(whole.rstrip(b"\0")) - 1
    for size in range(16, min(end, len(whole) - 1)):
        assert examined(whole[:size]).problem == "it is cut short", size


@pytest.mark.parametrize(
    ("data", "media"),
    [(b"%PDF-1.7", PDF), (b"\xef\xbb\xbf\n%PDF-1.4", PDF), (b"x" * 1024 + b"%PDF-", ""), (b"", "")],
)
def test_other_kinds(data: bytes, media: str) -> None:
    assert examined(data) == Media(media)


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"\xff\xd8", b"\xff"),
        (b"\xff\xd8", b"\xff\xd0"),
        (png()[:33], b"\0\0\0\0nullcrc!"),
    ],
)
def test_a_file_of_empty_parts_is_not_walked_to_its_end(head: bytes, part: bytes) -> None:
    """An image before its end, so that walking to it would find one."""
    few, many = (head + count * part for count in (10, 70_000))
    end = jpeg()[2:] if head.startswith(b"\xff") else png()[33:]
    assert examined(few + end).problem == ""
    assert examined(many + end).problem == "it is cut short"


HEADS = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\x20\0\0\0WEBPVP8", b""]


@given(st.sampled_from(HEADS), st.binary(max_size=300))
def test_no_bytes_confuse_it(head: bytes, rest: bytes) -> None:
    found = examined(head + rest)
    assert found.type or not found.problem
