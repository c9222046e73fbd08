"""The Messages API against a stand-in; what all adapters share is in the port's contract."""

import pytest

from handiwork.brains.local.models import Message, ModelFailedError, ModelRequest, Profile, Text
from handiwork.brains.local.providers.anthropic import AnthropicModel
from provider_stand_in import Provider, Reply, anthropic_events, anthropic_frames, anthropic_reply

ASK = ModelRequest(system="", history=(Message("user", (Text("hi"),)),))


def unheard(_block: int, _text: str) -> None:
    pass


@pytest.fixture
def provider():
    with Provider() as running:
        yield running


@pytest.fixture
async def model(provider):
    made = AnthropicModel(
        base_url=provider.anthropic_url,
        key="k",
        model="m",
        profile=Profile(context_tokens=1000, max_output_tokens=77),
    )
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("told", "kind", "retry"),
    [
        ("overloaded_error", "overloaded", True),
        ("rate_limit_error", "rate_limited", True),
        ("api_error", "request_failed", True),
        ("invalid_request_error", "request_failed", False),
    ],
)
async def test_an_error_within_the_stream_has_its_meaning(provider, model, told, kind, retry):
    error = {"type": "error", "error": {"type": told, "message": "m"}}
    frames = anthropic_frames([*anthropic_events("hel")[:3], error])
    provider.replies.append(Reply(frames))
    with pytest.raises(ModelFailedError) as failed:
        await model.respond(ASK, unheard)
    assert (failed.value.kind, failed.value.retry) == (kind, retry)


async def test_it_shows_its_key_and_the_limit(provider, model):
    provider.replies.append(anthropic_reply("hi", cached=(5, 0)))
    response = await model.respond(ASK, unheard)
    assert response.usage.cache_read_tokens == 5
    (asked,) = provider.requests
    assert asked.headers["authorization"] == "Bearer k"
    assert asked.body["max_tokens"] == 77
    assert asked.path == "/v1/messages"
    model.check("any")
