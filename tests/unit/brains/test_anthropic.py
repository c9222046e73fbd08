"""The adapter against a server that answers as it is told: leases, failures, reconnects, keys."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from answering_server import Answer, Server, error
from handiwork.brains import anthropic as module
from handiwork.brains.anthropic import AnthropicBrain
from handiwork.model.errors import (
    BrainRefusedError,
    BrainUnavailableError,
    LeaseLostError,
    NotFoundError,
    UnauthorizedError,
)
from handiwork.model.session import (
    BrainEvent,
    BrainReached,
    BrainSessionEnded,
    BrainUnreached,
    ToolCalled,
    ToolSettled,
    TurnIdle,
    WorkItem,
)
from handiwork.model.tool import TextBlock, ToolResult

KEY = "sk-ant-oat01-environment"
TOKEN = "sk-ant-req-session"
SECRET = base64.urlsafe_b64encode(json.dumps({"sessions_token": TOKEN}).encode()).decode()
WORK = WorkItem(id="work_1", environment_id="env_1", kind="session", session_id="sesn_1")
SCOPED = WorkItem(
    id="work_1", environment_id="env_1", kind="session", session_id="sesn_1", secret=SECRET
)
ITEM = {"id": "work_1", "type": "work", "data": {"type": "session", "id": "sesn_1"}}
BEAT = {
    "last_heartbeat": "2026-11-21T01:40:50.986762+00:00",
    "lease_extended": True,
    "state": "active",
    "ttl_seconds": 300,
}
RESULT = ToolResult(tool_use_id="a", content=(TextBlock(text="hi"),))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    answers: dict[str, list[Answer]] = {
        "ack!": [(200, ITEM)],
        "stop!": [(200, ITEM)],
        "heartbeat!": [(200, BEAT)],
        "events": [(200, {"data": [], "next_page": None})],
        "events!": [(200, {"data": []})],
    }
    async with Server(answers).listening() as server:
        yield server


@pytest.fixture
async def brain(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AnthropicBrain]:
    monkeypatch.setattr(module, "_jittered", lambda seconds: min(seconds, 0.01))
    brain = AnthropicBrain(environment_id="env_1", environment_key=KEY, base_url=server.url)
    yield brain
    await brain.close()


def stream(*events: dict[str, Any]) -> bytes:
    frames = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        + frames.encode()
    )


def use(id_: str) -> dict[str, Any]:
    return {"type": "agent.tool_use", "id": id_, "name": "bash", "input": {}}


async def test_claim_polls_and_acknowledges(server: Server, brain: AnthropicBrain) -> None:
    server.answers["poll"] = [(200, None), (200, {**ITEM, "secret": SECRET})]
    assert await brain.claim() is None
    work = await brain.claim()
    assert work == WorkItem(
        id="work_1", environment_id="env_1", kind="session", session_id="sesn_1", secret=SECRET
    )
    first = server.seen["poll"][0]
    assert "block_ms=999" in first.query
    assert (first.key, first.headers["anthropic-worker-id"][:9]) == (KEY, "handiwork")
    assert len(server.seen["ack"]) == 1
    assert SECRET not in repr(work)


async def test_an_empty_body_is_an_empty_poll(server: Server, brain: AnthropicBrain) -> None:
    server.answers["poll"] = [b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"]
    assert await brain.claim() is None


async def test_a_health_check_is_acknowledged_and_stopped(
    server: Server, brain: AnthropicBrain
) -> None:
    server.answers["poll"] = [(200, {"id": "work_2", "data": {"type": "healthcheck", "id": "h"}})]
    assert await brain.claim() is None
    assert [request.path for request in server.seen["ack"]] == [
        "/v1/environments/env_1/work/work_2/ack"
    ]
    assert server.seen["stop"][0].body == {"force": True}


async def test_an_item_that_cannot_be_acknowledged_is_let_go(
    server: Server, brain: AnthropicBrain
) -> None:
    server.answers |= {"poll": [(200, ITEM)], "ack!": [error(400)]}
    assert await brain.claim() is None
    assert len(server.seen["stop"]) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BrainRefusedError),
        (401, UnauthorizedError),
        (403, UnauthorizedError),
        (404, NotFoundError),
        (408, BrainUnavailableError),
        (409, BrainUnavailableError),
        (429, BrainUnavailableError),
        (500, BrainUnavailableError),
        (529, BrainUnavailableError),
    ],
)
async def test_what_an_answer_means(
    server: Server, brain: AnthropicBrain, status: int, kind: type[Exception]
) -> None:
    server.answers["poll"] = [error(status)]
    with pytest.raises(kind, match="as told") as raised:
        await brain.claim()
    assert KEY not in str(raised.value)
    assert len(server.seen["poll"]) == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n[}{", b"junk", (200, [1]), (200, {})],
)
async def test_what_is_no_answer_is_retried_by_the_caller(
    server: Server, brain: AnthropicBrain, answer: Answer
) -> None:
    server.answers["poll"] = [answer]
    with pytest.raises(BrainUnavailableError):
        await brain.claim()


async def test_nobody_listens() -> None:
    brain = AnthropicBrain(environment_id="e", environment_key=KEY, base_url="http://127.0.0.1:1")
    with pytest.raises(BrainUnavailableError):
        await brain.claim()
    await brain.close()


async def test_hold_claims_the_lease_echoes_and_stops(
    server: Server, brain: AnthropicBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handiwork.brains.lease.Lease.interval_seconds", 0.05)
    async with brain.hold(WORK):
        assert server.seen["heartbeat"][0].query == "expected_last_heartbeat=NO_HEARTBEAT"
        await asyncio.sleep(0.3)
    second = server.seen["heartbeat"][1]
    assert second.query == "expected_last_heartbeat=2026-11-21T01%3A40%3A50.986762%2B00%3A00"
    assert server.seen["stop"][0].body == {"force": True}


ODD = [
    "2026-11-21T01:40:50.9867621+05:30",
    "2026-11-21 01:40:50,5 +00:00",
    "1763689250.98",
    "a&b=c d%2B#é/?",
]


@pytest.mark.parametrize("last", ODD)
async def test_the_brains_word_is_echoed_byte_for_byte(
    server: Server, brain: AnthropicBrain, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    monkeypatch.setattr("handiwork.brains.lease.Lease.interval_seconds", 0.02)
    server.answers["heartbeat!"] = [(200, BEAT | {"last_heartbeat": last})]
    async with brain.hold(WORK):
        await asyncio.sleep(0.2)
    told = parse_qs(server.seen["heartbeat"][1].query, strict_parsing=True)
    assert told["expected_last_heartbeat"] == [last]


async def test_an_acknowledgement_whose_answer_is_lost_is_repeated(
    server: Server, brain: AnthropicBrain
) -> None:
    server.answers |= {"poll": [(200, ITEM)], "ack!": [b"", error(503), error(409)]}
    assert await brain.claim() == WORK
    assert len(server.seen["ack"]) == 3
    assert server.seen["stop"] == []


async def test_an_acknowledgement_that_never_comes_is_given_up(
    server: Server, brain: AnthropicBrain
) -> None:
    server.answers |= {"poll": [(200, ITEM)], "ack!": [error(503)]}
    with pytest.raises(BrainUnavailableError):
        await brain.claim()
    assert len(server.seen["ack"]) == 4


async def test_the_queue_is_counted_leniently(server: Server, brain: AnthropicBrain) -> None:
    server.answers["stats"] = [
        (200, {"depth": 3, "pending": "x", "oldest_queued_at": "2026-11-21T01:40:50Z"}),
        (200, None),
        error(404),
    ]
    counted = await brain.stats()
    assert (counted.depth, counted.pending, counted.workers_polling) == (3, 0, None)
    assert counted.oldest_queued_at is not None
    assert (await brain.stats()).depth == 0
    with pytest.raises(NotFoundError):
        await brain.stats()


@pytest.mark.parametrize(
    ("session", "why"),
    [
        ({"id": "sesn_1", "status": "idle"}, ""),
        ({"id": "sesn_1", "status": "idle", "archived_at": None}, ""),
        ({"id": "sesn_1", "status": "terminated"}, "the brain ended it"),
        ({"id": "sesn_1", "archived_at": "2026-11-21T01:40:50Z"}, "the brain ended it"),
    ],
)
async def test_a_resting_session_is_over_by_the_brains_word(
    server: Server, brain: AnthropicBrain, session: dict[str, Any], why: str
) -> None:
    server.answers["sesn_1"] = [(200, session)]
    assert await brain.ended("sesn_1") == why


async def test_a_session_is_deleted_where_the_brain_knows_our_queue(
    server: Server, brain: AnthropicBrain
) -> None:
    gone = {"type": "error", "error": {"type": "not_found_error", "message": "no such session"}}
    server.answers["sesn_1"] = [(404, gone)]
    server.answers["stats"] = [(200, {"depth": 0})]
    assert await brain.ended("sesn_1") == "the brain deleted it"
    server.answers["stats"] = [(404, gone)]
    with pytest.raises(NotFoundError):
        await brain.ended("sesn_1")


@pytest.mark.parametrize(
    "answer",
    [
        (404, {"detail": "no such route"}),
        (404, None),
        (404, "not found"),
        (401, {"type": "error", "error": {"type": "authentication_error", "message": "no"}}),
        (403, {"type": "error", "error": {"type": "permission_error", "message": "no"}}),
        (503, {"type": "error", "error": {"type": "not_found_error", "message": "no"}}),
        (200, {}),
        (200, None),
        (200, {"id": "sesn_2", "status": "terminated"}),
    ],
)
async def test_no_other_answer_says_that_a_session_is_over(
    server: Server, brain: AnthropicBrain, answer: Answer
) -> None:
    server.answers["sesn_1"] = [answer]
    server.answers["stats"] = [(200, {"depth": 0})]
    with pytest.raises((BrainUnavailableError, UnauthorizedError)):
        await brain.ended("sesn_1")


async def test_a_lease_that_somebody_else_holds(server: Server, brain: AnthropicBrain) -> None:
    server.answers["heartbeat!"] = [error(412)]
    with pytest.raises(LeaseLostError):
        async with brain.hold(WORK):
            pytest.fail("the body ran")
    assert server.seen["stop"] == []


async def test_a_lease_lost_in_the_middle_cancels_the_body(
    server: Server, brain: AnthropicBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handiwork.brains.lease.Lease.interval_seconds", 0.05)
    server.answers["heartbeat!"] = [(200, BEAT), error(412)]
    ends = list[str]()

    async def body() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    with pytest.raises(LeaseLostError):
        async with brain.hold(WORK):
            await body()
    assert ends == ["cancelled"]
    assert server.seen["stop"] == []


async def test_a_silent_brain_loses_the_lease_after_its_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_jittered", lambda _: 0.01)
    times = iter([0.0, *range(0, 1000, 40)])
    brain = AnthropicBrain(
        environment_id="env_1",
        environment_key=KEY,
        base_url=server.url,
        now=lambda: float(next(times)),
    )
    server.answers["heartbeat!"] = [error(503)]
    with pytest.raises(LeaseLostError, match="for a whole lease"):
        async with brain.hold(WORK):
            pytest.fail("the body ran")
    assert server.seen["stop"] == []
    await brain.close()


@pytest.mark.parametrize("change", [{"state": "stopping"}, {"lease_extended": False}])
async def test_the_brain_may_ask_to_stop(
    server: Server, brain: AnthropicBrain, change: dict[str, Any]
) -> None:
    server.answers["heartbeat!"] = [(200, BEAT | change)]
    finished = False
    async with brain.hold(WORK):
        await asyncio.sleep(10)
        finished = True
    assert not finished
    assert len(server.seen["stop"]) == 1


@pytest.mark.parametrize("answer", [error(409), error(404), error(503)])
async def test_a_stop_that_fails_ends_quietly(
    server: Server, brain: AnthropicBrain, answer: Answer
) -> None:
    server.answers["stop!"] = [answer]
    async with brain.hold(WORK):
        pass
    assert len(server.seen["stop"]) == (3 if answer[0] == 503 else 1)


async def test_a_fault_of_the_body_is_raised_as_it_is(
    server: Server, brain: AnthropicBrain
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with brain.hold(WORK):
            raise ZeroDivisionError
    assert len(server.seen["stop"]) == 1


async def test_the_sessions_token_is_used_while_it_is_good(
    server: Server, brain: AnthropicBrain
) -> None:
    async with brain.hold(SCOPED):
        await brain.post(SCOPED, RESULT)
        server.judge = lambda r: error(401) if r.key == TOKEN else None
        await brain.post(SCOPED, RESULT)
        await brain.post(SCOPED, RESULT)
    assert [r.key for r in server.seen["events"]] == [TOKEN, TOKEN, KEY, KEY]
    assert [server.seen[name][0].key for name in ("heartbeat", "stop")] == [TOKEN, KEY]


async def test_post_repeats_what_may_pass_and_nothing_else(
    server: Server, brain: AnthropicBrain
) -> None:
    passing = [error(status) for status in (503, 429, 409, 401, 403)]  # a key may be good again
    server.answers["events!"] = [*passing, (200, {"data": []})]
    again = list[bool]()
    brain.posts_again = lambda: again.append(True)
    await brain.post(WORK, RESULT)
    assert len(server.seen["events"]) == 6
    assert len(again) == 5
    assert server.seen["events"][5].body["events"][0]["content"] == [{"type": "text", "text": "hi"}]
    for status in (400, 413, 404):
        server.answers["events!"] = [error(status)]
        with pytest.raises(BrainRefusedError, match="as told"):
            await brain.post(WORK, RESULT)
    assert len(server.seen["events"]) == 9


async def test_a_forbidden_session_key_is_not_followed_by_the_environments(
    server: Server, brain: AnthropicBrain
) -> None:
    brain._post_limit = 0.2
    async with brain.hold(SCOPED):
        server.judge = lambda r: error(403) if r.key == TOKEN else None
        with pytest.raises(BrainUnavailableError, match="403"):
            await brain.post(SCOPED, RESULT)
    assert {r.key for r in server.seen["events"]} == {TOKEN}


async def test_post_gives_up_in_the_end(server: Server, brain: AnthropicBrain) -> None:
    brain._post_limit = 0.3
    server.answers["events!"] = [error(500)]
    with pytest.raises(BrainUnavailableError):
        await brain.post(WORK, RESULT)


async def collected(brain: AnthropicBrain, count: int, *, reach: bool = False) -> list[BrainEvent]:
    """Return so many events; those that tell of the stream itself only where `reach` is asked."""
    found: list[BrainEvent] = []
    events = brain.events(WORK)
    async for event in events:
        if reach or not isinstance(event, BrainReached | BrainUnreached):
            found.append(event)
        if len(found) == count:
            break
    await events.aclose()
    return found


def ids(events: list[BrainEvent]) -> list[str]:
    return [
        event.call.id if isinstance(event, ToolCalled) else f"settled {event.tool_use_id}"
        for event in events
        if isinstance(event, ToolCalled | ToolSettled)
    ]


async def test_history_in_pages_then_live_without_what_was_listed(
    server: Server, brain: AnthropicBrain
) -> None:
    server.answers["events"] = [
        (200, {"data": [use("a"), use("b")], "next_page": "p2"}),
        (200, {"data": [{"type": "user.tool_result", "id": "r", "tool_use_id": "a"}]}),
    ]
    server.answers["stream"] = [
        stream(
            {"type": "ping"},
            use("b"),
            {"type": "what.is.new", "id": "n"},
            use("c"),
            {"type": "session.status_idle", "id": "i", "stop_reason": {"type": "end_turn"}},
        )
    ]
    events = await collected(brain, 4)
    assert ids(events) == ["settled a", "b", "c"]
    assert events[3] == TurnIdle(stop_reason="end_turn")
    assert "page=p2" in server.seen["events"][1].query


async def test_a_broken_stream_is_followed_again_and_reconciled(
    server: Server, brain: AnthropicBrain
) -> None:
    server.answers["stream"] = [
        stream(use("a")),
        error(503),
        stream({"type": "error"}),
        b"junk",
        stream(use("b")),
    ]
    answered = {"type": "user.tool_result", "id": "r", "tool_use_id": "a"}
    server.answers["events"] = [
        (200, {"data": []}),
        (200, {"data": [use("a")]}),
        (200, {"data": [use("a"), answered]}),
    ]
    assert ids(await collected(brain, 4)) == ["a", "a", "settled a", "b"]


async def test_when_the_history_cannot_be_listed_nothing_is_told(
    server: Server, brain: AnthropicBrain
) -> None:
    server.answers["stream"] = [stream(use("a")), stream(use("b"))]
    server.answers["events"] = [error(500), (200, {"data": []})]
    assert ids(await collected(brain, 1)) == ["b"]


async def test_the_stream_ends_with_the_session(server: Server, brain: AnthropicBrain) -> None:
    server.answers["stream"] = [stream({"type": "session.deleted", "id": "d"})]
    assert [event async for event in brain.events(WORK)] == [
        BrainReached(),
        BrainSessionEnded(reason="deleted"),
    ]


async def test_a_stream_that_cannot_be_opened_is_told_until_it_is_open(
    server: Server, brain: AnthropicBrain
) -> None:
    server.answers["stream"] = [stream(use("a")), error(503), error(503), stream(use("b"))]
    server.answers["events"] = [(200, {"data": []})]
    events = await collected(brain, 6, reach=True)
    kinds = [type(event).__name__ for event in events]
    assert kinds == [
        "BrainReached",
        "ToolCalled",
        "BrainUnreached",
        "BrainUnreached",
        "BrainReached",
        "ToolCalled",
    ]
    assert isinstance(events[2], BrainUnreached)
    assert "503" in events[2].reason


@pytest.mark.parametrize(
    ("status", "kind"), [(400, BrainRefusedError), (401, UnauthorizedError), (404, NotFoundError)]
)
async def test_a_refused_stream_ends_for_good(
    server: Server, brain: AnthropicBrain, status: int, kind: type[Exception]
) -> None:
    server.answers["stream"] = [error(status)]
    with pytest.raises(kind):
        await collected(brain, 1)


async def test_describe(server: Server, brain: AnthropicBrain) -> None:
    server.answers["sesn_1"] = [(200, {"id": "sesn_1", "agent": {"id": "agent_1", "name": "n"}})]
    view = await brain.describe(WORK)
    assert (view.id, view.agent_id, view.agent_name) == ("sesn_1", "agent_1", "n")
    assert KEY not in repr(brain) + str(vars(brain))


async def test_a_session_is_asked_for_again_until_the_brain_tells(
    server: Server, brain: AnthropicBrain
) -> None:
    told = (200, {"id": "sesn_1", "agent": {"id": "agent_1", "name": "n"}})
    cut = b'HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\n{"id": "se'
    server.answers["sesn_1"] = [error(503), cut, error(429), told]
    assert (await brain.describe(WORK)).agent_id == "agent_1"
    server.answers["sesn_1"] = [error(503)]
    before = len(server.seen["sesn_1"])
    with pytest.raises(BrainUnavailableError):
        await brain.describe(WORK)
    assert len(server.seen["sesn_1"]) - before == module._DESCRIBE_TRIES


@pytest.mark.parametrize("status", [412, 503])
async def test_with_the_lease_goes_the_sessions_token(
    server: Server, brain: AnthropicBrain, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr("handiwork.brains.lease.Lease.interval_seconds", 0.05)
    server.answers["heartbeat!"] = [(200, {**BEAT, "ttl_seconds": 1}), error(status)]
    work = WorkItem(
        id="work_1", environment_id="env_1", kind="session", session_id="sesn_1", secret=SECRET
    )
    kept = list[bool]()

    async def body() -> None:
        async with brain.hold(work):
            kept.append(brain.access.scoped(work) is not None)
            try:
                await asyncio.sleep(10)
            finally:
                kept.append(brain.access.scoped(work) is not None)

    with pytest.raises(LeaseLostError):
        await body()
    assert kept == [True, False]


async def test_412_is_of_the_lease_on_a_heartbeat_alone(
    server: Server, brain: AnthropicBrain
) -> None:
    server.answers |= {"poll": [(200, ITEM)], "ack!": [error(412)], "events!": [error(412)]}
    assert await brain.claim() is None
    assert len(server.seen["stop"]) == 1
    with pytest.raises(BrainRefusedError, match="412"):
        await brain.post(WORK, RESULT)


DEEP = b"[" * 100_000
"""Deeper than any reader of JSON goes."""


async def test_an_answer_too_deep_to_read_is_malformed(
    server: Server, brain: AnthropicBrain
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    answer: list[Answer] = [head + b'{"a": ' + DEEP]
    server.answers |= {"poll": answer, "heartbeat!": answer, "credentials": answer}
    with pytest.raises(BrainUnavailableError, match="malformed"):
        await brain.claim()
    with pytest.raises(BrainUnavailableError, match="malformed"):
        await brain.beat(WORK, "NO_HEARTBEAT")
    with pytest.raises(BrainUnavailableError, match="malformed"):
        await brain.credentials(WORK)


@pytest.mark.parametrize("data", [b'{"a": ' + DEEP, b'{"type": "\xff"}'])
async def test_an_event_that_cannot_be_read_breaks_the_stream_alone(
    server: Server, brain: AnthropicBrain, data: bytes
) -> None:
    broken = stream() + b"event: message\ndata: " + data + b"\n\n"
    server.answers["stream"] = [broken, stream(use("a"))]
    async with contextlib.aclosing(brain.events(WORK)) as events:
        async for event in events:
            if isinstance(event, ToolCalled):
                break
    assert len(server.seen["stream"]) == 2
