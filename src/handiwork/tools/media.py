"""What an image or document really is. Pure.

A block that the model's service cannot take would end the turn, and stay in the conversation: so
what a file holds decides, not its name, and what is no whole image is refused here.
"""

from typing import NamedTuple

PDF = "application/pdf"
LONGEST_SIDE = 8000
"""Pixels; the Messages API refuses images with a longer side."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_PDF_WITHIN = 1024
_MOST_PARTS = 65_536
"""Chunks or segments walked: a file of nothing but empty ones would hold up everything else."""


class Media(NamedTuple):
    """The media type, empty for none of ours; and what is wrong with it, empty when nothing is."""

    type: str
    problem: str = ""


def examined(data: bytes) -> Media:
    """Return what the bytes are."""
    if data.startswith(_PNG):
        return Media("image/png", _checked(*_png(data)))
    if data.startswith(b"\xff\xd8\xff"):
        return Media("image/jpeg", _checked(*_jpeg(data)))
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return Media("image/gif", _checked(*_gif(data)))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Media("image/webp", _checked(*_webp(data)))
    if b"%PDF-" in data[:_PDF_WITHIN]:
        return Media(PDF)
    return Media("")


def _checked(is_whole: bool, width: int, height: int) -> str:
    if not is_whole:
        return "it is cut short"
    if max(width, height) > LONGEST_SIDE:
        return f"it has {width} x {height} pixels, the limit of a side is {LONGEST_SIDE}"
    return ""


def _big(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _little(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _png(data: bytes) -> tuple[bool, int, int]:
    """Walk the chunks to the last: length, name, that many bytes, checksum."""
    at = len(_PNG)
    for _ in range(_MOST_PARTS):
        if at + 12 > len(data):
            break
        if data[at + 4 : at + 8] == b"IEND":
            return True, _big(data, 16, 4), _big(data, 20, 4)
        at += 12 + _big(data, at, 4)
    return False, 0, 0


def _jpeg(data: bytes) -> tuple[bool, int, int]:
    """Walk the segments to the frame header, which has the sides; the rest ends with a marker."""
    at = 2
    for _ in range(_MOST_PARTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            break
        kind = data[at + 1]
        if kind in _JPEG_FRAMES:
            is_whole = data.rfind(b"\xff\xd9") > at
            return is_whole, _big(data, at + 7, 2), _big(data, at + 5, 2)
        if kind == 0xFF:  # padding
            at += 1
        else:
            at += 2 if kind in _JPEG_ALONE else 2 + _big(data, at + 2, 2)
    return False, 0, 0


def _gif(data: bytes) -> tuple[bool, int, int]:
    return data.rstrip(b"\0").endswith(b";"), _little(data, 6, 2), _little(data, 8, 2)


def _webp(data: bytes) -> tuple[bool, int, int]:
    """The sides stand in one of three kinds of first chunk."""
    is_whole = len(data) >= 30 and _little(data, 4, 4) + 8 <= len(data)
    kind = data[12:16]
    if kind == b"VP8X":
        return is_whole, _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
    if kind == b"VP8L":
        bits = _little(data, 21, 4)
        return is_whole, (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return is_whole, _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
    return False, 0, 0
