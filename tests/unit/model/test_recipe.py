"""Recipes: what they say is checked before anything is built of it."""

import pytest

from handiwork.model.errors import ConfigError
from handiwork.model.recipe import parse_recipe

WHOLE = b"""
suite = "bookworm"
packages = ["git", "g++", "libc6-dev=2.36-9+deb12u9"]
[env]
EDITOR = "vi"
[[files]]
path = "/etc/motd"
content = "hello"
mode = "0600"
"""


def test_a_whole_one():
    recipe = parse_recipe(WHOLE)
    assert recipe.packages == ("git", "g++", "libc6-dev=2.36-9+deb12u9")
    assert (recipe.env, recipe.files[0].mode) == ({"EDITOR": "vi"}, "0600")
    assert parse_recipe(b'suite = "sid"').packages == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "suite"),
        (b"\xff", "not right"),
        (b'suite = "../x"', "suite"),
        (b'suite = "-x"', "suite"),
        (b'suite = "sid"\nmirror = "http://x"', "mirror"),
        (b'suite = "sid"\npackages = ["-o"]', "package"),
        (b'suite = "sid"\npackages = ["./local.deb"]', "package"),
        (b'suite = "sid"\npackages = ["a,b"]', "package"),
        (b'suite = "sid"\n[[files]]\npath = "x/y"\ncontent = ""', "absolute"),
        (b'suite = "sid"\n[[files]]\npath = "/x/../y"\ncontent = ""', "absolute"),
        (b'suite = "sid"\n[[files]]\npath = "/x"\ncontent = ""\nmode = "4755"', "mode"),
        (b"#" * (5 << 20), "larger"),
    ],
)
def test_a_fault_is_named(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_recipe(text)
