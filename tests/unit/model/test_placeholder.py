"""The form of placeholders: random, recognised anywhere in a head, never mistaken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.errors import ConfigError
from handiwork.model.placeholder import (
    ENTROPY_BYTES,
    check_variable,
    new_placeholder,
    placeholders_in,
)

ENTROPY = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)


@given(ENTROPY, st.binary(max_size=30), st.binary(max_size=30))
def test_a_placeholder_is_found_wherever_it_stands(entropy: bytes, before: bytes, after: bytes):
    text = new_placeholder(entropy).encode()
    assert text in placeholders_in(before + text + after)


@given(ENTROPY, ENTROPY)
def test_each_is_told_once_and_in_order(one: bytes, other: bytes):
    first, second = new_placeholder(one).encode(), new_placeholder(other).encode()
    expected = (first,) if first == second else (first, second)
    assert placeholders_in(b" ".join([first, second, first])) == expected


def test_entropy_decides_the_whole_text():
    texts = {new_placeholder(bytes([n]) * ENTROPY_BYTES) for n in range(256)}
    assert len(texts) == 256
    with pytest.raises(ValueError, match="25 random bytes"):
        new_placeholder(b"short")


@pytest.mark.parametrize("text", [b"", b"hwph_", b"hwph_" + b"a" * 39, b"HWPH_" + b"a" * 40])
def test_what_is_none_is_not_found(text: bytes):
    assert placeholders_in(text) == ()


@pytest.mark.parametrize("name", ["A", "GITHUB_TOKEN", "_x1", "a" * 64])
def test_names_of_variables(name: str):
    assert check_variable(name) == name


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A=B", "A B", "Ä", "a" * 65, "A\n", "A\0"])
def test_what_cannot_name_a_variable_is_refused(name: str):
    with pytest.raises(ConfigError, match="is not valid"):
        check_variable(name)
