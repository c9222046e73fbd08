"""The contract of the model's port, on every adapter; the providers stand on loopback."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from handiwork.brains.local.models import (
    Media,
    Message,
    Model,
    ModelFailedError,
    ModelRequest,
    ModelResponse,
    Text,
    ToolCall,
    ToolOffer,
    ToolResult,
)
from handiwork.brains.local.providers.catalogue import made
from handiwork.brains.local.scripted import ScriptedModel
from handiwork.model.language_model import KeyedModel, ModelSettings
from provider_stand_in import (
    Provider,
    Reply,
    anthropic_events,
    anthropic_frames,
    anthropic_reply,
    openai_chunks,
    openai_frames,
    openai_reply,
    refusal,
)

KEY = "sk-ant-not-a-real-key-0123456789"
BASH = ToolOffer("bash", "Run it.", {"type": "object", "properties": {}})
IMAGE = Media("image", {"type": "base64", "media_type": "image/png", "data": "aGk="})
HISTORY = (
    Message("user", (Text("look"), IMAGE)),
    Message("assistant", (Text("I look."), ToolCall("bash", {"command": "ls"}, "call_1"))),
    Message("user", (ToolResult("bash", "a.txt", False, "call_1", (Text("a.txt"), IMAGE)),)),
)
SCRIPT = json.dumps(
    {
        "turns": [
            {"steps": [{"say": "one"}, {"call": {"tool": "bash", "input": {"command": "ls"}}}]},
            {"steps": [{"fail": "broken"}]},
        ]
    }
)


@dataclass
class Side:
    """One adapter, and how its provider is made to say things."""

    model: Model
    provider: Provider
    say: Callable[[str, Sequence[tuple[str, str, dict[str, Any]]]], None]
    frames: Callable[[], list[bytes]]


@pytest.fixture(params=["anthropic", "openai"])
async def side(request: pytest.FixtureRequest, provider: Provider) -> Any:
    kind = request.param
    url = provider.anthropic_url if kind == "anthropic" else provider.openai_url
    settings = ModelSettings(name="m", kind=kind, base_url=url, model="m-1")
    model = made(KeyedModel(settings=settings, key=KEY))
    if kind == "anthropic":
        yield Side(
            model,
            provider,
            lambda text, calls: provider.replies.append(anthropic_reply(text, calls)),
            lambda: anthropic_frames(anthropic_events("hello", [("c", "bash", {"a": 1})])),
        )
    else:
        yield Side(
            model,
            provider,
            lambda text, calls: provider.replies.append(openai_reply(text, calls)),
            lambda: openai_frames(openai_chunks("hello", [("c", "bash", {"a": 1})])),
        )
    await model.close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(KEY) as running:
        yield running


async def respond(model: Model, **more: Any) -> tuple[ModelResponse, list[tuple[int, str]]]:
    told: list[tuple[int, str]] = []
    request = ModelRequest(**({"system": "be good", "history": HISTORY, "tools": (BASH,)} | more))
    response = await model.respond(request, lambda block, text: told.append((block, text)))
    return response, told


async def test_text_and_parallel_calls_come_whole_and_in_order(side: Side) -> None:
    side.say("héllo wörld", [("c1", "bash", {"command": "ls"}), ("c2", "read", {"n": [1, "ü"]})])
    response, told = await respond(side.model)
    assert response.blocks == (
        Text("héllo wörld"),
        ToolCall("bash", {"command": "ls"}),
        ToolCall("read", {"n": [1, "ü"]}),
    )
    assert "".join(text for block, text in told if block == 0) == "héllo wörld"
    assert len(told) > 1
    assert (response.usage.input_tokens, response.usage.output_tokens) == (10, 5)
    assert response.stop == "end"


async def test_the_conversation_arrives_with_images_and_tools(side: Side) -> None:
    side.say("ok", [])
    await respond(side.model)
    (asked,) = side.provider.requests
    sent = json.dumps(asked.body)
    assert asked.body["model"] == "m-1"
    assert asked.body["stream"] is True
    assert sent.count("aGk=") == 2
    for part in ("be good", "look", "I look.", "call_1", "a.txt", "Run it."):
        assert part in sent
    assert KEY not in sent


async def test_a_scripted_model_answers_the_same_port() -> None:
    model = ScriptedModel()
    response, told = await respond(model, system=SCRIPT, message="go")
    assert response.blocks == (Text("one"), ToolCall("bash", {"command": "ls"}))
    assert told == []
    with pytest.raises(ModelFailedError, match="broken"):
        await respond(model, system=SCRIPT, message="go", scratch=response.scratch)
    await model.close()


@pytest.mark.parametrize(
    ("reply", "kind", "retry", "after"),
    [
        (refusal(429, "slow down", retry_after="7"), "rate_limited", True, 7.0),
        (refusal(429, "slow down", retry_after="nan"), "rate_limited", True, None),
        (refusal(503), "overloaded", True, None),
        (refusal(529, kind="overloaded_error"), "overloaded", True, None),
        (refusal(500), "request_failed", True, None),
        (refusal(400, "bad"), "request_failed", False, None),
        (refusal(302, location="http://127.0.0.1:1/"), "request_failed", False, None),
        (refusal(402, "pay"), "billing", False, None),
        (refusal(400, "prompt is too long: 9 tokens > 8 maximum"), "context", False, None),
        (refusal(400, "This model's maximum context length is 8"), "context", False, None),
        (Reply([b"<html>"], status=502, kind="text/html"), "request_failed", True, None),
    ],
)
async def test_refusals_have_their_meaning(
    side: Side, reply: Reply, kind: str, retry: bool, after: float | None
) -> None:
    side.provider.replies.append(reply)
    with pytest.raises(ModelFailedError) as failed:
        await respond(side.model)
    assert (failed.value.kind, failed.value.retry) == (kind, retry)
    assert failed.value.retry_after == after
    assert len(side.provider.requests) == 1


async def test_a_wrong_key_is_told_without_the_key(side: Side) -> None:
    side.provider.key = "another"
    with pytest.raises(ModelFailedError, match="refused the key") as failed:
        await respond(side.model)
    assert KEY not in str(failed.value)
    assert not failed.value.retry


async def test_an_error_that_echoes_the_key_is_masked(side: Side) -> None:
    side.provider.replies.append(refusal(400, f"what is {KEY}, and sk-an****6789?"))
    with pytest.raises(ModelFailedError) as failed:
        await respond(side.model)
    assert KEY not in str(failed.value)
    assert "6789" not in str(failed.value)


async def test_a_cut_stream_is_a_failure_that_may_pass_wherever_it_is_cut(side: Side) -> None:
    whole = b"".join(side.frames())
    for end in range(0, len(whole) - 60, 97):
        for cut in (True, False):
            if not cut and whole[:end].count(b"stop_reason") + whole[:end].count(b"finish_rea"):
                continue
            side.provider.replies.append(Reply([whole[:end]] if end else [], cut=cut))
            with pytest.raises(ModelFailedError) as failed:
                await respond(side.model)
            assert failed.value.retry, (end, cut)


@pytest.mark.parametrize(
    "event",
    [b"data: {not json}\n\n", b"data: []\n\n", b"data: 5\n\n", b"data: \xff\xfe\n\n"],
)
async def test_a_malformed_event_is_a_failure_that_may_pass(side: Side, event: bytes) -> None:
    frames = side.frames()
    side.provider.replies.append(Reply([*frames[:3], b"event: message_delta\n" + event]))
    with pytest.raises(ModelFailedError) as failed:
        await respond(side.model)
    assert failed.value.retry


async def test_a_line_without_end_is_not_gathered_for_ever(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handiwork.brains.local.providers.http.MAX_ANSWER_BYTES", 300_000)
    side.provider.replies.append(Reply([b"data: "] + [b"x" * 65536] * 10))
    with pytest.raises(ModelFailedError, match="longer than 300000 bytes") as failed:
        await respond(side.model)
    assert not failed.value.retry


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
async def test_an_event_of_many_lines_is_refused(side: Side, end: bytes) -> None:
    side.provider.replies.append(Reply([b":%b" % end * 32768]))
    with pytest.raises(ModelFailedError, match="more than 64 lines"):
        await respond(side.model)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
async def test_a_stream_is_read_however_it_is_cut_and_its_lines_end(
    side: Side, size: int, end: bytes
) -> None:
    sent = b"".join(side.frames()).replace(b"\n", end)
    side.provider.replies.append(Reply([sent[n : n + size] for n in range(0, len(sent), size)]))
    response, _ = await respond(side.model)
    assert response.blocks == (Text("hello"), ToolCall("bash", {"a": 1}))


async def test_a_long_page_of_a_gateway_is_a_failure_that_may_pass(side: Side) -> None:
    side.provider.replies.append(Reply([b"<p>\n" * 500], status=502, kind="text/html"))
    with pytest.raises(ModelFailedError, match="answered 502") as failed:
        await respond(side.model)
    assert failed.value.retry


async def test_an_answer_packed_to_burst_is_refused(side: Side) -> None:
    side.provider.replies.append(Reply([b"x"], headers={"content-encoding": "gzip"}))
    with pytest.raises(ModelFailedError, match="compressed"):
        await respond(side.model)
    assert side.provider.requests[0].headers["accept-encoding"] == "identity"


async def test_a_silent_provider_is_given_up(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    from handiwork.brains.local.providers import http

    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.3)
    side.provider.replies.append(Reply(side.frames()[:2], held=True))
    with pytest.raises(ModelFailedError, match="no whole answer") as failed:
        await respond(side.model)
    assert failed.value.retry


async def test_nobody_there_is_a_failure_that_may_pass() -> None:
    for kind in ("anthropic", "openai"):
        settings = ModelSettings(name="m", kind=kind, base_url="http://127.0.0.1:1", model="m")
        model = made(KeyedModel(settings=settings))
        with pytest.raises(ModelFailedError, match="connection failed") as failed:
            await respond(model)
        assert failed.value.retry
        await model.close()


async def test_a_cancelled_request_ends_at_once_and_the_next_one_works(side: Side) -> None:
    side.provider.replies.append(Reply(side.frames()[:5], held=True))
    heard = asyncio.Event()
    request = ModelRequest(system="", history=HISTORY)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(side.model.respond(request, lambda _b, _t: heard.set()))
        await heard.wait()
        asked.cancel()
    side.say("again", [])
    response, _ = await respond(side.model)
    assert response.blocks == (Text("again"),)


async def test_a_lone_surrogate_is_replaced_and_an_input_with_one_is_a_fault(side: Side) -> None:
    side.say("a\ud83db", [("c", "bash", {"command": "\udc00"})])
    response, told = await respond(side.model)
    assert isinstance(response.blocks[0], Text)
    assert response.blocks[0].text == "".join(text for _, text in told)
    assert "\ufffd" in response.blocks[0].text
    call = response.blocks[1]
    assert isinstance(call, ToolCall)
    assert call.fault or "\ufffd" in call.input["command"]


async def test_too_many_calls_are_refused(side: Side) -> None:
    side.say("", [(f"c{n}", "bash", {}) for n in range(65)])
    with pytest.raises(ModelFailedError, match="more than 64 tool calls"):
        await respond(side.model)
