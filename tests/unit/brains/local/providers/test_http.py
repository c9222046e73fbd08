"""What a failure of a provider means, and what is told of it."""

import asyncio

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.brains.local.models import ModelFailedError
from handiwork.brains.local.providers import http

KEY = "abcdefgh-secret-of-the-test"


@given(st.text(), st.text())
def test_no_text_of_a_provider_brings_the_key_along(before, after):
    said = http.masked(before + KEY + after, KEY)
    assert KEY not in said
    assert len(said) <= http.MAX_ERROR_CHARS
    assert said.isprintable()


@pytest.mark.parametrize("key", ["sk-proj-abcd1234", "sk-an***wxyz", "api_key-12345"])
def test_what_looks_like_a_key_is_masked(key):
    assert http.masked(f"wrong {key}!", "") == "wrong …!"


@given(
    st.integers(200, 599),
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["error", "type", "code", "message"]), inner)
        ),
    ),
    st.text(),
)
def test_any_refusal_has_a_meaning(status, body, after):
    error = http.refused("w", status, body, {"retry-after": after}, KEY)
    assert isinstance(error, ModelFailedError)
    assert error.retry_after is None or error.retry_after >= 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_the_wait_that_is_asked_for(headers, seconds):
    assert http.refused("w", 429, None, headers, "").retry_after == seconds


async def test_what_breaks_within_is_a_failure_of_the_model(monkeypatch):
    for error in (ValueError(), RecursionError(), httpx2.ReadError("x"), http.TooLargeError()):
        with pytest.raises(ModelFailedError):
            async with http.failures("w"):
                raise error
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.01)
    with pytest.raises(ModelFailedError, match="within"):
        async with http.failures("w"):
            await asyncio.sleep(5)


def test_the_cause_of_no_answer_is_told():
    def caused(cause: Exception) -> ModelFailedError:
        error = RuntimeError()
        error.__cause__ = cause
        return http.unreached("w", error)

    assert "longer" in str(caused(http.TooLargeError()))
    assert "silent" in str(caused(httpx2.ReadTimeout("x")))
    assert "ConnectError" in str(caused(httpx2.ConnectError("x")))


async def test_the_client_asks_nobody_else():
    async with http.client() as client:
        assert client.follow_redirects is False
        assert client.trust_env is False
