"""The control group freezer, on files that look like each version's."""

import asyncio

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes import freezer


def make_leaf(path, version, *, obeys=True):
    """Make the files of a leaf; a kernel that obeys has what was asked for in them at once."""
    if version == 1:
        (path / "freezer.state").write_text("THAWED")
        return path / "freezer.state"
    (path / "cgroup.freeze").write_text("0")
    (path / "cgroup.events").write_text("populated 1\nfrozen 1\n" if obeys else "frozen 0\n")
    return path / "cgroup.freeze"


@pytest.mark.parametrize(("version", "values"), [(1, ("FROZEN", "THAWED")), (2, ("1", "0"))])
async def test_a_leaf_is_frozen_and_thawed(tmp_path, version, values):
    file = make_leaf(tmp_path, version)
    assert freezer.can_freeze(tmp_path, version)
    async with freezer.frozen(tmp_path, version):
        assert file.read_text() == values[0]
    assert file.read_text() == values[1]


async def test_who_was_passed_over_is_asked_again(tmp_path, monkeypatch):
    file = make_leaf(tmp_path, 1)
    asked = []

    def answer(path, text):
        asked.append(text)
        path.write_bytes(b"FREEZING" if asked == ["FROZEN"] else text.encode())

    monkeypatch.setattr(type(file), "write_text", answer)
    async with freezer.frozen(tmp_path, 1):
        assert asked == ["FROZEN", "FROZEN"]


async def test_an_error_inside_is_not_taken_for_one_of_freezing(tmp_path):
    file = make_leaf(tmp_path, 1)
    with pytest.raises(TimeoutError):
        async with freezer.frozen(tmp_path, 1):
            raise TimeoutError
    assert file.read_text() == "THAWED"


async def test_who_does_not_freeze_in_time_is_thawed_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(freezer, "FREEZE_SECONDS", 0.05)
    file = make_leaf(tmp_path, 2, obeys=False)
    with pytest.raises(SandboxUnavailableError, match=r"cannot be frozen: not within 0\.05 s"):
        async with freezer.frozen(tmp_path, 2):
            raise AssertionError
    assert file.read_text() == "0"


async def test_a_cancelled_freeze_is_thawed(tmp_path):
    file = make_leaf(tmp_path, 2, obeys=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), freezer.frozen(tmp_path, 2):
            raise AssertionError
    assert file.read_text() == "0"


async def test_a_leaf_that_is_gone(tmp_path):
    assert not freezer.can_freeze(tmp_path / "none", 1)
    freezer.thaw(tmp_path / "none", 1)
    with pytest.raises(SandboxUnavailableError, match="cannot be frozen"):
        async with freezer.frozen(tmp_path / "none", 1):
            raise AssertionError
