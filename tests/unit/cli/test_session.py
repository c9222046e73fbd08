"""`handiwork session …`: what happens to sessions, told and stopped."""

import json
from datetime import UTC, datetime

from handiwork.model.session import Session, SessionState

AT = datetime(2026, 1, 2, tzinfo=UTC)
SESSION = Session(
    id="sesn_1",
    environment_id="env_1",
    agent_name="[/b]\x1b[2J",
    state=SessionState.ACTIVE,
    sandbox_id="sbx_1",
    created_at=AT,
    updated_at=AT,
)


def test_what_is_told(api, handiwork) -> None:
    sessions = api.served.store.sessions
    api(sessions.save(SESSION))
    for number in range(3):
        api(sessions.record("sesn_1", "tool.started", {"number": number}, AT))
    (row,) = json.loads(handiwork("session", "list", "--json").out)
    assert (row["id"], row["state"]) == ("sesn_1", "active")
    table = handiwork("session", "list").out
    assert "\x1b" not in table
    assert "[/b]" in table
    assert json.loads(handiwork("session", "show", "sesn_1", "--json").out) == row
    assert "sandbox_id  sbx_1\n" in handiwork("session", "show", "sesn_1").out
    events = json.loads(handiwork("session", "events", "sesn_1", "--after", "1", "--json").out)
    assert [event["sequence"] for event in events] == [2, 3]
    assert handiwork("session", "show", "sesn_none").code == 2


def test_stop(api, handiwork) -> None:
    api(api.served.store.sessions.save(SESSION))
    assert handiwork("session", "stop", "sesn_1").code == 0
    assert api.served.stopped == ["sesn_1"]
