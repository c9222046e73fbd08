import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.sandboxes.snapshots.sealing import (
    Compressor,
    DamagedError,
    Keys,
    compressed,
    expanded,
)


def test_names_are_a_tenant_s_own():
    ours, theirs = Keys(b"a" * 32), Keys(b"b" * 32)
    assert ours.name(b"x") == Keys(b"a" * 32).name(b"x")
    assert ours.name(b"x") not in (theirs.name(b"x"), ours.name(b"y"))


def test_a_root_key_has_its_length():
    with pytest.raises(ValueError, match="32 bytes"):
        Keys(b"short")


def test_a_text_opens_at_its_place_only():
    keys = Keys(b"a" * 32)
    sealed = keys.seal_text(b"tree" * 100, "here")
    assert keys.open_text(sealed, "here", 1000) == b"tree" * 100
    for changed, place in [(sealed, "there"), (sealed[:-1] + b"\0", "here"), (b"", "here")]:
        with pytest.raises(DamagedError, match=place):
            keys.open_text(changed, place, 1000)


@given(st.binary(max_size=5000))
def test_what_is_compressed_expands(content):
    assert expanded(compressed(content), len(content), "it") == content


@given(st.lists(st.binary(max_size=500), max_size=5))
def test_one_compressor_s_contents_expand_alone(contents):
    one = Compressor()
    packed = [one.compressed(content) for content in contents]
    assert [expanded(each, 500, "it") for each in packed] == contents


def test_a_bomb_is_not_expanded():
    with pytest.raises(DamagedError, match="more than 1000"):
        expanded(compressed(bytes(10_000_000)), 1000, "it")


@given(st.binary(max_size=300))
def test_any_bytes_are_told_as_damage_or_expand_in_bounds(packed):
    try:
        assert len(expanded(packed, 100, "it")) <= 100
    except DamagedError:
        return


def test_noise_is_kept_as_it_is():
    noise = os.urandom(1000)
    assert compressed(noise) == b"\0" + noise
