"""What a glob pattern fits, and that no pattern takes long."""

import re
import time
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.tools.glob_pattern import glob_expression


def fits(pattern: str, path: str) -> bool:
    return re.fullmatch(glob_expression(pattern.split("/")), path, re.DOTALL) is not None


@pytest.mark.parametrize(
    ("pattern", "path", "wanted"),
    [
        ("*.py", "a.py", True),
        ("*.py", "a/b.py", False),
        ("**/*.py", "a.py", True),
        ("**/*.py", "a/b/c.py", True),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("a/**/c", "a/c", True),
        ("[!a]?", "bc", True),
        ("[!a]?", "ac", False),
        ("a.b", "aXb", False),
    ],
)
def test_what_fits(pattern: str, path: str, wanted: bool) -> None:
    assert fits(pattern, path) is wanted


def test_no_pattern_takes_long() -> None:
    began = time.process_time()
    assert not fits("*a" * 40 + "b", "a" * 4000)
    assert time.process_time() - began < 5


_LETTERS = st.text(st.sampled_from("ab.*?"), min_size=1, max_size=4)


@given(st.lists(_LETTERS, min_size=1, max_size=3), st.lists(_LETTERS, min_size=1, max_size=3))
def test_parts_match_as_pathlib_has_it(pattern: list[str], path: list[str]) -> None:
    """For patterns without `**` the parts are those of pathlib, case told apart."""
    if any(part == "**" for part in pattern) or any(p in (".", "..") for p in (*pattern, *path)):
        return
    ours = re.fullmatch(glob_expression(pattern), "/".join(path), re.DOTALL) is not None
    same_depth = len(pattern) == len(path)
    theirs = same_depth and PurePosixPath("/".join(path)).match("/".join(pattern))
    assert ours == theirs
