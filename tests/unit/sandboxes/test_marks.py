"""Marks of states: of one state for good, and what was lost stays lost."""

import contextlib
import os
from pathlib import Path

import pytest

from handiwork.sandboxes.marks import BOOT, DISK, UNFLUSHED, Mark, why_lost


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return made(tmp_path / "state")


def made(state: Path) -> Path:
    state.mkdir()
    (state / DISK).write_bytes(b"disk")
    (state / UNFLUSHED).write_bytes(BOOT.read_bytes())
    return state


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def test_one_that_is_written_out_is_whole(state: Path) -> None:
    before = descriptors()
    with contextlib.closing(Mark.of(state)) as mark:
        mark.write_out()
        mark.clear()
    assert not (state / UNFLUSHED).exists()
    assert why_lost(state) == ""
    assert descriptors() == before


@pytest.mark.parametrize("missing", [UNFLUSHED, DISK])
def test_what_has_none_has_none(state: Path, missing: str) -> None:
    (state / missing).unlink()
    before = descriptors()
    with pytest.raises(FileNotFoundError):
        Mark.of(state)
    assert descriptors() == before


def test_one_of_another_boot_is_lost(state: Path) -> None:
    (state / UNFLUSHED).write_text("another")
    with pytest.raises(FileNotFoundError):
        Mark.of(state)
    assert why_lost(state) == "the host went down before its disk was written"


def test_it_follows_its_state_and_says_nothing_of_what_replaced_it(state: Path) -> None:
    with contextlib.closing(Mark.of(state)) as mark:
        former = state.rename(state.with_name("former"))
        made(state)
        with contextlib.closing(mark.copy()) as copy:
            copy.lose(OSError(28, "No space left on device"))
        with pytest.raises(FileNotFoundError):
            mark.clear()
    assert why_lost(former) == "its disk was not written: No space left on device"
    assert why_lost(state) == ""
    assert (state / UNFLUSHED).exists()


def test_another_mark_of_the_same_state_stays(state: Path) -> None:
    with contextlib.closing(Mark.of(state)) as mark:
        (state / UNFLUSHED).rename(state / "old")
        (state / UNFLUSHED).write_bytes(BOOT.read_bytes())
        with pytest.raises(FileNotFoundError, match="another"):
            mark.clear()
    assert (state / UNFLUSHED).exists()


@pytest.mark.parametrize(("error", "lost"), [(5, True), (28, True), (122, True), (12, False)])
def test_what_the_kernel_tells_once_is_kept(
    state: Path, monkeypatch: pytest.MonkeyPatch, error: int, lost: bool
) -> None:
    def fail(_file: int) -> None:
        raise OSError(error, os.strerror(error))

    with contextlib.closing(Mark.of(state)) as mark:
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match=os.strerror(error)):
                mark.write_out()
        assert bool(why_lost(state)) == lost
        if lost:
            with pytest.raises(FileNotFoundError):
                mark.clear()
