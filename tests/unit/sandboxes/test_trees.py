"""Trees as a hostile guest would leave them are deleted, and nothing beside them."""

import os

import pytest

from handiwork.sandboxes.trees import (
    MAX_DEPTH,
    exchange,
    flush_filesystem,
    remove_tree,
    writes_back,
)


def test_what_is_not_there(tmp_path):
    remove_tree(tmp_path / "none")


def test_links_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "link").symlink_to(outside)
    (tree / "sub/up").symlink_to("../../outside")
    (tree / "sub/file").write_text("x")
    remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").read_text() == "x"


def test_a_link_in_its_place_is_unlinked_alone(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "tree").symlink_to("outside")
    remove_tree(tmp_path / "tree")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["outside"]


def test_depth_is_no_limit(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / ".lifted-1").mkdir()
    (tree / ".lifted-1" / "x").write_text("taken by the guest")
    (tree / ".lifted-2").write_text("a file of that name")
    here = os.open(tree, os.O_RDONLY)
    for _ in range(MAX_DEPTH * 40):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove_tree(tree)
    assert not tree.exists()


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o300])
def test_modes_are_no_limit(tmp_path, mode):
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").write_text("x")
    (tree / "a/b").chmod(mode)
    (tree / "a").chmod(mode)
    remove_tree(tree)
    assert not tree.exists()


def test_sockets_and_pipes(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkfifo(tree / "fifo")
    (tree / "dangling").symlink_to("/no/such")
    remove_tree(tree)
    assert not tree.exists()


def test_names_are_taken_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("handiwork.sandboxes.trees.BATCH", 3)
    deep = tmp_path / "tree"
    for _ in range(MAX_DEPTH + 2):
        deep = deep / "d"
    for number in range(8):
        (deep / f"directory-{number}").mkdir(parents=True)
        (deep / f"file-{number}").write_text("x")
        (tmp_path / f"tree/file-{number}").write_text("x")
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_two_names_are_swapped_in_one_step(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("b")
    exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_text() == "b"
    assert (tmp_path / "b").is_dir()
    with pytest.raises(FileNotFoundError, match="missing"):
        exchange(tmp_path / "a", tmp_path / "missing")


def test_a_filesystem_is_flushed_by_any_directory_of_it(tmp_path):
    flush_filesystem(tmp_path)
    with pytest.raises(FileNotFoundError):
        flush_filesystem(tmp_path / "missing")


def test_memory_file_systems_write_nothing_back():
    directory = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    assert not writes_back(directory)
    os.close(directory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        writes_back(-1)
