"""The operator's store gives out its own plain files, and nothing else."""

import os
from pathlib import Path

import pytest

from handiwork.model.errors import NotFoundError, UnsupportedError
from handiwork.sessions.staging import files as module
from handiwork.sessions.staging.files import read_file


@pytest.fixture
def store(tmp_path: Path) -> str:
    (tmp_path / "store/below").mkdir(parents=True)
    (tmp_path / "store/in.csv").write_bytes(b"1,2")
    (tmp_path / "store/below/x").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "store/link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "store/pipe")
    return str(tmp_path / "store")


def test_a_file_by_its_name(store: str) -> None:
    assert read_file(store, "in.csv") == b"1,2"


@pytest.mark.parametrize("file_id", ["none", "link", "pipe", "below"])
def test_what_is_no_plain_file_of_the_store(store: str, file_id: str) -> None:
    with pytest.raises(NotFoundError, match=file_id):
        read_file(store, file_id)


@pytest.mark.parametrize("file_id", ["../secret", "below/x", "/etc/passwd", "..", ""])
def test_what_is_no_name(store: str, file_id: str) -> None:
    with pytest.raises(UnsupportedError, match="is no id"):
        read_file(store, file_id)


def test_no_store_and_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="files_dir is not set"):
        read_file("", "in.csv")
    with pytest.raises(NotFoundError, match="files_dir cannot be read"):
        read_file(str(tmp_path / "nowhere"), "in.csv")


def test_a_file_over_the_limit(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 2)
    with pytest.raises(UnsupportedError, match="over 2 bytes"):
        read_file(store, "in.csv")
