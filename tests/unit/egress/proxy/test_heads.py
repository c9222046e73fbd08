"""Targets and authorities: one canonical place, or a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.egress.proxy.heads import Place, Refusal, origin_form, place_of


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/a?b", "/a?b"),
        (b"https://h/a?b", "/a?b"),
        (b"https://h", "/"),
        (b"https://h?q=/x", "/?q=/x"),
        (b"https://h/?q", "/?q"),
    ],
)
def test_the_path_of_both_forms(target: bytes, expected: str):
    assert origin_form(target) == expected


@pytest.mark.parametrize(
    ("place", "authority"),
    [
        (Place("https", "a.example.org", 443), b"a.example.org"),
        (Place("https", "a.example.org", 80), b"a.example.org:80"),
        (Place("http", "a.example.org", 80), b"a.example.org"),
        (Place("https", "2001:db8::1", 443), b"[2001:db8::1]"),
        (Place("https", "2001:db8::1", 8443), b"[2001:db8::1]:8443"),
    ],
)
def test_an_authority_is_written_back_as_it_was_understood(place: Place, authority: bytes):
    assert place.authority == authority
    assert place_of(place.scheme, authority) == place


@given(st.binary(max_size=80))
def test_any_authority_is_a_place_or_refused(raw: bytes):
    try:
        place = place_of("https", raw)
    except Refusal:
        return
    assert place_of("https", place.authority) == place
