"""Models as operators write them."""

import msgspec
import pytest

from handiwork.model.errors import ConfigError
from handiwork.model.language_model import (
    KeyedModel,
    ModelSettings,
    check_model,
    check_model_key,
)

GOOD = {"name": "qwen3:8b", "kind": "openai", "base_url": "http://127.0.0.1:11434/v1"}


def settings(**more) -> ModelSettings:
    return msgspec.convert(GOOD | more, ModelSettings)


def test_good_ones_are_taken():
    check_model(settings())
    check_model(settings(base_url="https://api.test", input_price=1, output_price=2))
    check_model_key("m", "")
    check_model_key("m", "sk-1234")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "scripted"}, "not 'scripted'"),
        ({"name": "a b"}, "a name is"),
        ({"base_url": "ftp://x"}, "http or https"),
        ({"base_url": "https://"}, "with a host"),
        ({"base_url": "http://x:99999"}, "with a host"),
        ({"base_url": "https://key@x"}, "no user"),
        ({"base_url": "https://x/?key=1"}, "no user, query"),
        ({"max_output_tokens": 150_000}, "at most half"),
        ({"input_price": 1.0}, "both or neither"),
        ({"model": "a\nb"}, "printable"),
    ],
)
def test_others_are_refused_with_the_reason(change, said):
    with pytest.raises(ConfigError, match=said):
        check_model(settings(**change))


@pytest.mark.parametrize("key", ["two words", "ü-key", "line\nbreak", "x" * 5000])
def test_a_key_that_cannot_be_shown_is_refused_without_being_told(key):
    with pytest.raises(ConfigError) as refused:
        check_model_key("m", key)
    assert key not in str(refused.value)


def test_a_key_is_in_no_representation():
    assert "sk-1234" not in repr(KeyedModel(settings=settings(), key="sk-1234"))
