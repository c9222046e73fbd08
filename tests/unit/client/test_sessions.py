"""Sessions through the client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from api_stand_in import ADMIN_KEY, NOW, Served, served_api
from handiwork import Handiwork
from handiwork.client import sessions
from handiwork.model.errors import HandiworkError, NotFoundError
from handiwork.model.session import Session, SessionState
from handiwork.model.wire import OutputFile


async def filled(served: Served, events: int) -> Session:
    session = Session(
        id="sesn_1",
        environment_id="env_1",
        state=SessionState.ACTIVE,
        created_at=NOW,
        updated_at=NOW,
    )
    await served.store.sessions.save(session)
    for number in range(events):
        await served.store.sessions.record("sesn_1", "tool", {"number": number}, NOW)
    return session


async def test_list_get_stop(served: Served, hw: Handiwork) -> None:
    session = await filled(served, 0)
    assert await hw.sessions.list() == [session]
    assert await hw.sessions.list(state="lost") == []
    assert await hw.sessions.get("sesn_1") == session
    assert await hw.sessions.stop("sesn_1") == session
    assert served.stopped == ["sesn_1"]
    with pytest.raises(NotFoundError):
        await hw.sessions.get("sesn_2")


async def test_events_come_in_pages(
    served: Served, hw: Handiwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "PAGE", 3)
    await filled(served, 7)
    seen = [event.sequence async for event in hw.sessions.events("sesn_1", after=1)]
    assert seen == [2, 3, 4, 5, 6, 7]


async def test_following(served: Served, hw: Handiwork) -> None:
    await filled(served, 2)
    seen: list[int] = []
    async with aclosing(hw.sessions.events("sesn_1", after=1, follow=True)) as events:
        async for event in events:
            seen.append(event.sequence)
            if event.sequence == 2:
                await served.store.sessions.record("sesn_1", "idle", {"a": "ü\n"}, NOW)
            else:
                assert event.data == {"a": "ü\n"}
                break
    assert seen == [2, 3]


async def test_following_ends_with_the_control_plane(tmp_path: Path) -> None:
    async def collect(events: AsyncIterator[object], begun: asyncio.Event) -> int:
        count = 0
        async for _event in events:
            count += 1
            begun.set()
        return count

    begun = asyncio.Event()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        async with served_api(tmp_path) as served:
            await filled(served, 1)
            hw = Handiwork(base_url=served.url, api_key=ADMIN_KEY)
            following = group.create_task(collect(hw.sessions.events("sesn_1", follow=True), begun))
            await begun.wait()
        assert await following == 1
        await hw.close()


async def test_outputs_do_not_fill_the_disk_of_who_copies_them(
    hw: Handiwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def outputs(session_id: str) -> tuple[OutputFile, ...]:
        return tuple(OutputFile(path=name, size=0, mtime_ns=0) for name in "abc")

    async def output(session_id: str, path: str) -> bytes:
        return b"12345678"

    monkeypatch.setattr(hw.sessions, "outputs", outputs)
    monkeypatch.setattr(hw.sessions, "output", output)
    monkeypatch.setattr(sessions, "MAX_BYTES", 24)
    assert (await hw.sessions.download_outputs("sesn_1", tmp_path / "whole")).files == 3
    monkeypatch.setattr(sessions, "MAX_BYTES", 20)
    with pytest.raises(HandiworkError, match="more than 20 bytes"):
        await hw.sessions.download_outputs("sesn_1", tmp_path / "cut")
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["a", "b"]
