"""`handiwork status`: what is stuck and why; nothing that a brain says steers the terminal."""

import json
from datetime import timedelta

from api_stand_in import NOW
from handiwork.cli import status
from handiwork.cli.status import environment_line, stuck
from handiwork.model.environment import EnvironmentStatus, QueueStats
from handiwork.model.sandbox import SandboxRecord, SandboxState
from handiwork.model.session import Session, SessionState, Waiting, WaitingKind


def session(number: int, state: SessionState, **more: object) -> Session:
    given: dict[str, object] = {
        "id": f"sesn_{number}",
        "environment_id": "env_1",
        "agent_name": "an\x1b[2Jagent",
        "state": state,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Session(**(given | more))  # type: ignore[arg-type]


WAITS = Waiting(
    kind=WaitingKind.UNSERVED_TOOL,
    name="browser",
    reason="nobody serves it",
    since=NOW - timedelta(hours=1),
)


def test_what_is_stuck_the_longest_first() -> None:
    found = stuck(
        [
            session(1, SessionState.ACTIVE),
            session(2, SessionState.REFUSED, reason="no such policy"),
            session(3, SessionState.ACTIVE, waiting=(WAITS,)),
            session(4, SessionState.SLEEPING),
        ]
    )
    assert [(one.session_id, one.what, one.reason) for one in found] == [
        ("sesn_3", "unserved_tool browser", "nobody serves it"),
        ("sesn_2", "refused", "no such policy"),
    ]


def test_how_an_environment_stands() -> None:
    refused = EnvironmentStatus(
        id="env_1",
        base_url="https://brain.test",
        state="refused",
        reason="401",
        since=NOW,
        queue_error="no answer",
    )
    assert environment_line(refused) == (
        "env_1 refused (401) since 2026-03-01 12:00:00; queue not known: no answer;"
        " 0 leases, 0 sessions; https://brain.test"
    )
    polling = EnvironmentStatus(
        id="env_1",
        base_url="b",
        state="polling",
        since=NOW,
        queue=QueueStats(depth=3, pending=1),
        sessions=("sesn_1",),
    )
    assert "queue 3 waiting, 1 handed out; 0 leases, 1 sessions" in environment_line(polling)


def test_status(api, handiwork) -> None:
    done = handiwork("status")
    assert (done.code, "sessions: none yet" in done.out) == (0, True)
    for one in (session(1, SessionState.ACTIVE), session(2, SessionState.LOST, reason="gone")):
        api(api.served.store.sessions.save(one))
    api.served.not_ready["egress"] = "no proxy runs"
    done = handiwork("status")
    assert (done.code, done.err, "\x1b" in done.out) == (0, "", False)
    assert "✗ egress: no proxy runs" in done.out
    assert "sessions: 1 active, 1 lost" in done.out
    assert "sesn_2" in done.out
    assert "died" not in done.out
    told = json.loads(handiwork("status", "--json").out)
    assert told["parts"] == {"egress": "no proxy runs"}
    assert told["sessions"] == {"active": 1, "lost": 1}
    assert [one["session_id"] for one in told["stuck"]] == ["sesn_2"]


def test_an_old_one_that_is_stuck_does_not_drop_out(api, handiwork, monkeypatch) -> None:
    monkeypatch.setattr(status, "MAX_SESSIONS", 3)
    old = session(1, SessionState.ACTIVE, waiting=(WAITS,), created_at=NOW - timedelta(days=1))
    for one in (old, *(session(number, SessionState.ENDED) for number in range(2, 6))):
        api(api.served.store.sessions.save(one))
    told = json.loads(handiwork("status", "--json").out)
    assert [one["session_id"] for one in told["stuck"]] == ["sesn_1"]


def test_a_sandbox_that_died(api, handiwork) -> None:
    reasons = ("it died: over disk_mib = 64", "", "no control group for it: put to sleep")
    for number, reason in enumerate(reasons):
        record = SandboxRecord(
            id=f"sbx_{number}",
            session_id="sesn_1",
            tier="namespace",
            image="host",
            state=SandboxState.SLEEPING,
            reason=reason,
            created_at=NOW,
            updated_at=NOW,
        )
        api(api.served.store.sandboxes.save(record))
    assert "it died: over disk_mib = 64" in handiwork("status").out
    (told,) = json.loads(handiwork("status", "--json").out)["died"]
    assert (told["sandbox_id"], told["session_id"]) == ("sbx_0", "sesn_1")


def test_when_nothing_runs(handiwork) -> None:
    done = handiwork("status")
    assert (done.code, "handiwork up" in done.out + done.err) == (1, True)


def test_settings_that_cannot_be_read_are_a_usage_error(handiwork) -> None:
    done = handiwork("--config", "/nonexistent.toml", "status")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("handiwork: /nonexistent.toml")
