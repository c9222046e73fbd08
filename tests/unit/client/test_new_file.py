"""A new file is whole under its name or not there, and nobody else's is touched."""

import errno
from pathlib import Path

import pytest

from handiwork.client.new_file import new_file
from handiwork.model.errors import ConfigError


def write(target, data=b"new"):
    with new_file(target) as file:
        file.write(data)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_it_is_there_when_all_went_well(tmp_path):
    write(tmp_path / "x")
    assert (names(tmp_path), (tmp_path / "x").read_bytes()) == (["x"], b"new")


def test_it_is_not_there_when_something_failed(tmp_path):
    def fail():
        with new_file(tmp_path / "x") as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert names(tmp_path) == []


def test_what_exists_is_not_replaced(tmp_path):
    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("x", "dangling", "."):
        with pytest.raises(ConfigError, match="name a new file"):
            write(tmp_path / name)
    assert (tmp_path / "x").read_bytes() == b"old"
    assert names(tmp_path) == ["dangling", "x"]


def test_a_name_is_needed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in (".", "/", ".."):
        with pytest.raises(ConfigError):
            write(Path(name))


def test_what_somebody_else_writes_is_left_alone(tmp_path):
    (tmp_path / ".x.part").write_bytes(b"theirs")
    with pytest.raises(ConfigError, match=r"\.x\.part: it exists"):
        write(tmp_path / "x")
    assert (tmp_path / ".x.part").read_bytes() == b"theirs"
    assert names(tmp_path) == [".x.part"]


@pytest.mark.parametrize("links", [True, False])
def test_what_came_meanwhile_is_not_replaced(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    with pytest.raises(ConfigError, match="File exists"), new_file(tmp_path / "x"):
        (tmp_path / "x").write_bytes(b"theirs")
    assert (names(tmp_path), (tmp_path / "x").read_bytes()) == (["x"], b"theirs")


def test_where_nothing_can_be_linked(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "hardlink_to", no_links)
    write(tmp_path / "x")
    assert (names(tmp_path), (tmp_path / "x").read_bytes()) == (["x"], b"new")


def no_links(self, target):
    raise OSError(errno.EPERM, "Operation not permitted")
