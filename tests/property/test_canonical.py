"""Canonical forms are fixed points, and hostile text gives them or NotCanonical, nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.canonical import (
    NotCanonical,
    canonical_host,
    canonical_path,
    check_pattern,
    split_authority,
)

hostlike = st.text(alphabet="abZ019.-_:[]%@xX。ßé１\u200d /\\", max_size=24)
pathlike = st.text(alphabet="/.a%2eEfF5cC0;?#*{\\ é", max_size=30).map(lambda text: "/" + text)
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)


def _canonical(read, text):
    try:
        return read(text)
    except NotCanonical:
        return None


@given(st.text(max_size=300) | hostlike)
def test_a_canonical_host_is_a_fixed_point(text):
    host = _canonical(canonical_host, text)
    if host is not None:
        assert canonical_host(host) == host
        assert host.isascii()
        assert host == host.lower()
        assert not set(host) & set(" @/\\%?#[]\t\r\n\0")
        assert not host.endswith(".")


@given(st.lists(labels, min_size=2, max_size=4).map(".".join), st.booleans(), st.booleans())
def test_case_and_a_trailing_dot_make_no_other_host(name, upper, dot):
    written = (name.upper() if upper else name) + ("." if dot else "")
    assert _canonical(canonical_host, written) == _canonical(canonical_host, name)


@given(st.text(max_size=60) | hostlike, st.integers(1, 65535))
def test_an_authority_gives_a_canonical_host_or_nothing(text, default):
    found = _canonical(lambda raw: split_authority(raw, default), text)
    if found is not None:
        host, port = found
        assert canonical_host(host) == host
        assert 1 <= port <= 65535


@given(st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")) | pathlike)
def test_a_canonical_path_is_a_fixed_point_without_tricks(text):
    found = _canonical(canonical_path, text)
    if found is not None:
        path, query = found
        assert canonical_path(path) == (path, "")
        assert canonical_path(f"{path}?{query}") == (path, query)
        assert path.startswith("/")
        assert "//" not in path
        assert not {".", ".."} & set(path.split("/"))
        assert all(" " < char < "\x7f" for char in path + query)
        assert "\\" not in path
        assert "%5C" not in path.upper()
        assert "%00" not in path


@given(st.text(max_size=60) | hostlike)
def test_a_pattern_is_kept_or_refused(text):
    pattern = _canonical(check_pattern, text)
    assert pattern in (None, text)


def test_sabotage_an_identity_function_is_no_canonical_form():
    with pytest.raises(AssertionError):
        assert _canonical(str, "EXAMPLE.com.") == _canonical(str, "example.com")
