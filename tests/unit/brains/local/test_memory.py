"""Paths and contents of memories, prefixes of a listing, where a store is mounted."""

import posixpath
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.brains.local import memory
from handiwork.brains.local.memory import MemoryRuleError

SEGMENT = st.text(st.sampled_from("ab.é"), min_size=1, max_size=3).filter(
    lambda text: text not in (".", "..")
)
PATH = st.lists(SEGMENT, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize(
    "path", ["/a", "/a/b.md", "/.a", "/...", "/a b", "/é", "/" + "a/" * 19 + "a"]
)
def test_files_below_the_root_are_taken(path):
    assert memory.check_path(path) == path


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "start"),
        ("a", "start"),
        ("/", "empty"),
        ("//a", "empty"),
        ("/a/", "empty"),
        ("/a/../b", "empty"),
        ("/.", "empty"),
        ("/a\nb", "control"),
        ("/a\x00", "control"),
        ("/a\u200b", "control"),
        ("/a\u2028", "control"),
        ("/a\u202e", "control"),
        ("/e\u0301", "Normalization"),
        ("/" + "a/" * 20 + "a", "segments"),
        ("/" + "a" * 256, "segment is longer"),
        ("/" + ("é" * 100 + "/") * 5 + "é" * 100, "1024"),
    ],
)
def test_other_paths_are_refused_with_the_rule(path, reason):
    with pytest.raises(MemoryRuleError, match=reason):
        memory.check_path(path)


@given(st.text(max_size=80))
def test_a_path_that_is_taken_is_one_file_below_a_root(text):
    try:
        path = memory.check_path("/" + text)
    except MemoryRuleError:
        return
    mounted = f"/mnt/memory/n{path}"
    assert posixpath.normpath(mounted) == mounted
    assert unicodedata.normalize("NFC", path) == path
    assert not any(ord(char) < 32 or char == "\x7f" for char in path)


def test_content_has_a_limit_in_bytes():
    assert memory.check_content("é" * 51_200)
    with pytest.raises(MemoryRuleError, match="102400"):
        memory.check_content("é" * 51_200 + "a")


@given(PATH, st.lists(PATH, max_size=6))
def test_paths_that_do_not_collide_can_all_be_files(path, others):
    taken = memory.collides(path, others)
    directories = {path[:at] for at in range(1, len(path)) if path[at] == "/"}
    clash = [
        other
        for other in others
        if other == path or other in directories or other.startswith(path + "/")
    ]
    assert (taken is None) == (not clash)


@given(st.lists(PATH, max_size=20, unique=True), st.integers(0, 3))
def test_a_listing_covers_every_path_once(paths, depth):
    paths = sorted(paths)
    shown = memory.listing(paths, "/", depth)
    assert len(set(shown)) == len(shown)
    assert shown == sorted(shown)
    for path in paths:
        covering = [
            each for each in shown if each == path or (each[-1] == "/" and path.startswith(each))
        ]
        assert len(covering) == 1
    if depth:
        assert all(each.rstrip("/").count("/") <= depth for each in shown)


def test_a_prefix_matches_whole_segments():
    paths = sorted(["/notes/todo.md", "/notes-archive/todo.md", "/notes/a/b/c"])
    assert memory.listing(paths, "/notes/", 0) == ["/notes/a/b/c", "/notes/todo.md"]
    assert memory.listing(paths, "/notes/", 1) == ["/notes/a/", "/notes/todo.md"]
    assert memory.listing(paths, "/", 1) == ["/notes-archive/", "/notes/"]


@pytest.mark.parametrize("prefix", ["notes/", "/notes", "/../", "//", ""])
def test_a_prefix_that_ends_no_segment_is_refused(prefix):
    with pytest.raises(MemoryRuleError):
        memory.check_prefix(prefix)
    assert memory.check_prefix("/a/b/") == "/a/b/"


def test_stores_of_one_session_are_mounted_apart():
    first = memory.mount_path("User Preferences!", [])
    assert first == "/mnt/memory/user-preferences"
    assert memory.mount_path("user_preferences", [first]) == "/mnt/memory/user-preferences-2"
    assert memory.mount_path("日本", []) == "/mnt/memory/memory"
    assert memory.mount_path("../../etc", []) == "/mnt/memory/etc"
