import pytest

from handiwork.egress.encodings import forms


def _keys(value):
    return [form.key for form in forms(value)]


def test_a_plain_value_is_looked_for_by_eight_searches():
    assert len(_keys(b"sk_live_51HqzABxCDE")) == 8


def test_the_key_of_an_escaped_value_is_its_longest_plain_run():
    assert _keys(b'k"longest_run"x')[0] == b"longest_run"


def test_a_value_of_which_nothing_is_plain_has_a_key_for_each_spelling():
    keys = _keys(b"!#$&'()")
    assert {b"!", b"%21", b"\\u0021"} <= set(keys)


def test_hexadecimal_is_looked_for_by_what_is_alike_in_both_cases():
    hexadecimal = next(
        form for form in forms(b"jj0123jj") if form.pieces[0][0] == b"jj0123jj".hex().encode()
    )
    assert (hexadecimal.key, hexadecimal.folded) == (b"30313233", True)
    assert hexadecimal.before == ((b"6a6a",),)


def test_where_nothing_is_alike_in_both_cases_there_is_no_key():
    assert _keys(b"jklmnoJKLMNO").count(b"") == 3


@pytest.mark.parametrize("value", [b"a", b"ab", b"abc"])
def test_what_is_too_short_is_not_looked_for_in_hexadecimal(value):
    assert value.hex().encode() not in [form.pieces[0][0] for form in forms(value)]


def test_a_form_knows_how_long_it_can_be_and_how_it_begins():
    form = next(forms(b'"secret'))
    assert form.longest == len(rb"\u0022secret")
    assert set(form.firsts) == set(b'"\\%')
