"""`handiwork session …`: what happens to sessions, told and stopped."""

import json
from datetime import UTC, datetime

import msgspec

from handiwork.model.session import Session, SessionState
from handiwork.sessions.sandbox_request import SandboxRequest

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


def test_outputs(api, handiwork, tmp_path) -> None:
    sandboxes = api.served.sandboxes
    record = api(sandboxes.create(SandboxRequest()))
    files = sandboxes.live[record.id].files
    api(files.write("/workspace/outputs/sub/report.md", b"done"))
    api(files.write("/workspace/outputs/..%2Fescape", b"x"))
    api(api.served.store.sessions.save(msgspec.structs.replace(SESSION, sandbox_id=record.id)))
    rows = json.loads(handiwork("session", "outputs", "sesn_1", "--json").out)
    assert {"path": "sub/report.md", "size": 4, "mtime_ns": 0} in rows
    target = tmp_path / "below" / "target"
    assert handiwork("session", "outputs", "sesn_none", "--to", str(target)).code == 2
    api(files.remove("/workspace/outputs/..%2Fescape"))
    copied = json.loads(
        handiwork("session", "outputs", "sesn_1", "--to", str(target), "--json").out
    )
    assert (copied["files"], copied["bytes"], copied["skipped"]) == (1, 4, [])
    assert (target / "sub/report.md").read_bytes() == b"done"
    assert not (tmp_path / "below" / "escape").exists()
