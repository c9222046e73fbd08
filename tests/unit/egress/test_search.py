import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.egress.search import holds

PARTS = st.binary(min_size=1, max_size=80) | st.text("ab\0", min_size=1, max_size=60).map(
    str.encode
)


@pytest.mark.parametrize("around", [0, 5000])
@given(part=PARTS, before=st.binary(max_size=60), after=st.binary(max_size=60))
def test_a_part_is_found_wherever_it_stands(around, part, before, after):
    text = before + bytes(around) + part + bytes(around) + after
    assert holds(text, part)


@pytest.mark.parametrize("around", [0, 5000])
@given(part=PARTS, body=st.text("ab\0", max_size=200).map(str.encode), change=st.integers(0, 79))
def test_it_finds_what_python_finds(around, part, body, change):
    nearly = bytearray(part)
    nearly[change % len(part)] ^= 1
    text = body + bytes(nearly) + bytes(around) + bytes(nearly[1:]) + body
    assert holds(text, part) is (part in text)


def test_the_end_of_the_text_is_not_passed():
    text = b"x" * 8000 + b"secret"
    assert holds(text, b"secret")
    assert not holds(text[:-1], b"secret")
    assert not holds(b"short", b"a part that is longer than the text")
