"""Sessions on disk: what was told is there, what is told twice is found, what fails is fatal."""

import pytest

from handiwork.brains.local import journal as module
from handiwork.brains.local.errors import WireError
from handiwork.brains.local.journal import Journal
from handiwork.brains.local.turn import Outcome

SCRIPT = '{"turns": [{"steps": [{"say": "x"}]}]}'


def fresh(services, lost) -> Journal:
    return Journal(
        services.database,
        services.work,
        services.clock,
        services.new_id,
        lost.append,
        services.webhooks,
    )


async def test_a_session_is_read_back_as_it_was(services, make_session, lost):
    session = await make_session(SCRIPT)
    told = [{"type": "user.tool_result", "tool_use_id": "c1"}, {"type": "other"}]
    events = await services.journal.apply(session, Outcome(session.turn, told))
    again = fresh(services, lost)
    read = await again.get(session.id)
    assert (read.body, read.progress, read.next_position) == (session.body, session.progress, 2)
    assert await again.earlier_result(read, "c1") == events[0]
    assert await again.earlier_result(read, "c2") is None


async def test_a_write_that_is_lost_is_reported(services, make_session, lost):
    session = await make_session(SCRIPT)
    session.next_position = 0
    await services.journal.apply(session, Outcome(session.turn, [{"type": "a"}]))
    session.next_position = 0
    with pytest.raises(Exception, match="UNIQUE"):
        await services.journal.apply(session, Outcome(session.turn, [{"type": "b"}]))
    assert len(lost) == 1


async def test_a_deleted_session_takes_nothing_more(services, make_session):
    session = await make_session(SCRIPT)
    await services.journal.delete(session)
    assert await services.journal.apply(session, Outcome(session.turn, [{"type": "a"}])) == []
    with pytest.raises(WireError):
        await services.journal.get(session.id)


async def test_sessions_that_nothing_needs_leave_memory(services, make_session, monkeypatch):
    monkeypatch.setattr(module, "CACHED_SESSIONS", 1)
    first, _ = await make_session(SCRIPT), await make_session(SCRIPT)
    assert await services.journal.get(first.id) is not first
