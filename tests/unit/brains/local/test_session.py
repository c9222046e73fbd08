"""A session's view and its bookkeeping."""

from handiwork.brains.local import session as module
from handiwork.brains.local.session import view

SCRIPT = '{"turns": [{"steps": [{"say": "x"}]}]}'


async def test_the_view_says_what_the_protocol_asks(make_session):
    session = await make_session(SCRIPT)
    shown = view(session.body, session.progress)
    assert (shown["type"], shown["status"], shown["resources"]) == ("session", "idle", [])
    session.body.archived_at = session.body.created_at
    assert session.status == "terminated"


async def test_recent_results_are_bounded(make_session, monkeypatch):
    monkeypatch.setattr(module, "RECENT_RESULTS", 2)
    session = await make_session(SCRIPT)
    for number in range(3):
        session.remember_result(str(number), {"type": "x"})
    assert list(session.recent_results) == ["1", "2"]
