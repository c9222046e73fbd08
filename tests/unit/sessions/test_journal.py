"""Later writes: in order, together, bounded, none lost to a cancellation."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handiwork.model.session import SessionEvent, WaitingKind
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


async def test_what_is_waited_for_is_noted_once_and_when_it_is_over() -> None:
    sessions, changes = MemorySessions(), list[int]()
    one = Journal(sessions, "sesn_1", lambda: NOW, lambda: changes.append(1))
    one.waits(WaitingKind.SKILL, "no answer", name="pdf")
    one.waits(WaitingKind.SKILL, "still none", name="pdf")
    assert [(w.name, w.reason, w.since) for w in one.waiting] == [("pdf", "still none", NOW)]
    one.waits_no_more(WaitingKind.SKILL, name="pdf")
    one.waits_no_more(WaitingKind.SKILL, name="pdf")
    await one.flush()
    assert [(e.kind, e.data) for e in await sessions.events("sesn_1")] == [
        ("session.waits", {"waits_for": "skill", "name": "pdf", "reason": "no answer"}),
        ("session.waits_no_more", {"waits_for": "skill", "name": "pdf", "seconds": 0.0}),
    ]
    assert one.waiting == ()
    assert len(changes) == 3


async def test_a_wait_that_goes_on_after_a_restart_keeps_its_since() -> None:
    first = journal(MemorySessions())
    first.waits(WaitingKind.CONFIRMATION, "x", tool_use_id="a")
    second = Journal(MemorySessions(), "sesn_1", lambda: NOW + timedelta(hours=1))
    second.resume(first.waiting)
    assert second.waiting == ()
    second.waits(WaitingKind.CONFIRMATION, "x", tool_use_id="a")
    assert second.waiting[0].since == NOW
