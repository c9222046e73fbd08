"""The envelope opens in its place only; the key file is ours alone."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.errors import ConfigError
from handiwork.store.envelope import load_control_key, new_key, seal, unseal

KEY = bytes(32)


@given(plain=st.binary(max_size=200), place=st.text(max_size=40))
def test_what_is_sealed_opens(plain: bytes, place: str) -> None:
    sealed = seal(KEY, plain, place)
    assert unseal(KEY, sealed, place) == plain
    assert len(sealed) == 12 + len(plain) + 16


@given(position=st.integers(min_value=0, max_value=32), bit=st.integers(0, 7))
def test_any_changed_bit_is_refused(position: int, bit: int) -> None:
    sealed = bytearray(seal(KEY, b"value", "a"))
    sealed[position] ^= 1 << bit
    with pytest.raises(ConfigError):
        unseal(KEY, bytes(sealed), "a")


def test_another_place_or_key_is_refused() -> None:
    sealed = seal(KEY, b"value", "default/secret/a")
    with pytest.raises(ConfigError, match="default/secret/b"):
        unseal(KEY, sealed, "default/secret/b")
    with pytest.raises(ConfigError):
        unseal(new_key(), sealed, "default/secret/a")


def test_no_two_seals_are_the_same() -> None:
    assert seal(KEY, b"value", "a") != seal(KEY, b"value", "a")


def test_the_key_is_made_once_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.key"
    key = load_control_key(path)
    assert len(key) == 32
    assert load_control_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "control.key"
    load_control_key(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_control_key(path)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "control.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="not a control key"):
        load_control_key(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    load_control_key(tmp_path / "real.key")
    (tmp_path / "control.key").symlink_to(tmp_path / "real.key")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_control_key(tmp_path / "control.key")
