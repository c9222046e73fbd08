"""Paths of archives."""

import pytest

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.images.rules import ImageLimits, parts_of, shown


def test_plain_names_are_taken():
    limits = ImageLimits()
    assert parts_of(b"./a//b/./c/", limits) == (b"a", b"b", b"c")
    assert parts_of(b"", limits) == parts_of(b"./", limits) == ()
    assert parts_of(b"..a/...", limits) == (b"..a", b"...")


@pytest.mark.parametrize("name", [b"/", b"/a", b"..", b"a/..", b"a\0b", b"a/" * 101, b"x" * 256])
def test_others_are_refused(name):
    with pytest.raises(ConfigError):
        parts_of(name, ImageLimits())


def test_a_name_is_quoted_short_and_printable():
    assert shown(b"a\x1b[31m\xff" + b"x" * 999).isprintable()
    assert len(shown(b"x" * 999)) < 200
