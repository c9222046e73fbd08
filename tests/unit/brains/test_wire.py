"""The brain's JSON as our nouns: the contract's examples, and anything else."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.brains import wire
from handiwork.model.placeholder import Credential
from handiwork.model.secret import SealedSecret
from handiwork.model.session import (
    BrainSession,
    BrainSessionEnded,
    Interrupted,
    SessionChanged,
    ToolCalled,
    ToolConfirmed,
    ToolSettled,
    TurnIdle,
    TurnRunning,
    WorkItem,
)
from handiwork.model.tool import (
    DocumentBlock,
    ImageBlock,
    Permission,
    TextBlock,
    ToolCall,
    ToolResult,
)

AT = "2026-11-21T01:40:50Z"
TIME = datetime(2026, 11, 21, 1, 40, 50, tzinfo=UTC)
USE = {
    "type": "agent.tool_use",
    "id": "sevt_01A",
    "processed_at": AT,
    "name": "bash",
    "input": {"command": "ls"},
    "evaluated_permission": "allow",
    "evaluation": {"type": "always_allow"},
    "session_thread_id": None,
}
CALL = ToolCall(
    id="sevt_01A",
    session_id="sesn_1",
    name="bash",
    input={"command": "ls"},
    evaluation="always_allow",
    processed_at=TIME,
)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (USE, ToolCalled(call=CALL)),
        (
            {"type": "agent.custom_tool_use", "id": "sevt_01B", "name": "x", "input": {"q": 1}},
            ToolCalled(
                call=ToolCall(
                    id="sevt_01B", session_id="sesn_1", name="x", input={"q": 1}, custom=True
                )
            ),
        ),
        ({"type": "user.tool_result", "tool_use_id": "a"}, ToolSettled(tool_use_id="a")),
        ({"type": "agent.tool_result", "tool_use_id": "a"}, ToolSettled(tool_use_id="a")),
        (
            {"type": "user.custom_tool_result", "custom_tool_use_id": "a"},
            ToolSettled(tool_use_id="a"),
        ),
        (
            {
                "type": "user.tool_confirmation",
                "tool_use_id": "a",
                "result": "deny",
                "deny_message": "no",
            },
            ToolConfirmed(tool_use_id="a", allowed=False, message="no"),
        ),
        ({"type": "user.interrupt", "processed_at": None}, None),
        ({"type": "user.interrupt", "processed_at": AT}, Interrupted(processed_at=TIME)),
        (
            {
                "type": "session.thread_status_terminated",
                "processed_at": AT,
                "session_thread_id": "sthr_1",
            },
            Interrupted(processed_at=TIME, thread_id="sthr_1"),
        ),
        (
            {"type": "session.status_idle", "stop_reason": {"type": "requires_action"}},
            TurnIdle(stop_reason="requires_action"),
        ),
        ({"type": "session.status_idle"}, TurnIdle(stop_reason="")),
        ({"type": "session.status_running"}, TurnRunning()),
        ({"type": "session.updated", "id": "a", "agent": {}}, SessionChanged(id="a")),
        ({"type": "session.updated", "id": "a", "resources": []}, SessionChanged(id="a")),
        ({"type": "session.updated", "id": "a", "title": "t", "budget": None}, None),
        ({"type": "session.deleted"}, BrainSessionEnded(reason="deleted")),
        ({"type": "session.status_terminated"}, BrainSessionEnded(reason="status_terminated")),
        ({"type": "agent.mcp_tool_use", "id": "x", "name": "y"}, None),
        ({"type": "something.new"}, None),
        ({"type": ["a"]}, None),
        ({}, None),
    ],
)
def test_events(event: dict[str, Any], expected: object) -> None:
    assert wire.read_event(event, "sesn_1") == expected


@pytest.mark.parametrize(
    ("verdict", "permission"),
    [
        ("allow", Permission.ALLOW),
        (None, Permission.ALLOW),
        ("ask", Permission.ASK),
        ("deny", Permission.DENY),
        ("perhaps", Permission.UNKNOWN),
        (["allow"], Permission.UNKNOWN),
        ({}, Permission.UNKNOWN),
    ],
)
def test_only_a_known_verdict_runs(verdict: object, permission: Permission) -> None:
    read = wire.read_event({**USE, "evaluated_permission": verdict}, "sesn_1")
    assert isinstance(read, ToolCalled)
    assert read.call.permission is permission


def _auto(verdict: object, **more: str) -> dict[str, Any]:
    return {"type": "auto", "evaluated_permission": {"type": verdict, **more}}


@pytest.mark.parametrize(
    ("verdict", "evaluation", "permission", "grounds"),
    [
        ("allow", _auto("allow"), Permission.ALLOW, "auto"),
        ("ask", _auto("ask", reason_code="indeterminate"), Permission.ASK, "indeterminate"),
        ("deny", _auto("deny", reason_code="high_risk"), Permission.DENY, "high_risk"),
        ("allow", _auto("ask"), Permission.ASK, "auto"),
        (None, _auto("deny"), Permission.DENY, "auto"),
        ("allow", _auto("later"), Permission.UNKNOWN, "auto"),
        ("allow", _auto(None), Permission.UNKNOWN, "auto"),
        ("deny", _auto("allow"), Permission.DENY, "auto"),
        ("ask", {"type": "always_ask"}, Permission.ASK, "always_ask"),
        ("allow", {"type": "a.new.one"}, Permission.ALLOW, "a.new.one"),
        ("allow", "what", Permission.ALLOW, ""),
        ("ask", _auto("ask", reason_code="x" * 999), Permission.ASK, "x" * 64),
    ],
)
def test_a_judgement_of_the_call_only_makes_the_verdict_stricter(
    verdict: object, evaluation: object, permission: Permission, grounds: str
) -> None:
    event = {**USE, "evaluated_permission": verdict, "evaluation": evaluation}
    read = wire.read_event(event, "sesn_1")
    assert isinstance(read, ToolCalled)
    assert (read.call.permission, read.call.evaluation) == (permission, grounds)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    [
        *USE,
        "evaluation",
        "tool_use_id",
        "custom_tool_use_id",
        "result",
        "stop_reason",
        "deny_message",
    ]
)


@given(st.sampled_from(list(wire._READERS)), st.dictionaries(_KEYS, _JSON))
def test_any_object_is_an_event_or_nothing(kind: str, rest: dict[str, Any]) -> None:
    event = {**rest, "type": kind}
    read = wire.read_event(event, "sesn_1")
    assert isinstance(wire.event_key(event), str)
    if isinstance(read, ToolCalled) and read.call.permission is Permission.ALLOW:
        assert rest.get("evaluated_permission") in (None, "allow")


@given(st.dictionaries(st.sampled_from(["id", "agent", "metadata", "status"]), _JSON))
def test_any_object_is_a_session(session: dict[str, Any]) -> None:
    assert isinstance(wire.read_session(session), BrainSession)


@given(st.dictionaries(st.sampled_from(["data"]), _JSON))
def test_any_object_is_a_list_of_credentials(listing: dict[str, Any]) -> None:
    assert wire.read_credentials(listing) == ()


def test_credentials_are_read_and_what_is_none_is_left_out() -> None:
    sealed = SealedSecret(
        name="k", version=1, hosts=("a",), ephemeral_key=b"e", nonce=b"n", ciphertext=b"c"
    )
    good = {"variable": "TOKEN", "sealed": msgspec.to_builtins(sealed), "allowed_hosts": ["a"]}
    bad = [{"variable": "X"}, {"variable": "Y", "sealed": {"name": "k"}}, 7]
    found = wire.read_credentials({"data": [*bad, good]})
    assert found == (Credential(variable="TOKEN", sealed=sealed),)


def test_session() -> None:
    session = {
        "id": "sesn_1",
        "title": "t",
        "status": "idle",
        "agent": {
            "id": "agent_1",
            "name": "n",
            "tools": [
                {"type": "agent_toolset_20260401"},
                {"type": "custom", "name": "x"},
                {"type": "mcp_toolset"},
            ],
        },
        "metadata": {"k": "v"},
        "vault_ids": ["vlt_1"],
    }
    assert wire.read_session(session) == BrainSession(
        id="sesn_1",
        agent_id="agent_1",
        agent_name="n",
        title="t",
        metadata={"k": "v"},
        vault_ids=("vlt_1",),
        toolset=True,
        custom_tools=("x",),
    )
    assert wire.read_session({**session, "status": "terminated"}).terminated
    assert wire.read_session({**session, "archived_at": AT}).terminated


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            {"id": "w", "data": {"type": "session", "id": "s"}, "secret": "x"},
            WorkItem(id="w", environment_id="e", kind="session", session_id="s", secret="x"),
        ),
        (
            {"id": "w", "data": {"type": "healthcheck", "id": "h"}, "secret": None},
            WorkItem(id="w", environment_id="e", kind="healthcheck"),
        ),
        ({"id": "w", "data": {"type": "session"}}, None),
        ({"data": {"type": "session", "id": "s"}}, None),
        ({"id": "w", "data": "x"}, WorkItem(id="w", environment_id="e", kind="healthcheck")),
    ],
)
def test_work_items(item: dict[str, Any], expected: object) -> None:
    assert wire.read_work(item, "e") == expected


def test_results() -> None:
    blocks = (
        TextBlock(text="hi"),
        ImageBlock(media_type="image/png", data="AA=="),
        DocumentBlock(media_type="application/pdf", data="AA==", title="t"),
    )
    assert wire.write_result(ToolResult(tool_use_id="a", content=blocks)) == {
        "type": "user.tool_result",
        "tool_use_id": "a",
        "is_error": False,
        "content": [
            {"type": "text", "text": "hi"},
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
            },
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
                "title": "t",
            },
        ],
    }
    custom = ToolResult(tool_use_id="a", content=(), is_error=True, custom=True)
    assert wire.write_result(custom) == {
        "type": "user.custom_tool_result",
        "custom_tool_use_id": "a",
        "is_error": True,
        "content": [],
    }


def _secret(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("secret", "token"),
    [
        (_secret({"sessions_token": "sk-1"}), "sk-1"),
        (_secret({"other": 1}), None),
        (_secret({"sessions_token": 5}), None),
        (_secret([1]), None),
        ("%%%", None),
        ("", None),
        (None, None),
    ],
)
def test_the_token_of_a_secret(secret: str | None, token: str | None) -> None:
    assert wire.sessions_token(secret) == token


@given(st.text())
def test_any_secret_is_read(secret: str) -> None:
    wire.sessions_token(secret)


def test_what_a_session_brings_along() -> None:
    session = {
        "id": "sesn_1",
        "agent": {"id": "a", "skills": [{"skill_id": "s", "version": "3"}, {"skill_id": "t"}, 7]},
        "resources": [
            {"type": "file", "file_id": "f"},
            {"type": "memory_store", "memory_store_id": "m", "mount_path": "/mnt/memory/x"},
            {"type": "memory_store", "memory_store_id": "n", "access": "read_only"},
            {"type": "memory_store", "memory_store_id": "o", "access": "what_is_new"},
        ],
    }
    read = wire.read_session(session)
    assert [(one.skill_id, one.version) for one in read.skills] == [("s", "3"), ("t", "latest")]
    assert [(one.store_id, one.read_only) for one in read.memory_stores] == [
        ("m", False),
        ("n", True),
        ("o", True),
    ]
    assert read.memory_stores[0].mount_path == "/mnt/memory/x"


@pytest.mark.parametrize(
    "tree",
    [
        {"type": "memory_prefix", "id": "x", "path": "/x/"},
        {"id": "m", "path": "no/slash"},
        {"path": "/a"},
        {"id": 7, "path": "/a"},
    ],
)
def test_what_is_no_memory(tree: dict[str, Any]) -> None:
    assert wire.read_memory(tree) is None


def test_a_memory_without_content() -> None:
    read = wire.read_memory({"id": "m", "path": "/a", "content_sha256": "0", "content": 7})
    assert (read.id, read.path, read.sha256, read.content) == ("m", "/a", "0", None)


def test_what_is_no_skill() -> None:
    assert wire.read_skill({"skill_id": "s"}) is None
    assert wire.read_skill({"skill_id": "s", "id": "v"}).name == ""


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "999999"}, wire.MAX_RETRY_SECONDS),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "1e9"}, 0),
        (
            {
                "retry-after": "Sat, 21 Nov 2026 07:00:10 GMT",
                "date": "Sat, 21 Nov 2026 07:00:00 GMT",
            },
            10,
        ),
        ({"retry-after": "Sat, 21 Nov 2026 07:00:10 GMT"}, 0),
        (
            {
                "retry-after": "Sat, 21 Nov 2026 06:00:10 GMT",
                "date": "Sat, 21 Nov 2026 07:00:00 GMT",
            },
            0,
        ),
    ],
)
def test_how_long_the_brain_asks_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert wire.retry_seconds(headers) == pytest.approx(seconds)


@given(st.text(), st.text(), st.text())
def test_any_header_gives_a_wait_within_its_limit(ms: str, after: str, date: str) -> None:
    told = {"retry-after-ms": ms, "retry-after": after, "date": date}
    assert 0 <= wire.retry_seconds(told) <= wire.MAX_RETRY_SECONDS


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (rb'{"a": "\ud83d\ude00 \ud83d"}', {"a": "😀 \ufffd\ufffd\ufffd"}),
        (rb'{"a": "\udc00x"}', {"a": "\ufffd\ufffd\ufffdx"}),
        (b'{"a": [NaN, -Infinity, 1e999, 1.5, 7]}', {"a": [None, None, None, 1.5, 7]}),
        (b"null", None),
    ],
)
def test_what_other_writers_of_json_let_pass_is_read(data: bytes, read: object) -> None:
    assert wire.read_json(data) == read


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"[" * 100_000, b'{"a"', b'{"a": "\xff"}', b"9" * 5000, b'{"a":' + b"[" * 100_000],
)
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        wire.read_json(data)


@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda text: f'{{"a":"{text}"}}'.encode()))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read = wire.read_json(data)
    except msgspec.MsgspecError:
        return
    msgspec.json.encode(read)


def test_a_terminated_thread_without_a_name_ends_nothing() -> None:
    event = {"type": "session.thread_status_terminated", "processed_at": "2026-11-21T00:00:00Z"}
    assert isinstance(wire.read_event(event | {"session_thread_id": "t"}, "sesn_1"), Interrupted)
    assert wire.read_event(event, "sesn_1") is None
