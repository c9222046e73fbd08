"""Snapshots through the client."""

import asyncio
from pathlib import Path

import pytest

from api_stand_in import Served
from handiwork import Handiwork
from handiwork.client.link import ANSWER_SECONDS
from handiwork.client.snapshots import DIFF_SECONDS
from handiwork.model.errors import ConfigError, ConflictError, HandiworkError, NotFoundError


async def test_taken_listed_pinned_removed(hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    taken = await box.snapshot()
    assert await box.snapshots.list() == [taken]
    assert (await box.snapshots.state()).status.sandbox_id == box.id
    await box.snapshots.pin(1, "good")
    with pytest.raises(ConflictError):
        await box.snapshots.remove(1)
    await box.snapshots.unpin("good")
    await box.snapshots.remove(1)
    assert await box.snapshots.list() == []


async def test_back_what_differs_and_more(served: Served, hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    await box.snapshots.take()
    assert (await box.snapshots.rollback(1, keep_present=False)).id == box.id
    with pytest.raises(NotFoundError):
        await box.snapshots.rollback(2)
    found = await box.snapshots.diff(1, 2, path="/a b", limit=1)
    assert (found.changes[0].path, found.truncated) == ("/a", True)
    forks = await box.fork(2, number=1, policy="open", wake=False)
    assert len({one.id for one in (box, *forks)}) == 3
    assert served.snapshots.asked == [
        ("rollback", 1, False),
        ("rollback", 2, True),
        ("diff", 1, 2, "/a b", 1),
        ("fork", 2, 1, "open", False),
    ]


async def test_a_diff_has_a_time_of_its_own(
    served: Served, hw: Handiwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stands(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    assert DIFF_SECONDS > 10 * ANSWER_SECONDS
    monkeypatch.setattr("handiwork.client.snapshots.DIFF_SECONDS", 0.2)
    monkeypatch.setattr(served.snapshots, "diff", stands)
    box = await hw.sandboxes.create()
    async with asyncio.timeout(10):
        with pytest.raises(HandiworkError, match="in time"):
            await box.snapshots.diff(1, 2)


async def test_a_file_is_written_whole_or_not_at_all(
    served: Served, hw: Handiwork, tmp_path: Path
) -> None:
    box = await hw.sandboxes.create()
    await box.snapshot()
    target = tmp_path / "out/file"
    with pytest.raises(ConfigError, match="No such file"):
        await box.snapshots.export(1, target)
    target.parent.mkdir()
    assert await box.snapshots.export(1, target) == 23
    assert target.stat().st_mode & 0o777 == 0o600
    made = await hw.sandboxes.import_snapshot(target, policy="")
    assert made.id != box.id
    assert served.snapshots.asked[-1][1] == target.read_bytes()
    served.snapshots.cut_short = True
    with pytest.raises(HandiworkError, match="cut short"):
        await box.snapshots.export(1, tmp_path / "out/other")
    with pytest.raises(NotFoundError):
        await box.snapshots.export(9, tmp_path / "out/other")
    with pytest.raises(ConfigError, match="none"):
        await hw.sandboxes.import_snapshot(tmp_path / "none")
    assert [one.name for one in target.parent.iterdir()] == ["file"]
