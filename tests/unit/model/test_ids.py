"""Ids and names: their shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.errors import ConfigError
from handiwork.model.ids import check_name, is_id, new_id


@given(st.binary(min_size=10, max_size=40), st.sampled_from(["sbx", "env", "req"]))
def test_an_id_has_the_shape_of_one(entropy: bytes, prefix: str) -> None:
    made = new_id(prefix, entropy)
    assert made.startswith(f"{prefix}_")
    assert is_id(made)
    assert made == made.lower()


@given(st.binary(min_size=10, max_size=20), st.binary(min_size=10, max_size=20))
def test_ids_differ_as_their_entropy_does(one: bytes, other: bytes) -> None:
    assert (new_id("sbx", one) == new_id("sbx", other)) == (one == other)


def test_too_little_entropy() -> None:
    with pytest.raises(ValueError, match="ten random bytes"):
        new_id("sbx", b"123456789")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sbx",
        "sbx_",
        "sbx_short",
        "SBX_aaaaaaaa",
        "sbx_aaaa/../aaaa",
        "sbx_aaaaaaaa\n",
        "a_aaaaaaaa",
    ],
)
def test_what_is_no_id(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize("name", ["a", "0", "web", "a.b_c-d", "x" * 63])
def test_a_name(name: str) -> None:
    assert check_name("policy", name) == name


@pytest.mark.parametrize("name", ["", "x" * 64, "Web", "-a", ".a", "a b", "a/b", "ä", "web\n"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"policy name .* is not valid"):
        check_name("policy", name)
