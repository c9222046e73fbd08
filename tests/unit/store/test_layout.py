import os
import stat
from pathlib import Path

import pytest

from handiwork.model.errors import ConfigError
from handiwork.store.layout import Layout, read_or_create, read_private


def test_only_its_owner_enters(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "a" / "b")
    layout.prepare(egress_id=None, brain_id=None)
    for path in (layout.root, layout.egress, layout.audit, layout.exits):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_file_in_the_way_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="set data_dir"):
        Layout(tmp_path / "file").prepare(egress_id=None, brain_id=None)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    held = layout.lock()
    with pytest.raises(ConfigError, match="another handiwork"):
        layout.lock()
    os.close(held)
    os.close(layout.lock())


def test_a_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert read_or_create(path, b"first") == b"first"
    assert read_or_create(path, b"other") == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("left", [b"", b"fir"])
def test_what_a_crash_left_of_a_key_is_none(left: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(left)
    with pytest.raises(ConfigError, match="cut short"):
        read_or_create(tmp_path / "key", b"first")
    (tmp_path / "key").unlink()
    (tmp_path / ".key.new").write_bytes(left)
    assert read_or_create(tmp_path / "key", b"first") == b"first"


def test_a_key_file_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ConfigError, match="the key cannot be read"):
        read_private(path, "the key")
    path.write_text(" value\n")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_private(path, "the key")
    path.chmod(0o600)
    assert read_private(path, "the key") == "value"
    for unfit in (b"\n", b"\xff"):
        path.write_bytes(unfit)
        with pytest.raises(ConfigError, match="the key"):
            read_private(path, "the key")
