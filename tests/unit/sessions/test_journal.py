"""Later writes: in order, together, bounded, none lost to a cancellation."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from handiwork.model.session import SessionEvent
from handiwork.sessions import journal as module
from handiwork.sessions.journal import Journal
from handiwork.testing.store import MemorySessions

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def journal(sessions: MemorySessions) -> Journal:
    return Journal(sessions, "sesn_1", lambda: NOW)


async def kinds(sessions: MemorySessions) -> list[str]:
    return [event.kind for event in await sessions.events("sesn_1")]


async def test_notes_keep_their_order_among_other_writes() -> None:
    sessions, order = MemorySessions(), list[str]()

    async def other() -> None:
        order.append("other")

    one = journal(sessions)
    one.note("a", x=1)
    one.later(other)
    one.note("b")
    await one.flush()
    assert await kinds(sessions) == ["a", "b"]
    assert order == ["other"]
    assert (await sessions.events("sesn_1"))[0].data == {"x": 1}


async def test_following_writes_what_gathers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.01)
    sessions = MemorySessions()
    one = journal(sessions)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(one.follow())
        for kind in "abc":
            one.note(kind)
            await asyncio.sleep(0.03)
        following.cancel()
    assert await kinds(sessions) == ["a", "b", "c"]


async def test_what_does_not_fit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    sessions = MemorySessions()
    one = journal(sessions)
    for kind in "abcd":
        one.note(kind)
    await one.flush()
    events = await sessions.events("sesn_1")
    assert [(e.kind, e.data) for e in events] == [
        ("a", {}),
        ("b", {}),
        ("journal.dropped", {"count": 2}),
    ]


class SlowSessions(MemorySessions):
    """Each write waits for `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def record(
        self, session_id: str, kind: str, data: Mapping[str, Any], at: datetime
    ) -> SessionEvent:
        await self.go.wait()
        return await super().record(session_id, kind, data, at)


async def test_a_cancelled_flush_loses_nothing() -> None:
    sessions = SlowSessions()
    one = journal(sessions)
    one.note("a")
    one.note("b")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await one.flush()
    sessions.go.set()
    one.note("c")
    await one.flush()
    assert await kinds(sessions) == ["a", "b", "c"]


async def test_a_write_that_fails_is_told() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    one = journal(MemorySessions())
    one.later(broken)
    with pytest.raises(ZeroDivisionError):
        await one.flush()
