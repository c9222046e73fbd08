"""Chat completions against a stand-in; what all adapters share is in the port's contract."""

import json

import pytest

from handiwork.brains.local.models import (
    Media,
    Message,
    ModelFailedError,
    ModelRequest,
    Profile,
    Text,
)
from handiwork.brains.local.providers.openai import OpenAIModel
from provider_stand_in import Provider, Reply, openai_reply, refusal

IMAGE = Media("image", {"type": "base64", "media_type": "image/png", "data": "QQ=="})
ASK = ModelRequest(system="", history=(Message("user", (Text("hi"), IMAGE)),))


def unheard(_block: int, _text: str) -> None:
    pass


@pytest.fixture
def provider():
    with Provider() as running:
        yield running


@pytest.fixture
async def make(provider):
    made = []

    def maker(model: str = "m", key: str = "k") -> OpenAIModel:
        profile = Profile(context_tokens=1000, max_output_tokens=77)
        given = {"base_url": provider.openai_url, "key": key, "name": "named"}
        made.append(OpenAIModel(model=model, profile=profile, **given))
        return made[-1]

    yield maker
    for each in made:
        await each.close()


@pytest.mark.parametrize(
    ("models", "asked"),
    [(["other"], "other"), (["a", "named"], "named"), (["a", "b"], "named"), (None, "named")],
)
async def test_the_id_is_the_one_that_is_served(provider, make, models, asked):
    provider.models = models
    provider.replies += [openai_reply("1"), openai_reply("2")]
    model = make("")
    await model.respond(ASK, unheard)
    await model.respond(ASK, unheard)
    assert [each.body["model"] for each in provider.requests] == [asked, asked]


@pytest.mark.parametrize(
    ("message", "seen"),
    [
        ("image input is not supported", lambda body: "image_url" in json.dumps(body)),
        ("Unknown field: stream_options", lambda body: "stream_options" in body),
        ("use 'max_completion_tokens' instead", lambda body: "max_tokens" in body),
    ],
)
async def test_what_a_server_refuses_is_left_out_from_then_on(provider, make, message, seen):
    provider.replies += [refusal(400, message), openai_reply("1"), openai_reply("2")]
    model = make()
    await model.respond(ASK, unheard)
    await model.respond(ASK, unheard)
    assert [seen(each.body) for each in provider.requests] == [True, False, False]


async def test_a_refusal_that_says_nothing_of_use_is_not_repeated(provider, make):
    provider.answer = lambda _: refusal(400, "image, stream_options, max_completion_tokens")
    with pytest.raises(ModelFailedError):
        await make().respond(ASK, unheard)
    assert len(provider.requests) == 4


async def test_a_server_that_does_not_stream(provider, make):
    message = {"role": "assistant", "content": "hi"}
    whole = {"choices": [{"message": message, "finish_reason": "stop"}]}
    provider.replies.append(Reply([json.dumps(whole).encode()], kind="application/json"))
    response = await make().respond(ASK, unheard)
    assert response.blocks == (Text("hi"),)


async def test_an_error_within_the_stream_may_pass(provider, make):
    frames = [b'data: {"error": {"message": "it fell over", "code": 500}}\n\n']
    provider.replies.append(Reply(frames))
    with pytest.raises(ModelFailedError, match="it fell over") as failed:
        await make().respond(ASK, unheard)
    assert failed.value.retry


async def test_without_a_key_none_of_ours_is_shown(provider, make):
    provider.replies.append(openai_reply("hi"))
    model = make(key="")
    await model.respond(ASK, unheard)
    assert provider.requests[0].headers["authorization"] == "Bearer none"
    model.check("any")


async def test_an_account_without_money_is_not_asked_again(provider, make):
    body = {"error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "m"}}
    provider.replies.append(Reply([json.dumps(body).encode()], status=429, kind="application/json"))
    with pytest.raises(ModelFailedError) as failed:
        await make().respond(ASK, unheard)
    assert (failed.value.kind, failed.value.retry) == ("billing", False)


async def test_one_bad_image_takes_no_other_from_a_model_that_sees(provider, make):
    model = make()
    provider.replies += [
        openai_reply("seen"),
        refusal(400, "could not process image"),
        openai_reply("without"),
        openai_reply("seen again"),
    ]
    for _ in range(3):
        await model.respond(ASK, unheard)
    shown = ["image_url" in json.dumps(each.body) for each in provider.requests]
    assert shown == [True, True, False, True]
