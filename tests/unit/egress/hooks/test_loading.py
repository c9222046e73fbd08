"""Files that come, change, break and go."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from handiwork.egress.hooks import loading
from handiwork.egress.hooks.loading import Shelf
from handiwork.model.hook import HookInfo

GOOD = "async def on_request(ctx, request):\n    return {}\n"


@contextlib.contextmanager
def unlimited() -> Iterator[None]:
    yield


class Files:
    """A directory of hooks and the shelf on it."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "hooks"
        self.directory.mkdir()
        self._kept = root / "kept"
        self._writes = 0
        self.shelf = self.again()

    def again(self) -> Shelf:
        self.shelf = Shelf(self.directory, self._kept, unlimited)
        return self.shelf

    def write(self, name: str, text: str) -> HookInfo:
        path = self.directory / f"{name}.py"
        path.write_text(text)
        self._writes += 1
        os.utime(path, ns=(self._writes, self._writes))
        assert self.shelf.refresh()
        return {one.name: one for one in self.shelf.catalog()}[name]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_one_that_works_then_breaks_then_goes(files: Files) -> None:
    first = files.write("a", GOOD.format("None"))
    assert (first.stages, first.error) == (("request",), "")
    broken = files.write("a", "async def (")
    assert (broken.stages, broken.digest, "line 1" in broken.error) == (
        ("request",),
        first.digest,
        True,
    )
    repaired = files.write("a", GOOD.format("1"))
    assert not repaired.error
    assert repaired.digest != first.digest
    assert not files.shelf.refresh()
    (files.directory / "a.py").unlink()
    assert files.shelf.refresh()
    assert files.shelf.catalog() == ()
    assert files.shelf.get("a") is None


def test_what_worked_is_there_after_a_restart(files: Files) -> None:
    good = files.write("a", GOOD.format("None"))
    files.write("a", "1 / 0")
    files.again().refresh()
    [told] = files.shelf.catalog()
    assert (told.digest, told.error) == (good.digest, "ZeroDivisionError at line 1 of a.py")


def test_one_that_never_worked_has_no_stages(files: Files) -> None:
    told = files.write("a", "raise RuntimeError('quotes a secret')")
    assert (told.stages, told.error) == ((), "RuntimeError at line 1 of a.py")
    assert files.shelf.get("a") is None


@pytest.mark.parametrize("name", ["A", "a-b", "ä", "2"])
def test_a_name_that_no_rule_can_name_is_told(files: Files, name: str) -> None:
    assert "name the file" in files.write(name, GOOD.format("None")).error


def test_a_file_that_ended_the_process_is_not_loaded_again(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt  # stands for the end: what is left is the mark

    good = files.write("a", GOOD.format("None"))
    text = GOOD.format("2")
    with monkeypatch.context() as context:
        context.setattr(loading, "_run", killed)
        context.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            files.write("a", text)
    files.again().refresh()
    [told] = files.shelf.catalog()
    assert (told.digest, told.error) == (good.digest, "loading it ended or blocked the process")
    assert not files.write("a", GOOD.format("3")).error


def test_there_are_bounds(files: Files) -> None:
    assert "over" in files.write("large", "#" * (loading.MAX_SOURCE_BYTES + 1)).error
    for number in range(70):
        (files.directory / f"h{number}.py").write_text(GOOD.format("None"))
    files.again().refresh()
    assert len(files.shelf.catalog()) == 64


def test_a_directory_that_cannot_be_read_changes_nothing(files: Files) -> None:
    files.write("a", GOOD.format("None"))
    files.directory.rename(files.directory.with_name("away"))
    assert not files.shelf.refresh()
    assert files.shelf.get("a") is not None
