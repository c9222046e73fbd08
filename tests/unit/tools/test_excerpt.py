"""What is held of a long output: whole while short, then head and tail, and never more."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handiwork.tools import excerpt
from handiwork.tools.excerpt import (
    HEAD_CHARACTERS,
    NOTE_CHARACTERS,
    TAIL_CHARACTERS,
    TEXT_LIMIT,
    Excerpt,
    plain,
    shortened,
)

LONGEST = TEXT_LIMIT - NOTE_CHARACTERS


def filled(data: bytes, piece: int) -> tuple[Excerpt, bytes]:
    """Return an excerpt of the data given in pieces, and what it passed on."""
    one, passed = Excerpt(), b""
    for at in range(0, len(data), piece):
        passed += one.add(data[at : at + piece])
    return one, passed


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        ("", True),
        ("x" * LONGEST, True),
        ("x" * LONGEST + "\n\n", True),
        ("x" * (LONGEST + 1), False),
        ("\U0001f600" * LONGEST, True),
        ("\U0001f600" * (LONGEST + 1), False),
        ("\x1b[1mx" * LONGEST, False),
    ],
)
def test_characters_decide_what_is_whole(text: str, is_whole: bool) -> None:
    one, _ = filled(text.encode(), 65_536)
    expected = plain(text.encode()).rstrip("\n")
    assert one.whole() == (expected if is_whole else None)


@settings(max_examples=20, deadline=None)
@given(st.integers(2000, 450_000), st.integers(400_001, 900_000), st.integers(0, 255))
def test_nothing_is_lost_and_little_is_held(piece: int, size: int, first: int) -> None:
    data = (bytes(range(first, 256)) + bytes(range(first)))[:251] * (size // 251 + 1)
    one, passed = filled(data, piece)
    assert passed == data
    assert one.total == len(data)
    assert one.whole() is None
    assert len(one._head) + len(one._tail) <= 4 * HEAD_CHARACTERS + 8 * TAIL_CHARACTERS
    assert one.head() == plain(data[: 4 * HEAD_CHARACTERS])[:HEAD_CHARACTERS]
    assert plain(data).rstrip("\n").endswith(one.tail()[1:])
    assert len(one.tail()) == TAIL_CHARACTERS


@given(st.binary(max_size=400), st.integers(1, 50))
def test_short_output_is_whole_whatever_its_bytes(data: bytes, piece: int) -> None:
    one, passed = filled(data, piece)
    assert one.whole() == plain(data).rstrip("\n")
    assert passed == b""


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07x\x1b(B", "x"),
        (b"a\xffb", "a\N{REPLACEMENT CHARACTER}b"),
        (b"\x1b[", "\x1b["),
    ],
)
def test_plain(data: bytes, text: str) -> None:
    assert plain(data) == text


def test_a_shortened_text_says_what_is_missing() -> None:
    assert shortened("a", "z", "24 letters") == "a\n\n[… 24 letters …]\n\nz"
    assert HEAD_CHARACTERS + TAIL_CHARACTERS + excerpt.NOTE_CHARACTERS < TEXT_LIMIT
