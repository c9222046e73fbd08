"""What isolates leave on the host."""

import errno
from pathlib import Path

import pytest

from handiwork.model.errors import ConfigError, ConflictError, NotFoundError
from handiwork.sandboxes.isolate.states import States
from handiwork.sandboxes.isolate.workspace import Quota

ONE, TWO = "sbx_one000000001", "sbx_two000000002"


@pytest.fixture
def states(tmp_path):
    return States(tmp_path / "isolate")


def test_one_is_made_opened_and_removed(states, tmp_path):
    states.make(ONE)
    assert states.ids() == [ONE]
    with states.open(ONE, Quota()) as workspace:
        workspace.mkdir("/workspace/kept", mode=0o755, parents=True)
    with states.open(ONE, Quota()) as workspace:
        assert workspace.stat("/workspace/kept").directory
    assert (tmp_path / "isolate" / ONE).stat().st_mode & 0o777 == 0o700
    states.remove(ONE)
    states.remove(ONE)
    assert [*(tmp_path / "isolate").iterdir()] == []


def test_one_is_made_as_a_copy(states):
    states.make(ONE)
    with states.open(ONE, Quota()) as workspace:
        workspace.mkdir("/workspace/kept", mode=0o755, parents=True)
        states.make(TWO, workspace)
        workspace.mkdir("/workspace/later", mode=0o755, parents=True)
    with states.open(TWO, Quota()) as copy:
        assert [node.path for node in copy.list("/workspace", 9)] == ["/workspace/kept"]


def test_what_is_there_is_not_made_again(states, tmp_path):
    states.make(ONE)
    with pytest.raises(ConflictError, match=ONE):
        states.make(ONE)
    assert [entry.name for entry in (tmp_path / "isolate").iterdir()] == [ONE]


def test_what_is_not_there_and_what_is_no_id(states):
    with pytest.raises(NotFoundError, match=ONE):
        states.open(ONE, Quota())
    for name in ("../x", "", "a/b", ONE + "\0"):
        with pytest.raises(ConfigError, match="is not valid"):
            states.path(name)


def test_what_a_crash_left_half_is_taken_away(states, tmp_path):
    states.make(ONE)
    for name in (".made-3", ".gone-0"):
        (tmp_path / "isolate" / name / "x").mkdir(parents=True)
    assert States(tmp_path / "isolate").ids() == [ONE]
    assert [entry.name for entry in (tmp_path / "isolate").iterdir()] == [ONE]


def test_those_that_lie_ready_are_taken_and_made_anew(states, tmp_path):
    states.keep_ready(2)
    assert (states.ids(), len([*(tmp_path / "isolate").iterdir()])) == ([], 2)
    for one in (ONE, TWO, "sbx_three0000003"):
        states.make(one)
        with states.open(one, Quota()) as workspace:
            assert [node.path for node in workspace.walk()] == ["/workspace"]
    with pytest.raises(ConflictError):
        states.make(ONE)
    assert len(states.ids()) == 3
    states.keep_ready(1)
    states.keep_ready(0)
    for one in states.ids():
        states.remove(one)
    assert [*(tmp_path / "isolate").iterdir()] == []


def test_those_that_lay_ready_at_a_crash_are_gone_at_the_next_start(states, tmp_path):
    states.keep_ready(2)
    States(tmp_path / "isolate")
    assert [*(tmp_path / "isolate").iterdir()] == []


def test_there_are_fewer_ready_where_there_is_no_room(states, tmp_path, monkeypatch):
    states.keep_ready(1)

    def full(path, data):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        states.keep_ready(3)
    assert len([*(tmp_path / "isolate").iterdir()]) == 1
    states.make(ONE)
    states.make(TWO)
    assert states.ids() == [ONE, TWO]
