"""The models by name, changed while they are used."""

import pytest

from handiwork.brains.local.models import Prices
from handiwork.brains.local.providers.anthropic import AnthropicModel
from handiwork.brains.local.providers.catalogue import Models, profile_of
from handiwork.brains.local.providers.openai import OpenAIModel
from handiwork.model.language_model import KeyedModel, ModelSettings


def told(name: str, kind: str = "openai", key: str = "k", **more) -> KeyedModel:
    settings = ModelSettings(name=name, kind=kind, base_url="http://127.0.0.1:1", **more)
    return KeyedModel(settings=settings, key=key)


@pytest.fixture
async def models():
    made = Models()
    yield made
    await made.close()


async def test_what_did_not_change_stays_and_what_went_is_closed(models):
    await models.replace([told("a"), told("b", "anthropic")])
    assert set(models) == {"scripted", "a", "b"}
    assert len(models) == 3
    a, b = models["a"], models["b"]
    assert (type(a), type(b)) == (OpenAIModel, AnthropicModel)
    await models.replace([told("a"), told("b", "anthropic", key="new")])
    assert models["a"] is a
    assert models["b"] is not b
    assert b._http.is_closed
    await models.replace([])
    assert set(models) == {"scripted"}
    assert a._http.is_closed


def test_prices_of_the_cache_default_to_that_of_input():
    settings = told("a", input_price=2.0, output_price=4.0, cache_read_price=0.5).settings
    prices = profile_of(settings).prices
    assert prices == Prices(input=2.0, output=4.0, cache_read=0.5, cache_write=2.0)
    assert profile_of(told("a").settings).prices is None
