import base64
import copy
import pickle

import pytest

from handiwork.egress.mask import Mask

SECRET = b"sk_live_51HqzAB~CDE/FGHIJKL?"


def _encodings(value):
    """What an upstream may send back of a value, by the promise."""
    yield value
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(value)
        yield encode(value).rstrip(b"=")
        for before in (b"u:", b"ab:", b"abc:", b"user:"):
            yield encode(before + value)
            yield encode(before + value + b"\n")


def _leaks(mask, data, value):
    """Say whether the masked data still decodes to most of the value."""
    shown = mask.feed(data) + mask.finish()
    assert len(shown) == len(data)
    if value in shown:
        return True
    for alphabet in (b"+/", b"-_"):
        for start in range(4):
            part = shown[start:].rstrip(b"=\n")
            try:
                plain = base64.b64decode(part[: len(part) // 4 * 4], alphabet, validate=True)
            except ValueError:
                continue
            if value[2:-2] in plain:
                return True
    return False


@pytest.mark.parametrize("data", list(_encodings(SECRET)))
def test_no_encoding_comes_back(data):
    assert not _leaks(Mask([SECRET]), data, SECRET)


def test_sabotage_with_masking_off_the_leak_test_fails():
    assert all(_leaks(Mask([]), data, SECRET) for data in _encodings(SECRET))


@pytest.mark.parametrize("data", list(_encodings(SECRET)))
def test_at_most_the_shared_characters_of_an_encoding_stay(data):
    shown = Mask([SECRET]).apply(data)
    assert shown.count(b"*") >= len(SECRET)
    if data == SECRET:
        assert shown == b"*" * len(SECRET)


def test_the_rest_of_the_body_is_untouched():
    body = b'{"key": "' + SECRET + b'", "other": "value"}'
    shown = Mask([SECRET]).apply(body)
    assert shown == b'{"key": "' + b"*" * len(SECRET) + b'", "other": "value"}'


@pytest.mark.parametrize("size", [1, 2, 3, 7, 29])
def test_split_at_any_byte_changes_nothing(size):
    body = b"x" * 10 + SECRET + b"y" + base64.b64encode(b"me:" + SECRET) + SECRET + b"tail"
    whole, split = Mask([SECRET]), Mask([SECRET])
    pieces = [split.feed(body[at : at + size]) for at in range(0, len(body), size)]
    assert b"".join(pieces) + split.finish() == whole.apply(body)
    assert split.hits == whole.hits == 3


def test_what_cannot_begin_a_secret_is_passed_on_at_once():
    mask = Mask([SECRET])
    event = b"data: {}\n\n"
    assert mask.feed(event) == event
    assert mask.feed(b"data: " + SECRET[:5]) == b"data: "
    assert mask.feed(b"\n\n") == SECRET[:5] + b"\n\n"
    assert mask.finish() == b""


def test_overlapping_occurrences_are_covered_whole():
    mask = Mask([b"abcabcabc", b"bcabcXYZ"])
    assert mask.apply(b"-abcabcabcabcXYZ-") == b"-" + b"*" * 15 + b"-"
    assert Mask([b"a" * 8]).apply(b"a" * 30) == b"*" * 30


def test_an_occurrence_in_what_was_held_back_keeps_its_whole_cover():
    mask = Mask([b"abcdefab"])
    shown = mask.feed(b"abcdefab") + mask.feed(b"cdefab!") + mask.finish()
    assert shown == b"*" * 14 + b"!"


def test_several_values_are_masked_together():
    mask = Mask([b"first-secret", b"second-secret"])
    assert mask.apply(b"first-secret second-secret") == b"*" * 12 + b" " + b"*" * 13
    assert mask.hits == 2


def test_without_values_nothing_is_touched_or_held():
    mask = Mask([])
    assert not mask
    assert mask.feed(SECRET) is SECRET
    assert mask.finish() == b""
    assert mask.hits == 0


def test_a_fresh_mask_shares_values_but_no_state():
    mask = Mask([SECRET])
    mask.feed(SECRET + SECRET[:4])
    fresh = mask.fresh()
    assert (fresh.hits, fresh.finish()) == (0, b"")
    assert fresh.apply(SECRET) == b"*" * len(SECRET)


def test_a_mask_does_not_show_what_it_holds():
    mask = Mask([SECRET])
    mask.feed(SECRET)
    assert SECRET.decode() not in f"{mask!r} {mask!s} {mask}"
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copying(mask)
